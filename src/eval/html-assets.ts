/** The page's style: one column, light or dark as the reader's system is, from 400 to 1600 px wide. */
export const STYLE = `
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --line: #d7dde2; --back: #fff; --card: #f6f8f9;
  --right: #17733b; --wrong: #b3261e; --unsure: #8a5a00; --c0: #1f5fbf; --c1: #b8560b; --c2: #17733b; --c3: #8a3fa0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ea; --soft: #98a4ae; --line: #39424a; --back: #14181b; --card: #1c2226;
  --right: #63c98a; --wrong: #f2857c; --unsure: #e0b050; --c0: #7fb0f5; --c1: #f0a161; --c2: #63c98a; --c3: #cf9be0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: .4rem 0; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .5rem; }
.soft, figcaption, dt, th { color: var(--soft); font-weight: normal; }
dl.settings { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .5rem 1rem; margin: .8rem 0; }
dt { font-size: .85rem; } dd { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td small { color: var(--soft); } @media (max-width: 480px) { td small { display: block; } }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; max-width: 36rem; } svg { width: 100%; height: auto; display: block; } figcaption { font-size: .85rem; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); } svg .grid { stroke: var(--line); stroke-width: 1; }
svg .bar { stroke-width: 1.6; } svg polyline { fill: none; stroke-width: 1.4; }
.c0 .bar, .c0 polyline { stroke: var(--c0); } .c0 circle { fill: var(--c0); }
.c1 .bar, .c1 polyline { stroke: var(--c1); } .c1 circle { fill: var(--c1); }
.c2 .bar, .c2 polyline { stroke: var(--c2); } .c2 circle { fill: var(--c2); }
.c3 .bar, .c3 polyline { stroke: var(--c3); } .c3 circle { fill: var(--c3); }
form { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; position: sticky; top: 0; background: var(--back); padding: .6rem 0; z-index: 1; }
input[type=search] { flex: 1 1 14rem; min-width: 0; } input, select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: .3rem .5rem; max-width: 100%; }
details { border: 1px solid var(--line); border-radius: 8px; margin: .5rem 0; content-visibility: auto; contain-intrinsic-size: auto 3rem; }
summary { cursor: pointer; padding: .5rem .8rem; } details[open] > summary { border-bottom: 1px solid var(--line); }
summary .count { display: inline-block; min-width: 3.2em; font-weight: 600; }
.body { padding: .2rem .8rem .8rem; }
.sample { background: var(--card); border-radius: 6px; padding: .5rem .7rem; margin: .6rem 0; }
.text { white-space: pre-wrap; unicode-bidi: isolate; max-width: 60rem; }
.right { color: var(--right); } .wrong { color: var(--wrong); } .unsure { color: var(--unsure); }
.verdict { font-weight: 600; } .hidden { font: .75em ui-monospace, monospace; border: 1px solid var(--unsure); border-radius: 3px; padding: 0 .2em; }
bdi { unicode-bidi: isolate; }
math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", math; font-size: 1.08em; } math.tml-display { display: block; }
.formula > math { max-width: 100%; overflow-x: auto; } .tml-right { text-align: right; } .tml-left { text-align: left; }
.formula > code { display: none; } .source .formula > code { display: inline; } .source .formula > math { display: none; }
[hidden] { display: none; }
`;

/** Filters and searches the problems; nothing else on the page needs a script. */
export const SCRIPT = `
"use strict";
const find = document.getElementById("find"), which = document.getElementById("which"), source = document.getElementById("source");
const count = document.getElementById("count"), problems = [...document.querySelectorAll("details")];
const texts = new Map();
const textOf = (problem) => {
  if (!texts.has(problem)) texts.set(problem, problem.textContent.toLowerCase());
  return texts.get(problem);
};
const show = () => {
  const words = find.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const problem of problems) {
    const marks = problem.dataset.marks.split(" ");
    const ok = (which.value === "all" || marks.includes(which.value)) && words.every((word) => textOf(problem).includes(word));
    problem.hidden = !ok;
    shown += ok;
  }
  count.textContent = shown + " of " + problems.length + " problems";
};
find.addEventListener("input", show);
which.addEventListener("change", show);
source.addEventListener("change", () => document.body.classList.toggle("source", source.checked));
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
show();
`;

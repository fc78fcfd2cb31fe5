/** The page's style: light or dark as the reader's system is, from 400 to 1600 px wide. */
export const STYLE = `
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6670; --line: #d7dde2; --back: #fff; --card: #f6f8f9; --chosen: #e2ecf9;
  --right: #17733b; --wrong: #b3261e; --unsure: #8a5a00; --c0: #1f5fbf; --c1: #b8560b; --c2: #17733b; --c3: #8a3fa0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7ea; --soft: #98a4ae; --line: #39424a; --back: #14181b; --card: #1c2226; --chosen: #22384f;
  --right: #63c98a; --wrong: #f2857c; --unsure: #e0b050; --c0: #7fb0f5; --c1: #f0a161; --c2: #63c98a; --c3: #cf9be0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 110rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: .4rem 0; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .5rem; } h3 { font-size: .9rem; margin: .8rem 0 .2rem; }
.soft, figcaption, dt, th { color: var(--soft); font-weight: normal; }
dl.settings { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .5rem 1rem; margin: .8rem 0; }
dt { font-size: .85rem; } dd { margin: 0; } dl.settings dd, dl.facts dd { font-variant-numeric: tabular-nums; }
.notes { margin: .5rem 0; padding: .4rem .8rem .4rem 1.8rem; border-left: 3px solid var(--unsure); background: var(--card); } .notes:empty { display: none; }
#numbers { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td small { color: var(--soft); } @media (max-width: 480px) { td small { display: block; } }
td.cut { max-width: 24rem; overflow: hidden; text-overflow: ellipsis; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
figure { margin: 0; max-width: 36rem; } svg { width: 100%; height: auto; display: block; } figcaption { font-size: .85rem; display: flex; justify-content: space-between; gap: 1rem; }
figcaption strong { color: var(--ink); font-weight: 600; } output { font-variant-numeric: tabular-nums; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); } svg text.soft { fill: var(--soft); } svg .grid { stroke: var(--line); stroke-width: 1; } svg .stage { stroke-dasharray: 3 3; }
svg .curve { fill: none; stroke: var(--c0); stroke-width: 1.4; stroke-linejoin: round; } svg .dot { fill: var(--c0); } svg .cursor { stroke: var(--soft); }
svg .alarm { stroke: var(--wrong); stroke-width: .8; opacity: .5; fill: none; } svg .mark { fill: var(--wrong); } #curves svg, #rest svg { cursor: crosshair; }
svg .bar { stroke-width: 1.6; } svg polyline { fill: none; stroke-width: 1.4; }
.c0 .bar, .c0 polyline { stroke: var(--c0); } .c0 circle { fill: var(--c0); }
.c1 .bar, .c1 polyline { stroke: var(--c1); } .c1 circle { fill: var(--c1); }
.c2 .bar, .c2 polyline { stroke: var(--c2); } .c2 circle { fill: var(--c2); }
.c3 .bar, .c3 polyline { stroke: var(--c3); } .c3 circle { fill: var(--c3); }
details { border: 1px solid var(--line); border-radius: 8px; margin: .5rem 0; } summary { cursor: pointer; padding: .5rem .8rem; } details > .body, details > .plots { padding: .2rem .8rem .8rem; }
#filters { display: flex; flex-wrap: wrap; gap: .5rem .7rem; align-items: center; padding: .3rem 0 .6rem; }
#filters label, .range, .tools label { color: var(--soft); font-size: .85rem; white-space: nowrap; max-width: 100%; }
input[type=search] { flex: 1 1 14rem; min-width: 0; } input[type=number] { width: 4.6rem; }
input, select, button { font: inherit; font-size: .9rem; color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .25rem .5rem; max-width: 100%; }
button { cursor: pointer; } button.link { border: 0; background: none; padding: 0; color: var(--c0); text-decoration: underline; text-align: left; }
:focus-visible { outline: 2px solid var(--c0); outline-offset: 1px; }
.panes { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 1rem; }
.left, .right-pane { min-width: 0; } .tools { display: flex; justify-content: space-between; align-items: center; gap: .5rem; height: 2.2rem; }
#list { --row: 34px; height: calc(100vh - 8rem); min-height: 22rem; overflow-y: auto; position: relative; border: 1px solid var(--line); border-radius: 8px; contain: strict; }
.space { position: relative; } #none { margin: .6rem; }
.row { position: absolute; left: 0; right: 0; top: 0; height: var(--row); display: flex; align-items: center; gap: .6rem; padding: 0 .6rem 0 calc(.6rem + var(--depth) * .9rem);
  border-bottom: 1px solid var(--line); white-space: nowrap; overflow: hidden; cursor: pointer; contain: strict; font-size: .88rem; }
.row.group { background: var(--card); } .row.branch { font-style: italic; } .row[aria-selected=true] { background: var(--chosen); box-shadow: inset 3px 0 var(--c0); }
.row .name { color: var(--soft); flex: none; max-width: 45%; overflow: hidden; text-overflow: ellipsis; } .row .snippet { flex: 1 1 0; min-width: 0; overflow: hidden; text-overflow: ellipsis; }
.row .number { flex: none; min-width: 2.6em; text-align: right; font-variant-numeric: tabular-nums; }
.badge { flex: none; font-size: .78rem; border: 1px solid currentColor; border-radius: 4px; padding: 0 .3rem; line-height: 1.35; }
#detail { height: calc(100vh - 10.2rem); min-height: 19.8rem; overflow-y: auto; border: 1px solid var(--line); border-radius: 8px; padding: .2rem 1rem 1rem; }
#detail h2 { margin: .7rem 0 .3rem; font-size: 1rem; } .relatives p { margin: .2rem 0; font-size: .88rem; }
dl.facts { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: .6rem 0; } .grade { margin: .15rem 0; }
.segment, .question { border-left: 3px solid var(--line); padding-left: .8rem; margin: .8rem 0; } .segment[data-source=policy] { border-color: var(--c0); } .segment[data-source=search] { border-color: var(--c1); }
.segment h3, .question h3 { color: var(--soft); font-weight: 600; margin-top: 0; } .segment h3 span { font-weight: normal; }
.text { white-space: pre-wrap; unicode-bidi: isolate; max-width: 60rem; } .tokens > span { border-radius: 2px; box-decoration-break: clone; -webkit-box-decoration-break: clone; } .tokens > span.at { outline: 1.5px solid var(--c0); }
::highlight(found) { text-decoration: underline 2px var(--c1); background: color-mix(in srgb, var(--c1) 25%, transparent); }
.token { min-height: 1.5em; font-size: .82rem; font-variant-numeric: tabular-nums; } .legend { display: flex; gap: 1rem; font-size: .82rem; }
.swatch { display: inline-block; width: .9em; height: .9em; border-radius: 2px; margin-right: .3em; vertical-align: -.1em; }
.sides { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem; }
.right { color: var(--right); } .wrong { color: var(--wrong); } .unsure { color: var(--unsure); }
.verdict { font-weight: 600; } .hidden { font: .75em ui-monospace, monospace; border: 1px solid var(--unsure); border-radius: 3px; padding: 0 .2em; }
dialog { color: var(--ink); background: var(--back); border: 1px solid var(--line); border-radius: 8px; max-width: 32rem; } dialog dl div { display: flex; gap: 1rem; padding: .15rem 0; } dialog dt { min-width: 8rem; }
dialog::backdrop { background: rgb(0 0 0 / .4); }
kbd { font: inherit; color: var(--ink); }
bdi { unicode-bidi: isolate; }
math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", math; font-size: 1.08em; } math.tml-display { display: block; }
.formula > math { max-width: 100%; overflow-x: auto; } .tml-right { text-align: right; } .tml-left { text-align: left; }
.formula > code { display: none; }
[hidden] { display: none !important; }
.title { display: flex; align-items: baseline; justify-content: space-between; gap: 1rem; }
@media (max-width: 620px) { .plots { display: flex; overflow-x: auto; scroll-snap-type: x proximity; } .plots > figure { flex: 0 0 88%; scroll-snap-align: start; } }
@media (max-width: 860px) { body { padding: .6rem; } .panes, .sides { grid-template-columns: minmax(0, 1fr); } #list { height: 46vh; min-height: 16rem; } #detail { height: auto; min-height: 0; } }
`;

import { createHash } from "node:crypto";
import { escapeHtml, plainText } from "../eval/html-text.ts";
import { startTrees } from "./client/tree.ts";
import { STYLE } from "./style.ts";
import { numbers } from "./tree-text.ts";
import type { DrawnTree, StepTrees, TreeNode } from "./tree.ts";

/** The function's own source: it names nothing outside of itself. */
const SCRIPT = `"use strict"; (${startTrees})(document);`;
/** Connections, pictures and other scripts than the page's own are refused by the browser, whatever a model wrote. */
const POLICY = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${createHash("sha256").update(SCRIPT).digest("base64")}'`;

const TREE_STYLE = `
details.node { border: 0; border-left: 2px solid var(--line); border-radius: 0; margin: .1rem 0 .1rem .35rem; padding-left: .7rem; }
details.node.chosen { border-color: var(--c0); } details.node:hover { border-color: var(--c1); }
details.node > summary { padding: .1rem .3rem; list-style: none; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; border-radius: 4px; }
details.node > summary::before { content: "▸ "; color: var(--soft); } details.node[open] > summary::before { content: "▾ "; } details.node.leaf > summary::before { content: "· "; }
summary:hover { background: var(--card); } .found > summary { background: color-mix(in srgb, var(--c1) 25%, transparent); }
details.node.chosen > summary .fn { font-weight: 700; } .numbers { color: var(--soft); font-variant-numeric: tabular-nums; margin: 0 .5rem; }
details.node > .text { padding: .2rem .3rem .3rem 1.1rem; font-size: .92rem; } details.node[open] > summary > .snippet { display: none; }
.bar { display: inline-block; height: .6em; background: var(--c0); border-radius: 2px; vertical-align: baseline; opacity: .6; } .earned > summary .fn { color: var(--right); } .failed > summary .fn { color: var(--wrong); }
.top { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .6rem 0; }
`;

/** By this a page is known as one that may be written over. */
export const TREE_MARK = '<meta name="generator" content="rifft tree">';

/** A page of search trees that needs nothing else. Model output is in it as text alone. */
export function treePage(title: string, { stage, step, trees, notes }: StepTrees): string {
  const said = notes.map((note) => `<li>${plainText(note)}</li>`).join("");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
${TREE_MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(`${title}, ${stage} step ${step}`)}</title>
<style>${STYLE}${TREE_STYLE}</style>
</head>
<body>
<h1><bdi>${plainText(title)}</bdi> <span class="soft">${plainText(stage)}, step ${step}</span></h1>
${said === "" ? "" : `<ul class="notes" aria-label="notes">${said}</ul>`}
<div class="top" role="search"><input type="search" id="search" placeholder="search steps   /" aria-label="search steps">
<button type="button" id="unfold">unfold all</button> <button type="button" id="fold">fold all</button> <span id="count" class="soft" role="status"></span></div>
<p class="soft">N visits, Q mean value, p the policy's probability of the function. Bold: the chosen path. Arrow keys move and fold, / searches, n goes to the next match.</p>
${trees.map(treeSection).join("\n")}
<script>${SCRIPT}</script>
</body>
</html>
`;
}

function treeSection({ problem, prompt, roots }: DrawnTree): string {
  return `<section><h2><bdi>${plainText(problem)}</bdi></h2><div class="question text">${plainText(prompt.trim())}</div>
${roots.map((node) => nodeHtml(node, total(roots))).join("\n")}</section>`;
}

const total = (nodes: readonly TreeNode[]) => nodes.reduce((sum, { visits = 0 }) => sum + visits, 0);

function nodeHtml(node: TreeNode, visits: number): string {
  const { label, text, tokens, stop, chosen, children, reward } = node;
  const outcome = reward === undefined ? "" : reward > 0 ? " earned" : " failed";
  const classes = `node${chosen ? " chosen" : ""}${children.length === 0 ? " leaf" : ""}${outcome}`;
  const hover = [numbers(node), `${tokens} tokens`, stop && `ended by ${stop}`, chosen && "on the chosen path"];
  const share = visits > 0 && node.visits !== undefined ? Math.round((60 * node.visits) / visits) : 0;
  const bar = share > 0 ? `<span class="bar" style="width:${share}px"></span>` : "";
  const shown = text.trim();
  return `<details class="${classes}"${chosen || children.length === 0 ? " open" : ""}><summary title="${escapeHtml(hover.filter(Boolean).join(", "))}"><span class="fn">${plainText(label)}</span><span class="numbers">${escapeHtml(numbers(node))}</span>${bar} <span class="snippet soft">${plainText(shown.replace(/\s+/g, " ").slice(0, 160))}</span></summary>
${shown === "" ? "" : `<div class="text">${plainText(shown)}</div>`}${children.map((child) => nodeHtml(child, visits)).join("\n")}</details>`;
}

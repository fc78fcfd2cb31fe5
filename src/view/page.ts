import { createHash } from "node:crypto";
import { escapeHtml, HIDDEN, plainText } from "../eval/html-text.ts";
import { encodeBlock } from "./blocks.ts";
import { makeCurves } from "./client/curves.ts";
import { makeDetail } from "./client/detail.ts";
import { makeDom } from "./client/dom.ts";
import { makeList } from "./client/list.ts";
import { startPage } from "./client/main.ts";
import { makeReader } from "./client/reader.ts";
import { makeSelect } from "./client/rows.ts";
import { makeTokens } from "./client/tokens.ts";
import { type Columns, KINDS, STOPS, VERDICTS } from "./columns.ts";
import { STYLE } from "./style.ts";
import type { ViewHead } from "./types.ts";

/** Everything that a page shows. */
export interface View {
  title: string;
  /** Names and values at the page's top. */
  facts: [string, string][];
  /** What is missing or left out. */
  notes: string[];
  /** HTML that stands above the samples, made of escaped text. */
  report: string;
  head: ViewHead;
  columns: Columns;
  blocks: readonly { texts: string; numbers: string }[];
}

const functions = { makeDom, makeReader, makeSelect, makeList, makeTokens, makeDetail, makeCurves };
/** The functions' own sources: they name nothing outside of themselves. */
const SCRIPT = `"use strict";
(${startPage})({ ${Object.entries(functions)
  .map(([name, code]) => `${name}: ${code}`)
  .join(",\n")},
kinds: ${JSON.stringify(KINDS)}, stops: ${JSON.stringify(STOPS)}, verdicts: ${JSON.stringify(VERDICTS)}, hidden: ${HIDDEN} })
  .catch((error) => { document.getElementById("count").textContent = "this page cannot be shown: " + error.message; });`;

/** Fonts, pictures, frames, connections and other scripts than the page's own are refused by the browser, whatever a model wrote. */
const POLICY = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${createHash("sha256").update(SCRIPT).digest("base64")}'`;

const select = (id: string, label: string, options: [string, string][], hidden = false): string =>
  `<label${hidden ? " hidden" : ""}>${label} <select id="${id}">${options.map(([value, text]) => `<option value="${value}">${text}</option>`).join("")}</select></label>`;

/** By this a page is known as one that may be written over. */
export const MARK = '<meta name="generator" content="rifft view">';

/**
 * A page that needs nothing else: no network, no other file. What models and data sets wrote is in it compressed, as base64, and is
 * shown as text.
 */
export function viewPage({ title, facts, notes, report, head, columns, blocks }: View): string {
  const run = head.kind === "run";
  const graded = columns.strict.some((verdict) => verdict > 0);
  const shown = facts.map(([name, value]) => `<div><dt>${escapeHtml(name)}</dt><dd>${plainText(value)}</dd></div>`);
  const said = notes.map((note) => `<li>${plainText(note)}</li>`);
  const data = blocks.flatMap(({ texts, numbers }, i) => [block(`texts-${i}`, texts), block(`numbers-${i}`, numbers)]);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
${MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1><bdi>${plainText(title)}</bdi></h1>
${shown.length === 0 ? "" : `<dl class="settings">${shown.join("")}</dl>`}
${said.length === 0 ? "" : `<ul class="notes" aria-label="notes">${said.join("")}</ul>`}
</header>
${report}
${run && head.lines.step.length > 0 ? CURVES : ""}
<section aria-labelledby="samples-title"><h2 id="samples-title">Samples</h2>
<form id="filters" role="search" aria-label="which samples">
<input type="search" id="search" placeholder="search questions and responses   /" aria-label="search questions and responses">
${select("place", "step", [["-1", "all"]], !run)}
${select("verdict", "verdict", VERDICT_FILTERS, !graded)}
${select("flip", "flipped", FLIP_FILTERS, head.kind !== "comparison")}
${select("stop", "ended", STOP_FILTERS)}
<span class="range">reward <input type="number" step="any" id="low" placeholder="from" aria-label="reward from"> <input type="number" step="any" id="high" placeholder="to" aria-label="reward to"></span>
${select("sort", "sort", SORTS)}
<button type="reset">clear</button>
<span id="count" class="soft" role="status">reading…</span>
</form>
<div class="panes">
<div class="left"><div id="list" role="listbox" tabindex="0" aria-label="samples"></div><p id="none" class="soft" hidden>No sample is like that.</p></div>
<div class="right-pane"><div class="tools"><label>colour <select id="paint"></select></label><button type="button" id="ask" aria-label="help: keys">?</button></div>
<article id="detail" tabindex="-1" aria-label="the chosen sample"><p class="soft">Choose a sample; the arrow keys move through the list.</p></article></div>
</div></section>
<noscript><p>The samples need JavaScript.</p></noscript>
<dialog id="help" aria-label="keys"><h2>Keys</h2><dl>${KEYS.map(([key, does]) => `<div><dt><kbd>${key}</kbd></dt><dd>${does}</dd></div>`).join("")}</dl><form method="dialog"><button>close</button></form></dialog>
${block("head", encodeBlock(head, { ...columns }))}
${data.join("\n")}
<script>${SCRIPT}</script>
</body>
</html>
`;
}

/** Base64 in an element that no browser runs. */
const block = (id: string, base64: string): string => `<script type="text/plain" id="${id}">${base64}</script>`;

const VERDICT_FILTERS: [string, string][] = [
  ["all", "all"],
  ["right", "right"],
  ["wrong", "not right"],
  ["differ", "strict and flexible differ"],
  ["unsure", "unsure"],
  ["error", "grading failed"],
];
const FLIP_FILTERS: [string, string][] = [
  ["all", "all"],
  ["flipped", "flipped"],
  ["second", "B better"],
  ["first", "A better"],
];
const STOP_FILTERS: [string, string][] = [
  ["all", "all"],
  ["cut", "cut at the length limit"],
  ["ended", "by itself"],
];
const SORTS: [string, string][] = [
  ["order", "in order"],
  ["order down", "last first"],
  ["reward down", "highest reward"],
  ["reward up", "lowest reward"],
  ["tokens down", "longest"],
  ["tokens up", "shortest"],
  ["logprob up", "least probable"],
  ["logprob down", "most probable"],
  ["advantage down", "highest advantage"],
  ["advantage up", "lowest advantage"],
];
const KEYS: [string, string][] = [
  ["↑ ↓", "sample before, after"],
  ["← →", "group before, after; in a text: token before, after"],
  ["Page Up, Page Down, Home, End", "further"],
  ["Enter", "to the sample's text"],
  ["/", "search"],
  ["c", "next colour"],
  ["Esc", "back to the list"],
  ["?", "this help"],
];

const CURVES = `<section aria-labelledby="curves-title"><div class="title"><h2 id="curves-title">Curves</h2><label id="stages" class="soft">stage <select id="stage"><option value="">all</option></select></label></div>
<div id="curves" class="plots"></div>
<details id="more"><summary>All metrics</summary><div id="rest" class="plots"></div></details>
<details id="step"><summary>Numbers of a step: <strong id="at"></strong></summary><div class="body">
<p><button type="button" id="earlier">step before</button> <button type="button" id="later">step after</button> <button type="button" id="samples-at">its samples</button></p>
<ul id="raised" class="notes" aria-label="alarms"></ul>
<dl id="numbers" class="settings"></dl></div></details>
</section>`;

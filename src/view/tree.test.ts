import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { makeRun, STAGE, tree, words } from "../../test/helpers/made-run.ts";
import { treePage } from "./tree-page.ts";
import { treeText } from "./tree-text.ts";
import { stepTrees } from "./tree.ts";

const root = mkdtempSync(join(tmpdir(), "rifft-tree-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const evil = "<script>alert(1)</script>\u001b[31m\u202e";
const vocabulary = ["1+1?", "<next_step>", "<output>", "</output>", "</next_step>", "2", "3", evil, "\n"];
const node = (parent: number, texts: string[], outcome: Record<string, number>) =>
  words(vocabulary, parent, texts, { outcome });
/** As a search stores them: no end token. */
const step = (parent: number, texts: string[], outcome?: Record<string, number>) => {
  const { tokens, logprobs, ...rest } = words(vocabulary, parent, texts);
  return { ...rest, tokens: tokens.slice(0, -1), logprobs: logprobs?.slice(0, -1), stop: undefined, outcome };
};

/** Two texts of one function; the second has an answer. */
const searched = tree(`${STAGE}/0/0`, "p", [
  words(vocabulary, -1, ["1+1?"]),
  step(0, ["<next_step>"]),
  step(1, [evil, "</next_step>"], { node: 1, visits: 1, value: 0, prior: 0.25, reward: 0, rollouts: 1, finished: 0 }),
  step(1, ["2", "</next_step>"], { node: 2, visits: 3, value: 1, prior: 0.75 }),
  step(3, ["<output>"]),
  step(4, ["2", "</output>"], { node: 3, visits: 3, value: 1, prior: 1, reward: 1, rollouts: 3, finished: 1 }),
]);
const sampled = tree(`${STAGE}/0/1`, "q", [
  words(vocabulary, -1, ["1+1?"]),
  node(0, ["3"], { reward: 0 }),
  node(0, ["<output>", "2", "</output>"], { reward: 1 }),
]);
const later = {
  ...tree(`${STAGE}/0/2`, "q", [words(vocabulary, -1, ["1+1?"]), node(0, ["2"], { reward: 1 })]),
  cause: { tree: `${STAGE}/0/1`, segment: 1 },
};

function made(name: string): string {
  const dir = join(root, name);
  const problems = ["p", "q"].map((id) => ({ id, prompt: { text: "1+1?" }, answer: "2" }));
  makeRun({
    dir,
    vocabulary,
    problems,
    metrics: [{ stage: STAGE, step: 0, reward: 0 }],
    timings: [],
    rollouts: [[searched, sampled, later]],
  });
  return dir;
}

test("a function's token and each of its texts are one node; the chosen path follows the visits", () => {
  const { trees, stage, notes } = stepTrees(made("nodes"), "0", "p");
  expect({ stage, notes, count: trees.length }).toEqual({ stage: STAGE, notes: [], count: 1 });
  const [{ prompt, roots }] = trees;
  expect(prompt).toBe("1+1?");
  expect(
    roots.map(({ label, text, visits, value, prior, chosen }) => [label, text, visits, value, prior, chosen]),
  ).toEqual([
    ["next_step", evil, 1, 0, 0.25, false],
    ["next_step", "2", 3, 1, 0.75, true],
  ]);
  expect(roots[1].children).toMatchObject([
    { label: "output", text: "2", tokens: 3, reward: 1, rollouts: 3, chosen: true, children: [] },
  ]);
});

test("other forests are drawn as they are: samples by their functions, rounds beneath what caused them", () => {
  const { trees } = stepTrees(made("group"), `${STAGE}/0`, "q");
  expect(trees).toHaveLength(1);
  const [{ roots }] = trees;
  expect(roots).toMatchObject([
    {
      label: "policy",
      text: "3<|endoftext|>",
      children: [{ label: "tree", children: [{ label: "policy", reward: 1 }] }],
    },
    { label: "output", reward: 1 },
  ]);
});

test("the terminal gets short lines without control characters, and colour where it is asked for", () => {
  const [shown] = stepTrees(made("text"), "0", "p").trees;
  for (const width of [20, 40, 120]) {
    const text = treeText(shown, { width, colour: false });
    expect(Math.max(...text.split("\n").map((line) => Array.from(line).length))).toBeLessThanOrEqual(width);
    expect(text).not.toMatch(/[\u001b\u202e]/);
  }
  expect(treeText(shown, { width: 120, colour: false }).split("\n")).toEqual([
    "p",
    "1+1?",
    '├ ○ next_step  N 1 Q 0 p 0.25 reward 0  "<script>alert(1)</script>·[31m·"',
    '└ ● next_step  N 3 Q 1 p 0.75  "2"',
    '  └ ● output  N 3 Q 1 p 1 reward 1 x3  "2"',
  ]);
  const coloured = treeText(shown, { width: 120, colour: true });
  expect(coloured).toContain("\u001b[1m● output\u001b[0m");
  expect(coloured).toContain("\u001b[31m○ next_step\u001b[0m");
});

test("the page holds all steps as text, and one script that its policy names", () => {
  const page = treePage("<run>", stepTrees(made("page"), "0"));
  expect(page).not.toContain("<script>alert");
  expect(page).toContain("&#60;script&#62;alert(1)");
  expect(page).toContain("U+202E");
  expect(page.match(/<script/g)).toHaveLength(1);
  expect(page.match(/<details class="node/g)).toHaveLength(7);
  expect(page).toContain("default-src 'none'");
  expect(page).not.toMatch(/https?:/);
});

test("a step or a problem that is not there is named, with what there is", () => {
  const dir = made("missing");
  expect(() => stepTrees(dir, "7")).toThrow(`no samples of step 7; it has ${STAGE}: 0 to 0`);
  expect(() => stepTrees(dir, "x")).toThrow('expected a step such as 12, or stage/step, found "x"');
  expect(() => stepTrees(dir, "0", "pp")).toThrow("did you mean p?");
  expect(() => stepTrees(root, "0")).toThrow("is not a run folder");
});

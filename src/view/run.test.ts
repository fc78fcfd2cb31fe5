import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { makeRun, rolloutPath, STAGE, tree, words } from "../../test/helpers/made-run.ts";
import { STOPS, VERDICTS } from "./columns.ts";
import { viewPage } from "./page.ts";
import { runView } from "./run.ts";

const root = mkdtempSync(join(tmpdir(), "rifft-made-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const vocabulary = ["1+1?", "#### 2", "#### 3", "2", "3", " ", "\n"];
const problems = [{ id: "p", prompt: { text: "1+1?" }, answer: "2" }];
const sampled = (texts: string[], reward: number, stop: "eos" | "length" = "eos") =>
  words(vocabulary, 0, texts, { outcome: { reward }, stop });
const group = (id: string) =>
  tree(id, "p", [
    words(vocabulary, -1, ["1+1?"]),
    sampled(["#### 2"], 1),
    sampled(["#### 3"], 0),
    sampled(["2"], 0),
    sampled([" ", "3"], 0, "length"),
  ]);
const line = (step: number, rest: Record<string, number> = {}) => ({
  stage: STAGE,
  step,
  reward: 0.25,
  mismatch: 1e-7,
  ...rest,
});

function made(name: string, steps = 2): string {
  const dir = join(root, name);
  const each = Array.from({ length: steps }, (_, step) => step);
  makeRun({
    dir,
    vocabulary,
    problems,
    metrics: each.map((step) => line(step)),
    timings: each.map((step) => ({ stage: STAGE, step, at: "now", seconds: 1.5, engineSeconds: step + 1 })),
    rollouts: each.map((step) => [group(`${STAGE}/${step}/0`)]),
  });
  return dir;
}

test("metrics with timings, and each sample with its verdicts", async () => {
  const { head, columns, notes, facts } = await runView(made("whole"));
  expect(notes).toEqual([]);
  expect(Object.fromEntries(facts)).toMatchObject({ steps: `${STAGE} 2`, samples: "8", "engine seconds": "2.0" });
  expect(head.metrics.find(({ name }) => name === "timings/engineSeconds")?.values).toEqual([1, 2]);
  expect(head.places).toEqual([0, 1].map((step) => ({ stage: STAGE, step, samples: 4 })));
  expect(Array.from(columns.strict, (i) => VERDICTS[i]).slice(0, 5)).toEqual([
    "",
    "equal",
    "different",
    "different",
    "different",
  ]);
  // Flexible extraction finds the bare number.
  expect(Array.from(columns.flexible, (i) => VERDICTS[i]).slice(1, 5)).toEqual([
    "equal",
    "different",
    "equal",
    "different",
  ]);
  expect(Array.from(columns.stop, (i) => STOPS[i]).slice(1, 5)).toEqual(["eos", "eos", "eos", "length"]);
  expect(head.problems).toMatchObject([{ id: "p", question: "1+1?", gold: "2" }]);
});

test("a run that is being written: what is there is shown, what is not is said", async () => {
  const dir = made("written", 3);
  const metrics = readFileSync(join(dir, "metrics.jsonl"), "utf8");
  truncateSync(join(dir, "metrics.jsonl"), metrics.lastIndexOf('"reward"'));
  rmSync(join(dir, "timings.jsonl"));
  rmSync(join(dir, "verdicts.jsonl"));
  const rollouts = readFileSync(rolloutPath(dir, 2), "utf8");
  appendFileSync(rolloutPath(dir, 2), rollouts.slice(0, 40));
  const { head, notes, facts } = await runView(dir);
  expect(head.lines.step).toEqual([0, 1]);
  expect(head.samples).toBe(12);
  expect(notes).toEqual([
    "metrics.jsonl: its last line was cut off and is left out",
    "timings.jsonl is missing",
    `${STAGE}/000002.jsonl: its last line was cut off and is left out`,
    "verdicts.jsonl is missing",
    `step 2 of ${STAGE} has samples and no metrics yet: it is in progress`,
  ]);
  expect(Object.fromEntries(facts).state).toBe("not complete: interrupted");
});

test("no rollouts, a task that is gone, a damaged line, chosen steps", async () => {
  const dir = made("bare");
  const none = await runView(dir, { steps: [5, 9] });
  expect([none.head.samples, none.notes]).toEqual([0, ["the chosen steps have no samples"]]);
  expect((await runView(dir, { steps: [1, 1] })).head.places).toEqual([{ stage: STAGE, step: 1, samples: 4 }]);
  writeFileSync(rolloutPath(dir, 0), `{"id": 1}\n${readFileSync(rolloutPath(dir, 0), "utf8")}`);
  rmSync(`${dir}-task.mjs`);
  const { head, columns, notes } = await runView(dir);
  expect(head.samples).toBe(8);
  expect(columns.strict.every((verdict) => verdict === 0)).toBe(true);
  expect(notes).toEqual([
    expect.stringMatching(/^no verdicts: the task cannot be loaded \(.*no such task file/),
    expect.stringMatching(/^texts are shown whole, not token by token: the tokenizer cannot be read/),
    expect.stringMatching(/^1-grpo\/000000\.jsonl:1: not a tree of tokens: .*: left out$/),
  ]);
  rmSync(join(dir, "rollouts"), { recursive: true });
  const empty = await runView(dir);
  expect(empty.notes.slice(2)).toEqual(["rollouts/ is missing", "no samples (supervised stages keep none)"]);
  expect(viewPage(empty)).toContain("rollouts/ is missing");
  await expect(runView(root)).rejects.toThrow("is not a run folder");
});

test("alarms stand at their steps, evaluations inside the run after theirs", async () => {
  const dir = made("loud", 3);
  appendFileSync(join(dir, "metrics.jsonl"), `${JSON.stringify(line(3, { "mismatch/max": 0.25 }))}\n`);
  const counts = { generated: 1, prefilled: 0, scored: 0, trained: 1 };
  const evaluation = {
    stage: STAGE,
    step: 2,
    totalSteps: 2,
    counts,
    split: "dev",
    problems: 4,
    correct: 3,
    file: "evals/x.jsonl",
  };
  writeFileSync(join(dir, "evals.jsonl"), `${JSON.stringify(evaluation)}\n{"at":"now"}\n`);
  const { head } = await runView(dir);
  expect(head.alarms).toEqual([{ line: 3, kind: "mismatch", metric: "mismatch/max", value: 0.25, text: "sampler and trainer disagree by more than 0.001" }]); // prettier-ignore
  expect(head.points).toMatchObject([{ name: "dev accuracy", at: 2, step: 2, correct: 3, problems: 4, value: 0.75 }]);
});

test("nothing of what a model or a data set wrote stands in the page itself", async () => {
  const hostile = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--", "\ud800", "\0", "\u202e", "<|im_end|>"]; // prettier-ignore
  const dir = join(root, "hostile");
  makeRun({
    dir,
    vocabulary: hostile,
    metrics: [line(0)],
    problems: [{ id: hostile[0], prompt: { text: hostile[1] }, answer: hostile[0] }],
    rollouts: [[tree(hostile[0], hostile[0], [words(hostile, -1, [hostile[1]]), words(hostile, 0, hostile), words(hostile, 0, hostile)])]], // prettier-ignore
  });
  const plain = viewPage(await runView(made("plain")));
  const page = viewPage(await runView(dir));
  const names = (html: string) =>
    [...html.replace(/<script>[^]*<\/script>/, "").matchAll(/<(\/?[a-z!][^\s>]*)/gi)].map(([, name]) => name);
  expect(new Set(names(page))).toEqual(new Set(names(plain)));
  expect(page).not.toContain("alert(1)");
  expect(page).not.toMatch(/https?:(?!\/\/www\.w3\.org\/2000\/svg)/);
});

import { appendFileSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { wilson95 } from "../eval/intervals.ts";
import { RunCounters } from "./counters.ts";
import { curveLines, type EvaluationPoint } from "./curve-view.ts";
import { appendEvaluation, cutBackEvaluations, readCurve } from "./curve.ts";
import pc from "picocolors";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "rifft-curve-"));
});

const counts = { generated: 7, prefilled: 0, scored: 0, trained: 9 };
const line = (stage: string, step: number, totalSteps: number, correct = 3) => ({
  ...{ stage, step, totalSteps, counts, correct },
  ...{ split: "dev", problems: 10, accuracy: correct / 10, file: `evals/${stage}-${step}.jsonl` },
});
const timing = (stage: string, step: number, engineSeconds: number) =>
  appendFileSync(join(dir, "timings.jsonl"), `${JSON.stringify({ stage, step, at: "now", engineSeconds })}\n`);
const outside = '{"at":"2026-01-01","task":"t","accuracy":0.5,"file":"evals/t-dev-1.jsonl"}';

test("a run's evaluations with their interval, and engine seconds from the timings; those of `rifft eval` are left out", () => {
  expect(readCurve(dir)).toEqual([]);
  appendEvaluation(dir, line("1-sft", 0, 0, 0));
  appendEvaluation(dir, line("1-sft", 2, 2));
  appendFileSync(join(dir, "evals.jsonl"), `${outside}\n`);
  appendEvaluation(dir, line("2-grpo", 0, 2));
  appendEvaluation(dir, line("2-grpo", 1, 3));
  timing("1-sft", 0, 1.5);
  timing("1-sft", 1, 3.5);
  timing("2-grpo", 0, 6);
  const curve = readCurve(dir);
  expect(curve.map(({ engineSeconds }) => engineSeconds)).toEqual([0, 3.5, 3.5, 6]);
  expect(curve[1]).toEqual({ ...line("1-sft", 2, 2), engineSeconds: 3.5, ...wilson95(3, 10) });
});

test("a torn last line is left out; a broken one in the middle is named", () => {
  appendEvaluation(dir, line("1-sft", 0, 0));
  appendFileSync(join(dir, "evals.jsonl"), '{"stage":"1-sft","st');
  expect(readCurve(dir)).toHaveLength(1);
  cutBackEvaluations(dir, 1);
  appendEvaluation(dir, line("1-sft", 1, 1));
  expect(readCurve(dir)).toHaveLength(2);
  writeFileSync(join(dir, "evals.jsonl"), `oops\n${JSON.stringify(line("1-sft", 0, 0))}\n`);
  expect(() => readCurve(dir)).toThrow(/evals\.jsonl:1: not valid JSON/);
  writeFileSync(join(dir, "evals.jsonl"), '{"stage":"1-sft"}\n');
  expect(() => readCurve(dir)).toThrow(/evals\.jsonl:1: not an evaluation of this version/);
});

test("going back drops the run's later lines only; a missing one is refused", () => {
  for (const step of [0, 1, 2]) {
    appendEvaluation(dir, line("1-sft", step, step));
    appendFileSync(join(dir, "evals.jsonl"), `${outside}\n`);
  }
  cutBackEvaluations(dir, 1);
  const text = readFileSync(join(dir, "evals.jsonl"), "utf8");
  expect(text).toBe([JSON.stringify(line("1-sft", 0, 0)), outside, outside, outside, ""].join("\n"));
  expect(() => cutBackEvaluations(dir, 2)).toThrow(/has 1 evaluations of the run where the checkpoint counts 2/);
});

test("work apart is not counted", async () => {
  const model = { counts: { generated: 5, prefilled: 5, scored: 5, trained: 5 } };
  const counters = new RunCounters({ generated: 100, prefilled: 0, scored: 0, trained: 0 }, 2);
  // @ts-expect-error only its counts are read
  counters.attach(model);
  model.counts.generated += 10;
  await counters.apart(async () => {
    for (const kind of ["generated", "prefilled", "scored", "trained"] as const) model.counts[kind] += 1000;
  });
  model.counts.scored += 1;
  expect(counters.now()).toEqual({ generated: 110, prefilled: 0, scored: 1, trained: 0 });
});

test("the curve on a terminal: newest rows, each with its interval on the axis, within any width", () => {
  const points = Array.from({ length: 9 }, (_, i): EvaluationPoint => ({
    ...{ stage: i < 8 ? "1-sft" : "2-grpo", step: i * 10, split: "dev", problems: 50 },
    ...{ accuracy: i / 10, ...wilson95(5 * i, 50) },
  }));
  const best = { metric: "dev accuracy", value: 0.8, stage: "2-grpo", step: 80, checkpoint: "step-00000080" };
  const colors = pc.createColors(false);
  const lines = curveLines(points, best, 79, colors);
  expect(lines).toHaveLength(8);
  expect(lines[0]).toBe("dev accuracy, 50 problems");
  expect(lines[6]).toContain("2-grpo 80  80.0 % (67.0 to 88.8)");
  expect(lines[7]).toBe("best dev accuracy so far: 80.0 % at step 80 of 2-grpo, kept as step-00000080");
  const drawn = lines.slice(1, 7).map((row) => row.slice(row.indexOf(")")));
  expect(drawn.every((row) => /├─*●─*┤$/.test(row))).toBe(true);
  const dots = drawn.map((row) => row.indexOf("●"));
  expect(dots).toEqual([...dots].sort((a, b) => a - b));
  for (const width of [20, 39, 60, 200]) {
    for (const row of curveLines(points, best, width, colors)) expect(row.length).toBeLessThanOrEqual(width);
  }
  expect(curveLines([], undefined, 79, colors)).toEqual([]);
});

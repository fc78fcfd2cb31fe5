import { describe, expect, test } from "vitest";
import { AlarmWatch } from "./alarms.ts";
import { duration, number, percent, sparkline } from "./format.ts";
import { createProgress, PlainProgress, type StepReport, type Terminal } from "./progress.ts";

const metricsOf = (index: number, more: Record<string, number> = {}) => ({
  reward: index / 10,
  solveRate: 0.5,
  kl: 0.00021,
  entropy: 0.83,
  responseLength: 31.25,
  mismatch: 2.1e-7,
  ...more,
});
const report = (index: number, more: Record<string, number> = {}): StepReport => ({
  index,
  done: (index + 1) / 10,
  metrics: metricsOf(index, more),
  alarms: new AlarmWatch().next("2-grpo", metricsOf(index, more)),
  seconds: { seconds: 2, sample: 1, train: 0.5 },
  generated: 5230,
  trained: 4000,
});

/** What a terminal shows after the text and the few control sequences that the live view writes. */
function screen(text: string): string[] {
  const lines = [""];
  let row = 0;
  for (const part of text.split(/(\x1b\[\d*[A-Za-z]|\r|\n)/)) {
    const up = /^\x1b\[(\d+)A$/.exec(part);
    if (up !== null) row -= Number(up[1]);
    else if (part === "\x1b[0J") lines.splice(row, Infinity, "");
    else if (part === "\n") lines[++row] ??= "";
    else if (part !== "\r" && !part.startsWith("\x1b[")) lines[row] += part;
  }
  return lines;
}

function view(columns: number): { terminal: Terminal; shown: () => string[] } {
  let text = "";
  return { terminal: { isTTY: true, columns, write: (t) => (text += t) }, shown: () => screen(text) };
}

describe("the live view", () => {
  test("is drawn in place and shows every metric by name", () => {
    const { terminal, shown } = view(80);
    const progress = createProgress(terminal);
    progress.stage({ name: "2-grpo", position: 2, of: 2, totalSteps: 10 });
    for (let i = 0; i < 5; i++) progress.step(report(i));
    progress.activity("sample");
    progress.end();
    const text = shown().join("\n");
    expect(shown().filter((line) => line.includes("2-grpo (2 of 2)"))).toHaveLength(1);
    for (const part of ["step 5/10", "50 %", "reward 0.4", "▁", "█", "solveRate 0.5", "kl 2.1e-4", "entropy 0.83"]) {
      expect(text).toContain(part);
    }
    for (const part of [
      "responseLength 31.3",
      "mismatch 2.1e-7",
      "sampling 5,230 tokens/s",
      "training 8,000 tokens/s",
      "left",
    ]) {
      expect(text).toContain(part);
    }
    expect(text).not.toContain("disagree");
  });

  test("fits 40 columns", () => {
    const { terminal, shown } = view(40);
    const progress = createProgress(terminal);
    progress.stage({ name: "2-grpo", position: 2, of: 2, totalSteps: 10 });
    for (let i = 0; i < 9; i++) progress.step(report(i, { aMetricWithAVeryLongNameThatDoesNotFit: 1 }));
    progress.end();
    for (const line of shown()) expect(line.length).toBeLessThan(40);
    expect(shown().join("\n")).toContain("training 8,000 tokens/s");
  });

  test("a note stays above, and a finished stage stays on the screen", () => {
    const { terminal, shown } = view(80);
    const progress = createProgress(terminal);
    progress.stage({ name: "1-sft", position: 1, of: 2 });
    progress.step(report(0));
    progress.note("stopping after this step");
    progress.stage({ name: "2-grpo", position: 2, of: 2 });
    progress.end();
    const text = shown().join("\n");
    expect(text.indexOf("stopping")).toBeLessThan(text.indexOf("1-sft (1 of 2)"));
    expect(text.indexOf("1-sft (1 of 2)")).toBeLessThan(text.indexOf("2-grpo (2 of 2)"));
    expect(text.match(/stopping/g)).toHaveLength(1);
  });

  const point = (step: number, correct: number) => ({
    stage: "2-grpo",
    step,
    split: "dev",
    problems: 50,
    accuracy: correct / 50,
    low: correct / 50 - 0.05,
    high: correct / 50 + 0.05,
  });
  const best = { metric: "dev accuracy", value: 0.4, stage: "2-grpo", step: 20, checkpoint: "step-00000020" };

  test("the learning curve with its intervals, from before a resume on, and the best", () => {
    for (const columns of [40, 80]) {
      const { terminal, shown } = view(columns);
      const progress = createProgress(terminal);
      progress.curve([point(0, 5)], undefined);
      progress.stage({ name: "2-grpo", position: 2, of: 2, totalSteps: 10 });
      progress.step(report(0));
      progress.evaluating(12, 50);
      progress.note("look");
      expect(shown().join("\n")).toContain(columns === 80 ? "evaluating 12/50" : "evaluating");
      progress.evaluated(point(20, 20));
      progress.best(best);
      progress.end();
      const lines = shown();
      expect(lines.join("\n")).not.toContain("evaluating");
      for (const line of lines) expect(line.length).toBeLessThan(columns);
      const first = lines.findIndex((line) => line.includes("dev accuracy, 50 problems"));
      expect(lines[first + 1]).toContain("step 0  10.0 % (5.0 to 15.0)");
      expect(lines[first + 2]).toContain("step 20  40.0 % (35.0 to 45.0)");
      expect(lines[first + 3]).toContain("best dev accuracy: 40.0 % at step");
      expect(/├─*●─*┤/.test(lines[first + 2])).toBe(columns === 80);
    }
  });

  test("a plain line for each evaluation and each new best", () => {
    const lines: string[] = [];
    const progress = new PlainProgress((line) => lines.push(line));
    progress.evaluated(point(20, 20));
    progress.best(best);
    expect(lines).toEqual([
      "2-grpo step 20: dev accuracy 40.0 % (35.0 to 45.0) of 50",
      "best dev accuracy: 40.0 % at step 20 of 2-grpo, kept as step-00000020",
    ]);
  });

  test("an alarm from a mismatch of 1e-3", () => {
    const { terminal, shown } = view(80);
    const progress = createProgress(terminal);
    progress.stage({ name: "2-grpo", position: 1, of: 1 });
    progress.step(report(0, { "mismatch/max": 0.0012 }));
    progress.end();
    expect(shown().join("\n")).toContain("! mismatch/max 0.0012: sampler and trainer disagree");
  });
});

describe("plain lines", () => {
  test("without a terminal: no control characters, one line a step", () => {
    let text = "";
    const progress = createProgress({ write: (t) => (text += t) });
    progress.stage({ name: "1-sft", position: 1, of: 2, totalSteps: 10 });
    progress.step(report(0));
    expect(text).not.toContain("\x1b");
    expect(text.split("\n")[1]).toContain("1-sft step 1/10 (10 %)  reward 0  solveRate 0.5  kl 2.1e-4");
  });

  test("fast steps are thinned out, but the first, the last and alarms are told", () => {
    const lines: string[] = [];
    const progress = new PlainProgress((line) => lines.push(line), 60_000);
    progress.stage({ name: "1-sft", position: 1, of: 1 });
    for (let i = 0; i < 10; i++) progress.step(report(i, i === 4 || i === 5 ? { mismatch: 0.5 } : {}));
    expect(lines.filter((line) => /step \d+/.test(line)).map((line) => /step (\d+)/.exec(line)?.[1])).toEqual([
      "1",
      "5",
      "10",
    ]);
    expect(lines).toContain("! mismatch 0.5: sampler and trainer disagree by more than 0.001");
  });
});

test("numbers for people", () => {
  expect([0, 12, 0.5, 0.12345, 31.25, 1234.5, 2.1e-7, 2_500_000, -0.00001].map(number)).toEqual([
    "0",
    "12",
    "0.5",
    "0.123",
    "31.3",
    "1230",
    "2.1e-7",
    "2.5e6",
    "-1.0e-5",
  ]);
  expect([0, 0.999, 1].map(percent)).toEqual(["0 %", "99 %", "100 %"]);
  expect([7, 750, 3723].map(duration)).toEqual(["0:07", "12:30", "1:02:03"]);
});

test("sparkline", () => {
  expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8)).toBe("▁▂▃▄▅▆▇█");
  expect(sparkline([5, 5], 8)).toBe("▁▁");
  expect(
    sparkline(
      Array.from({ length: 100 }, (_, i) => i),
      4,
    ),
  ).toBe("▁▃▆█");
  expect(sparkline([], 4)).toBe("");
});

import { describe, expect, test } from "vitest";
import { bestOfK, majorityAtK, passAtK } from "./subsets.ts";
import { type EvaluationSettings, type Measure, reportOf } from "./report.ts";
import { regradeSample } from "./regrade.ts";
import type { EvaluatedSample } from "./samples.ts";
import { reportText } from "./table.ts";

const settings: EvaluationSettings = {
  model: "m",
  task: "t",
  split: "test",
  prompt: "chat",
  mode: "math",
  strict: ["hashes"],
  flexible: ["auto"],
  n: 4,
  temperature: 1,
  maxTokens: 8,
  seed: 0,
};

/** Samples of one problem from their responses. */
function problem(id: string, gold: string, responses: string[], tags: Record<string, string> = {}): EvaluatedSample[] {
  return responses.map((text, sample) =>
    regradeSample(
      {
        problem: id,
        sample,
        gold,
        tags,
        text,
        tokens: Array.from({ length: sample + 1 }, () => 1),
        // The score of best@k: the third sample's is the highest.
        logprobs: [sample === 2 ? -0.1 : -sample - 1],
        stop: sample === 1 ? "length" : "eos",
        strict: { verdict: "different", rule: "", reason: "" },
        reward: 0,
        parts: {},
        solved: false,
      },
      { strict: ["hashes"] },
    ),
  );
}

const samples = [
  ...problem("p", "1/2", ["#### 0.5", "#### 2", "The answer is 1/2.", "#### 50%"], { level: "10" }),
  ...problem("q", "7", ["#### 7", "#### 7.0", "#### 8", "nothing"], { level: "2" }),
  ...problem("r", "3", ["4", "4", "5", "6"], { level: "2" }),
];

const find = (measures: Measure[], name: Measure["name"], grading?: Measure["grading"], k?: number): number => {
  const found = measures.find((one) => one.name === name && one.grading === grading && one.k === k);
  return found?.value ?? NaN;
};

describe("a report", () => {
  const report = reportOf(settings, samples, [4, 1, 2, 4]);

  test("accuracy, strict and flexible", () => {
    expect(report).toMatchObject({ problems: 3, samples: 12, gradeErrors: 0, n: 4, seed: 0 });
    expect(find(report.measures, "accuracy", "strict")).toBeCloseTo((2 / 4 + 2 / 4 + 0) / 3, 12);
    expect(find(report.measures, "accuracy", "flexible")).toBeCloseTo((3 / 4 + 2 / 4 + 0) / 3, 12);
    expect(report.accuracy).toBe(find(report.measures, "accuracy", "strict"));
    expect(report.reward).toBeCloseTo(4 / 12, 12);
    expect(report.measures.every(({ low, high, value }) => low <= value && value <= high)).toBe(true);
  });

  test("pass@k, maj@k and best@k, the mean over problems of what the subsets give", () => {
    for (const k of [1, 2, 4]) {
      const expected = (passAtK(4, 3, k) + passAtK(4, 2, k) + 0) / 3;
      expect(find(report.measures, "pass@k", "flexible", k)).toBeCloseTo(expected, 12);
    }
    // 0.5, 1/2 and 50% are one cluster; 7 and 7.0 are one; a response without an answer has no vote.
    const votes = [
      majorityAtK([0, 1, 0, 0], [true, false, true, true], 2),
      majorityAtK([0, 0, 2, 3], [true, true, false, false], 2),
    ];
    expect(find(report.measures, "maj@k", "flexible", 2)).toBeCloseTo((votes[0] + votes[1]) / 3, 12);
    const scores = [-1, -2, -0.1, -4];
    const best = bestOfK(scores, [1, 0, 0, 1], 2) + bestOfK(scores, [1, 1, 0, 0], 2);
    expect(find(report.measures, "best@k", "strict", 2)).toBeCloseTo(best / 3, 12);
    // Of one sample nothing is chosen.
    expect(report.measures.filter(({ name, k }) => k === 1 && name !== "pass@k")).toEqual([]);
  });

  test("truncation, tokens, groups in the order of numbers", () => {
    expect(report).toMatchObject({ truncationRate: 0.25, tokensPerProblem: 10 });
    expect(report.groups.map(({ tag, value, problems }) => [tag, value, problems])).toEqual([
      ["level", "2", 2],
      ["level", "10", 1],
    ]);
    expect(find(report.groups[0].measures, "accuracy", "strict")).toBe(0.25);
  });

  test("is the same whatever the order of the lines", () => {
    const shuffled = [...samples].sort((a, b) => a.sample - b.sample);
    expect(JSON.stringify(reportOf(settings, shuffled, [1, 2, 4]))).toBe(JSON.stringify(report));
  });

  test("k above n is refused; without k the powers of two up to n, and n", () => {
    expect(() => reportOf(settings, samples, [8])).toThrow(/^--k 8 needs 8 samples a problem, there are 4/);
    const three = samples.filter(({ sample }) => sample < 3);
    const ks = reportOf(settings, three).measures.flatMap(({ name, k = 0 }) => (name === "pass@k" ? [k] : []));
    expect([...new Set(ks)]).toEqual([1, 2, 3]);
  });

  test("one sample a problem: Wilson's interval, no pass@k", () => {
    const single = reportOf(
      { ...settings, n: 1 },
      samples.filter(({ sample }) => sample === 0),
    );
    expect(single.measures.map(({ name }) => name)).toEqual(["accuracy", "accuracy", "truncated", "tokens"]);
    expect(single.measures[0].method).toBe("wilson");
  });

  test.each([80, 60, 40])("as text fits %i columns", (width) => {
    const text = reportText(report, width);
    expect(text.split("\n").filter((line) => line.length > width)).toEqual([]);
    for (const part of ["accuracy", "pass@4", "maj@2", "best@4", "level 10 (1)", "33.3 %", "41.7 %"]) {
      expect(text).toContain(part);
    }
  });
});

test("grading again: another strategy gives another verdict; a reward of its own stays", () => {
  const [sample] = problem("p", "1/2", ["#### 2, so \\boxed{\\frac12}"]);
  const again = regradeSample(sample, { mode: "math", strict: ["boxed"] });
  expect(again).toMatchObject({
    solved: true,
    reward: 1,
    strict: { answer: "\\frac12", strategy: "boxed", verdict: "equal" },
  });
  expect(regradeSample({ ...sample, reward: 0.3, parts: { length: 0.3 } }, { strict: ["boxed"] })).toMatchObject({
    solved: true,
    reward: 0.3,
  });
  expect(() => regradeSample({ ...sample, gold: undefined }, { strict: ["boxed"] })).toThrow(/has no gold/);
});

describe("rerank@k", () => {
  // The authors' rule: a response without an answer is no candidate, the highest score wins.
  const scores: Record<string, number[]> = {
    p: [0.2, 0.9, 0.99, 0.1],
    q: [0.3, 0.3, 0.1, 0.99],
    r: [0.9, 0.9, 0.9, 0.9],
  };
  const score = ({ problem, sample }: EvaluatedSample) => scores[problem][sample];
  const report = reportOf(settings, samples, [1, 2, 4], { score });
  const at = (k: number, grading: Measure["grading"] = "strict") => find(report.measures, "rerank@k", grading, k);

  test("of all samples the one with the highest score that states an answer", () => {
    // p: the third states none strictly, so the second, which is wrong; flexibly the third, which is right. q: the fourth states
    // none strictly, and the first two are right alike; flexibly it states "nothing". r has no strict candidate at all.
    expect(at(4)).toBeCloseTo((0 + 1 + 0) / 3, 9);
    expect(at(4, "flexible")).toBeCloseTo((1 + 0 + 0) / 3, 9);
  });

  test("of k samples the mean over all subsets, between its ends; none of one sample", () => {
    const expected = [
      bestOfK([0.2, 0.9, undefined, 0.1], [1, 0, 0, 1], 2),
      bestOfK([0.3, 0.3, 0.1, undefined], [1, 1, 0, 0], 2),
      0,
    ];
    expect(report.measures.filter(({ name }) => name === "rerank@k").map(({ k }) => k)).toEqual([2, 4, 2, 4]);
    expect(at(2)).toBeCloseTo(expected.reduce((sum, x) => sum + x, 0) / 3, 9);
  });

  test("it never passes pass@k, its upper bound, and the table names it", () => {
    for (const k of [2, 4]) expect(at(k)).toBeLessThanOrEqual(find(report.measures, "pass@k", "strict", k));
    expect(reportText(report, 80)).toMatch(/^rerank@4 +33\.3 %/m);
    expect(reportText(reportOf(settings, samples), 80)).not.toContain("rerank");
  });
});

test("rates that a task counts: hits of all samples over the times that there could have been one", () => {
  const counted = samples.map((sample, i): EvaluatedSample => ({
    ...sample,
    ...(i % 2 === 0 && {
      rates: { checks: { hits: i % 4 === 0 ? 1 : 0, of: 2 }, ...(i === 4 && { rare: { hits: 0, of: 0 } }) },
    }),
  }));
  const report = reportOf(settings, counted);
  expect(report.measures.filter(({ name }) => name === "rate")).toMatchObject([
    { rate: "checks", of: 12, value: 3 / 12, method: "wilson" },
  ]);
  expect(reportText(report, 80)).toMatch(/^checks +25\.0 % \[.*\] of 12$/m);
});

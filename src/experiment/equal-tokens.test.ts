import { expect, test } from "vitest";
import { regradeSample } from "../eval/regrade.ts";
import { type EvaluationSettings, reportOf } from "../eval/report.ts";
import type { EvaluatedSample } from "../eval/samples.ts";
import { atTokens } from "./equal-tokens.ts";

const settings: EvaluationSettings = { task: "t", mode: "math", strict: ["hashes"], flexible: ["auto"], n: 4 };

/** A problem's samples, ten tokens each; of a search the tokens that a rollout added. */
const problem = (id: string, answers: string[], fresh?: number[]): EvaluatedSample[] =>
  answers.map((answer, sample) => {
    const searched = fresh && { node: sample, end: "output", weight: 1, fresh: fresh[sample] };
    const text = `#### ${answer}`;
    const tokens = Array.from({ length: 10 }, () => 1);
    return regradeSample(
      {
        problem: id,
        sample,
        gold: "7",
        text,
        tokens,
        logprobs: [-1],
        stop: "eos",
        reward: 0,
        parts: {},
        solved: false,
        strict: { verdict: "different", rule: "", reason: "" },
        ...(searched && { search: searched }),
      },
      { strict: ["hashes"] },
    );
  });

test("as many samples as the tokens allow, and their majority over all choices of so many", () => {
  const samples = [...problem("p", ["7", "7", "1", "2"]), ...problem("q", ["1", "1", "1", "7"])];
  const report = reportOf(settings, samples);
  const maj = (k: number) =>
    reportOf(settings, samples, [k]).measures.find((m) => m.name === "maj@k" && m.k === k)?.value;
  expect(atTokens(report, samples, 39)).toEqual({ k: 3, accuracy: maj(3), tokensPerProblem: 30 });
  expect(atTokens(report, samples, 4000)).toEqual({ k: 4, accuracy: maj(4), tokensPerProblem: 40 });
  // One sample is the least, though it takes more; nothing is voted on.
  expect(atTokens(report, samples, 5)).toEqual({ k: 1, accuracy: 3 / 8, tokensPerProblem: 10 });
});

test("of a search the first rollouts, with the tokens that these added", () => {
  const search = { value: "consistency", texts: 1, without: [] };
  const samples = [
    ...problem("p", ["1", "7", "7", "7"], [10, 4, 4, 0]),
    ...problem("q", ["7", "7", "1", "1"], [20, 2, 2, 2]),
  ];
  const report = reportOf({ ...settings, search }, samples);
  expect(atTokens(report, samples, 21)).toMatchObject({ k: 3, tokensPerProblem: 21, accuracy: 1 });
  expect(atTokens(report, samples, 20)).toMatchObject({ k: 2, tokensPerProblem: 18 });
  expect(atTokens(report, samples, 1)).toMatchObject({ k: 1, tokensPerProblem: 15, accuracy: 0.5 });
});

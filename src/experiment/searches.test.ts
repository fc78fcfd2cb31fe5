import { expect, test } from "vitest";
import type { EvaluatedSample } from "../eval/samples.ts";
import { searchAt } from "./searches.ts";

/** The rollouts of a problem whose gold is 1. */
const rollouts = (problem: string, answers: string[]): EvaluatedSample[] =>
  answers.map((answer, sample) => ({
    problem,
    sample,
    gold: "1",
    text: "",
    tokens: [1],
    logprobs: [0],
    stop: "stop",
    strict: { answer, verdict: answer === "1" ? "equal" : "different", rule: "", reason: "" },
    reward: 0,
    parts: {},
    solved: answer === "1",
    search: { node: sample, end: "output", weight: 1, fresh: 10 - sample },
  }));

test("a search by rollouts: means over seeds, the gain and the slope problem by problem", () => {
  const never = ["2", "2", "3", "4"];
  const late = ["2", "1", "1", "1"];
  const always = ["1", "1", "1", "1"];
  const seed = (...problems: string[][]) => problems.flatMap((answers, p) => rollouts(`p${p}`, answers));
  const found = searchAt({ name: "four", arm: "a" }, [seed(never, late, always), seed(late, late, always)], "math");
  expect(found.rollouts.map(({ r, tokens }) => [r, tokens])).toEqual([
    [1, 10],
    [2, 19],
    [4, 34],
  ]);
  // Of two different answers of equal weight the earlier stays.
  expect(found.rollouts.map(({ accuracy }) => accuracy)).toEqual(
    [1 / 3, 1 / 3, (2 / 3 + 1) / 2].map((x) => expect.closeTo(x, 9)),
  );
  expect(found.rollouts.map(({ oracle }) => oracle)).toEqual([1 / 3, 5 / 6, 5 / 6].map((x) => expect.closeTo(x, 9)));
  expect(found.gain?.mean).toBeCloseTo(0.5, 9);
  expect(found.slope?.mean).toBeCloseTo(0.25, 9);
  const { low, high } = found.gain?.twoWay ?? { low: NaN, high: NaN };
  expect(low).toBeLessThan(0.5);
  expect(high).toBeGreaterThan(0.5);
});

import { expect, test } from "vitest";
import { type EarlierRound, type EvaluatedSample } from "../eval/samples.ts";
import { byRound } from "./by-round.ts";
import { roundsSection } from "./page-rounds.ts";

const response = (right: boolean, added?: number): EarlierRound => ({
  prompt: 1,
  text: "",
  tokens: [1],
  logprobs: [-1],
  stop: "eos",
  ...(added !== undefined && { added }),
  strict: { verdict: right ? "equal" : "different", rule: "", reason: "" },
});

/** A sample in as many rounds as there are of [right, steps added]. */
function sampleOf(problem: string, ...rounds: [boolean, number?][]): EvaluatedSample {
  const all = rounds.map(([right, added]) => response(right, added));
  const last = all[all.length - 1];
  const solved = last.strict.verdict === "equal";
  return { problem, sample: 0, ...last, rounds: all.slice(0, -1), reward: Number(solved), parts: {}, solved };
}

test("accuracy and steps by round: a mean over seeds of each seed's mean over its problems", () => {
  const seeds = [
    [sampleOf("a", [false, 2], [true, 1]), sampleOf("b", [true, 4], [true])],
    [sampleOf("a", [false, 1], [true, 2]), sampleOf("b", [false, 1], [false, 0])],
  ];
  const found = byRound({ arm: "x", budget: "generatedTokens" }, seeds.map((samples) => () => samples)); // prettier-ignore
  expect([found?.arm, found?.budget, found?.also]).toEqual(["x", "generatedTokens", undefined]);
  expect(found?.right.map(({ mean }) => mean)).toEqual([0.25, 0.75]);
  // Round 2 of the first seed: problem a alone, for b had ended.
  expect(found?.steps.map(({ mean }) => mean)).toEqual([(3 + 1) / 2, (1 + 1) / 2]);
  // Student's interval of two seeds: 12.706 s / sqrt(2).
  const half = (12.706 * Math.abs(3 - 1)) / 2;
  expect(found?.steps[0].interval.high).toBeCloseTo(2 + half, 2);
});

test("the page: accuracy and steps, a row for each way of asking", () => {
  const seeds = [[sampleOf("a", [false, 1], [true, 2])], [sampleOf("a", [false, 1], [false, 2])]].map((s) => () => s);
  const measured = [
    byRound({ arm: "x", budget: "generatedTokens" }, seeds),
    byRound({ arm: "x", also: { name: "warm-up", at: "start" } }, seeds.slice(0, 1)),
    byRound({ arm: "y", also: { name: "uncounted", at: "end" } }, [() => [sampleOf("a", [true])]]),
  ].flatMap((one) => one ?? []);
  const [title, , right, , steps] = roundsSection(measured);
  expect(title).toBe("## By round");
  expect(right.split("\n").slice(2)).toEqual([
    "| at equal generated tokens | x | 0.0 [0.0, 0.0] | 50.0 [-585.3, 685.3] |",
    "| warm-up | x, before its last stage | 0.0 | 100.0 |",
    "| uncounted | y | 100.0 |  |",
  ]);
  expect(steps.split("\n").slice(2)).toEqual([
    "| at equal generated tokens | x | 1.00 [1.00, 1.00] | 2.00 [2.00, 2.00] |",
    "| warm-up | x, before its last stage | 1.00 | 2.00 |",
  ]);
  expect(roundsSection([])).toEqual([]);
});

test("nothing where a task counts no steps, or nothing was asked in rounds", () => {
  const uncounted = [sampleOf("a", [false], [true])];
  expect(byRound({ arm: "x" }, [() => uncounted])).toMatchObject({ steps: [], right: [{ mean: 0 }, { mean: 1 }] });
  const { rounds: _, prompt: __, ...once } = sampleOf("a", [true]);
  expect(byRound({ arm: "x" }, [() => [once]])).toBeUndefined();
});

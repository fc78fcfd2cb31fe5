import { describe, expect, test } from "vitest";
import type { Scores } from "../engine/types.ts";
import { groupTree } from "../forest/build.ts";
import type { Tree } from "../forest/types.ts";
import type { Grade } from "../task/types.ts";
import { firstPassMetrics, klMetrics, rewardMetrics, sampleMetrics } from "./diagnostics.ts";

const sample = (logprobs: number[], stop: "eos" | "length" = "eos") => ({
  tokens: new Int32Array(logprobs.length),
  logprobs: Float32Array.from(logprobs),
  stop,
});
const group = (...samples: ReturnType<typeof sample>[]): Tree =>
  groupTree({ id: "t", problem: "p" }, new Int32Array(2), samples, { temperature: 1 });

describe("first-pass metrics", () => {
  test("read only tokens that carry weight, and skipped trees not at all", () => {
    const tree = group(sample([-1, -2]), sample([-3]));
    tree.segments[1].fields.advantages = Float32Array.of(1, 1);
    tree.segments[2].fields.advantages = Float32Array.of(0);
    const scores: Scores = {
      logprobs: [new Float32Array(2), Float32Array.of(-1.5, -2.25), Float32Array.of(0)],
      entropy: [new Float32Array(2), Float32Array.of(1, 2), Float32Array.of(0)],
      heads: {},
    };
    const skipped: Scores = { logprobs: [], entropy: [], heads: {} };
    expect(firstPassMetrics([tree, group(sample([-1]))], [scores, skipped])).toEqual({
      mismatch: 0.375,
      "mismatch/p99.9": 0.5,
      "mismatch/max": 0.5,
      entropy: 1.5,
    });
    expect(firstPassMetrics([tree], [skipped])).toEqual({});
  });

  test("the 99.9th percentile leaves one token in a thousand above it", () => {
    const tree = group(sample(Array.from({ length: 2000 }, () => -1)));
    tree.segments[1].fields.advantages = new Float32Array(2000).fill(1);
    const logprobs = new Float32Array(2000).fill(-1);
    logprobs[3] = logprobs[5] = -2;
    logprobs[7] = -1.5;
    const scores = { logprobs: [new Float32Array(2), logprobs], entropy: [logprobs, logprobs], heads: {} };
    expect(firstPassMetrics([tree], [scores])).toMatchObject({ "mismatch/p99.9": 0.5, "mismatch/max": 1 });
  });
});

test("reward metrics: mean, spread, parts, solved, failed", () => {
  const grades: Grade[] = [
    { reward: 1.5, parts: { correct: 1, format: 0.5 } },
    { reward: 0.5, parts: { correct: 0, format: 0.5 } },
    { reward: 0, parts: {}, error: "timed out" },
    { reward: 1, parts: {} },
  ];
  expect(rewardMetrics(grades)).toEqual({
    reward: 0.75,
    rewardStd: Math.sqrt((0.75 ** 2 + 0.25 ** 2 + 0.75 ** 2 + 0.25 ** 2) / 3),
    solveRate: 0.5,
    gradeErrors: 1,
    "reward/correct": 0.25,
    "reward/format": 0.25,
  });
});

test("sample metrics: share at the limit, mean length", () => {
  const forest = [group(sample([-1, -1, -1], "length"), sample([-1])), group(sample([-1]), sample([-1]))];
  expect(sampleMetrics(forest)).toEqual({ truncated: 0.25, responseLength: 1.5 });
});

test("kl is the mean of k3 over sampled tokens", () => {
  const tree = group(sample([-1, -2]));
  tree.segments[1].fields.refLogprobs = Float32Array.of(-1, -3);
  expect(klMetrics([tree]).kl).toBeCloseTo((0 + Math.exp(-1) + 1 - 1) / 2, 12);
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { groupAdvantages, isFlat, meanAndStd, tokenWeights } from "./advantages.ts";

describe("group advantages", () => {
  test("agree with TRL's on a published group", () => {
    const advantages = groupAdvantages([2.5, 0.5, 1.5, 0.5, 2.0, 0.5, 1.0, 0.5], "t");
    const expected = [1.739, -0.7905, 0.4743, -0.7905, 1.1067, -0.7905, -0.1581, -0.7905];
    expect(Array.from(advantages, (a) => Number(a.toFixed(4)))).toEqual(expected);
  });

  test("without scaling they are the distance from the mean", () => {
    expect(Array.from(groupAdvantages([0, 1, 1, 2], "t", false))).toEqual([-1, 0, 0, 1]);
  });

  test("equal rewards give exact zeros, even where their mean rounds", () => {
    fc.assert(
      fc.property(fc.double({ min: -9, max: 9, noNaN: true }), fc.integer({ min: 1, max: 17 }), (reward, n) => {
        const rewards = Array.from({ length: n }, () => reward);
        expect(isFlat(rewards)).toBe(true);
        expect(groupAdvantages(rewards, "t").every((a) => a === 0)).toBe(true);
      }),
    );
  });

  test("sum to zero, keep the order, and ignore a shift of the reward", () => {
    const rewards = fc.array(fc.integer({ min: -8, max: 8 }), { minLength: 2, maxLength: 16 });
    fc.assert(
      fc.property(rewards, fc.integer({ min: -4, max: 4 }), (group, shift) => {
        const advantages = groupAdvantages(group, "t");
        const shifted = groupAdvantages(
          group.map((reward) => reward + shift),
          "t",
        );
        expect(advantages.reduce((sum, a) => sum + a, 0)).toBeCloseTo(0, 9);
        group.forEach((a, i) => {
          expect(shifted[i]).toBeCloseTo(advantages[i], 9);
          group.forEach((b, j) => expect(Math.sign(advantages[i] - advantages[j])).toBe(Math.sign(a - b)));
        });
      }),
    );
  });

  test.each([NaN, Infinity])("a reward of %s names the tree and the sample", (reward) => {
    expect(() => groupAdvantages([1, reward], "2-grpo/7/3")).toThrow(/tree 2-grpo\/7\/3, sample 1: .*found/);
  });

  test("the standard deviation is unbiased", () => {
    expect(meanAndStd([1, 2, 3, 4])).toEqual({ mean: 2.5, std: Math.sqrt(5 / 3) });
    expect(meanAndStd([7])).toEqual({ mean: 7, std: 0 });
  });
});

describe("token weights", () => {
  const lengths = [1, 3, 4];

  test("of a token mean are alike", () => {
    expect(tokenWeights(lengths, "token")).toEqual([1 / 8, 1 / 8, 1 / 8]);
  });

  test("of a sequence mean give each response the same share", () => {
    expect(tokenWeights(lengths, "sequence")).toEqual([1 / 3, 1 / 9, 1 / 12]);
  });

  test("sum to one over all tokens", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 99 }), { minLength: 1 }),
        fc.constantFrom("token" as const, "sequence" as const),
        (lengths, normalize) => {
          const weights = tokenWeights(lengths, normalize);
          expect(weights.reduce((sum, weight, i) => sum + weight * lengths[i], 0)).toBeCloseTo(1, 12);
        },
      ),
    );
  });
});

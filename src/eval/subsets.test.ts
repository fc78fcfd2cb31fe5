import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bestOfK, clusterAnswers, majorityAtK, passAtK } from "./subsets.ts";

function* subsets(n: number, k: number, from = 0): Generator<number[]> {
  if (k === 0) return yield [];
  for (let first = from; first <= n - k; first++) {
    for (const rest of subsets(n, k - 1, first + 1)) yield [first, ...rest];
  }
}

/** The mean of a value over all k-subsets of n. */
function enumerated(n: number, k: number, value: (subset: number[]) => number): number {
  let sum = 0;
  let count = 0;
  for (const subset of subsets(n, k)) {
    sum += value(subset);
    count++;
  }
  return sum / count;
}

function* orders(items: number[]): Generator<number[]> {
  if (items.length <= 1) return yield items;
  for (const item of items) {
    for (const rest of orders(items.filter((other) => other !== item))) yield [item, ...rest];
  }
}

describe("pass@k", () => {
  test("equals enumeration for every n to 9, c and k", () => {
    for (let n = 1; n <= 9; n++) {
      for (let c = 0; c <= n; c++) {
        for (let k = 1; k <= n; k++) {
          const expected = enumerated(n, k, (subset) => Number(subset.some((i) => i < c)));
          expect(passAtK(n, c, k)).toBeCloseTo(expected, 13);
        }
      }
    }
  });

  test("stays exact where binomials overflow", () => {
    // 1 - C(9999, 100) / C(10000, 100) = 100 / 10000
    expect(passAtK(10_000, 1, 100)).toBeCloseTo(0.01, 14);
    expect(passAtK(10_000, 9_950, 100)).toBe(1);
  });

  test("k above n, below 1 or broken is refused", () => {
    expect(() => passAtK(4, 1, 8)).toThrow("k = 8 needs at least 8 samples of each problem, found 4");
    expect(() => majorityAtK([0, 0], [true, true], 3)).toThrow("k = 3 needs");
    expect(() => bestOfK([1], [1], 0)).toThrow("k must be a whole number above 0, found 0");
    expect(() => passAtK(4, 1, 1.5)).toThrow("found 1.5");
  });
});

describe("maj@k", () => {
  /** Votes of a subset, counted one by one; of tied clusters the first seen wins, in every order of the subset. */
  const byOrders = (clusters: (number | undefined)[], correct: boolean[]) => (subset: number[]) => {
    let right = 0;
    let count = 0;
    for (const order of orders(subset)) {
      const votes = new Map<number, number>();
      for (const i of order) {
        const cluster = clusters[i];
        if (cluster !== undefined) votes.set(cluster, (votes.get(cluster) ?? 0) + 1);
      }
      let winner: number | undefined;
      for (const [cluster, n] of votes) if (winner === undefined || n > (votes.get(winner) ?? 0)) winner = cluster;
      right += Number(winner !== undefined && correct[winner]);
      count++;
    }
    return right / count;
  };

  const problems = fc.array(
    fc.record({ answer: fc.option(fc.integer({ min: 0, max: 4 }), { nil: undefined }), right: fc.boolean() }),
    { minLength: 1, maxLength: 7 },
  );
  const clustersOf = (answers: (number | undefined)[]) =>
    answers.map((answer) => (answer === undefined ? undefined : answers.indexOf(answer)));

  test("equals enumeration of subsets and of their orders, first seen winning ties", () => {
    fc.assert(
      fc.property(problems, (samples) => {
        const clusters = clustersOf(samples.map(({ answer }) => answer));
        const correct = samples.map(({ right }) => right);
        for (let k = 1; k <= samples.length; k++) {
          const expected = enumerated(samples.length, k, byOrders(clusters, correct));
          expect(majorityAtK(clusters, correct, k)).toBeCloseTo(expected, 12);
        }
      }),
      { numRuns: 120 },
    );
  });

  test("equals enumeration of the subsets of twelve, ties shared", () => {
    const random = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 12, maxLength: 12 });
    fc.assert(
      fc.property(random, fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }), (answers, rightAnswers) => {
        const clusters = clustersOf(answers);
        const correct = answers.map((answer) => rightAnswers[answer]);
        for (const k of [2, 5, 8, 11]) {
          const expected = enumerated(12, k, (subset) => {
            const votes = new Array<number>(6).fill(0);
            for (const i of subset) votes[answers[i]]++;
            const winners = [0, 1, 2, 3, 4, 5].filter((answer) => votes[answer] === Math.max(...votes));
            return winners.filter((answer) => rightAnswers[answer]).length / winners.length;
          });
          expect(majorityAtK(clusters, correct, k)).toBeCloseTo(expected, 12);
        }
      }),
      { numRuns: 25 },
    );
  });

  test("the order of samples changes nothing", () => {
    const correct = [true, false, false, true, false, false];
    const value = majorityAtK([0, 1, 1, 0, 4, undefined], correct, 3);
    // the same six samples, last first
    expect(majorityAtK([undefined, 1, 2, 3, 3, 2], [false, false, true, false, false, true], 3)).toBeCloseTo(value, 14);
  });

  test("maj@1 is the share of right answers; nobody voting is wrong", () => {
    expect(majorityAtK([0, 0, 2, undefined], [true, true, false, false], 1)).toBeCloseTo(0.5, 14);
    expect(majorityAtK([undefined, undefined], [true, true], 2)).toBe(0);
  });

  test("stays exact with many samples", () => {
    // 600 right, 400 with distinct wrong answers: two of a kind win over singles, so only subsets without two right ones can lose.
    const clusters = Array.from({ length: 1000 }, (_, i) => (i < 600 ? 0 : i));
    const correct = clusters.map((_, i) => i < 600);
    const value = majorityAtK(clusters, correct, 2);
    const none = (400 * 399) / (1000 * 999);
    const both = (600 * 599) / (1000 * 999);
    expect(value).toBeCloseTo(both + (1 - none - both) / 2, 12);
    expect(majorityAtK(clusters, correct, 64)).toBeCloseTo(1, 12);
  });
});

describe("best-of-k", () => {
  test("equals enumeration, ties sharing the choice and unscored samples left out", () => {
    const samples = fc.array(
      fc.record({
        score: fc.option(fc.integer({ min: -2, max: 2 }), { nil: undefined }),
        value: fc.constantFrom(0, 1, 0.5),
      }),
      { minLength: 1, maxLength: 8 },
    );
    fc.assert(
      fc.property(samples, (drawn) => {
        const scores = drawn.map(({ score }) => score);
        const values = drawn.map(({ value }) => value);
        for (let k = 1; k <= drawn.length; k++) {
          const expected = enumerated(drawn.length, k, (subset) => {
            const candidates = subset.filter((i) => scores[i] !== undefined);
            const best = Math.max(...candidates.map((i) => scores[i] ?? NaN));
            const chosen = candidates.filter((i) => scores[i] === best);
            return chosen.length === 0 ? 0 : chosen.reduce((sum, i) => sum + values[i], 0) / chosen.length;
          });
          expect(bestOfK(scores, values, k)).toBeCloseTo(expected, 12);
        }
      }),
    );
  });

  test("by the grade itself it is pass@k", () => {
    expect(bestOfK([1, 0, 0, 1, 0], [1, 0, 0, 1, 0], 3)).toBeCloseTo(passAtK(5, 2, 3), 14);
  });
});

describe("clusters of answers", () => {
  test("a vote joins the first sample that it equals; no answer, no vote", () => {
    const equal = (a: string, b: string) => Number(a) === Number(b);
    expect(clusterAnswers(["1", "2.0", undefined, "1.0", "2", "x", "x", "y"], equal)).toEqual([
      0,
      1,
      undefined,
      0,
      1,
      5,
      5,
      7,
    ]);
  });

  test("where equality is not transitive the first equal sample decides", () => {
    const near = (a: string, b: string) => Math.abs(Number(a) - Number(b)) <= 1;
    expect(clusterAnswers(["0", "2", "1", "3"], near)).toEqual([0, 1, 0, 1]);
    // 2 equals 1, which stands in the cluster of 0
    expect(clusterAnswers(["0", "1", "2"], near)).toEqual([0, 0, 0]);
  });
});

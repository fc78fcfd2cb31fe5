import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RandomStream } from "../engine/random.ts";
import { estimates95, ratio95, sparse, wilson95 } from "./intervals.ts";

describe("Wilson's interval", () => {
  // Newcombe 1998, Statistics in Medicine 17, table I, method 3.
  test.each([
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ])("%i of %i is [%f, %f]", (successes, trials, low, high) => {
    const interval = wilson95(successes, trials);
    expect(interval.low).toBeCloseTo(low, 4);
    expect(interval.high).toBeCloseTo(high, 4);
  });

  test("holds the proportion, stays in [0, 1], and mirrors failures", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), fc.double({ min: 0, max: 1, noNaN: true }), (trials, share) => {
        const successes = Math.floor(share * trials);
        const { low, high } = wilson95(successes, trials);
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        expect(low).toBeLessThanOrEqual(successes / trials);
        expect(high).toBeGreaterThanOrEqual(successes / trials);
        const failures = wilson95(trials - successes, trials);
        expect(failures.low).toBeCloseTo(1 - high, 12);
      }),
    );
  });

  test("nothing tried, nothing known", () => {
    expect(wilson95(0, 0)).toEqual({ low: 0, high: 1 });
  });
});

describe("means over problems", () => {
  const shares = Array.from({ length: 60 }, (_, i) => (i % 5) / 4);

  test("one trial a problem: Wilson's interval", () => {
    const values = Array.from({ length: 40 }, (_, i) => Number(i < 30));
    expect(estimates95([{ values, share: true }])).toEqual([{ value: 0.75, method: "wilson", ...wilson95(30, 40) }]);
  });

  test("nothing right is no certainty", () => {
    const [estimate] = estimates95([{ values: Array(30).fill(0), share: true }]);
    expect(estimate).toMatchObject({ value: 0, low: 0, method: "wilson" });
    expect(estimate.high).toBeCloseTo(0.1135, 4);
    const few = [0.25, 0.5, ...Array<number>(28).fill(0)];
    expect(estimates95([{ values: few, share: true }])[0]).toMatchObject({ method: "wilson", ...wilson95(0.75, 30) });
  });

  test("Kish's effective number decides what few is", () => {
    expect([sparse(Array(8).fill(0.25)), sparse(Array(7).fill(0.25))]).toEqual([false, true]);
    expect(sparse([1, ...Array<number>(100).fill(0.01)])).toBe(true);
  });

  test("the bootstrap is near the normal interval where that is right, and leans with the skew", () => {
    const [symmetric] = estimates95([{ values: shares, share: true }]);
    const half = (2.001 * Math.sqrt(0.125 * (60 / 59))) / Math.sqrt(60);
    expect(symmetric.method).toBe("bootstrap");
    expect(symmetric.low).toBeCloseTo(0.5 - half, 1);
    expect(Math.abs(symmetric.high - 0.5 - half)).toBeLessThan(0.006);
    const skewed = shares.map((share) => Math.exp(4 * share));
    const [{ value, low, high }] = estimates95([{ values: skewed, share: false }]);
    expect(high - value).toBeGreaterThan(1.1 * (value - low));
  });

  test("the same values give the same interval, alone or beside others", () => {
    const column = { values: shares, share: true };
    const other = { values: shares.map((share) => 100 * share), share: false };
    const [alone] = estimates95([column]);
    const [beside, scaled] = estimates95([column, other]);
    expect(beside).toEqual(alone);
    expect(scaled.low).toBeCloseTo(100 * alone.low, 9);
    const fine = { values: shares.map((share, i) => share + Math.sin(i) / 10), share: false };
    expect(estimates95([fine], 1)[0].low).not.toBe(estimates95([fine])[0].low);
  });

  test("values that do not vary have an interval of no width", () => {
    expect(estimates95([{ values: Array(20).fill(0), share: false }])[0]).toMatchObject({ value: 0, low: 0, high: 0 });
    expect(estimates95([{ values: Array(20).fill(512), share: false }])[0]).toMatchObject({
      value: 512,
      low: 512,
      high: 512,
    });
  });
});

describe("a ratio of sums", () => {
  test("nothing to count; all alike: as many trials as problems; one trial a problem: Wilson's at Student's level", () => {
    expect(ratio95([{ hits: 0, of: 0 }])).toBeUndefined();
    const alike = [
      { hits: 3, of: 3 },
      { hits: 0, of: 0 },
      { hits: 2, of: 2 },
    ];
    expect(ratio95(alike)).toEqual({ value: 1, method: "wilson", ...wilson95(2, 2) });
    const single = Array.from({ length: 200 }, (_, i) => ({ hits: Number(i % 4 === 0), of: 1 }));
    const [found, wilson] = [ratio95(single), wilson95(50, 200)];
    expect(found?.value).toBe(0.25);
    expect(found?.low).toBeCloseTo(wilson.low, 2);
    expect(found?.high).toBeCloseTo(wilson.high, 2);
  });

  test("covers the truth where the trials of a problem go together", () => {
    const random = new RandomStream("ratio coverage");
    let covered = 0;
    const repeats = 1000;
    for (let repeat = 0; repeat < repeats; repeat++) {
      const problems = Array.from({ length: 40 }, () => {
        // Problems of their own chance, 0.1 or 0.6 in the mean over trials 0.3; more trials where it is low.
        const easy = random.uniform() < 0.5;
        const of = easy ? 2 : 3;
        const hits = Array.from({ length: of }, () => Number(random.uniform() < (easy ? 0.6 : 0.1)));
        return { hits: hits.reduce((sum, hit) => sum + hit, 0), of };
      });
      const { low = 0, high = 0 } = ratio95(problems) ?? {};
      covered += Number(low <= 0.3 && 0.3 <= high);
    }
    expect(covered / repeats).toBeGreaterThan(0.93);
    expect(covered / repeats).toBeLessThan(0.98);
  });
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { wilson95 } from "./intervals.ts";

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

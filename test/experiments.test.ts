import { describe, expect, test } from "vitest";
import { binomial95, claims, foundAndExpected } from "../bench/experiments.ts";

// A small, fixed part of `bench/experiments.ts`: experiments over run folders whose truth is known; simulations are seeded.

const rest = { seeds: 8, problems: 60, spread: 0.01 };

describe("an experiment finds what it says it finds", () => {
  test("the binomial interval, by R's qbinom", () => {
    expect(binomial95(200, 0.05)).toEqual({ low: 4, high: 16 });
    expect(binomial95(200, 0.5)).toEqual({ low: 86, high: 114 });
  });

  test("a true difference, as often as the power computed beforehand", () => {
    const { found, power, interval } = foundAndExpected(0.1, rest, 60, "ci");
    expect(power).toBeGreaterThan(0.6);
    expect(found).toBeGreaterThanOrEqual(interval.low);
    expect(found).toBeLessThanOrEqual(interval.high);
  });

  test("equal arms are told apart in about one of twenty", () => {
    const { found, interval } = foundAndExpected(0, rest, 60, "ci");
    expect(found).toBeGreaterThanOrEqual(interval.low);
    expect(found).toBeLessThanOrEqual(interval.high);
  });

  test("of three equal arms any pair is told apart no more often", () => {
    expect(claims({ ...rest, shifts: [0, 0, 0] }, 30, "ci family")).toBeLessThanOrEqual(binomial95(30, 0.05).high);
  });
});

import { describe, expect, test } from "vitest";
import { pairedCoverage, seedCoverage, shareCoverage, tokenCoverage, wilsonCoverage } from "../bench/coverage.ts";

// A small, fixed part of `bench/coverage.ts`, whose full tables stand in docs/evaluation.md; simulations are seeded.

describe("95 % intervals hold the truth about as often as they say", () => {
  test("Wilson's, by an exact sum over the binomial distribution", () => {
    // Brown, Cai and DasGupta 2001, Statistical Science 16:101: close to the level on average, off it at single points.
    const grid = [30, 100, 300, 1000].flatMap((n) =>
      Array.from({ length: 193 }, (_, i) => wilsonCoverage(n, 0.02 + i * 0.005)),
    );
    expect(grid.reduce((sum, c) => sum + c, 0) / grid.length).toBeCloseTo(0.95, 2);
    expect(Math.min(...grid)).toBeGreaterThan(0.91);
  });

  test.each([
    ["accuracy", "split", 0.1],
    ["accuracy", "even", 0.5],
    ["pass@4", "split", 0.5],
    ["pass@4", "even", 0.9],
    ["maj@4", "split", 0.3],
    ["maj@4", "even", 0.7],
  ] as const)("%s of 100 problems, rates %s, %f", (statistic, spread, p) => {
    const coverage = shareCoverage(statistic, 100, p, spread, 600);
    expect(coverage).toBeGreaterThan(0.925);
    expect(coverage).toBeLessThan(0.98);
  });

  test("shares that few problems decide are covered, if anything, too often", () => {
    expect(shareCoverage("pass@4", 30, 0.02, "even", 300)).toBeGreaterThan(0.94);
    expect(shareCoverage("maj@4", 30, 0.98, "split", 300)).toBeGreaterThan(0.94);
  });

  test("tokens of 100 problems", () => {
    const coverage = tokenCoverage(100, 0.8, 600);
    expect(coverage).toBeGreaterThan(0.925);
    expect(coverage).toBeLessThan(0.98);
  });

  test("the paired difference of 100 problems", () => {
    const coverage = pairedCoverage(100, 0.3, 0.1, 2000);
    expect(coverage).toBeGreaterThan(0.935);
    expect(coverage).toBeLessThan(0.97);
  });

  test("six seeds, for the problems at hand and for all", () => {
    const held = seedCoverage({ seeds: 6, problems: 60, seedSpread: 0.15, problemSpread: 0.1 }, 150);
    for (const coverage of [held.tHere, held.tEverywhere, held.twoWayEverywhere]) {
      expect(coverage).toBeGreaterThan(0.9);
      expect(coverage).toBeLessThan(0.99);
    }
  });
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { histogram, histogramText, solveRates } from "./profile.ts";
import type { EvaluatedSample } from "./samples.ts";

const sample = (problem: string, index: number, solved: boolean): EvaluatedSample => ({
  problem,
  sample: index,
  text: "",
  tokens: [],
  logprobs: [],
  stop: "eos",
  strict: { verdict: solved ? "equal" : "different", rule: "number", reason: "" },
  reward: Number(solved),
  parts: {},
  solved,
});

/** Of each problem how many of `n` samples are right. */
const ratesOf = (counts: number[], n: number) =>
  solveRates(counts.flatMap((right, p) => Array.from({ length: n }, (_, i) => sample(`p${p}`, i, i < right))));

describe("solve rates", () => {
  test("each with Wilson's interval", () => {
    const [never, half, always] = ratesOf([0, 2, 4], 4);
    expect(never).toMatchObject({ problem: "p0", solved: 0, low: 0 });
    expect(never.high).toBeCloseTo(0.4899, 4);
    expect(half.solved).toBe(0.5);
    expect(half.low).toBeCloseTo(0.15, 3);
    expect(half.high).toBeCloseTo(0.85, 3);
    expect(always).toMatchObject({ solved: 1, high: 1 });
  });
});

describe("the histogram", () => {
  test("every problem is in one bar, never and always in bars of their own", () => {
    fc.assert(
      fc.property(
        fc
          .integer({ min: 1, max: 40 })
          .chain((n) =>
            fc.record({ n: fc.constant(n), counts: fc.array(fc.integer({ min: 0, max: n }), { minLength: 1 }) }),
          ),
        ({ n, counts }) => {
          const bars = histogram(ratesOf(counts, n), n);
          expect(bars.reduce((sum, { problems }) => sum + problems, 0)).toBe(counts.length);
          expect(bars[0].problems).toBe(counts.filter((k) => k === 0).length);
          expect(bars.at(-1)?.problems).toBe(counts.filter((k) => k === n).length);
          expect(bars.every(({ problems }) => problems >= 0)).toBe(true);
          expect(bars.length).toBe(n <= 10 ? n + 1 : 12);
        },
      ),
    );
  });

  test("fits its width, and no bar that has a problem is empty", () => {
    const bars = histogram(ratesOf([...Array<number>(500).fill(0), 1, 4, 4, 4], 4), 4);
    for (const width of [20, 40, 80]) {
      const lines = histogramText(bars, width).split("\n");
      expect(lines).toHaveLength(5);
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(width);
      expect(lines[0]).toMatch(/^ +0 % +500 +█{4,}$/);
      expect(lines[1]).toMatch(/ 25 % +1 +█$/);
      expect(lines[2]).toMatch(/ 50 % +0$/);
    }
    expect(histogramText(histogram(ratesOf([12], 12), 12), 80)).toContain("90-100 %, not all  0");
  });
});

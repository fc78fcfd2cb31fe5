import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { tTwoSided } from "./distributions.ts";
import { pairedT } from "./paired.ts";
import { detectableDifference, holm, pairedTPower } from "./power.ts";

describe("Holm's correction", () => {
  test("the fifteen p values of Benjamini and Hochberg 1995, section 3.2: three hypotheses are rejected", () => {
    const p = [
      0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528, 0.759, 1,
    ];
    const adjusted = holm(p);
    expect(adjusted.filter((value) => value <= 0.05)).toHaveLength(3);
    // As R's p.adjust(p, "holm") has them.
    const expected = [0.0015, 0.0056, 0.0247, 0.114, 0.2211, 0.278, 0.278, 0.278, 0.3213, 1, 1, 1, 1, 1, 1];
    adjusted.forEach((value, i) => expect(value).toBeCloseTo(expected[i], 10));
  });

  test("of any order, never below the raw value nor above Bonferroni's", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 8 }), (p) => {
        const adjusted = holm(p);
        p.forEach((value, i) => {
          expect(adjusted[i]).toBeGreaterThanOrEqual(value);
          expect(adjusted[i]).toBeLessThanOrEqual(Math.min(1, p.length * value) + 1e-15);
        });
        expect(holm([...p].reverse())).toEqual([...adjusted].reverse());
      }),
    );
  });
});

describe("power of the paired t test", () => {
  test("the worked example of G*Power 3.1's manual: dz = 0.421637, n = 50", () => {
    expect(pairedTPower(0.421637, 1, 50)).toBeCloseTo(0.832114, 6);
  });

  // scipy.stats.nct, two-sided at 0.05 and 0.05 / 3.
  test.each([
    [1, 6, 0.05, 0.50684198],
    [1.2, 8, 0.05, 0.82792006],
    [1.5, 6, 0.016666666666666666, 0.59223444],
    [2, 3, 0.05, 0.47074943],
    [3, 2, 0.05, 0.26077071],
    [0.5, 30, 0.05, 0.75396472],
  ])("d %d, n %d, alpha %d", (d, n, alpha, expected) => {
    expect(pairedTPower(d, 1, n, alpha)).toBeCloseTo(expected, 6);
    expect(pairedTPower(-d, 1, n, alpha)).toBeCloseTo(expected, 6);
  });

  test("without a difference it is the level, and the detectable difference has the power asked for", () => {
    for (const n of [2, 3, 6, 8, 20]) {
      expect(pairedTPower(0, 1, n)).toBeCloseTo(0.05, 8);
      expect(pairedTPower(detectableDifference(0.03, n, 0.01, 0.9), 0.03, n, 0.01)).toBeCloseTo(0.9, 8);
    }
    expect(detectableDifference(0.03, 1)).toBe(Infinity);
  });
});

describe("the paired t test", () => {
  test("Student's sleep data (Student 1908): p = 0.002833", () => {
    const gains = [1.2, 2.4, 1.3, 1.3, 0, 1, 1.8, 0.8, 4.6, 1.4];
    expect(pairedT(gains)).toBeCloseTo(0.002833, 6);
    expect(pairedT([0, 0, 0])).toBe(1);
    expect(pairedT([0.1])).toBe(1);
    expect(tTwoSided(0, 5)).toBe(1);
    expect(pairedT([0.5, 0.5, 0.5])).toBe(0);
  });
});

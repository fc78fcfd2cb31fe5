import { describe, expect, test } from "vitest";
import { normalCdf, normalQuantile, tQuantile, Z80, Z975 } from "./distributions.ts";

describe("Student's t", () => {
  // Fisher and Yates 1963, Statistical Tables, table III; Beyer 1968, CRC Handbook of Tables for Probability and Statistics.
  test.each([
    [1, 6.314, 12.706, 63.657],
    [2, 2.92, 4.303, 9.925],
    [3, 2.353, 3.182, 5.841],
    [4, 2.132, 2.776, 4.604],
    [5, 2.015, 2.571, 4.032],
    [6, 1.943, 2.447, 3.707],
    [7, 1.895, 2.365, 3.499],
    [9, 1.833, 2.262, 3.25],
    [30, 1.697, 2.042, 2.75],
    [120, 1.658, 1.98, 2.617],
  ])("%i degrees of freedom", (df, q95, q975, q995) => {
    expect(tQuantile(0.95, df)).toBeCloseTo(q95, 3);
    expect(tQuantile(0.975, df)).toBeCloseTo(q975, 3);
    expect(tQuantile(0.995, df)).toBeCloseTo(q995, 3);
  });

  test("closed forms for one and two degrees of freedom, and the normal limit", () => {
    expect(tQuantile(0.975, 1)).toBeCloseTo(Math.tan(Math.PI * 0.475), 9);
    expect(tQuantile(0.9, 2)).toBeCloseTo((2 * 0.9 - 1) * Math.sqrt(2 / (1 - (2 * 0.9 - 1) ** 2)), 12);
    expect(tQuantile(0.975, 1318)).toBeCloseTo(1.9617655127673146, 10);
    expect(tQuantile(0.975, 100_000)).toBeCloseTo(1.959963984540054, 4);
  });
});

describe("the normal distribution", () => {
  // Abramowitz and Stegun 1964, table 26.1.
  test.each([
    [0, 0.5],
    [0.5, 0.6914624612740131],
    [1, 0.8413447460685429],
    [2, 0.9772498680518208],
    [3, 0.9986501019683699],
    [-1.5, 0.06680720126885807],
  ])("P(Z <= %f)", (x, p) => {
    expect(normalCdf(x)).toBeCloseTo(p, 14);
    expect(normalQuantile(p)).toBeCloseTo(x, 12);
  });

  test("its constants and its ends", () => {
    expect(normalQuantile(0.975)).toBeCloseTo(Z975, 13);
    expect(normalQuantile(0.8)).toBeCloseTo(Z80, 13);
    expect([normalCdf(-40), normalCdf(40)]).toEqual([0, 1]);
  });
});

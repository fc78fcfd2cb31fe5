import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { mcnemarExact, neededFor, signFlipExact, tInterval95 } from "./paired.ts";

describe("McNemar's exact test", () => {
  // Fay 2010, R package exact2x2, `mcnemar.exact`: 2 against 9 discordant pairs, p = 0.06543; the others are exact binomial tails.
  test.each([
    [2, 9, 0.06543],
    [0, 5, 0.0625],
    [0, 6, 0.03125],
    [10, 10, 1],
    [0, 0, 1],
    [121, 59, 4.434449e-6],
    [400, 600, 2.728464e-10],
  ])("%i against %i: p = %f", (first, second, p) => {
    expect(mcnemarExact(first, second)).toBeCloseTo(p, 5);
    expect(Math.abs(mcnemarExact(first, second) / p - 1)).toBeLessThan(1e-4);
    expect(mcnemarExact(second, first)).toBe(mcnemarExact(first, second));
  });

  test("equals twice the summed tail", () => {
    for (let n = 1; n <= 30; n++) {
      const pascal = [1];
      for (let i = 1; i <= n; i++) pascal.push((pascal[i - 1] * (n - i + 1)) / i);
      for (let b = 0; b <= n; b++) {
        const tail = pascal.slice(0, Math.min(b, n - b) + 1).reduce((sum, ways) => sum + ways, 0) / 2 ** n;
        expect(mcnemarExact(b, n - b)).toBeCloseTo(Math.min(1, 2 * tail), 12);
      }
    }
  });

  test("thousands of discordant pairs neither overflow nor vanish", () => {
    expect(mcnemarExact(5000, 5000)).toBe(1);
    expect(mcnemarExact(4900, 5100)).toBeCloseTo(0.04659, 4);
  });
});

describe("t interval", () => {
  test("Student's sleep data", () => {
    // Student 1908, Biometrika 6: additional sleep with drug 2 over drug 1, ten patients; interval as in R's t.test(sleep).
    const { mean, interval } = tInterval95([1.2, 2.4, 1.3, 1.3, 0, 1.0, 1.8, 0.8, 4.6, 1.4]);
    expect(mean).toBeCloseTo(1.58, 12);
    expect(interval.low).toBeCloseTo(0.7001142, 6);
    expect(interval.high).toBeCloseTo(2.4598858, 6);
  });

  test("one value bounds nothing", () => {
    expect(tInterval95([0.3]).interval).toEqual({ low: -Infinity, high: Infinity });
  });
});

describe("sign-flip test", () => {
  test("Darwin's maize", () => {
    // Fisher 1935, section 21: of 32,768 sign assignments 863 have a sum of at least 314 and as many of at most -314.
    const eighths = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48];
    expect(signFlipExact(eighths)).toBeCloseTo((2 * 863) / 32768, 12);
  });

  test("cannot go below two of all assignments", () => {
    expect(signFlipExact([1, 2, 3, 4])).toBe(0.125);
    expect(signFlipExact([0.1, 0.2, 0.3, 0.1, 0.2, 0.3])).toBe(0.03125);
    expect(signFlipExact([0, 0, 0])).toBe(1);
    expect(signFlipExact(Array.from({ length: 21 }, () => 1))).toBeUndefined();
  });

  test("equals enumeration", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -5, max: 5 }), { minLength: 1, maxLength: 9 }), (values) => {
        const total = Math.abs(values.reduce((sum, d) => sum + d, 0));
        let extreme = 0;
        for (let signs = 0; signs < 2 ** values.length; signs++) {
          const sum = values.reduce((s, d, i) => s + ((signs >> i) & 1 ? -d : d), 0);
          extreme += Number(Math.abs(sum) >= total);
        }
        expect(signFlipExact(values.map((d) => d / 10))).toBeCloseTo(extreme / 2 ** values.length, 12);
      }),
    );
  });
});

test("how many problems a difference needs", () => {
  // (1.95996 + 0.84162)^2 = 7.8489
  expect(neededFor(0.1, 0.5)).toBe(197);
  expect(neededFor(-0.1, 0.5)).toBe(197);
  expect(neededFor(0, 0.5)).toBe(Infinity);
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hashKey, RandomStream, uniform } from "./random.ts";

const int32 = fc.integer({ min: 0, max: 0xffffffff });
const keyArbitrary = fc.tuple(int32, int32);

describe("uniform", () => {
  test("is Philox-2x32-10: the known answers that come with its authors' Random123", () => {
    const top24 = (word: number) => (word >>> 8) / 2 ** 24;
    expect(uniform([0, 0], 0, 0)).toBe(top24(0xff1dae59));
    expect(uniform([0xffffffff, 0], 0xffffffff, 0xffffffff)).toBe(top24(0x2c3f628b));
    expect(uniform([0x13198a2e, 0], 0x85a308d3, 0x243f6a88)).toBe(top24(0xdd7ce038));
  });

  test("is in [0, 1), exact in float32, and a function of its arguments alone", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(keyArbitrary, int32, int32), { minLength: 1, maxLength: 20 }), (asked) => {
        const forwards = asked.map((one) => uniform(...one));
        const backwards = asked.toReversed().map((one) => uniform(...one));
        expect(backwards.toReversed()).toEqual(forwards);
        for (const u of forwards) {
          expect(u).toBeGreaterThanOrEqual(0);
          expect(u).toBeLessThan(1);
          expect(Math.fround(u)).toBe(u);
        }
      }),
    );
  });

  test.each([
    ["positions", (i: number) => uniform(hashKey("seed/step/problem"), 3, i)],
    ["samples", (i: number) => uniform(hashKey("seed/step/problem"), i, 0)],
    ["keys that differ in a digit", (i: number) => uniform(hashKey(`7/12/problem-${i}`), 0, 0)],
    ["keys of neighbouring steps", (i: number) => uniform(hashKey(`7/${i}/problem-3`), 5, 2)],
  ])("is evenly spread and uncorrelated over %s", (_, draw) => {
    const count = 65536;
    const bins = new Float64Array(256);
    let pairs = 0;
    let previous = 0.5;
    for (let i = 0; i < count; i++) {
      const u = draw(i);
      bins[Math.floor(u * 256)]++;
      pairs += (u - 0.5) * (previous - 0.5);
      previous = u;
    }
    const expected = count / 256;
    const chiSquare = bins.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
    // 255 degrees of freedom: mean 255, standard deviation 22.6. Five of them either way.
    expect(chiSquare).toBeGreaterThan(142);
    expect(chiSquare).toBeLessThan(368);
    expect(Math.abs((12 * pairs) / Math.sqrt(count))).toBeLessThan(5);
  });
});

test("different keys have different streams", () => {
  const seen = new Set<string>();
  for (let step = 0; step < 100; step++) {
    for (let problem = 0; problem < 100; problem++) seen.add(hashKey(`0/${step}/${problem}`).join());
  }
  expect(seen.size).toBe(10_000);
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (a, b) => {
      fc.pre(a !== b);
      expect(hashKey(a)).not.toEqual(hashKey(b));
    }),
  );
});

describe("RandomStream", () => {
  test("repeats itself for the same key only", () => {
    const draw = (key: string) => {
      const stream = new RandomStream(key);
      return Array.from({ length: 5 }, () => stream.uniform());
    };
    expect(draw("a")).toEqual(draw("a"));
    expect(draw("a")).not.toEqual(draw("b"));
  });

  test("normals have the moments of a standard normal", () => {
    const stream = new RandomStream("normals");
    const xs = Array.from({ length: 100_000 }, () => stream.normal());
    const moment = (k: number) => xs.reduce((sum, x) => sum + x ** k, 0) / xs.length;
    expect(xs.every(Number.isFinite)).toBe(true);
    // Standard errors: 0.0032, 0.0045, 0.012, 0.031.
    expect(Math.abs(moment(1))).toBeLessThan(0.016);
    expect(Math.abs(moment(2) - 1)).toBeLessThan(0.023);
    expect(Math.abs(moment(3))).toBeLessThan(0.06);
    expect(Math.abs(moment(4) - 3)).toBeLessThan(0.16);
  });

  test("shuffle reaches every order equally often", () => {
    const stream = new RandomStream("shuffle");
    const counts = new Map<string, number>();
    for (let i = 0; i < 24_000; i++) {
      const order = stream.shuffle([0, 1, 2, 3]).join("");
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(24);
    const chiSquare = [...counts.values()].reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
    expect(chiSquare).toBeLessThan(60);
  });

  test("below(n) gives whole numbers from 0 to n - 1", () => {
    const stream = new RandomStream("below");
    const seen = new Set(Array.from({ length: 500 }, () => stream.below(5)));
    expect([...seen].sort()).toEqual([0, 1, 2, 3, 4]);
  });
});

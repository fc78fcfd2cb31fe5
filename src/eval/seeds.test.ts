import { describe, expect, test } from "vitest";
import { RandomStream } from "../engine/random.ts";
import { tQuantile } from "./distributions.ts";
import { tInterval95 } from "./paired.ts";
import { twoWayBootstrap95 } from "./seeds.ts";

const random = new RandomStream("two-way test");
const design = (seeds: number, problems: number, cell: (seed: number, problem: number) => number): number[][] =>
  Array.from({ length: seeds }, (_, s) => Array.from({ length: problems }, (_, i) => cell(s, i)));

describe("two-way bootstrap", () => {
  test("where only seeds differ it is the t interval over seeds", () => {
    const effects = [0.02, 0.11, -0.03, 0.06, 0.09, 0.04, -0.01, 0.08];
    const found = twoWayBootstrap95(design(8, 50, (s) => effects[s]));
    const { interval, mean } = tInterval95(effects);
    const width = interval.high - interval.low;
    expect(Math.abs(found.high - found.low - width)).toBeLessThan(0.06 * width);
    expect(Math.abs((found.high + found.low) / 2 - mean)).toBeLessThan(0.05 * width);
  });

  test("where only problems differ it is the interval over problems, however many seeds", () => {
    const effects = Array.from({ length: 200 }, () => random.normal() / 4);
    const found = twoWayBootstrap95(design(6, 200, (_, i) => effects[i]));
    const { interval } = tInterval95(effects);
    expect(found.high - found.low).toBeGreaterThan(0.93 * (interval.high - interval.low));
    expect(found.high - found.low).toBeLessThan(1.07 * (interval.high - interval.low));
  });

  test("noise of single answers is counted once, not three times", () => {
    const noise = design(10, 400, () => random.normal());
    const { high, low } = twoWayBootstrap95(noise);
    const once = (2 * tQuantile(0.975, 30)) / Math.sqrt(4000);
    expect(high - low).toBeLessThan(1.4 * once);
  });

  test("one seed bounds nothing; no difference at all has no width", () => {
    expect(twoWayBootstrap95([[0, 1]])).toEqual({ low: -Infinity, high: Infinity });
    expect(twoWayBootstrap95(design(6, 5, () => 0.5))).toEqual({ low: 0.5, high: 0.5 });
  });

  test("the same runs give the same interval", () => {
    const cells = design(6, 30, () => random.normal());
    expect(twoWayBootstrap95(cells)).toEqual(twoWayBootstrap95(cells));
  });
});

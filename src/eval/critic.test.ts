import { describe, expect, test } from "vitest";
import { RandomStream } from "../engine/random.ts";
import { criticReport, type ValuedResponse } from "./critic.ts";

const random = new RandomStream("critic test");

/** Responses that end right with a chance of their problem's own; `value` says what the critic answers. */
function responses(value: (chance: number, right: number, t: number) => number, length = () => 4 + random.below(9)) {
  return Array.from({ length: 400 }, (_, i): ValuedResponse => {
    const chance = Math.floor(i / 4) % 2 === 0 ? 0.2 : 0.8;
    const right = Number(random.uniform() < chance);
    const tokens = length();
    return {
      problem: `${Math.floor(i / 4)}`,
      returns: new Array<number>(tokens).fill(right),
      values: Array.from({ length: tokens }, (_, t) => value(chance, right, t)),
    };
  });
}

describe("a critic", () => {
  test("that knows the outcome explains all of it, one that says a constant nothing", () => {
    expect(criticReport(responses((_, right) => right)).explainedVariance).toBeCloseTo(1, 9);
    expect(criticReport(responses(() => 0.5)).explainedVariance).toBeCloseTo(0, 9);
  });

  test("that knows each problem's chance explains the variance between problems", () => {
    const { explainedVariance, baseline, difference, interval, problems } = criticReport(responses((chance) => chance));
    // Half of the problems at .2, half at .8: .09 of .25.
    expect(explainedVariance).toBeGreaterThan(0.25);
    expect(explainedVariance).toBeLessThan(0.47);
    expect(Math.abs(baseline)).toBeLessThan(0.06);
    expect(difference).toBeCloseTo(explainedVariance - baseline, 12);
    expect(interval.low).toBeLessThan(difference);
    expect(interval.high).toBeGreaterThan(difference);
    expect(interval.low).toBeGreaterThan(0.15);
    expect(problems).toBe(100);
  });

  test("gains nothing where length tells the outcome, for the baseline knows it too", () => {
    const lengths: ValuedResponse[] = responses(() => 0).map(({ problem, returns, values }) => {
      const right = returns[0];
      const length = right === 1 ? 4 : 12;
      return {
        problem,
        returns: new Array<number>(length).fill(right),
        values: new Array<number>(length).fill(values[0]),
      };
    });
    expect(criticReport(lengths).baseline).toBeGreaterThan(0.95);
    expect(criticReport(lengths).difference).toBeLessThan(-0.9);
  });

  test("cannot be judged on one problem", () => {
    const one = responses(() => 0.5).filter(({ problem }) => problem === "0");
    expect(() => criticReport(one)).toThrow("1 are too few, take a larger --limit");
  });

  test("repeats its interval", () => {
    const once = responses((chance) => chance);
    expect(criticReport(once)).toEqual(criticReport(once));
  });
});

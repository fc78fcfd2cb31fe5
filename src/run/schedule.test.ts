import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Budget, fractionUsed, isOver, learningRateFactor, type Schedule } from "./schedule.ts";

const steps = (amount: number): Budget => ({ kind: "steps", amount });

/** The factors of a stage measured in steps. */
function factors(schedule: Schedule, total: number): number[] {
  return Array.from({ length: total }, (_, step) =>
    learningRateFactor(schedule, steps(total), { step, before: step / total, now: step / total }),
  );
}

describe("learningRateFactor", () => {
  test("a cosine after a tenth of warm-up, as MOTIF trained: 4.42e-6 of 5e-6 in step 300 of 1000", () => {
    const factor = factors({ kind: "cosine", warmup: 0.1, final: 0 }, 1000)[300];
    expect(5e-6 * factor).toBeCloseTo(4.4151e-6, 10);
  });

  test("warm-up rises linearly to 1 and never starts at 0; linear decay ends near `final`", () => {
    const all = factors({ kind: "linear", warmup: 4, final: 0.2 }, 12);
    expect(all.slice(0, 5)).toEqual([0.25, 0.5, 0.75, 1, 1]);
    expect(all[8]).toBeCloseTo(0.6, 12);
    expect(all[11]).toBeCloseTo(0.3, 12);
  });

  test("constant stays at 1", () => {
    expect(factors({ kind: "constant", warmup: 0 }, 3)).toEqual([1, 1, 1]);
  });

  test("under a budget of tokens, warm-up counts what the step itself has sampled", () => {
    const budget: Budget = { kind: "generatedTokens", amount: 1000 };
    const schedule: Schedule = { kind: "linear", warmup: 0.1, final: 0 };
    expect(learningRateFactor(schedule, budget, { step: 0, before: 0, now: 0.05 })).toBeCloseTo(0.5, 12);
    expect(learningRateFactor(schedule, budget, { step: 9, before: 0.55, now: 0.6 })).toBeCloseTo(0.5, 12);
  });

  test("is always between 0 and 1, and decays after the warm-up", () => {
    fc.assert(
      fc.property(
        fc.constantFrom<"linear" | "cosine">("linear", "cosine"),
        fc.integer({ min: 1, max: 200 }),
        fc.oneof(fc.double({ min: 0, max: 0.99, noNaN: true }), fc.integer({ min: 1, max: 300 })),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (kind, total, warmup, final) => {
          const all = factors({ kind, warmup, final }, total);
          expect(all.every((f) => f > 0 || final === 0)).toBe(true);
          expect(all.every((f) => f <= 1 + 1e-12)).toBe(true);
          const decay = all.slice(Math.ceil(warmup < 1 ? warmup * total : warmup));
          decay.slice(1).forEach((f, i) => expect(f).toBeLessThanOrEqual(decay[i] + 1e-12));
        },
      ),
    );
  });
});

describe("budgets", () => {
  const used = { steps: 3, problems: 24, generatedTokens: 999, engineSeconds: 1.5 };

  test("each measure", () => {
    expect(fractionUsed(steps(4), used, 10)).toBe(0.75);
    expect(fractionUsed({ kind: "epochs", amount: 3 }, used, 16)).toBe(0.5);
    expect(fractionUsed({ kind: "generatedTokens", amount: 999 }, used, 10)).toBe(1);
    expect(fractionUsed({ kind: "engineSeconds", amount: 6 }, used, 10)).toBe(0.25);
  });

  test("the step that crosses a budget is the last; stopAt ends inside it", () => {
    expect(isOver({ kind: "generatedTokens", amount: 1000 }, undefined, used, 10)).toBe(false);
    expect(isOver({ kind: "generatedTokens", amount: 999 }, undefined, used, 10)).toBe(true);
    expect(isOver(steps(10), 3, used, 10)).toBe(true);
    expect(isOver(steps(10), 4, used, 10)).toBe(false);
    expect(isOver(steps(10), 0.3, used, 10)).toBe(true);
  });
});

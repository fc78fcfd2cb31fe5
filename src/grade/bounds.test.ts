import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Budget, DEFAULT_STEPS, GiveUp } from "./budget.ts";
import { equivalent } from "./equivalent.ts";
import { grade } from "./grade.ts";
import { HOSTILE, hostileAnswer } from "./testing.ts";

/** How many random pairs to try: RIFFT_GRADE_FUZZ=100000 for the long run, which also prints CPU time and memory. */
const RUNS = Number(process.env.RIFFT_GRADE_FUZZ ?? 2000);

const VERDICTS = ["equal", "different", "unsure"];

describe("bounded work", () => {
  test.each(HOSTILE.map((text) => [text.slice(0, 30), text]))("%s...", (_head, text) => {
    expect(VERDICTS).toContain(equivalent("1", text).verdict);
    expect(VERDICTS).toContain(equivalent("x+1", text).verdict);
    expect(equivalent("(1,2)", text).verdict).not.toBe("equal");
    const again = equivalent(text, `${text}+1`);
    expect(again.verdict).not.toBe("equal");
    expect(equivalent(text, `${text}+1`)).toEqual(again);
    expect(VERDICTS).toContain(grade("1", text).flexible.verdict);
  });

  test(`any text is graded (${RUNS} pairs)`, { timeout: 3_600_000 }, () => {
    let slowest = { ms: 0, gold: "", answer: "" };
    const before = process.memoryUsage().heapUsed;
    fc.assert(
      fc.property(hostileAnswer, hostileAnswer, (gold, answer) => {
        const start = process.cpuUsage();
        const { verdict } = equivalent(gold, answer);
        const { user, system } = process.cpuUsage(start);
        const ms = (user + system) / 1000;
        if (ms > slowest.ms) slowest = { ms, gold, answer };
        expect(VERDICTS).toContain(verdict);
      }),
      { numRuns: RUNS, endOnFailure: true },
    );
    const megabytes = (process.memoryUsage().heapUsed - before) / 2 ** 20;
    if (process.env.RIFFT_GRADE_FUZZ !== undefined)
      process.stdout.write(
        `slowest ${slowest.ms.toFixed(1)} ms: ${JSON.stringify([slowest.gold.slice(0, 200), slowest.answer.slice(0, 200)])}; heap ${megabytes.toFixed(1)} MiB more\n`,
      );
  });

  test("a budget stops where its steps end", () => {
    const budget = new Budget(10);
    budget.spend(10);
    expect(() => budget.spend(1)).toThrow(GiveUp);
    expect(DEFAULT_STEPS).toBeLessThanOrEqual(100_000);
  });
});

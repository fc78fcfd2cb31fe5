import { expect, test } from "vitest";
import { loadTask } from "./load.ts";
import { selfChecks } from "./tagged-rates.ts";

const lines = ["pens: 12 - 3 = 9.", "pens: 9 * 2 = 18."];
const rate = (hits: number, of: number) => ({ hits, of });

test.each([
  [
    "an error that is found and mended, a right step that is affirmed",
    "<next_step>pens: 12 - 3 = 8.</next_step><verify>12 - 3 = 9, not 12 - 3 = 8.</verify><refine>pens: 12 - 3 = 9.</refine><next_step>pens: 9 * 2 = 18.</next_step><verify>9 * 2 = 18, right.</verify><output>\\boxed{18}</output>",
    {
      "steps right": rate(1, 2),
      "errors checked": rate(1, 1),
      "verify precision": rate(1, 1),
      "verify recall": rate(1, 1),
      "refine repairs": rate(1, 1),
    },
  ],
  [
    "an error that is affirmed, and one that nobody checks",
    "<next_step>pens: 12 - 3 = 8.</next_step><verify>12 - 3 = 8, right.</verify><direct_answer>pens: 8 * 2 = 16.</direct_answer><output>",
    { "steps right": rate(0, 2), "errors checked": rate(1, 2), "verify recall": rate(0, 1) },
  ],
  [
    "a right step that is refuted and spoilt, and the spoilt one checked again",
    "<next_step>pens: 12 - 3 = 9.</next_step><verify>12 - 3 = 8, not 12 - 3 = 9.</verify><refine>pens: 12 - 3 = 8.</refine><verify>12 - 3 = 9, not 12 - 3 = 8.</verify><refine>pens: 12 - 3 = 9.</refine>",
    {
      "steps right": rate(1, 1),
      "verify precision": rate(1, 2),
      "refine spoils": rate(1, 1),
      "errors checked": rate(1, 1),
      "verify recall": rate(1, 1),
      // The right line stood there before.
      "refine repairs": rate(0, 1),
    },
  ],
  ["nothing that could be checked", "<verify>1 + 1 = 2, right.</verify> no <refine>", {}],
])("%s", (_, response, expected) => {
  expect(selfChecks(lines, response)).toEqual(expected);
});

test("of the task's own demonstrations every check holds, and errors are half of what is checked", async () => {
  const task = await loadTask("tagged", { baseDir: ".", seed: 1 });
  const source = await task.problems("train");
  const total: Record<string, { hits: number; of: number }> = {};
  for (let i = 0; i < 500; i++) {
    const problem = source.at(i);
    const rates = task.rates?.(problem, problem.demonstrations?.[0] ?? "") ?? {};
    for (const [name, { hits, of }] of Object.entries(rates)) {
      const sum = (total[name] ??= { hits: 0, of: 0 });
      sum.hits += hits;
      sum.of += of;
    }
  }
  const wrong = total["errors checked"].of;
  expect(wrong).toBeGreaterThan(100);
  for (const name of ["errors checked", "verify precision", "verify recall", "refine repairs"])
    expect(total[name]).toEqual({ hits: wrong, of: wrong });
  expect(total["steps right"].of - total["steps right"].hits).toBe(wrong);
  expect(total["refine spoils"]).toBeUndefined();
});

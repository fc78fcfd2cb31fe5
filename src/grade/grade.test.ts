import { describe, expect, test } from "vitest";
import { grade } from "./grade.ts";

describe("grade", () => {
  test("strict takes a marker only, flexible the last number too", () => {
    expect(grade("18", "She makes 18 dollars")).toMatchObject({
      strict: { equal: false, rule: "no answer" },
      flexible: { equal: true, extracted: { text: "18", strategy: "last-number" } },
    });
    expect(grade("18", "so\n#### $18.00")).toMatchObject({
      strict: { equal: true, extracted: { strategy: "hashes" } },
      flexible: { equal: true },
    });
    expect(grade("18", "\\boxed{18}", { strict: "hashes" }).strict.equal).toBe(false);
  });

  test("an answer that cannot be read is unsure and not equal", () => {
    expect(grade("5", "\\boxed{\\sum_k}").strict).toMatchObject({ verdict: "unsure", equal: false });
  });

  test("a published grader judges by its own rules", () => {
    expect(grade("0.5", "\\boxed{\\frac12}", { mode: "reference" }).strict).toMatchObject({
      equal: true,
      rule: "reference",
    });
    expect(grade("3", "\\boxed{3.0}", { mode: "reference" }).strict.equal).toBe(false);
    expect(grade("3", "I cannot say", { mode: "reft-gsm8k" }).strict).toMatchObject({
      equal: false,
      rule: "no answer",
    });
    expect(grade("3", "\\boxed{3.0}").strict.equal).toBe(true);
  });
});

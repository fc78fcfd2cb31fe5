import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { equivalent } from "./equivalent.ts";

const pairs = (name: string): [string, string][] =>
  readFileSync(join(import.meta.dirname, "../../test/fixtures/grade", name), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => {
      const [gold, answer] = line.split("\t");
      return [gold, answer];
    });

describe("equivalent", () => {
  test.each(pairs("equal.tsv"))("%s is %s", (gold, answer) => {
    expect(equivalent(gold, answer, { explain: true })).toMatchObject({ verdict: "equal" });
  });

  test.each(pairs("different.tsv"))("%s is not %s", (gold, answer) => {
    expect(equivalent(gold, answer).verdict).not.toBe("equal");
    expect(equivalent(answer, gold).verdict).not.toBe("equal");
  });

  test.each([
    ["2+3", "5", "number"],
    [String.raw`\frac{x^2-1}{x-1}`, "x+1", "algebra"],
    [String.raw`\sin 2x`, String.raw`2\sin x\cos x`, "sampled"],
    ["1/3", "0.3333333333", "precision"],
    ["{1,2}", "2, 1", "set"],
    ["x<1", String.raw`(-\infty,1)`, "interval"],
    ["2x+4y=6", "x+2y=3", "relation"],
    ["3:4", "6:8", "ratio"],
    ["6:30 pm", "6:30", "time"],
    ["May 5", "5 May", "date"],
    ["east", "East", "text"],
    ["(B)", "option B", "letter"],
  ])("%s is %s by the rule %s", (gold, answer, rule) => {
    expect(equivalent(gold, answer)).toMatchObject({ verdict: "equal", rule });
  });

  test("unlike units, numbers and structures say what differs", () => {
    expect(equivalent("5 cm", "5 mm")).toMatchObject({ verdict: "different", rule: "number" });
    expect(equivalent("5 cm", "5 kg")).toMatchObject({ verdict: "different", rule: "unit" });
    expect(equivalent("(1,2)", "[1,2]")).toMatchObject({ verdict: "different", rule: "interval" });
    expect(equivalent("east", "5")).toMatchObject({ verdict: "different", rule: "structure" });
  });

  test.each([
    ["x=2", "3x+5=11"],
    ["x=2", "x-1=1"],
    ["0.5", "0.5\\%"],
  ])("the answer to %s may not be %s, though the gold may", (gold, answer) => {
    expect(equivalent(gold, answer).verdict).toBe("different");
    expect(equivalent(answer, gold).verdict).toBe("equal");
  });

  test("what cannot be read is unsure", () => {
    expect(equivalent("5", String.raw`\frac{1}{`)).toMatchObject({ verdict: "unsure", rule: "unread" });
    expect(equivalent("5", "9".repeat(5000))).toMatchObject({ verdict: "unsure", rule: "budget" });
    expect(equivalent("", "")).toMatchObject({ verdict: "unsure" });
  });

  test("explain shows both readings", () => {
    expect(equivalent(String.raw`2\frac13`, "7/3", { explain: true }).forms).toEqual({
      gold: "7/3",
      answer: "7*3^(-1)",
    });
  });

  test("one of several golds is enough", () => {
    expect(equivalent(["1", "2"], "2.0").verdict).toBe("equal");
    expect(equivalent(["1", "2"], "3").verdict).toBe("different");
    expect(equivalent([], "3").verdict).toBe("different");
  });

  test("options: a letter stands for its text", () => {
    const options = { options: ["12", "east", String.raw`\frac12`] };
    expect(equivalent("C", "0.5", options).verdict).toBe("equal");
    expect(equivalent("east", "(b)", options).verdict).toBe("equal");
    expect(equivalent("A", "(B)", options)).toMatchObject({ verdict: "different", rule: "choice" });
    expect(equivalent("A", "12.0", options)).toMatchObject({ verdict: "equal", rule: "choice" });
  });

  test("tolerance, percent and order are options", () => {
    expect(equivalent("3.14", "3.15").verdict).toBe("different");
    expect(equivalent("3.14", "3.15", { tolerance: { absolute: 0.01 } }).verdict).toBe("equal");
    expect(equivalent("100", "101", { tolerance: { relative: 0.01 } }).verdict).toBe("equal");
    expect(equivalent("100", "102", { tolerance: { relative: 0.01 } }).verdict).toBe("different");
    expect(equivalent("10%", "10").verdict).toBe("equal");
    expect(equivalent("10%", "0.1").verdict).toBe("equal");
    expect(equivalent("10%", "10", { percent: "value" }).verdict).toBe("different");
    expect(equivalent("10%", "0.1", { percent: "unit" }).verdict).toBe("different");
    expect(equivalent("1, 2", "2, 1").verdict).toBe("equal");
    expect(equivalent("1, 2", "2, 1", { ordered: true }).verdict).toBe("different");
  });

  test("a decimal is exact unless it shows the digits of a calculation", () => {
    expect(equivalent("1/3", "0.33333").verdict).toBe("different");
    expect(equivalent("1/3", "0.333333").verdict).toBe("equal");
    expect(equivalent("0.333333", "0.333334").verdict).toBe("different");
    expect(equivalent("3.14159", "3.141593").verdict).toBe("different");
    expect(equivalent("19.45", "19.450000000000003").verdict).toBe("equal");
    expect(equivalent("2", "2.000001").verdict).toBe("different");
  });

  test("integers are equal exactly when they are the same, however they are written", () => {
    const integer = fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n });
    const grouped = (n: bigint): string => n.toString().replace(/\B(?=(\d{3})+$)/g, "{,}");
    fc.assert(
      fc.property(integer, integer, (a, b) => {
        expect(equivalent(`${a}`, `$${grouped(a)}$`).verdict).toBe("equal");
        expect(equivalent(`${a}`, `${a}.0`).verdict).toBe("equal");
        expect(equivalent(`${a}`, `${b}`).verdict).toBe(a === b ? "equal" : "different");
        expect(equivalent(`${a + b}`, `${a}+(${b})`).verdict).toBe("equal");
        expect(equivalent(`${a * b}`, String.raw`${a}\cdot(${b})`).verdict).toBe("equal");
      }),
    );
  });

  test("a product of linear factors equals its expansion, and no other", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 1, maxLength: 5 }), (roots) => {
        let coefficients = [1];
        for (const root of roots)
          coefficients = [...coefficients, 0].map((c, i) => c - root * (i > 0 ? coefficients[i - 1] : 0));
        const expanded = (list: number[]) => list.map((c, i) => `(${c})x^{${list.length - 1 - i}}`).join("+");
        const factored = roots.map((root) => `(x-(${root}))`).join("");
        expect(equivalent(expanded(coefficients), factored).verdict).toBe("equal");
        const wrong = coefficients.map((c, i) => (i === coefficients.length - 1 ? c + 1 : c));
        expect(equivalent(expanded(wrong), factored).verdict).toBe("different");
      }),
    );
  });
});

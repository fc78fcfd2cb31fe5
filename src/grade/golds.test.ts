import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { equivalent } from "./equivalent.ts";
import { extract } from "./extract.ts";

// The gold answers of public problem sets.

const data = join(import.meta.dirname, "../../../shared/data");
const present = existsSync(data);
if (!present) process.stdout.write(`skipped: ${data} with the problem sets is not there\n`);

const lines = (file: string): Record<string, string>[] =>
  readFileSync(join(data, file), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, string>);
const items = (file: string): Record<string, string>[] =>
  JSON.parse(readFileSync(join(data, file), "utf8")) as Record<string, string>[];
const gsm8k = (file: string): string[] => lines(file).map(({ answer }) => answer.split("####")[1].trim());

const SETS: [name: string, size: number, golds: () => string[]][] = [
  ["GSM8K test", 1319, () => gsm8k("gsm8k/test.jsonl")],
  ["GSM8K train", 7473, () => gsm8k("gsm8k/train.jsonl")],
  ["SVAMP", 1000, () => items("svamp/svamp_test_set.json").map((item) => item.answer_value)],
  ["MathQA, letters", 1605, () => items("mathqa/mathqa_test_set.json").map((item) => item.answer_value)],
  ["MathQA, numbers", 1605, () => items("mathqa/mathqa-numeric_test_set.json").map((item) => item.answer_value)],
  ["AIME 2024", 30, () => lines("aime2024/test.jsonl").map(({ answer }) => String(answer))],
  ["MATH-500", 500, () => lines("math500/test.jsonl").map(({ answer }) => answer)],
];

/** Golds that are words, not mathematics: names, directions, a parity, a curve. */
const WORDS = [
  String.raw`\text{Evelyn}`,
  String.raw`\text{east}`,
  String.raw`\text{even}`,
  String.raw`\text{ellipse}`,
  String.raw`\text{Navin}`,
];

describe.skipIf(!present)("golds of public sets", () => {
  test.each(SETS)("%s: each of the %i equals itself as mathematics", (_name, size, golds) => {
    const all = golds();
    expect(all).toHaveLength(size);
    const words: string[] = [];
    for (const gold of all) {
      const { verdict, rule } = equivalent(gold, gold, { explain: true });
      expect({ gold, verdict }).toEqual({ gold, verdict: "equal" });
      if (rule === "text" || rule === "letter") words.push(gold);
    }
    expect(words.filter((gold) => !WORDS.includes(gold))).toEqual([]);
  });

  test("the box of each MATH-500 solution holds its answer", () => {
    const wrong = lines("math500/test.jsonl").filter(
      ({ answer, solution }) => equivalent(answer, extract(solution, "boxed")?.text ?? "").verdict !== "equal",
    );
    expect(wrong).toEqual([]);
  });

  test("of all pairs of distinct MATH-500 golds only true equals are called equal, and none is unsure", () => {
    const golds = [...new Set(lines("math500/test.jsonl").map(({ answer }) => answer))];
    const equal: string[] = [];
    for (const [i, a] of golds.entries())
      for (const b of golds.slice(i + 1)) {
        const { verdict } = equivalent(a, b);
        if (verdict === "equal") equal.push(`${a} | ${b}`);
        expect({ a, b, verdict }).not.toEqual({ a, b, verdict: "unsure" });
      }
    expect(equal.sort()).toEqual(TRULY_EQUAL.map(([a, b]) => `${a} | ${b}`).sort());
  });
});

/** A number in a base is that number; a unit or name on one side only is left out; a half turn is pi. */
const TRULY_EQUAL: [string, string][] = [
  ["42", "52_8"],
  [String.raw`90^\circ`, "90"],
  ["5", "x=5"],
  [String.raw`\pi`, String.raw`180^\circ`],
  ["1,-2", "-2,1"],
  ["40_9", "36"],
  ["40_9", String.raw`36^\circ`],
  ["40_9", String.raw`\$36`],
  ["(-2,1)", "-2,1"],
  [String.raw`120^\circ`, "120"],
  ["36", String.raw`36^\circ`],
  ["36", String.raw`\$36`],
  ["204_5", "54"],
  [String.raw`\frac{1}{4}`, String.raw`\frac14`],
  [String.raw`30^\circ`, "30"],
  [String.raw`10,\!080`, "10080"],
  ["15", String.raw`15\mbox{ cm}^2`],
  [String.raw`2 \sqrt{5}`, String.raw`2\sqrt{5}`],
];

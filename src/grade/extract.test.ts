import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { extractNumber, extractText } from "./extract.ts";

describe("extractNumber", () => {
  test.each([
    ["3 + 4 = 7\n#### 7", "7", "hashes"],
    ["#### 1\nno, wait\n#### 2,125", "2,125", "hashes"],
    ["#### $18 in total, 3 a day", "$18", "hashes"],
    ["####\n42", "42", "hashes"],
    ["so \\boxed{12}.", "12", "boxed"],
    ["\\boxed{1} then \\boxed{x = 3 \\text{ cm}}", "3", "boxed"],
    ["\\boxed{\\text{about } 1{,}000}", "1{,}000".replace("{,}", ","), "boxed"],
    ["\\boxed{12\\,000}", "12,000", "boxed"],
    ["\\boxed{\\$5}", "$5", "boxed"],
    ["Adding gives 5.\nTherefore, the answer is: 5.0 and 6", "5.0", "trigger"],
    ["...\n\nTherefore, the answer is <203>.", "203", "trigger"],
    ["I have 3, you have 4, so 7 in all.", "7", "last"],
    ["#### 9 although \\boxed{8} and 7", "9", "hashes"],
  ])("%j gives %s by %s", (response, text, rule) => {
    expect(extractNumber(response)).toEqual({ text, rule });
  });

  test.each([
    ["5 + 4 = 9\n####", "a marker without an answer"],
    ["5 + 4 = 9\n#### nine", "a marker without a number"],
    ["9 or \\boxed{9", "an open box"],
    ["\\boxed{\\frac{1}{2}}", "two numbers in a box"],
    ["\\boxed{}", "an empty box"],
    ["no numbers", "no number"],
    ["", "nothing"],
  ])("%j has no answer: %s", (response) => expect(extractNumber(response)).toBeUndefined());

  test("looks only for the rules it is given", () => {
    expect(extractNumber("7\n\\boxed{8}", ["hashes"])).toBeUndefined();
    expect(extractNumber("7\n\\boxed{8}", ["hashes", "whole"])).toEqual({ text: "8", rule: "last" });
  });

  test("the last marker counts, whatever stands before", () => {
    fc.assert(
      fc.property(fc.string(), fc.integer(), (noise, n) => {
        expect(extractNumber(`${noise}\n#### ${n}`)).toEqual({ text: String(n), rule: "hashes" });
        const before = noise.replaceAll("#", "");
        expect(extractNumber(`${before} \\boxed{${n}}`)).toEqual({ text: String(n), rule: "boxed" });
      }),
    );
  });
});

describe("extractText", () => {
  test("takes a box's content with its inner braces", () => {
    fc.assert(
      fc.property(
        fc.letrec<{ tree: string }>((tie) => ({
          tree: fc.oneof(
            { maxDepth: 4 },
            fc.stringMatching(/^[a-z0-9+]{1,5}$/),
            fc.tuple(tie("tree"), tie("tree")).map(([a, b]) => `${a}{${b}}`),
          ),
        })).tree,
        (content) => {
          expect(extractText(`so \\boxed{${content}} }`)).toEqual({ text: content, rule: "boxed" });
        },
      ),
    );
  });

  test("an escaped brace closes nothing", () => {
    expect(extractText("\\boxed{\\{1, 2\\}}")).toEqual({ text: "\\{1, 2\\}", rule: "boxed" });
  });

  test("without a marker it is the whole response", () => {
    expect(extractText("  blue whale \n")).toEqual({ text: "blue whale", rule: "whole" });
  });
});

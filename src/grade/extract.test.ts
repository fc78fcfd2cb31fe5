import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { extract, extractNumber, STRATEGIES, type Strategy } from "./extract.ts";

const data = resolve(process.env.RIFFT_SHARED ?? "../shared", "data");

describe("extract", () => {
  test.each<[Strategy, string, string | undefined]>([
    ["boxed", "so \\boxed{12}.", "12"],
    ["boxed", "\\boxed{1} and \\boxed{\\frac{1}{2}}", "1, \\frac{1}{2}"],
    ["boxed", "$\\boxed{3}$ or $\\boxed{5}$", "3 or 5"],
    ["boxed", "\\boxed{18}, \\boxed{18}", "18"],
    ["boxed", "\\boxed{3}. So \\boxed{5}", "5"],
    ["boxed", "\\boxed 5", "5"],
    ["boxed", "$\\boxed 57$.", "57"],
    ["boxed", "\\(\\boxed5\\)", "5"],
    ["boxed", "$\\boxed\\frac12$", "\\frac12"],
    ["boxed", "mark it by \\boxed in the end", undefined],
    ["boxed", "\\boxed {x}", "x"],
    ["boxed", "\\boxed{\\boxed{3}}", "3"],
    ["boxed", "\\fbox{3}", "3"],
    ["boxed", "\\boxed{1} \\fbox{2}", "2"],
    ["boxed", "$\\boxed{x}$.", "x"],
    ["boxed", "\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"],
    ["boxed", "\\boxed{\\text{a}\\}b}", "\\text{a}\\}b"],
    ["boxed", "\\boxed{a \\\\ b}", "a \\\\ b"],
    ["boxed", "\\boxed{½·π}", "½·π"],
    ["boxed", "9 or \\boxed{9", undefined],
    ["boxed", "\\boxed{8} or \\boxed{9", undefined],
    ["boxed", "\\boxed{}", undefined],
    ["boxed", "\\boxed", undefined],
    ["boxed", "5", undefined],
    ["hashes", "3 + 4 = 7\n#### 7", "7"],
    ["hashes", "#### 1\nno, wait\n#### 2,125", "2,125"],
    ["hashes", "####\n42", "42"],
    ["hashes", "#### $18.", "$18"],
    ["hashes", "####", undefined],
    ["hashes", "#### 5\n#### \n ", undefined],
    ["reft", "Adding gives 5.\nTherefore, the answer is: 5.0", "5.0"],
    ["reft", "...\n\nTherefore, the answer is <203>.", "203"],
    ["reft", "Therefore, the answer is: c", "c"],
    ["reft", "Therefore, the answer is:", undefined],
    ["reft", "The answer is: 5", undefined],
    ["tag", "<answer>5</answer>", "5"],
    ["tag", "<answer>\n5\n</answer>\n", "5"],
    ["tag", "<answer>1</answer> <answer>$x=2$.</answer>", "x=2"],
    ["tag", "<answer>It is \\boxed{7}.</answer>", "7"],
    ["tag", "<answer>5", undefined],
    ["tag", "<answer></answer>", undefined],
    ["phrase", "The final answer is $\\frac12$. I hope it is correct.", "\\frac12"],
    ["phrase", "the answer is (C) because it rains", "(C)"],
    ["phrase", "So the answer is 3.5, since 7 / 2 = 3.5.", "3.5"],
    ["phrase", "**Answer:** (C)", "(C)"],
    ["phrase", "**Answer**: C", "C"],
    ["phrase", "Answer: C", "C"],
    ["phrase", "ANSWER : 42", "42"],
    ["phrase", "### Final Answer\n\n42 apples", "42 apples"],
    ["phrase", "**Final Answer**\n\\[ x = \\frac{1}{2} \\]", "x = \\frac{1}{2}"],
    ["phrase", "The answer is:\n$$\nx = 5.\n$$\nDone.", "x = 5"],
    ["phrase", "The correct answer to the question is option B.", "B"],
    ["phrase", "Thus the answer is = 5 dollars.", "5 dollars"],
    ["phrase", "The answer is $5. I paid $6.", "$5"],
    ["phrase", "The answer is $1,234.50 in all.", "$1,234.50 in all"],
    ["phrase", "The answer is $\\{1. 2\\}$.", "\\{1. 2\\}"],
    ["phrase", "The answers are $x=1$ and $x=2$.", "$x=1$ and $x=2$"],
    ["phrase", "The answer is $\\boxed{5}$.", "5"],
    ["phrase", "The answer is 1,000.", "1,000"],
    ["phrase", "The answer is 0.333...", "0.333..."],
    ["phrase", "The answer is **12**.", "12"],
    ["phrase", "The answer is −5 °C.", "−5 °C"],
    ["phrase", "The answer is 4! = 24 ways", "4! = 24 ways"],
    ["phrase", "The answer is $x = 5", "$x = 5"],
    ["phrase", "The solution is x = 5.", "x = 5"],
    ["phrase", "The answer is 4. Checking, the result is right.", "4"],
    ["phrase", "The answer is 4. No, the answer is 5.", "5"],
    ["phrase", "The answer is", undefined],
    ["phrase", "I cannot answer.", undefined],
    ["last-number", "I have 3, you have 4, so 7 in all.", "7"],
    ["last-number", "12 000 or 10,\\!080", "10,080"],
    ["last-number", "1{,}000.", "1,000"],
    ["last-number", "none", undefined],
    ["letter", "C", "C"],
    ["letter", "(c)", "c"],
    ["letter", "c", "c"],
    ["letter", "Because of this,\nD. Paris", "D"],
    ["letter", "\\boxed{\\text{(C)}}", "C"],
    ["letter", "$\\boxed{\\textbf{(B) }12}$", "B"],
    ["letter", "**Answer:** (C)", "C"],
    ["letter", "The answer is C: Paris", "C"],
    ["letter", "The answer is A because it fits", "A"],
    ["letter", "I would pick option B, not a dog", "B"],
    ["letter", "(A) is wrong, so (B) it is", "B"],
    ["letter", "Therefore, the answer is: e", "e"],
    ["letter", "A dog and I went", undefined],
    ["letter", "the answer is a dog", undefined],
    ["letter", "Paris", undefined],
    ["whole", "  blue whale \n", "blue whale"],
    ["whole", " \n", undefined],
  ])("%s of %j: %j", (strategy, response, text) =>
    expect(extract(response, strategy)).toEqual(text === undefined ? undefined : { text, strategy }),
  );

  test("of several strategies the first whose marker occurs decides, answer or not", () => {
    expect(extract("#### 9\nor \\boxed{8}", ["hashes", "boxed"])).toEqual({ text: "9", strategy: "hashes" });
    expect(extract("#### 9\nor \\boxed{8}", ["boxed", "hashes"])).toEqual({ text: "8", strategy: "boxed" });
    expect(extract("9\n####", ["hashes", "last-number"])).toBeUndefined();
    expect(extract("9", ["hashes", "last-number"])).toEqual({ text: "9", strategy: "last-number" });
    expect(extract("9", [])).toBeUndefined();
  });

  test.each<[string, string | undefined, string | undefined]>([
    ["#### 9 although \\boxed{8} and 7", "8", "boxed"],
    ["#### Step 2: add\nIt is 5 and 6, so 11 in all.", "11", "last-number"],
    ["#### Evelyn", "Evelyn", "hashes"],
    ["so 5\n#### 5", "5", "hashes"],
    ["<answer>3</answer> not \\boxed{4}", "3", "tag"],
    ["The answer is 5, as 2 + 3 = 5.", "5", "phrase"],
    ["We add 2 and 3, which gives 5.", "5", "last-number"],
    ["x^2 + 1", "x^2 + 1", "whole"],
    ["x=1 or x=2", "x=1 or x=2", "whole"],
    ["12 apples", "12 apples", "whole"],
    ["$\\frac{1}{2}$", "$\\frac{1}{2}$", "whole"],
    ["\\text{east}", "\\text{east}", "whole"],
    ["It cannot be known.", "It cannot be known.", "whole"],
    ["\\boxed{5}. Let me check: \\boxed{12", "5", "boxed"],
    ["5 + 7 gives 12 to me. So \\boxed{1", "12", "last-number"],
    ["we find the answer is 12. \\boxed{1", "12", "phrase"],
    ["5 + 7 is just 12 now\n####", "12", "last-number"],
    ["The answer is 5\n<answer>", "5", "phrase"],
    ["", undefined, undefined],
    [" \\boxed{", undefined, undefined],
  ])("auto of %j: %j by %s", (response, text, strategy) =>
    expect(extract(response)).toEqual(text === undefined ? undefined : { text, strategy }),
  );

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
          expect(extract(`so \\boxed{${content}} }`, "boxed")).toEqual({ text: content, strategy: "boxed" });
          expect(extract(`so \\boxed{${content}} } {\\boxed{`)).toEqual({ text: content, strategy: "boxed" });
        },
      ),
    );
  });

  test("reads whatever a model writes, and gives nothing empty", () => {
    const piece = fc.oneof(
      fc.constantFrom(
        "\\boxed{",
        "\\fbox",
        "{",
        "}",
        "\\{",
        "\\",
        "#### ",
        "<answer>",
        "</answer>",
        "$",
        "$$",
        "\\(",
        "\\]",
      ),
      fc.constantFrom(
        "The answer is ",
        "Answer:",
        "**",
        "\n",
        ". ",
        ", because ",
        "(C)",
        "C",
        "1,000",
        "5",
        "\\frac12",
        "π",
        "=",
      ),
      fc.string({ unit: "binary", maxLength: 5 }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        for (const strategy of STRATEGIES) {
          const found = extract(pieces.join(""), strategy);
          if (found !== undefined) expect(found.text.trim()).not.toBe("");
        }
      }),
      { numRuns: 2000 },
    );
  });

  test.skipIf(!existsSync(data))("finds the answer of published solutions (needs the published problem sets)", () => {
    const rows = (file: string) =>
      readFileSync(resolve(data, file), "utf8")
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as { solution: string; answer: string });
    const math = rows("math500/test.jsonl");
    const same = math.filter(({ solution, answer }) => extract(solution, "boxed")?.text === answer);
    expect(math.length).toBe(500);
    expect(same.length).toBe(500);
    for (const { solution } of math) expect(extract(solution)?.strategy).toBe("boxed");
    for (const { answer } of rows("gsm8k/test.jsonl")) {
      expect(extract(answer)).toEqual({ text: answer.split("####")[1].trim(), strategy: "hashes" });
    }
  });

  test("ends on 20 kB of anything", () => {
    const units = [
      "{",
      "}",
      "\\boxed{",
      "\\boxed",
      "\\boxed{}",
      "\\fbox ",
      "\\",
      "$",
      "$1 ",
      "####",
      "####\n",
      "<answer>",
      "answer is ",
      "answer to ",
      "answer:\n",
    ];
    const more = [
      "**",
      "*",
      ",",
      ". ",
      ".",
      " ",
      "\n",
      "1,",
      "(A)",
      "A",
      "a ",
      "= ",
      "the answer is $",
      "\\text{",
      "####a\n",
      "option ",
      "Therefore, the answer is",
      "\\,",
    ];
    for (const unit of [...units, ...more]) {
      const texts = [unit.repeat(20_000 / unit.length), `the answer is ${unit.repeat(20_000 / unit.length)}x`];
      for (const text of texts) {
        for (const strategy of STRATEGIES) extract(text, strategy);
        extractNumber(text);
      }
    }
  });
});

describe("extractNumber", () => {
  test.each([
    ["#### $18 in total, 3 a day", "$18", "hashes"],
    ["\\boxed{1} then \\boxed{x = 3 \\text{ cm}}", "3", "boxed"],
    ["\\boxed{\\text{about } 1{,}000}", "1,000", "boxed"],
    ["\\boxed{12\\,000}", "12,000", "boxed"],
    ["\\boxed{\\$5}", "$5", "boxed"],
    ["Adding gives 5.\nTherefore, the answer is: 5.0 and 6", "5.0", "reft"],
    ["...\n\nTherefore, the answer is <203>.", "203", "reft"],
    ["I have 3, you have 4, so 7 in all.", "7", "last-number"],
    ["#### 9 although \\boxed{8} and 7", "9", "hashes"],
  ])("%j gives %s by %s", (response, text, strategy) => {
    expect(extractNumber(response)).toEqual({ text, strategy });
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

  test("looks only for the strategies it is given", () => {
    expect(extractNumber("7\n\\boxed{8}", ["hashes"])).toBeUndefined();
    expect(extractNumber("7\n\\boxed{8} 9", "whole")).toEqual({ text: "9", strategy: "whole" });
  });

  test("the last marker counts, whatever stands before", () => {
    fc.assert(
      fc.property(fc.string(), fc.integer(), (noise, n) => {
        expect(extractNumber(`${noise}\n#### ${n}`)).toEqual({ text: String(n), strategy: "hashes" });
        const before = noise.replaceAll("#", "");
        expect(extractNumber(`${before} \\boxed{${n}}`)).toEqual({ text: String(n), strategy: "boxed" });
      }),
    );
  });
});

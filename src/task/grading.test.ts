import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ownAnswer, statedAnswers, withoutAnswers, withoutBoxes } from "./grading.ts";

const anywhere = { strict: [] };

describe("answers taken out of a text", () => {
  test.each([
    ["\\boxed{5}", "..."],
    ["\\boxed{\\boxed{5}}", "..."],
    ["$\\boxed{\\frac{5}{\\sqrt{5}}}$ it is", "$...$ it is"],
    ["\\boxed 5", "..."],
    ["\\boxed{5} and \\boxed{55}", "..."],
    ["Then \\boxed{5\nand on", "Then ...\nand on"],
    ["8 - 3\n#### 5", "8 - 3\n..."],
    ["####\n5\nmore", "...\nmore"],
    ["<answer>5</answer> more", "... more"],
    ["It is <answer>5", "It is ..."],
    ["Therefore, the answer is: 5", "..."],
    ["**Answer:** 5", "**..."],
    ["Answer = 5", "..."],
    ["So the answer is 5 because it rains.", "So the ... because it rains."],
    ["The answer to the question is 5.", "The ...."],
    ["The answer would be 5. Or the answer is 5.5.", "The .... Or the ...."],
    ["The result is 5. The answer is $\\boxed{5}$.", "The .... The ...."],
    ["The number of plums: 8 less 3.", "The number of plums: 8 less 3."],
  ])("%j", (text, left) => {
    expect(withoutAnswers(text)).toBe(left);
    expect(statedAnswers(left, anywhere)).toEqual([]);
  });

  test("whatever a text is made of, none is left", () => {
    const piece = fc.constantFrom(
      ..."\\boxed{ \\fbox{ \\boxed } { $ #### <answer> </answer> answer the is : = ** 5 12 because . would be".split(
        " ",
      ),
      "Therefore, the answer is",
      "result is",
      "\n",
      " ",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 16 }), (pieces) => {
        const left = withoutAnswers(pieces.join(""));
        expect(statedAnswers(left, anywhere)).toEqual([]);
        expect(withoutAnswers(left)).toBe(left);
        expect(left).not.toMatch(/\\boxed|\\fbox|####|<answer>/);
      }),
      { numRuns: 500 },
    );
  });

  test.each([
    ["8 - 3 = \\boxed{5}.", "8 - 3 = 5."],
    ["\\boxed{\\frac{8}{\\boxed{2}} = 4}", "\\frac{8}{2} = 4"],
    ["\\boxed{1} and \\fbox{2}", "1, 2"],
    ["no box", "no box"],
  ])("a box taken off: %j", (text, left) => expect(withoutBoxes(text)).toBe(left));
});

describe("answers that a text states", () => {
  test("a heading states none", () => {
    const hashes = { strict: ["hashes" as const] };
    expect(statedAnswers("#### Step 2\nAdd. The answer is 5.", hashes)).toEqual(["5"]);
    expect(statedAnswers("#### Step 2: add", hashes)).toEqual([]);
    expect(statedAnswers("#### 5", hashes)).toEqual(["5"]);
  });

  test("the task's own marker: no other, and no announcement of a mere result", () => {
    expect(ownAnswer("#### 5", { strict: ["hashes"] })).toBe("5");
    expect(ownAnswer("The answer is 5, \\boxed{5}", { strict: ["hashes"] })).toBeUndefined();
    expect(ownAnswer("It is \\boxed{5}", { strict: ["auto"] })).toBe("5");
    expect(ownAnswer("The answer is (B).", { strict: ["phrase"] })).toBe("(B)");
    expect(ownAnswer("## Final answer\nB", { strict: ["phrase"] })).toBe("B");
    expect(ownAnswer("The result is 12.", { strict: ["phrase"] })).toBeUndefined();
  });
});

import { describe, expect, test } from "vitest";
import { G2, validate } from "../tags/index.ts";
import { programSteps } from "./rftt-program.ts";

describe("gold chains by program", () => {
  const program = (chain: string, planted: boolean) => programSteps(chain, "#### 9", { key: "k", planted });

  test.each([
    "80/100 * 10 = 8",
    "10 - 3 + 5 = 12",
    "10 -3 + 3 = 0",
    "2 * (3 + 4 = 7)",
    "5 \\cdot 0 + 4 = 4",
    "5 x 0 + 4 = 4",
    "x^2 + 3 = 5",
    "a3 + 2 = 5",
    "3 + 5 = 8x",
    "3 + 5 = 8 * 2",
    "3 + 5 = 8 = 16 / 2",
    "1,200 + 300 = 500",
    "3 + 5 = 8,000",
    "3 + 5 = 9",
    "10 / 3 = 3.3",
  ])("no calculation of two numbers, or an untrue one: %s", (line) => {
    expect(program(`${line}\n#### 9`, true)).toBeUndefined();
    expect(program(`${line}\n#### 9`, false)).toBeUndefined();
  });

  test.each(["12 - 3 = 9", "So 48/2 = 24 clips.", "$0.1 + 0.2 = 0.3$, as said", "Total = -3 + 5 = 2"])(
    "a calculation: %s",
    (line) => expect(program(line, true)).toBeDefined(),
  );

  test("the mistake is planted in the calculation, not in what looks like it", () => {
    const steps = program("80/100 * 10 = 8 and 100 * 10 = 1000 in all", true);
    expect(steps?.[0].text).toMatch(/^80\/100 \* 10 = 8 and 100 [-+*] 10 = -?\d+ in all$/);
    expect(steps?.[0].text).not.toContain("= 1000");
  });

  test("boxes are taken off and what they hold stays; the last line goes where it states the answer", () => {
    const texts = (chain: string) => program(chain, false)?.map(({ text }) => text);
    const check = "12 - 3 is what the question asks for, and it is worked out right.";
    const working = "So \\boxed{\\frac{24}{2} = 12}.\n12 - 3 = \\boxed{9}";
    const lines = ["So \\frac{24}{2} = 12.", "12 - 3 = 9", check, "#### 9"];
    expect(texts(working)).toEqual(lines);
    for (const last of ["#### 9", "$\\boxed{9}$.", "The answer is 9.", "<answer>9</answer>"]) {
      expect(texts(`${working}\n${last}`)).toEqual(lines);
    }
  });

  test("a planted mistake is out of the loss, named, and mended; the answer is stated in the output alone", () => {
    const chain = "8 + 4 = 12\n12 - 3 = 9\n#### 9";
    for (let i = 0; i < 40; i++) {
      const steps = programSteps(chain, "#### 9", { key: `k${i}`, planted: true });
      expect(steps).toBeDefined();
      if (steps === undefined) return;
      expect(validate(steps, G2)).toBeUndefined();
      const wrong = steps.findIndex(({ learned }) => !learned);
      expect(steps.filter(({ learned }) => !learned)).toHaveLength(1);
      expect(
        steps
          .slice(wrong + 1)
          .map(({ fn }) => fn)
          .slice(0, 2),
      ).toEqual(["verify", "refine"]);
      const lines = ["8 + 4 = 12", "12 - 3 = 9"];
      expect(lines).toContain(steps[wrong + 2].text);
      expect(lines).not.toContain(steps[wrong].text);
      expect(steps[wrong + 1].text).toMatch(/^The mistake is/);
    }
    const holding = programSteps(chain, "#### 9", { key: "k", planted: false });
    expect(holding?.map(({ fn }) => fn)).toEqual(["next_step", "next_step", "verify", "output"]);
    expect(programSteps("No numbers here.", "#### 9", { key: "k", planted: true })).toBeUndefined();
  });
});

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { UserError } from "../../errors.ts";
import { MODES, modeNamed, modes } from "./index.ts";
import { float } from "./python.ts";
import { equivalentReference, lastBoxed, normaliseReference, removeBoxed } from "./reference.ts";

// What Python says about generated strings (test/fixtures/scripts/make_grade_modes.py).
const text = z.string().nullable();
const python = z
  .object({
    normal: z.array(z.tuple([z.string(), text])),
    pairs: z.array(z.tuple([z.string(), z.string(), z.number()])),
    boxes: z.array(z.tuple([z.string(), text, text])),
    floats: z.array(z.tuple([z.string(), z.union([z.number(), z.enum(["inf", "-inf", "nan"]), z.null()])])),
    modes: z.array(z.enum(Object.keys(modes) as [keyof typeof modes])),
    responses: z.array(z.tuple([z.string(), z.string(), z.array(z.number())])),
  })
  .parse(
    JSON.parse(
      gunzipSync(readFileSync(join(import.meta.dirname, "../../../test/fixtures/grade/modes.json.gz"))).toString(),
    ),
  );

const normalOrNull = (answer: string): string | null => {
  try {
    return normaliseReference(answer);
  } catch {
    return null;
  }
};

describe("the reference's equivalence", () => {
  test.each([
    ["\\dfrac12", "\\frac{1}{2}"],
    ["-1/2", "\\frac{-1}{2}"],
    ["-0.5", "-0.5"],
    [".5", "\\frac{1}{2}"],
    ["\\left(3,\\frac\\pi2\\right)", "(3,\\frac{\\}{p}i2)"],
    ["x = 5", "5"],
    ["xyz=5", "xyz=5"],
    ["12\\text{ cm}", "12"],
    ["\\text{A}", "\\text{A}"],
    ["\\frac{1}2", "\\frac{1}2"],
    ["2 .5", "20.5"],
    ["{.5}", "{0.5}"],
  ])("%s is normalised to %s", (input, normal) => expect(normaliseReference(input)).toBe(normal));

  test.each([
    ["0.5", "\\frac{1}{2}", true],
    ["-1/2", "-\\frac{1}{2}", false],
    ["1,000", "1000", false],
    ["3.0", "3", false],
    ["50\\%", "50", true],
    ["50%", "50", false],
    ["$5$", "5", false],
    ["02", "2", false],
    ["\\text{A}", "A", false],
    ["(1, 2)", "(1,2)", true],
    [undefined, undefined, true],
    [undefined, "1", false],
    ["\\sqrt", "\\sqrt", true],
  ])("%s and %s: %s", (a, b, equal) => expect(equivalentReference(a, b)).toBe(equal));

  test.each([
    ["\\boxed 7", undefined, undefined],
    ["\\boxed{7", undefined, undefined],
    ["\\fbox{3}", "\\fbox{3}", undefined],
    ["\\boxed{}", "\\boxed{}", ""],
    ["\\boxed{1} \\boxed{\\frac{1}{2}}.", "\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"],
  ])("the box of %s", (response, box, content) => {
    expect(lastBoxed(response)).toBe(box);
    expect(removeBoxed(lastBoxed(response))).toBe(content);
  });

  test("is Python's on generated strings", () => {
    for (const [answer, normal] of python.normal) expect([answer, normalOrNull(answer)]).toEqual([answer, normal]);
    for (const [a, b, equal] of python.pairs) expect([a, b, equivalentReference(a, b)]).toEqual([a, b, equal === 1]);
    for (const [response, box, content] of python.boxes) {
      const found = lastBoxed(response);
      expect([response, found ?? null, removeBoxed(found) ?? null]).toEqual([response, box, content]);
    }
  });
});

describe("Python's float", () => {
  test.each([
    [" 5 ", 5],
    ["1_000.5", 1000.5],
    ["1__0", null],
    ["_1", null],
    ["1_", null],
    ["1_e5", null],
    [".5", 0.5],
    ["5.", 5],
    [".", null],
    ["", null],
    ["-Infinity", -Infinity],
    ["+nan", Number.NaN],
    ["1e400", Infinity],
    ["1,000", null],
    ["$5", null],
    ["50%", null],
    ["0x10", null],
    ["٣٤", 34],
    ["²", null],
    ["\u00855\u3000", 5],
    ["\u001c5", null],
    ["\ufeff5", null],
    ["203.0", 203],
  ])("%j gives %s", (input, value) => expect(float(input)).toBe(value));

  test("is Python's on generated strings", () => {
    expect(python.floats.length).toBeGreaterThan(5000);
    for (const [input, value] of python.floats) {
      const expected = value === "inf" ? Infinity : value === "-inf" ? -Infinity : value === "nan" ? Number.NaN : value;
      expect([input, float(input)]).toEqual([input, expected]);
    }
  });
});

describe("the named modes", () => {
  test("give Python's verdicts on generated responses", () => {
    expect(new Set(python.modes)).toEqual(new Set(MODES));
    for (const [gold, response, verdicts] of python.responses) {
      const ours = python.modes.map((name) => Number(modes[name].equal(gold, modes[name].extract(response))));
      expect([gold, response, ours]).toEqual([gold, response, verdicts]);
    }
    // Each mode says yes and no often enough for the comparison to mean something.
    for (let i = 0; i < python.modes.length; i++) {
      const yes = python.responses.filter(([, , verdicts]) => verdicts[i] === 1).length;
      expect(yes).toBeGreaterThan(100);
      expect(python.responses.length - yes).toBeGreaterThan(100);
    }
  });

  test.each<[keyof typeof modes, string, string, boolean]>([
    ["reft-gsm8k", "1,234", "...\nTherefore, the answer is: 1234.0", true],
    ["reft-gsm8k", "1234", "...\nTherefore, the answer is: 1,234", false],
    ["reft-gsm8k", "5", "...\nTherefore, the answer is: 5.01", true],
    ["reft-gsm8k", "5", "...\nTherefore, the answer is: 5.011", false],
    ["reft-gsm8k", "5", "5", true],
    ["reft-gsm8k", "5", "Therefore, the answer is: 5", false],
    ["reft-gsm8k", "5", "\nTherefore, the answer is: 5", false],
    ["reft-mathqa-numeric", "1,234", "...\nTherefore, the answer is: 1234", false],
    ["reft-mathqa", "c", "...\nTherefore, the answer is: 'C'", true],
    ["reft-mathqa", "c", "...\nTherefore, the answer is: (c)", false],
    ["motif-math", "5", "\\boxed{5}", true],
    ["motif-math", "5", "\\boxed{5.0}", false],
    ["motif-aime", "104", "1104", true],
    ["motif-aime", "025", "25", false],
    ["motif-answer", "5", "<answer>5</answer> \\boxed{5}", false],
    ["motif-answer", "5", "\\boxed{5}", true],
  ])("%s of %j on %j: %s", (name, gold, response, equal) =>
    expect(modes[name].equal(gold, modes[name].extract(response))).toBe(equal),
  );

  test("an unknown mode is refused with the nearest name", () => {
    expect(modeNamed("reference")).toBe(modes.reference);
    expect(() => modeNamed("refrence")).toThrow(UserError);
    expect(() => modeNamed("refrence")).toThrow('found "refrence"; did you mean reference?');
    expect(() => modeNamed("toString")).toThrow("expected a grading mode (reference, reft-gsm8k");
  });
});

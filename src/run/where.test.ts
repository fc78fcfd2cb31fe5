import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UserError } from "../errors.ts";
import { parseWhere } from "./where.ts";

const operators = {
  "<": (a: number, b: number) => a < b,
  "<=": (a: number, b: number) => a <= b,
  ">": (a: number, b: number) => a > b,
  ">=": (a: number, b: number) => a >= b,
};
const operator = fc.constantFrom<keyof typeof operators>("<", "<=", ">", ">=");
const share = fc.integer({ min: 0, max: 100 }).map((n) => n / 100);
const blank = fc.constantFrom("", " ", "  ", "\t");

/** Numbers and `solved` in turn. */
const chain = fc
  .tuple(fc.boolean(), fc.array(fc.tuple(operator, share), { minLength: 1, maxLength: 4 }), share)
  .map(([solvedFirst, rest, first]) => {
    const operands: (number | "solved")[] = [solvedFirst ? "solved" : first];
    for (const [, value] of rest) operands.push(operands.at(-1) === "solved" ? value : "solved");
    return { operands, signs: rest.map(([sign]) => sign) };
  });

describe("where", () => {
  test("means what its comparisons say, whatever the blanks", () => {
    fc.assert(
      fc.property(
        fc.array(chain, { minLength: 1, maxLength: 3 }),
        blank,
        fc.integer({ min: 0, max: 8 }),
        (chains, gap, k) => {
          const text = chains
            .map(({ operands, signs }) =>
              operands.map((one, i) => (i === 0 ? `${one}` : `${gap}${signs[i - 1]}${gap}${one}`)).join(""),
            )
            .join(" and ");
          const solved = k / 8;
          const value = (one: number | "solved") => (one === "solved" ? solved : one);
          const expected = chains.every(({ operands, signs }) =>
            signs.every((sign, i) => operators[sign](value(operands[i]), value(operands[i + 1]))),
          );
          expect(parseWhere(text)(solved)).toBe(expected);
        },
      ),
    );
  });

  test("any other text is a mistake in one line that names a column of it", () => {
    const piece = fc.constantFrom(
      "solved",
      "0.1",
      "1",
      "7",
      "<",
      "<=",
      ">",
      "and",
      "or",
      "=",
      "(",
      "solve",
      "é",
      " ",
      "-",
      ".",
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(piece, { maxLength: 8 }).map((all) => all.join(" ")),
        ),
        (text) => {
          try {
            expect(typeof parseWhere(text)(0.5)).toBe("boolean");
            expect(text).toMatch(/solved/);
          } catch (error) {
            expect(error).toBeInstanceOf(UserError);
            const message = error instanceof Error ? error.message : "";
            expect(message).not.toContain("\n");
            const column = Number(/, column (\d+): expected/.exec(message)?.[1]);
            expect(column).toBeGreaterThanOrEqual(1);
            expect(column).toBeLessThanOrEqual(text.length + 1);
          }
        },
      ),
      { numRuns: 1000 },
    );
  });

  test("a rate is the number that stands there", () => {
    for (let n = 1; n <= 20; n++) {
      for (let k = 0; k <= n; k++) {
        const text = String(k / n);
        if (text.includes("e")) continue;
        expect(parseWhere(`solved <= ${text}`)(k / n)).toBe(true);
        expect(parseWhere(`${text} < solved`)(k / n)).toBe(false);
      }
    }
  });

  test.each([
    ["", 1, "expected `solved` or a number from 0 to 1, found the end"],
    ["solved", 7, "expected <, <=, > or >=, found the end"],
    ["0.1 < solved <", 15, "expected `solved` or a number from 0 to 1, found the end"],
    ["0.1 < solve < 0.9", 7, "(did you mean `solved`?), found `solve`"],
    ["10 < solved", 1, "expected a share from 0 to 1, found `10`"],
    ["0.1 < 0.2", 7, "expected a comparison between `solved` and a number, found `0.2`"],
    ["solved > solved", 10, "expected a comparison between"],
    ["solved =< 0.9", 8, "(did you mean `<=`?), found `=<`"],
    ["solved == 0.5", 8, "a rate is compared with two bounds, found `==`"],
    ["solved > 0 && solved < 1", 12, "(did you mean `and`?), found `&&`"],
    ["solved > 0 or solved < 1", 12, "alternatives cannot be named, found `or`"],
    ["solved > 0 and", 15, "found the end"],
    ["solved > -1", 10, "found `-`"],
  ])("%s", (text, column, message) => {
    expect(() => parseWhere(text)).toThrow(`${JSON.stringify(text)}, column ${column}: `);
    expect(() => parseWhere(text)).toThrow(message);
  });
});

import { describe, expect, test } from "vitest";
import { type Ended, startRifft } from "./helpers/cli.ts";

/** `rifft grade` with these lines on its standard input. */
function gradeLines(lines: string[], ...args: string[]): Promise<Ended> {
  const { child, end } = startRifft(["grade", ...args]);
  child.stdin?.end(lines.map((line) => `${line}\n`).join(""));
  return end;
}

const parse = (text: string): unknown[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as unknown);

describe("rifft grade", () => {
  test("one line for each pair", async () => {
    const ended = await gradeLines([
      JSON.stringify({ gold: "18", pred: "She makes \\boxed{\\$18.00} a day." }),
      "",
      JSON.stringify({ gold: ["\\frac12", "2"], pred: "0.5" }),
      JSON.stringify({ gold: "3", pred: "#### 4" }),
    ]);
    expect(ended.stderr).toBe("");
    expect(parse(ended.stdout)).toEqual([
      { equal: true, verdict: "equal", extracted: "\\$18.00", rule: "number" },
      { equal: true, verdict: "equal", extracted: "0.5", rule: "number" },
      { equal: false, verdict: "different", extracted: "4", rule: "number" },
    ]);
    expect(ended.code).toBe(0);
  });

  test("--explain shows both readings and the reason", async () => {
    const ended = await gradeLines([JSON.stringify({ gold: "x(x+1)", pred: "\\boxed{x^2+x}" })], "--explain");
    expect(parse(ended.stdout)).toEqual([
      {
        equal: true,
        verdict: "equal",
        extracted: "x^2+x",
        rule: "algebra",
        strategy: "boxed",
        reason: "the same canonical form",
        forms: { gold: "x*(x + 1)", answer: "x^2 + x" },
        strict: { equal: true, extracted: "x^2+x" },
      },
    ]);
  });

  test.each([
    ['{"gold": "1"', /^error: line 2 of standard input is not JSON/],
    ['{"gold": "1"}', /^error: line 2 of standard input: "pred"/],
    ['{"gold": 1, "pred": "1"}', /^error: line 2 of standard input: "gold"/],
  ])("%s is an error that names its line", async (line, message) => {
    const ended = await gradeLines(['{"gold": "1", "pred": "1"}', line]);
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(ended.code).toBe(1);
  });
});

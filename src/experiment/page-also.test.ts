import { expect, test } from "vitest";
import type { AlsoAt } from "./also.ts";
import type { Analysis } from "./analyse.ts";
import { parseExperiment } from "./file.ts";
import { alsoSection } from "./page-also.ts";

const experiment = parseExperiment(
  `title = "t"
recipe = "r.toml"
budgets = { generatedTokens = 10 }
final = { seeds = [0, 1] }
${["plain", "rounds", "other"]
  .map((name) => `[[arm]]\nname = "${name}"\n${name === "other" ? "" : 'group = "words"'}`)
  .join("\n")}
[[contrast]]
a = "plain"
b = "rounds"
budget = "generatedTokens"
`,
  { source: "x.toml", baseDir: "/" },
);

const seeds = [
  { seed: 0, accuracy: 0.4 },
  { seed: 1, accuracy: 0.6 },
];
const around = { low: 0.25, high: 0.75 };
const asked = (name: string, arm: string, rest: Partial<AlsoAt> = {}): AlsoAt => ({
  name,
  arm,
  at: "end",
  seeds,
  accuracy: 0.5,
  interval: around,
  tokensPerProblem: 25,
  generated: 1000,
  prefilled: 10,
  ...rest,
});
const cost = { counts: { generated: 0, prefilled: 0, scored: 0, trained: 0 }, engineSeconds: 0 };
const equal: AlsoAt["equal"] = { tokens: 90, k: [2, 3], accuracy: 0.7, interval: around, tokensPerProblem: 88 };
const analysis: Pick<Analysis, "also" | "arms"> = {
  also: [
    asked("one plain sample", "rounds"),
    asked("votes", "plain", { majority: 0.55, majorityInterval: around }),
    asked("within 90 tokens", "rounds", { equal }),
    asked("the warm-up", "plain", { at: "start" }),
  ],
  arms: [
    { arm: "plain", budget: "generatedTokens", seeds, mean: 0.5, interval: around, cost, steps: 1 },
    { arm: "plain", budget: "engineSeconds", seeds, mean: 0.8, interval: around, cost, steps: 1 },
  ],
};

test("a row an arm of a group, a column a way of asking: votes, budgets of tokens, and nothing of the start", () => {
  const [title, , sideBySide, whole, ...rest] = alsoSection(experiment, analysis);
  expect(title).toBe("## Also measured");
  expect(rest).toEqual([]);
  expect(sideBySide.split("\n")).toEqual([
    "| words | its own way, at the last mark | one plain sample | votes | within 90 tokens |",
    "| --- | --- | --- | --- | --- |",
    "| plain | 80.0 [25.0, 75.0], engine seconds |  | 55.0 [25.0, 75.0] (25 tokens) |  |",
    "| rounds |  | 50.0 [25.0, 75.0] (25 tokens) |  | 70.0 [25.0, 75.0] (2 to 3 samples, 88 tokens) |",
  ]);
  expect(whole.split("\n")[5]).toBe(
    "| the warm-up | plain, before its last stage | 50.0 [25.0, 75.0] | 40.0 60.0 |  |  | 25 | 1,000 | 10 |",
  );
  expect(alsoSection(experiment, { ...analysis, also: [] })).toEqual([]);
});

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
const analysis: Pick<Analysis, "also" | "arms" | "searches"> = {
  searches: [],
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

test("a search has a table by rollouts, with what more of them are worth", () => {
  const spread = { mean: 0.125, tInterval: { low: 0.05, high: 0.2 }, twoWay: { low: -0.01, high: 0.26 } };
  const searches: Analysis["searches"] = [
    {
      name: "search",
      arm: "plain",
      seeds: 2,
      rollouts: [
        { r: 1, accuracy: 0.5, interval: around, oracle: 0.5, tokens: 20 },
        { r: 2, accuracy: 0.625, interval: around, oracle: 0.75, tokens: 1030 },
      ],
      gain: spread,
      slope: spread,
    },
  ];
  const [rows, said] = alsoSection(experiment, { ...analysis, searches }).slice(4);
  expect(rows.split("\n").slice(2)).toEqual([
    "| 1 | 50.0 [25.0, 75.0] | 50.0 | 20 |",
    "| 2 | 62.5 [25.0, 75.0] | 75.0 | 1,030 |",
  ]);
  expect(said).toBe(
    "2 rollouts over 1: 12.5 points [5.0 to 20.0] over seeds, [-1.0 to 26.0] over seeds and problems. A doubling of the rollouts (least squares over log2 r): 12.5 points [5.0 to 20.0] over seeds, [-1.0 to 26.0] over seeds and problems.",
  );
});

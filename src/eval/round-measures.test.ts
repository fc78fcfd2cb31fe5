import { expect, test } from "vitest";
import { scriptedModel } from "../../test/scripted-model.ts";
import { parseStrict } from "../strict.ts";
import { loadTask } from "../task/load.ts";
import { regradeSample } from "./regrade.ts";
import { type EvaluationSettings, reportOf } from "./report.ts";
import { evaluateInRounds } from "./rounds.ts";
import { type EarlierRound, type EvaluatedSample, evaluatedSampleSchema, responsesOf } from "./samples.ts";
import { reportText } from "./table.ts";

const settings: EvaluationSettings = {
  task: "t",
  mode: "math",
  strict: ["hashes"],
  flexible: ["auto"],
  n: 1,
  rounds: { rounds: 3, adaptive: true, style: "default" },
};
const grade = (right: boolean) => ({ verdict: right ? ("equal" as const) : ("different" as const), rule: "", reason: "" }); // prettier-ignore
const response = (right: boolean, tokens: number) => ({
  text: right ? "#### 7" : "#### 8",
  tokens: new Array<number>(tokens).fill(1),
  logprobs: new Array<number>(tokens).fill(-1),
  stop: "eos" as const,
  strict: grade(right),
  flexible: grade(right),
});

/** A sample whose rounds are right or not, with these tokens of response; prompts of 10, 11, ... */
function sampleOf(problem: string, rounds: [boolean, number][], sample = 0): EvaluatedSample {
  const all = rounds.map(([right, tokens], i): EarlierRound => ({ ...response(right, tokens), prompt: 10 + i }));
  const last = all[all.length - 1];
  const solved = last.strict.verdict === "equal";
  return { problem, sample, gold: "7", ...last, rounds: all.slice(0, -1), reward: Number(solved), parts: {}, solved };
}

const value = (samples: EvaluatedSample[], name: string, round?: number) =>
  reportOf(settings, samples).measures.find((m) => m.name === name && m.round === round && m.grading !== "flexible")?.value; // prettier-ignore

const samples = [
  sampleOf("a", [[true, 3]]), // ended in round 1
  sampleOf("b", [[false, 2], [true, 4]]), // prettier-ignore
  sampleOf("c", [[true, 1], [false, 1], [false, 5]]), // prettier-ignore
  sampleOf("d", [[false, 2], [false, 2], [true, 2]]), // prettier-ignore
];

test("accuracy by round: a question that ended keeps its answer, and an answer may be lost", () => {
  expect([1, 2, 3].map((round) => value(samples, "round accuracy", round))).toEqual([0.5, 0.5, 0.75]);
  expect(value(samples, "accuracy")).toBe(0.75);
  // Of a, b and d, which are right at the end, a was so at once.
  expect(value(samples, "right from round 1")).toBeCloseTo(1 / 3, 12);
});

test("tokens of all rounds, of each round, of the prompts; rounds taken", () => {
  expect(value(samples, "tokens")).toBe((3 + 6 + 7 + 6) / 4);
  expect([1, 2, 3].map((round) => value(samples, "round tokens", round))).toEqual([2, 7 / 4, 7 / 4]);
  expect(value(samples, "prompt tokens")).toBe((10 + 21 + 33 + 33) / 4);
  expect(value(samples, "rounds")).toBe((1 + 2 + 3 + 3) / 4);
});

test("samples of a problem share its first prompt; a cut response of any round counts as truncated", () => {
  const two = [sampleOf("a", [[false, 2], [true, 4]]), sampleOf("a", [[false, 2], [true, 4]], 1)]; // prettier-ignore
  expect(value(two, "prompt tokens")).toBe(10 + 11 + 11);
  expect(value(two, "truncated")).toBe(0);
  const [first] = two;
  const cut = { ...first, rounds: first.rounds?.map((round) => ({ ...round, stop: "length" as const })) };
  expect(value([cut, two[1]], "truncated")).toBe(0.5);
});

test("steps by round, as the task counts them, until a response ends its question", async () => {
  // Two steps, none that is stated, back by one, the answer; the answer at once; nothing at all.
  const said: Record<string, string[]> = {
    "11 + 12 + 13": [">c023", "junk", ">b011", "#### 036", "#### 036"],
    "11 + 12 + 14": ["#### 037", "#### 037", "#### 037", "#### 037", "#### 037"],
    "11 + 12 + 15": ["", "", "", "", ""],
  };
  const problems = Object.keys(said).map((question) => ({
    id: question,
    prompt: { text: "" },
    question,
    answer: "36",
  }));
  const rounds = { rounds: 5, adaptive: false, style: "default" as const };
  const { model } = scriptedModel((prompt) => {
    const numbers = [...prompt.matchAll(/(?<!>)[a-c](\d\d)/g)].map(([, number]) => number).join(" + ");
    return said[numbers]["EDCBA".indexOf(prompt[0])];
  });
  const task = await loadTask("lists", { baseDir: ".", seed: 0 });
  const samples = await evaluateInRounds(problems, rounds, { model, task, maxTokens: 60, temperature: 0 });
  await task.close();
  expect(samples.map((sample) => responsesOf(sample).map(({ added }) => added))).toEqual([
    [2, 0, -1, 2, undefined],
    [3, undefined, undefined, undefined, undefined],
    [0, 0, 0, 0, 0],
  ]);
  const report = reportOf({ ...settings, rounds }, samples);
  const steps = report.measures.flatMap(({ name, round, value }) => (name === "round steps" ? [[round, value]] : []));
  expect(steps).toEqual([[1, 5 / 3], [2, 0], [3, -0.5], [4, 1], [5, 0]]); // prettier-ignore
  expect(reportText(report, 80)).toMatch(/steps in round 1 +1\.67 \[/);
  // A samples file holds them.
  const lines = samples.map((sample) => parseStrict(evaluatedSampleSchema, JSON.parse(JSON.stringify(sample)), "line"));
  expect(lines.map((sample) => regradeSample(sample, { strict: ["hashes"] }).rounds?.[0].added)).toEqual([2, 3, 0]);
});

test("nothing of this where questions were answered in one go", () => {
  const { rounds: _, prompt: __, ...one } = sampleOf("a", [[true, 3]]);
  const names = reportOf({ ...settings, rounds: undefined }, [one]).measures.map(({ name }) => name);
  expect(new Set(names)).toEqual(new Set(["accuracy", "truncated", "tokens"]));
});

test("graded again, every round is", () => {
  const wrong = sampleOf("a", [[false, 2], [false, 2]]); // prettier-ignore
  const again = regradeSample({ ...wrong, gold: "8" }, { mode: "math", strict: ["hashes"] });
  expect([again.rounds?.[0].strict.verdict, again.strict.verdict, again.reward]).toEqual(["equal", "equal", 1]);
});

test("the report in words, within the width", () => {
  const text = reportText(reportOf(settings, samples), 80);
  expect(text).toContain("at most 3 rounds, ended by a final answer");
  expect(text).toMatch(/right after round 3 +75\.0 %/);
  expect(text).toMatch(/rounds a sample +2\.25/);
  for (const width of [40, 80]) {
    const lines = reportText(reportOf(settings, samples), width).split("\n");
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(width);
  }
});

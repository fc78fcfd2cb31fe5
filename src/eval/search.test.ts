import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LocalEngine } from "../engine/local/index.ts";
import type { Model } from "../engine/types.ts";
import { taggedModel } from "../rollout/testing.ts";
import { measure, type MeasureOptions } from "../run/measure.ts";
import { createTask } from "../task/create.ts";
import type { Fn } from "../tags/index.ts";
import type { Problem } from "../task/types.ts";
import { evaluate } from "./evaluate.ts";
import { gradingSettings, reportOf } from "./report.ts";
import { readSamples, type EvaluatedSample } from "./samples.ts";
import { chosenRollout, rightAfter, tokensAfter } from "./search-measures.ts";
import { reportText } from "./table.ts";
import { type EvaluationSearch, evaluationSearch } from "./searched.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());
let model: Model;
beforeAll(async () => {
  model = await taggedModel(engine);
});

const texts = ["ab", "c", "dd", "ba", "cc", "d"];
const problemsWith = (gold: (i: number) => number, count = texts.length): Problem[] =>
  Array.from({ length: count }, (_, i) => ({
    id: `p${i}`,
    prompt: { text: `${texts[i % texts.length]}${"ab".repeat(i % 3)}?` },
    answer: `${gold(i)}`,
  }));
const taskOf = (test: Problem[]) => createTask({ name: "t", splits: { test }, grading: { strict: ["hashes"] } });
const consistency: EvaluationSearch = { value: "consistency", texts: 1 };
const run = (problems: Problem[], search: EvaluationSearch, n = 8, without: Fn[] = []) =>
  evaluate({
    model,
    tokenizer: model.tokenizer,
    task: taskOf(problems),
    problems,
    maxTokens: 60,
    temperature: 1,
    n,
    search,
    without,
  });

describe("search without the gold", () => {
  test("the gold changes verdicts and nothing else", async () => {
    for (const value of ["consistency", "likelihood"]) {
      const search = { ...consistency, value };
      const [ones, twos] = [
        await run(
          problemsWith(() => 1),
          search,
        ),
        await run(
          problemsWith(() => 2),
          search,
        ),
      ];
      const drawn = (samples: EvaluatedSample[]) => samples.map(({ tokens, search: found }) => ({ tokens, found }));
      expect(drawn(ones)).toEqual(drawn(twos));
      expect(ones.map(({ solved }) => solved)).not.toEqual(twos.map(({ solved }) => solved));
      expect(ones.some(({ solved }) => solved)).toBe(true);
    }
  });

  test("the first rollouts of a search are a search of fewer", async () => {
    const problems = problemsWith(() => 1);
    const [eight, three] = [await run(problems, consistency, 8), await run(problems, consistency, 3)];
    expect(eight.filter(({ sample }) => sample < 3)).toEqual(three);
  });

  test("functions that are left out begin no step", async () => {
    const samples = await run(
      problemsWith(() => 1),
      consistency,
      8,
      ["analysis", "refine"],
    );
    // A model may still write the tag inside of a step, which ends the path there.
    for (const { text } of samples) expect(text).not.toMatch(/<(analysis|refine)>./);
    expect(
      (
        await run(
          problemsWith(() => 1),
          consistency,
        )
      ).some(({ text }) => text.includes("<analysis>d") || text.includes("<analysis>a")),
    ).toBe(true);
  });

  test("functions that are left out begin no block of a plain sample either", async () => {
    const plain = (without: Fn[]) =>
      evaluate({ model, tokenizer: model.tokenizer, ...asked, maxTokens: 40, temperature: 1, n: 20, without });
    const problems = problemsWith(() => 1);
    const asked = { task: taskOf(problems), problems };
    const text = async (without: Fn[]) => (await plain(without)).map((sample) => sample.text).join("\n");
    expect(await text([])).toMatch(/<next_step>.*<verify>/);
    const masked = await text(["verify", "refine"]);
    expect(masked).not.toMatch(/<(verify|refine)>/);
    expect(masked).toMatch(/<next_step>.*<output>/);
    expect(() => evaluationSearch({ without: ["output"] }, (key) => key)).toThrow(
      /without output .*leave fewer functions out/,
    );
    const untagged = await engine.create({ base: "tiny", train: "none", vocabulary: ["a"], seed: 1 });
    const options = { model: untagged, tokenizer: untagged.tokenizer, ...asked, maxTokens: 4, temperature: 1 };
    await expect(evaluate({ ...options, without: ["verify"] })).rejects.toThrow(
      'the model has no token <clarify>: `without` leaves functions out, which are single tokens; train the model with functions = "tokens"',
    );
  });

  test("a task with a reward of its own is refused, and so is one without answers to compare", async () => {
    const problems = problemsWith(() => 1);
    const own = createTask({ name: "own", splits: { test: problems }, reward: () => 1 });
    const options = { model, tokenizer: model.tokenizer, task: own, problems, maxTokens: 60, temperature: 1 };
    await expect(evaluate({ ...options, n: 2, search: consistency })).rejects.toThrow(/reward of its own/);
  });

  test("tokens that rollouts share count once", async () => {
    const samples = await run(
      problemsWith(() => 1),
      consistency,
    );
    const first = samples.slice(0, 8);
    expect(tokensAfter(first, 1)).toBe(first[0].tokens.length);
    expect(tokensAfter(first, 8)).toBeLessThan(first.reduce((sum, { tokens }) => sum + tokens.length, 0));
    const paths = new Map(first.map(({ search, tokens }) => [search?.node, tokens.join()]));
    expect(new Set(paths.values()).size).toBe(paths.size);
  });
});

describe("votes", () => {
  const sample = (answer: string | undefined, weight: number, right = false): EvaluatedSample => ({
    problem: "p",
    sample: 0,
    gold: "1",
    text: "",
    tokens: [1, 2],
    logprobs: [0, 0],
    stop: "stop",
    strict: { answer, verdict: right ? "equal" : "different", rule: "", reason: "" },
    reward: 0,
    parts: {},
    solved: right,
    search: { node: 1, end: "output", weight, fresh: 1 },
  });
  const samples = [
    sample("2", 0.1),
    sample(undefined, 0.9),
    sample("1", 0.9, true),
    sample("2.0", 0.2),
    sample("1", 0.5, true),
  ];

  test("equal answers share their votes; the weights decide, or the rollouts alone", () => {
    expect(chosenRollout(samples, 4, "maj", "math")).toBe(0);
    expect(chosenRollout(samples, 4, "vote", "math")).toBe(2);
    // Two against two: the higher mean weight.
    expect(chosenRollout(samples, 5, "maj", "math")).toBe(2);
    // One against one of equal weight: the earlier.
    expect(chosenRollout([sample("3", 1), sample("4", 1)], 2, "vote", "math")).toBe(0);
    expect(chosenRollout([sample(undefined, 1)], 1, "vote", "math")).toBeUndefined();
  });

  test("a path that was cut off states no answer, whatever its text says", () => {
    const cut = { ...sample("1", 1, true), search: { node: 2, end: "length", weight: 1, fresh: 1 } };
    expect(chosenRollout([cut, sample("2", 0.1)], 2, "vote", "math")).toBe(1);
    expect(rightAfter("oracle@r", [cut, sample("2", 0.1)], 2, "math")).toBe(false);
    expect(rightAfter("vote@r", [cut], 1, "math")).toBe(false);
  });

  test("right after the first rollouts", () => {
    const at = (measure: "maj@r" | "vote@r" | "oracle@r") =>
      [1, 2, 3, 4, 5].map((r) => rightAfter(measure, samples, r, "math"));
    expect(at("oracle@r")).toEqual([false, false, true, true, true]);
    expect(at("maj@r")).toEqual([false, false, true, false, true]);
    expect(at("vote@r")).toEqual([false, false, true, true, true]);
  });
});

describe("a search beside plain samples", () => {
  const search = (problem: string, answers: (string | undefined)[], fresh: number): EvaluatedSample[] =>
    answers.map((answer, sample) => ({
      ...made(problem, sample, answer),
      search: { node: sample, end: "output", weight: 1, fresh },
    }));
  const plain = (problem: string, answers: (string | undefined)[], tokens: number): EvaluatedSample[] =>
    answers.map((answer, sample) => ({ ...made(problem, sample, answer), tokens: Array<number>(tokens).fill(1) }));
  const made = (problem: string, sample: number, answer: string | undefined): EvaluatedSample => ({
    problem,
    sample,
    gold: "1",
    text: "",
    tokens: [],
    logprobs: [],
    stop: "stop",
    strict: { answer, verdict: answer === "1" ? "equal" : "different", rule: "", reason: "" },
    reward: 0,
    parts: {},
    solved: answer === "1",
  });
  // Of 4 rollouts: wrong at first, right from the third on; right all along; never right.
  const searched = [
    ...search("a", ["2", undefined, "1", "1"], 10),
    ...search("b", ["1", "1", "3", "1"], 20),
    ...search("c", [undefined, "2", "2", "3"], 30),
  ];
  const settings = { task: "t", mode: "math" as const, strict: [], flexible: [], n: 4, search: consistency };
  const measured = (beside?: EvaluatedSample[]) => reportOf(settings, searched, undefined, { beside }).measures;

  test("the gain over one rollout, and the slope over their doublings, problem by problem", () => {
    const measures = measured();
    const of = (name: string) => measures.find((measure) => measure.name === name);
    expect(of("gain@r")).toMatchObject({ k: 4, value: 1 / 3 });
    // Least squares of (0, 0, 1), (1, 1, 1), (0, 0, 0) at 0, 1, 2 doublings.
    expect(of("slope")?.value).toBeCloseTo(0.5 / 3, 12);
    expect(of("slope")?.low).toBeLessThanOrEqual(0.5 / 3);
    expect(of("maj@tokens")).toBeUndefined();
  });

  test("the majority of as many plain samples as cost the same tokens; more than there are is left out", () => {
    // 20 tokens a rollout in the mean, 16 a sample: 1.25, 2.5 and 5 samples, and there are three.
    const beside = [
      ...plain("a", ["1", "2", "2"], 16),
      ...plain("b", ["1", "1", "1"], 16),
      ...plain("c", ["1", "1", "2"], 16),
    ];
    const found = measured(beside).filter(({ name }) => name === "maj@tokens");
    expect(found.map(({ k, of }) => [k, of])).toEqual([
      [1, 1.25],
      [2, 2.5],
    ]);
    // maj@1, maj@2 (ties shared) and maj@3 by problem.
    const [one, two, three] = [1 / 3 + 1 + 2 / 3, 1 / 3 + 1 + 2 / 3, 0 + 1 + 1].map((sum) => sum / 3);
    expect(found[0].value).toBeCloseTo(one + 0.25 * (two - one), 12);
    expect(found[1].value).toBeCloseTo(two + 0.5 * (three - two), 12);
    const ahead = measured(beside).filter(({ name }) => name === "vote - maj");
    expect(ahead.map(({ value }) => value)[1]).toBeCloseTo(1 / 3 - found[1].value, 12);
    const text = reportText(reportOf(settings, searched, undefined, { beside }), 80);
    expect(text).toMatch(/^gain, 4 over 1 +33\.3 %/m);
    expect(text).toMatch(/^slope, a doubling +16\.7 %/m);
    expect(text).toMatch(/^maj@2\.5, tokens of 2 +/m);
    expect(text).toMatch(/^vote@2 - maj@2\.5 +-/m);
  });

  test("plain samples of other problems, and rollouts, are refused", () => {
    expect(() => measured(plain("a", ["1"], 1))).toThrow(/the plain samples lack problem b/);
    expect(() => measured(searched)).toThrow(/rollouts of one themselves/);
  });
});

describe("stored searches", () => {
  const dir = mkdtempSync(join(tmpdir(), "rifft-search-"));
  afterAll(() => rmSync(dir, { recursive: true }));

  test("killed in the middle of a search and asked again, the file ends with the same bytes", async () => {
    // Two chunks of trees, the second one not full.
    const problems = problemsWith((i) => 1 + (i % 3), 40);
    const task = taskOf(problems);
    const settings = {
      ...gradingSettings(task),
      model: "tiny",
      split: "test",
      n: 4,
      temperature: 1,
      maxTokens: 40,
      seed: 0,
      search: consistency,
    };
    const asked = (name: string, more: Partial<MeasureOptions> = {}) =>
      measure({
        ...more,
        dir: join(dir, name),
        settings,
        weights: "w",
        task,
        problems,
        withModel: async (work) => {
          await model.discard();
          await work(model);
        },
      });
    const whole = await asked("whole");
    const file = (name: string) => join(dir, name, whole?.line.file ?? "");
    const bytes = readFileSync(file("whole"));
    await asked("killed");
    // As a kill leaves it: some lines of the second chunk, the last one cut.
    writeFileSync(file("killed"), bytes.subarray(0, Math.floor(bytes.length * 0.93)));
    const again = await asked("killed");
    expect(readFileSync(file("killed"))).toEqual(bytes);
    expect(again?.report).toEqual(whole?.report);
    // Interrupted between waves of the second chunk: the answers so far are handed over and kept apart.
    let soFar: EvaluatedSample[] = [];
    let chunks = 0;
    let waves = 0;
    const stopped = await asked("interrupted", {
      onSample: ({ done }) => (chunks = Math.floor(done / 128)),
      interrupted: () => chunks === 1 && waves++ > 8,
      onInterrupted: (samples) => (soFar = samples),
    });
    expect(stopped).toBeUndefined();
    const partial = readSamples(file("interrupted").replace(".jsonl", ".partial.jsonl")).samples;
    expect(partial.length).toBeGreaterThan(0);
    expect(partial.length).toBeLessThan(32);
    expect(soFar).toEqual([...readSamples(file("interrupted")).samples, ...partial]);
    expect(soFar.slice(0, 128)).toEqual(readSamples(file("whole")).samples.slice(0, 128));
    const early = reportOf(settings, soFar);
    expect(early.samples).toBe(128 + partial.length);
    expect(early.measures.find(({ name }) => name === "accuracy")?.value).toBeGreaterThan(0);
    await asked("interrupted");
    expect(readFileSync(file("interrupted"))).toEqual(bytes);
    expect(existsSync(file("interrupted").replace(".jsonl", ".partial.jsonl"))).toBe(false);
    // Graded again from the lines alone, the report is the same.
    expect(reportOf(settings, readSamples(file("whole")).samples)).toEqual(whole?.report);
    const measures = whole?.report.measures ?? [];
    const names = measures
      .filter(({ grading }) => grading === "strict")
      .map(({ name, k }) => `${name} ${k ?? ""}`.trim());
    expect(names).toEqual([
      "accuracy",
      ...["maj@r", "vote@r", "oracle@r"].flatMap((name) => [1, 2, 4].map((k) => `${name} ${k}`)),
      "gain@r 4",
      "slope",
    ]);
  });
});

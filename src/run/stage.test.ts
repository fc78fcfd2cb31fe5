import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createLocalEngine } from "../engine/local/index.ts";
import type { Engine, Model } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { Step } from "../method/stage.ts";
import { createTask } from "../task/create.ts";
import type { Problem, ProblemSource } from "../task/types.ts";
import { RunCounters } from "./counters.ts";
import { currentEnvironment } from "./environment.ts";
import { RunFolder } from "./folder.ts";
import { VerdictJournal } from "./journal.ts";
import { silentProgress } from "./progress.ts";
import { parseRecipe } from "./recipe.ts";
import { RunStage, type StageOptions, type StagePosition } from "./stage.ts";

const problem = (i: number): Problem => ({ id: `p${i}`, prompt: { text: "a" }, answer: String(i) });
const five = Array.from({ length: 5 }, (_, i) => problem(i));

const task = createTask({
  name: "five",
  splits: { train: five },
  reward: (p, response) => ({ correct: response === p.answer ? 1 : 0, style: 0.5 }),
});

let engine: Engine;
let model: Model;
let source: ProblemSource;
let dir: string;
let folder: RunFolder;

beforeAll(async () => {
  engine = createLocalEngine({ threads: 2 });
  model = await engine.create({ base: "tiny", train: "none", vocabulary: ["a", "b"] });
  source = await task.problems("train");
});
afterAll(() => engine.close());
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "rifft-stage-"));
  folder = RunFolder.create(dir, "", { environment: currentEnvironment(""), baseDir: dir, recipe: {} });
  return () => folder.close();
});

interface Setting {
  method?: string;
  budget?: string;
  seed?: number;
  position?: Partial<StagePosition>;
  source?: ProblemSource;
  interrupted?: () => boolean;
  onStep?: StageOptions["onStep"];
}

function makeStage(o: Setting = {}): RunStage {
  const text = `model = "tiny"\ntask = "t"\n[[stage]]\nmethod = "${o.method ?? "sft"}"\nlr = 0.5\n${o.budget ?? "steps = 3"}`;
  const counters = new RunCounters({ generated: 0, prefilled: 0, scored: 0, trained: 0 }, 0);
  counters.attach(model);
  return new RunStage({
    recipe: parseRecipe(text, { source: "test", baseDir: dir }).stages[0],
    seed: o.seed ?? 1,
    model,
    task,
    source: o.source ?? source,
    folder,
    baseDir: dir,
    journal: new VerdictJournal(folder),
    counters,
    progress: silentProgress,
    position: {
      step: 0,
      samplingSteps: 0,
      cursor: 0,
      memory: {},
      atStart: { generated: 0, engineSeconds: 0 },
      ...o.position,
    },
    place: { position: 1, of: 1 },
    interrupted: o.interrupted ?? (() => false),
    startPolicy: () => Promise.resolve("current"),
    ended: () => false,
    onStep: o.onStep ?? (() => Promise.resolve()),
  });
}

/** Runs a stage, giving what `body` makes of each step. */
async function run<T>(stage: RunStage, body: (step: Step) => T | Promise<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const step of stage.steps()) all.push(await body(step));
  return all;
}

const take = (count: number) => (step: Step) => step.problems(count).map((p) => ({ id: p.id, key: step.key(p) }));
const jsonLines = (name: string): Record<string, unknown>[] =>
  readFileSync(join(dir, name), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

describe("the order of problems", () => {
  test("each epoch is a permutation of its own, a function of the seed alone", async () => {
    const steps = await run(makeStage({ budget: "epochs = 4" }), take(2));
    expect(steps).toHaveLength(10);
    const ids = steps.flat().map((p) => p.id);
    const epochs = [0, 1, 2, 3].map((e) => ids.slice(5 * e, 5 * e + 5));
    for (const epoch of epochs) expect([...epoch].sort()).toEqual(["p0", "p1", "p2", "p3", "p4"]);
    expect(new Set(epochs.map(String)).size).toBeGreaterThan(1);
    expect(await run(makeStage({ budget: "epochs = 4" }), take(2))).toEqual(steps);
    const other = await run(makeStage({ budget: "epochs = 4", seed: 2 }), take(2));
    expect(other.flat().map((p) => p.id)).not.toEqual(ids);
  });

  test("a resumed stage goes on where it was", async () => {
    const whole = await run(makeStage({ budget: "steps = 6" }), take(3));
    const rest = await run(makeStage({ budget: "steps = 6", position: { step: 4, cursor: 12 } }), take(3));
    expect(rest).toEqual(whole.slice(4));
  });

  test("a problem that comes twice in a step has two streams", async () => {
    const steps = await run(makeStage({ budget: "steps = 20" }), take(4));
    for (const step of steps) expect(new Set(step.map((p) => p.key)).size).toBe(4);
    expect(steps.some((step) => new Set(step.map((p) => p.id)).size < 4)).toBe(true);
  });

  test("an endless split is read from a place that the seed chooses, one after the other", async () => {
    const endless = { size: Infinity, at: problem };
    const numbers = (await run(makeStage({ source: endless }), take(2))).flat().map((p) => Number(p.id.slice(1)));
    expect(numbers.map((n) => n - numbers[0])).toEqual([0, 1, 2, 3, 4, 5]);
    const [other] = await run(makeStage({ source: endless, seed: 2, budget: "steps = 1" }), take(1));
    expect(other[0].id).not.toBe(`p${numbers[0]}`);
    expect(() => makeStage({ source: endless, budget: "epochs = 1" })).toThrow(
      /`epochs` needs a finite training split/,
    );
  });

  test("more problems a step than there are is an error", async () => {
    await expect(run(makeStage(), take(6))).rejects.toThrow(/asks for 6 problems, and five's training split has 5/);
  });
});

describe("budgets", () => {
  test("the step that crosses a budget of tokens is the last, and the learning rate runs over tokens", async () => {
    const stage = makeStage({ method: "grpo", budget: 'generatedTokens = 20\nschedule = { kind = "linear" }' });
    const rates = await run(stage, async (step) => {
      const request = {
        prefix: Int32Array.of(1),
        n: 1,
        maxTokens: 8,
        temperature: 1,
        stop: [],
        allowed: Int32Array.of(1, 2),
      };
      await step.time("sample", () => model.sample([{ ...request, key: `${step.index}` }]));
      return step.lr();
    });
    const used = jsonLines("metrics.jsonl").map((line) => Number(line.generated));
    expect(used[used.length - 1]).toBeGreaterThanOrEqual(20);
    expect(used[used.length - 2]).toBeLessThan(20);
    expect(rates[1]).toBeCloseTo(0.5 * (1 - used[0] / 20), 12);
    expect(stage.over).toBe(true);
    expect(stage.done).toBe(1);
  });

  test("tokens that no model drew count where a method says so", async () => {
    const stage = makeStage({ method: "grpo", budget: "generatedTokens = 20" });
    await run(stage, (step) => step.countGenerated(8));
    expect(jsonLines("metrics.jsonl").map((line) => line.generated)).toEqual([8, 16, 24]);
  });

  test("what is timed inside of something else counts there alone", async () => {
    const stage = makeStage({ budget: "steps = 1" });
    const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
    await run(stage, (step) => step.time("sample", () => step.time("grade", () => wait(200))));
    const [{ sample, grade, engineSeconds }] = jsonLines("timings.jsonl").map((line) => ({ ...line }));
    expect(Number(grade)).toBeGreaterThan(0.19);
    expect(Number(sample)).toBeLessThan(Number(grade));
    expect(engineSeconds).toBe(sample);
  });

  test("stopAt ends inside the schedule", async () => {
    const stage = makeStage({ budget: 'steps = 10\nstopAt = 3\nschedule = { kind = "linear" }' });
    expect(await run(stage, (step) => step.lr())).toEqual([0.5, 0.45, 0.4]);
    expect(stage.done).toBe(1);
  });

  test("an interrupted stage ends after the step in progress", async () => {
    let stop = false;
    const told: boolean[] = [];
    const stage = makeStage({
      interrupted: () => stop,
      onStep: async ({ last }) => void told.push(last),
    });
    expect(await run(stage, (step) => ((stop = step.index === 1), step.index))).toEqual([0, 1]);
    expect(told).toEqual([false, false]);
    expect(stage.over).toBe(false);
  });
});

describe("a stage that samples first", () => {
  const sample = (n: number) => ({
    prefix: Int32Array.of(1),
    n,
    maxTokens: 4,
    temperature: 1,
    stop: [],
    allowed: Int32Array.of(1, 2),
    key: "",
  });
  /** Both parts of a stage: the ids of each step of sampling, the items and the learning rate of each step of training. */
  async function both(stage: RunStage, items: number, pass: { problems: number; generatedTokens?: number }) {
    const sampled: string[][] = [];
    for await (const step of stage.sampling(pass)) {
      sampled.push(step.problems(pass.problems).map(({ id }) => id));
      await step.time("sample", () => model.sample([sample(2)]));
      const segment = { parent: -1, tokens: Int32Array.of(1), source: "prompt" as const, fields: {} };
      step.keep([{ id: `t${step.index}`, problem: "p", segments: [segment] }]);
    }
    const kept = stage.sampled();
    if (kept === undefined) return { sampled, kept, trained: [], rates: [] };
    const ids = [...kept].flat().map(({ id }) => id);
    const trained: number[][] = [];
    const rates: number[] = [];
    for await (const step of stage.stepsOver(items)) {
      trained.push(step.draw(2));
      rates.push(step.lr());
    }
    return { sampled, kept: ids, trained, rates };
  }

  test("one pass over the problems; its steps are in no budget of steps and no schedule", async () => {
    const done: boolean[] = [];
    const budget = 'steps = 2\nschedule = { kind = "linear" }';
    const stage = makeStage({ budget, onStep: async ({ last }) => void done.push(last) });
    const { sampled, kept, trained, rates } = await both(stage, 3, { problems: 2 });
    expect(sampled.map((ids) => ids.length)).toEqual([2, 2, 1]);
    expect(sampled.flat().sort()).toEqual(["p0", "p1", "p2", "p3", "p4"]);
    expect(kept).toEqual(["t0", "t1", "t2"]);
    expect(trained.flat().slice(0, 3).sort()).toEqual([0, 1, 2]);
    expect(rates).toEqual([0.5, 0.25]);
    expect(done).toEqual([false, false, false, false, true]);
    expect(stage.position).toMatchObject({ step: 5, samplingSteps: 3, cursor: 4 });
    expect(jsonLines("metrics.jsonl").map(({ step }) => step)).toEqual([0, 1, 2, 3, 4]);
  });

  test("an epoch is one of the method's own items", async () => {
    const { trained } = await both(makeStage({ budget: "epochs = 2" }), 6, { problems: 5 });
    expect(trained).toHaveLength(6);
    for (const epoch of [trained.slice(0, 3), trained.slice(3)])
      expect(epoch.flat().sort()).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test("the cap on tokens ends the pass, also of an endless split", async () => {
    const { sampled } = await both(makeStage({ budget: "steps = 1" }), 3, { problems: 1, generatedTokens: 9 });
    expect(sampled.length).toBeGreaterThan(1);
    expect(sampled.length).toBeLessThan(5);
    const source = { size: Infinity, at: problem };
    const endless = await both(makeStage({ budget: "steps = 1", source }), 3, { problems: 1, generatedTokens: 9 });
    expect(endless.sampled).toHaveLength(sampled.length);
    await expect(both(makeStage({ source }), 3, { problems: 1 })).rejects.toThrow(/has no end; set `sampleTokens`/);
  });

  test("interrupted while it samples, it hands out no samples; resumed, it goes on in either part", async () => {
    const whole = await both(makeStage({ budget: "steps = 3" }), 3, { problems: 2 });
    let steps = 0;
    const stage = makeStage({
      budget: "steps = 3",
      interrupted: () => steps === 2,
      onStep: () => Promise.resolve(void steps++),
    });
    const begun = await both(stage, 3, { problems: 2 });
    expect(begun).toEqual({ sampled: whole.sampled.slice(0, 2), kept: undefined, trained: [], rates: [] });
    expect(stage.over).toBe(false);
    const rest = await both(makeStage({ budget: "steps = 3", position: { ...stage.position } }), 3, { problems: 2 });
    expect(rest).toEqual({ ...whole, sampled: whole.sampled.slice(2) });
    const position = { step: 4, samplingSteps: 3, cursor: 2 };
    const last = await both(makeStage({ budget: "steps = 3", position }), 3, { problems: 2 });
    expect(last).toEqual({ ...whole, sampled: [], trained: whole.trained.slice(1), rates: whole.rates.slice(1) });
  });

  test("a budget that sampling alone uses up is an error", async () => {
    const stage = makeStage({ budget: "engineSeconds = 1e-6" });
    await expect(both(stage, 3, { problems: 2 })).rejects.toThrow(/used up by sampling/);
    const all = makeStage({ budget: "engineSeconds = 1e-6" });
    await expect(both(all, 3, { problems: 5 })).rejects.toThrow(/used up by sampling/);
  });
});

describe("what a step leaves behind", () => {
  test("metrics hold no clock; timings do", async () => {
    await run(makeStage({ budget: "steps = 2" }), async (step) => {
      await step.time("train", async () => step.log({ loss: 0.25 }));
      step.log({ kl: 1e-3 });
    });
    const counts = { generated: 0, prefilled: 0, scored: 0, trained: 0 };
    expect(jsonLines("metrics.jsonl")).toEqual([
      { stage: "1-sft", step: 0, loss: 0.25, kl: 1e-3, ...counts },
      { stage: "1-sft", step: 1, loss: 0.25, kl: 1e-3, ...counts },
    ]);
    const [timing] = jsonLines("timings.jsonl");
    expect(Object.keys(timing).sort()).toEqual(["at", "engineSeconds", "seconds", "stage", "step", "train"]);
  });

  test("a number that is none stops the run by name, and the step is not written", async () => {
    const body = (step: Step) => {
      step.problems(2);
      step.log({ loss: step.index === 1 ? NaN : 1 });
    };
    const stage = makeStage();
    const failed = run(stage, body);
    await expect(failed).rejects.toThrow(UserError);
    await expect(failed).rejects.toThrow(/^loss is NaN \(problems: p\d, p\d\)/);
    expect(stage.where).toBe("stage 1-sft, step 2");
    expect(jsonLines("metrics.jsonl")).toHaveLength(1);
  });

  test("verdicts are journalled by problem and sample", async () => {
    const grades = await run(makeStage({ budget: "steps = 1" }), (step) => {
      const [one, two] = step.problems(2);
      const answers = [one, one, two].map((p, i) => ({ problem: p, response: i === 1 ? "no" : (p.answer ?? "") }));
      return step.grade(answers);
    });
    expect(grades[0].map((grade) => grade.reward)).toEqual([1.5, 0.5, 1.5]);
    const lines = jsonLines("verdicts.jsonl");
    expect(lines.map((line) => line.sample)).toEqual([0, 1, 0]);
    expect(lines[1]).toMatchObject({
      stage: "1-sft",
      step: 0,
      turn: 0,
      reward: 0.5,
      parts: { correct: 0, style: 0.5 },
    });
  });
});

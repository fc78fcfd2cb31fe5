import { afterAll, describe, expect, test } from "vitest";
import { LocalEngine } from "../engine/local/index.ts";
import { createTask } from "../task/create.ts";
import type { Problem, ProblemSource, Reward, TaskDefinition } from "../task/types.ts";
import { checkGolds, chunkProblems, evaluate, takeProblems } from "./evaluate.ts";
import type { EvaluatedSample } from "./samples.ts";
import { solved } from "../task/solved.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());
const tiny = () => engine.create({ base: "tiny", train: "none", vocabulary: ["a", "b", "c"], seed: 2 });

const problems = ["a", "ab", "c", "cab"].map((text): Problem => ({ id: text, prompt: { text } }));
const taskOf = (
  reward: (problem: Problem, response: string) => Reward | Promise<Reward>,
  test: Problem[] | ProblemSource = problems,
) => createTask({ name: "t", splits: { test }, reward });

const run = async (
  task: ReturnType<typeof taskOf>,
  options: { n?: number; temperature?: number; topK?: number; limit?: number; done?: number; seed?: number } = {},
) => {
  const model = await tiny();
  const heard: EvaluatedSample[] = [];
  const samples = await evaluate({
    model,
    tokenizer: model.tokenizer,
    task,
    problems: await takeProblems(task, "test", options.limit),
    maxTokens: 4,
    temperature: 1,
    onSample: (sample) => heard.push(sample),
    ...options,
  });
  expect(heard).toEqual(samples);
  return samples;
};

describe("evaluate", () => {
  test("hands on every sample in order, whatever order they are graded in", async () => {
    let waiting = 40;
    const slowFirst = async () => {
      await new Promise((resolve) => setTimeout(resolve, (waiting = Math.max(0, waiting - 8))));
      return 1;
    };
    const samples = await run(taskOf(slowFirst), { n: 2 });
    const order = problems.flatMap(({ id }) => [
      [id, 0],
      [id, 1],
    ]);
    expect(samples.map(({ problem, sample }) => [problem, sample])).toEqual(order);
    expect(samples.every(({ logprobs, tokens }) => logprobs.length === tokens.length)).toBe(true);
  });

  test("greedy answers repeat; a limit takes the first problems", async () => {
    const texts = async () =>
      (
        await run(
          taskOf(() => 0),
          { temperature: 0, limit: 2 },
        )
      ).map(({ text }) => text);
    const first = await texts();
    expect(first).toHaveLength(2);
    expect(await texts()).toEqual(first);
  });

  test("the most probable token alone, at any temperature, is the greedy answer", async () => {
    const texts = async (options: object) =>
      (
        await run(
          taskOf(() => 0),
          options,
        )
      ).map(({ text }) => text);
    expect(await texts({ topK: 1 })).toEqual(await texts({ temperature: 0 }));
    expect(await texts({})).not.toEqual(await texts({ temperature: 0 }));
  });

  test("what is left after whole chunks is sampled bit by bit as it would have been", async () => {
    const n = 48;
    expect(chunkProblems(n)).toBe(2);
    const whole = await run(
      taskOf(() => 0),
      { n },
    );
    expect(
      await run(
        taskOf(() => 0),
        { n, done: 2 },
      ),
    ).toEqual(whole.slice(2 * n));
    expect(
      await run(
        taskOf(() => 0),
        { n, seed: 1 },
      ),
    ).not.toEqual(whole);
    expect(new Set(whole.slice(0, n).map(({ text }) => text)).size).toBeGreaterThan(5);
  });

  test("with a grading: both verdicts, and the reward is the strict one", async () => {
    const definition: TaskDefinition = {
      name: "g",
      splits: {
        test: problems.map((problem) => ({ ...problem, answer: "7", question: "?", tags: { level: "1" } })),
      },
      grading: { strict: ["hashes"] },
    };
    const [sample] = await run(createTask(definition), { limit: 1 });
    expect(sample).toMatchObject({ gold: "7", question: "?", tags: { level: "1" }, reward: 0, solved: false });
    expect(sample.strict).toMatchObject({ verdict: "different" });
    expect(sample.strict.answer).toBeUndefined();
    expect(sample.flexible?.strategy).toBeDefined();
    expect(
      (await createTask(definition).grade([{ problem: { ...problems[0], answer: "7" }, response: "#### 7.0" }]))[0]
        .reward,
    ).toBe(1);
  });

  test("a reward that throws costs its own sample", async () => {
    const reward = ({ id }: Problem) => {
      if (id === "c") throw new Error("no");
      return 1;
    };
    const samples = await run(taskOf(reward));
    expect(samples.map((sample) => sample.solved)).toEqual([true, true, false, true]);
    expect(samples[2]).toMatchObject({ reward: 0, strict: { verdict: "different", rule: "reward" } });
    expect(samples[2].error).toMatch(/problem c, .*the reward threw Error: no/);
  });

  test("an endless split needs a limit", async () => {
    const endless = taskOf(() => 1, { size: Infinity, at: (i) => ({ id: `${i}`, prompt: { text: "a" } }) });
    await expect(run(endless)).rejects.toThrow(/its test split is endless: give a limit/);
    expect(await run(endless, { limit: 3 })).toHaveLength(3);
  });

  test("a gold that no rule can read is named before anything is sampled", async () => {
    const task = createTask({ name: "g", splits: { test: problems }, grading: { strict: ["hashes"] } });
    const of = (answer: string): Problem => ({ ...problems[0], answer });
    await checkGolds(task, [of("7"), of("x^2"), of("Monday")]);
    await expect(checkGolds(task, [of("7"), { ...of(" "), id: "p9" }])).rejects.toThrow(
      /^task g: no rule can read the gold of problem p9, " " \(.*rifft eval --validate/,
    );
  });

  test("solved reads the part `correct` before the reward", () => {
    expect(solved({ reward: 1.5, parts: { correct: 0, format: 1.5 } })).toBe(false);
    expect(solved({ reward: 0.2, parts: { correct: 1, length: -0.8 } })).toBe(true);
    expect([solved({ reward: 1, parts: {} }), solved({ reward: 0.9, parts: {} })]).toEqual([true, false]);
  });
});

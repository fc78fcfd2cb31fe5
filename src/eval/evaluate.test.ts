import { afterAll, describe, expect, test } from "vitest";
import { LocalEngine } from "../engine/local/index.ts";
import { createTask } from "../task/create.ts";
import type { Problem, ProblemSource, Reward } from "../task/types.ts";
import { evaluate, type EvaluatedSample } from "./evaluate.ts";
import { wilson95 } from "./intervals.ts";
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
  options: { n?: number; temperature?: number; limit?: number } = {},
) => {
  const model = await tiny();
  const samples: EvaluatedSample[] = [];
  const result = await evaluate({
    model,
    tokenizer: model.tokenizer,
    task,
    split: "test",
    maxTokens: 4,
    temperature: 1,
    onSample: (sample) => samples.push(sample),
    ...options,
  });
  return { result, samples };
};

describe("evaluate", () => {
  test("hands on every sample in order, whatever order they are graded in", async () => {
    let waiting = 40;
    const slowFirst = async () => {
      await new Promise((resolve) => setTimeout(resolve, (waiting = Math.max(0, waiting - 8))));
      return 1;
    };
    const { samples } = await run(taskOf(slowFirst), { n: 2 });
    const order = problems.flatMap(({ id }) => [
      [id, 0],
      [id, 1],
    ]);
    expect(samples.map(({ problem, sample }) => [problem, sample])).toEqual(order);
  });

  test("counts what the samples say", async () => {
    const reward = ({ id }: Problem, response: string) => (id.length > 1 ? 1 : response.length / 100);
    const { result, samples } = await run(taskOf(reward), { n: 3 });
    const tokens = samples.reduce((sum, sample) => sum + sample.tokens.length, 0);
    expect(result).toMatchObject({ accuracy: 0.5, problems: 4, samples: 12, gradeErrors: 0 });
    expect(result.interval).toEqual(wilson95(2, 4));
    expect(result.tokensPerProblem).toBeCloseTo(tokens / 4, 9);
    expect(result.truncationRate).toBe(samples.filter(({ stop }) => stop === "length").length / 12);
    expect(samples.every(({ logprobs, tokens }) => logprobs.length === tokens.length)).toBe(true);
  });

  test("greedy answers repeat; a limit takes the first problems", async () => {
    const texts = async () =>
      (
        await run(
          taskOf(() => 0),
          { temperature: 0, limit: 2 },
        )
      ).samples.map(({ text }) => text);
    const first = await texts();
    expect(first).toHaveLength(2);
    expect(await texts()).toEqual(first);
  });

  test("a reward that throws costs its own sample", async () => {
    const reward = ({ id }: Problem) => {
      if (id === "c") throw new Error("no");
      return 1;
    };
    const { result, samples } = await run(taskOf(reward));
    expect(result).toMatchObject({ accuracy: 0.75, gradeErrors: 1 });
    expect(samples.find(({ problem }) => problem === "c")).toMatchObject({ solved: false, reward: 0 });
  });

  test("an endless split needs a limit", async () => {
    const endless = taskOf(() => 1, { size: Infinity, at: (i) => ({ id: `${i}`, prompt: { text: "a" } }) });
    await expect(run(endless)).rejects.toThrow(/its test split is endless: give a limit/);
    expect((await run(endless, { limit: 3 })).result.problems).toBe(3);
  });

  test("solved reads the part `correct` before the reward", () => {
    expect(solved({ reward: 1.5, parts: { correct: 0, format: 1.5 } })).toBe(false);
    expect(solved({ reward: 0.2, parts: { correct: 1, length: -0.8 } })).toBe(true);
    expect([solved({ reward: 1, parts: {} }), solved({ reward: 0.9, parts: {} })]).toEqual([true, false]);
  });
});

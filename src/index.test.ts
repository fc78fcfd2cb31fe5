import { expect, test } from "vitest";
import {
  createLocalEngine,
  createTask,
  encodePrompt,
  groupAdvantages,
  importanceSampling,
  sampleGroups,
  type TaskDefinition,
} from "./index.ts";

/** One question, and every answer in which the letter a occurs is right. */
const definition: TaskDefinition = {
  name: "letters",
  splits: { train: [{ id: "1", prompt: { text: "ab" } }] },
  reward: (_problem, response) => (response.includes("a") ? 1 : 0),
  vocabulary: ["a", "b", "c", "d"],
};

test("the verbs make a training loop: samples that were rewarded become more probable", async () => {
  const engine = createLocalEngine();
  const task = createTask(definition);
  try {
    const { vocabulary } = task;
    const model = await engine.create({ base: "tiny", train: "full", vocabulary, seed: 1 });
    const problem = (await task.problems("train")).at(0);
    const prompt = encodePrompt(model.tokenizer, problem);
    const settings = { samples: 16, temperature: 1, maxTokens: 4, topP: 1, topK: 0, stop: [] };

    const { forest, responses } = await sampleGroups(model, [{ id: "0", problem: "1", prompt, key: "0" }], settings);
    const grades = await task.grade(responses[0].map((response) => ({ problem, response })));
    const rewards = grades.map((grade) => grade.reward);
    const advantages = groupAdvantages(rewards, "0");
    const answers = forest[0].segments.slice(1);
    answers.forEach(({ tokens, fields }, i) => {
      fields.advantages = new Float32Array(tokens.length).fill(advantages[i]);
    });
    await model.forwardBackward(forest, importanceSampling());
    await model.optimStep({ groups: { body: { lr: 1e-3, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0 } } });

    const [{ logprobs }] = await model.forward(forest);
    const sum = (values: Float32Array) => values.reduce((a, b) => a + b, 0);
    const gain = answers.reduce(
      (total, { logprobs: before }, i) =>
        total + advantages[i] * (sum(logprobs[i + 1]) - sum(before ?? new Float32Array())),
      0,
    );
    expect(new Set(rewards).size).toBe(2);
    expect(gain).toBeGreaterThan(0);
  } finally {
    await engine.close();
    await task.close();
  }
});

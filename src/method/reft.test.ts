import { afterAll, describe, expect, test } from "vitest";
import { fixture, lora, numbers, randomise, randomTokens, segmentOf, treeOf } from "../../test/local.ts";
import { problems, repeats, vocabulary } from "../../test/letters.ts";
import { memoryStage } from "../../test/stage.ts";
import { LocalEngine } from "../engine/local/index.ts";
import type { Scores } from "../engine/types.ts";
import { createTask } from "../task/create.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { Problem, Reward } from "../task/types.ts";
import { explainedVariance, gae, tokenWeights, whiten } from "./advantages.ts";
import { demonstrationTree } from "./demonstrations.ts";
import { clippedValue, ppo, ppoValue, valuesBefore } from "./losses.ts";
import { reft, type ReftSettings, reftSettings, scoreOf, tokenRewards, VALUE } from "./reft.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());

/*
 * Two sequences with a prompt of four tokens, worked through by an implementation of its own: scores 1 and 0.1, beta 0.05, gamma 1,
 * lambda 0.95. Index t counts from the decision that emits the first response token.
 */
const golden = [
  {
    score: 1,
    response: [21, 22, 23, 24, 2],
    old: [-0.1, -0.5, -1.2, -0.3, -0.05],
    ref: [-0.3, -0.4, -1.5, -0.3, -0.15],
    values: [0.4, 0.45, 0.5, 0.6, 0.8],
    now: [-0.05, -0.7, -0.9, -0.3, -0.02],
    valuesNow: [0.55, 0.5, 0.2, 0.95, 0.85],
    rewards: [-0.01, 0.005, -0.015, 0, 0.995],
    advantages: [0.499266, 0.483438, 0.450987, 0.38525, 0.195],
    returns: [0.899266, 0.933438, 0.950987, 0.98525, 0.995],
    whitened: [1.331215, 1.26443, 1.127508, 0.850135, 0.047393],
    policy: -0.937336,
    value: 0.185836,
  },
  {
    score: 0.1,
    response: [31, 32, 33, 34, 35, 36],
    old: [-0.7, -0.2, -0.9, -2, -0.4, -0.6],
    ref: [-0.6, -0.25, -0.5, -2.5, -0.4, -0.9],
    values: [0.2, 0.1, 0.15, 0.05, -0.1, 0.02],
    now: [-1, -0.1, -0.95, -1.7, -0.45, -0.6],
    valuesNow: [0, 0.12, 0.45, 0.05, -0.05, 0.3],
    rewards: [0.005, -0.0025, 0.02, -0.025, 0, 0.085],
    advantages: [-0.124079, -0.03061, -0.082221, -0.002337, 0.18175, 0.065],
    returns: [0.075921, 0.06939, 0.067779, 0.047663, 0.08175, 0.085],
    whitened: [-1.29893, -0.904544, -1.122312, -0.785253, -0.008514, -0.501129],
    policy: 0.779267,
    value: 0.036334,
  },
];

/** Within 1e-6, and the half digit that the expected numbers lack. */
function expectNear(found: ArrayLike<number>, expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  expected.forEach((number, i) => expect(Math.abs(found[i] - number)).toBeLessThan(1.5e-6));
}

describe("two sequences worked through by hand", () => {
  const trees = golden.map(({ response, old, ref }, i) =>
    treeOf(
      `${i}`,
      segmentOf(-1, Int32Array.of(5, 6, 11, 12)),
      segmentOf(0, Int32Array.from(response), {
        logprobs: Float32Array.from(old),
        fields: { refLogprobs: Float32Array.from(ref) },
      }),
    ),
  );
  const rewards = golden.map(({ score }, i) => tokenRewards({ response: trees[i].segments[1], score }, 0.05));
  const estimates = golden.map(({ values }, i) => gae(rewards[i], values, { gamma: 1, lambda: 0.95 }));
  const whitened = whiten(estimates.map(({ advantages_T }) => advantages_T));
  const weights = tokenWeights([5, 6], "sequence");
  golden.forEach(({ values }, i) => {
    const length = values.length;
    Object.assign(trees[i].segments[1].fields, {
      weights: new Float32Array(length).fill(weights[i]),
      advantages: Float32Array.from(whitened[i], (a) => weights[i] * a),
      returns: Float32Array.from(estimates[i].returns_T),
      oldValues: Float32Array.from(values),
    });
  });
  // The value before a token stands at its predecessor: the first one at the prompt's last token.
  const now = golden.map(({ now, valuesNow }): Scores => ({
    logprobs: [new Float32Array(4), Float32Array.from(now)],
    entropy: [],
    heads: { value: [Float32Array.of(9, 9, 9, valuesNow[0]), Float32Array.of(...valuesNow.slice(1), 9)] },
  }));
  const clip = { low: 0.8, high: 1.2 };

  test("rewards, advantages, returns, whitening", () => {
    golden.forEach((one, i) => {
      expectNear(rewards[i], one.rewards);
      expectNear(estimates[i].advantages_T, one.advantages);
      expectNear(estimates[i].returns_T, one.returns);
      expectNear(whitened[i], one.whitened);
    });
  });

  test("each sequence's losses, and the total", () => {
    golden.forEach((one, i) => {
      expectNear([ppo(clip).fn([trees[i]], [now[i]]).loss], [one.policy / 2]);
      expectNear([clippedValue({ head: "value", clip: 0.2 }).fn([trees[i]], [now[i]]).loss], [one.value / 4]);
    });
    const both = ppoValue({ clip, head: "value", valueClip: 0.2, coefficient: 5 }).fn(trees, now);
    expectNear([both.metrics.policyLoss, both.metrics.valueLoss, both.loss], [-0.07903405, 0.05554262, 0.19867903]);
  });

  test("the values that a head gives are read where the sampler stood", () => {
    golden.forEach(({ valuesNow }, i) => expectNear(valuesBefore(trees[i], now[i], "value")[1], valuesNow));
  });
});

test("at lambda 1 returns are the discounted sums of rewards, whatever the values", () => {
  const { returns_T } = gae([1, 0, 2], [5, -3, 0.5], { gamma: 0.5, lambda: 1 });
  expectNear(returns_T, [1.5, 1, 2]);
});

test("explained variance: 1 for the returns themselves, 0 for a constant, never below -1", () => {
  const returns = [0, 1, 0.5, 0.25];
  expect(explainedVariance(returns, returns)).toBeCloseTo(1, 6);
  expect(explainedVariance([3, 3, 3, 3], returns)).toBeCloseTo(0, 6);
  expect(explainedVariance([100, -100, 50, 0], returns)).toBe(-1);
});

test("scores: right, another answer, none; a reward of the task's own as it is", () => {
  const grade = (reward: number, answered?: boolean) => ({ reward, parts: {}, answered });
  expect(scoreOf(grade(1, true), 0.1)).toBe(1);
  expect(scoreOf(grade(0, true), 0.1)).toBe(0.1);
  expect(scoreOf(grade(0, true), 0)).toBe(0);
  expect(scoreOf(grade(0, false), 0.1)).toBe(0);
  expect(scoreOf(grade(0.3), 0.1)).toBe(0.3);
});

describe.each(["LoRA", "full"])("the whole loss through the engine, %s", (name) => {
  test("finite differences along random directions of body and value head", async () => {
    const model = randomise(
      await engine.create({ base: fixture("llama"), train: name === "full" ? "full" : lora, heads: [VALUE] }),
    );
    const responses = ["a", "b"].map((key) => randomTokens(key, 6));
    const trees = responses.map((tokens, i) =>
      treeOf(`${i}`, segmentOf(-1, randomTokens(`prompt ${i}`, 5)), segmentOf(0, tokens, { fields: {} })),
    );
    const scores = await model.forward(trees);
    trees.forEach((tree, i) => {
      const { fields } = Object.assign(tree.segments[1], {
        // Far enough from the clips that no step of the difference crosses one.
        logprobs: scores[i].logprobs[1].map((lp, t) => lp + [0.05, -0.5, 0.5][t % 3]),
      });
      const values = valuesBefore(tree, scores[i], "value")[1];
      fields.weights = new Float32Array(6).fill(1 / 12);
      fields.advantages = numbers(`advantages ${i}`, 6).map((a) => a / 12);
      fields.returns = values.map((value, t) => value + [1, -1, 0.7][t % 3]);
      fields.oldValues = values.map((value, t) => value + [0.05, 0.6, -0.6, 0.1][t % 4]);
    });
    const loss = ppoValue({ clip: { low: 0.8, high: 1.2 }, head: "value", valueClip: 0.2, coefficient: 5 });
    const { parameters } = model;
    const start = parameters.values.slice();
    for (const seed of [1, 2]) {
      const direction = numbers(`direction ${seed}`, start.length);
      const at = async (step: number) => {
        parameters.values.set(start.map((x, i) => x + step * direction[i]));
        return (await model.forwardBackward(trees, loss)).loss;
      };
      const step = name === "full" ? 2e-4 : 1e-3;
      const numeric = ((await at(step)) - (await at(-step))) / (2 * step);
      await model.discard();
      await at(0);
      const analytic = parameters.grads().reduce((sum, g, i) => sum + g * direction[i], 0);
      await model.discard();
      expect(Math.abs(numeric - analytic) / Math.abs(analytic)).toBeLessThan(0.02);
    }
    await model.close();
  });
});

/** Some letters right: rewards differ between questions. */
const graded = (problem: Problem, response: string) =>
  repeats(problem, response) / 2 + response.length / 10 + (response.includes("?") ? 0.25 : 0);

const make = (heads = [VALUE]) => engine.create({ base: "tiny", train: "full", vocabulary, seed: 3, heads });

async function run(steps: number, settings: Partial<ReftSettings>, o: { reward?: typeof repeats; lr?: number } = {}) {
  const reward: (problem: Problem, response: string) => Reward = o.reward ?? repeats;
  const task = createTask({ name: "letters", splits: { train: problems }, reward });
  const separate = settings.critic === "separate";
  const model = await make(separate ? [] : [VALUE]);
  const critic = separate ? await make() : undefined;
  const { stage, recorded } = await memoryStage({ model, critic, task, steps, lr: o.lr ?? 1e-3 });
  await reft(stage, reftSettings.parse({ prompts: 16, maxTokens: 3, beta: 0, lr: o.lr ?? 1e-3, ...settings }));
  await model.close();
  await critic?.close();
  return recorded;
}

describe("ReFT", () => {
  test.each<Partial<ReftSettings>>([{ beta: 0.01 }, { critic: "separate" }])(
    "raises the reward: %o",
    async (settings) => {
      const recorded = await run(30, { ...settings, prompts: 32 }, { lr: 2e-3 });
      const mean = (part: typeof recorded, key: string) =>
        part.reduce((sum, { metrics }) => sum + metrics[key], 0) / part.length;
      expect(mean(recorded.slice(0, 2), "reward")).toBeLessThan(0.4);
      expect(mean(recorded.slice(-5), "reward")).toBeGreaterThan(0.8);
      // The critic learns what is to be expected.
      expect(Math.abs(mean(recorded.slice(-5), "value") - mean(recorded.slice(-5), "return"))).toBeLessThan(0.15);
    },
  );

  test("the first pass is on-policy: ratio 1, no mismatch, no distance from the reference", async () => {
    const [{ metrics, kept }] = await run(1, { beta: 0.05, innerPasses: 1 }, { reward: graded });
    expect(metrics.ratio).toBeCloseTo(1, 5);
    expect(metrics.mismatch).toBeLessThan(1e-5);
    expect(metrics.clipFraction).toBe(0);
    expect(metrics.valueClipFraction).toBe(0);
    expect(Math.abs(metrics.sequenceKl)).toBeLessThan(1e-4);
    expect(kept).toHaveLength(16);
    const { fields, outcome } = kept[0].segments[1];
    expect(Object.keys(fields).sort()).toEqual(["advantages", "oldValues", "refLogprobs", "returns", "weights"]);
    expect(outcome).toHaveProperty("reward");
  });

  test("the second pass leaves the old policy behind", async () => {
    const [{ metrics }] = await run(1, { innerPasses: 2 }, { reward: graded, lr: 1e-2 });
    expect(metrics.ratio).toBeCloseTo(1, 5);
    expect(metrics.clipFraction).toBeGreaterThan(0);
  });

  test.each<Partial<ReftSettings>>([
    { beta: 0.05 },
    { minibatches: 2, normalize: "token" },
    { whitening: "none", valueClip: 0 },
    { critic: "separate" },
  ])("micro-batches do not change the result: %o", async (settings) => {
    const [whole] = await run(1, settings, { reward: graded });
    const [split] = await run(1, { ...settings, microBatch: 3 }, { reward: graded });
    for (const key of ["policyLoss", "valueLoss"]) expect(split.metrics[key]).toBeCloseTo(whole.metrics[key], 5);
    expect(split.metrics.gradNorm / whole.metrics.gradNorm).toBeCloseTo(1, 3);
    expect(split.metrics.reward).toBe(whole.metrics.reward);
  });

  test("in the value head's warm-up the policy stays", async () => {
    const recorded = await run(3, { valueWarmup: 2, beta: 0.05, valueLr: 1e-2 }, { reward: graded });
    expect(Math.abs(recorded[1].metrics.sequenceKl)).toBeLessThan(1e-4);
    expect(recorded[1].metrics.value).not.toBe(recorded[0].metrics.value);
    const moved = await run(2, { beta: 0.05 }, { reward: graded });
    expect(Math.abs(moved[1].metrics.sequenceKl)).toBeGreaterThan(1e-3);
  });

  test("the KL cost holds the policy near its reference", async () => {
    const free = await run(8, { beta: 1e-6 }, { reward: graded });
    const held = await run(8, { beta: 2 }, { reward: graded });
    expect(held.at(-1)?.metrics.kl).toBeLessThan((free.at(-1)?.metrics.kl ?? 0) / 3);
  });

  test("a question's prompt is the same tokens in SFT and in a rollout", async () => {
    const [{ kept }] = await run(1, {});
    const model = await make();
    for (const tree of kept) {
      const problem = problems.find(({ id }) => id === tree.problem) ?? problems[0];
      const [demonstrated] = demonstrationTree(model, "", problem, "a!").segments;
      expect(tree.segments[0].tokens).toEqual(demonstrated.tokens);
      expect(demonstrated.tokens).toEqual(encodePrompt(model.tokenizer, problem));
    }
    await model.close();
  });

  test("settings that make no sense are refused by name", () => {
    const issue = (raw: object) => reftSettings.safeParse(raw).error?.issues[0].path.join(".");
    expect(issue({ prompts: 6, minibatches: 4 })).toBe("minibatches");
    expect(issue({ topK: 50 })).toBe("allowTruncated");
    expect(issue({ partialReward: 1 })).toBe("partialReward");
    expect(issue({ lambda: 1.5 })).toBe("lambda");
  });
});

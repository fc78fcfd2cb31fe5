import { z } from "zod";
import { RandomStream } from "../engine/random.ts";
import type { HeadSpec, Loss, Model, OptimSettings } from "../engine/types.ts";
import type { Segment, Tree } from "../forest/types.ts";
import { sampleGroups } from "../rollout/single.ts";
import { solved } from "../task/solved.ts";
import type { Grade } from "../task/types.ts";
import { explainedVariance, gae, meanAndStd, tokenWeights, whiten } from "./advantages.ts";
import { firstPassMetrics, klMetrics, rewardMetrics, sampleMetrics } from "./diagnostics.ts";
import { clippedValue, k1, ppo, ppoValue, valuesBefore } from "./losses.ts";
import { drawsWhole, questionsOf, TRUNCATED } from "./sampling.ts";
import { referencePolicy } from "./policy-update.ts";
import type { Stage, Step } from "./stage.ts";
import { type Accumulated, accumulate, adam, optimizerSettings } from "./update.ts";

/** Defaults are those of ReFT's scripts for 7B models (arXiv 2401.08967). */
export const reftSettings = z
  .strictObject({
    /** Questions a step; each is answered once. */
    prompts: z.int().positive().default(32),
    temperature: z.number().positive().default(1),
    maxTokens: z.int().positive().default(700),
    topP: z.number().positive().max(1).default(1),
    topK: z.int().min(0).default(0),
    /** Trains on top-p or top-k samples, whose log-probs are not those of the distribution they were drawn from. */
    allowTruncated: z.boolean().default(false),
    /** What an answer that is there but wrong earns; 0: nothing. A task with a reward of its own gives that instead. */
    partialReward: z.number().min(0).lt(1).default(0.1),
    /** Weight of the KL cost inside the reward. */
    beta: z.number().min(0).default(0.05),
    reference: z.enum(["stage-start", "base"]).default("stage-start"),
    gamma: z.number().min(0).max(1).default(1),
    lambda: z.number().min(0).max(1).default(0.95),
    whitening: z.enum(["global", "none"]).default("global"),
    /** The ratio counts within [1 - clipLow, 1 + clipHigh]. */
    clipLow: z.number().min(0).max(1).default(0.2),
    clipHigh: z.number().min(0).default(0.2),
    /** A value counts within this distance of what it was when the samples were drawn; 0: at any. */
    valueClip: z.number().min(0).default(0.2),
    /** Weight of the value loss, where policy and value share a body. */
    valueCoefficient: z.number().positive().default(5),
    /** A head on the policy's last hidden state, or a model of its own that begins as a copy of the policy. */
    critic: z.enum(["shared", "separate"]).default("shared"),
    /** Steps in which the value head learns and the policy does not. */
    valueWarmup: z.int().min(0).default(0),
    /** Peak learning rate of the value head, or of the separate critic; `lr` when absent. */
    valueLr: z.number().positive().optional(),
    /** Times that a step's samples are trained on. */
    innerPasses: z.int().positive().default(2),
    /** Optimizer updates a pass, each on its share of the questions, drawn anew for each pass. */
    minibatches: z.int().positive().default(1),
    /** A mean over each response's tokens and then over responses, or over all tokens of the minibatch. */
    normalize: z.enum(["sequence", "token"]).default("sequence"),
    ...optimizerSettings({ lr: 3e-7, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }),
  })
  .refine(drawsWhole, TRUNCATED)
  .refine((s) => s.prompts % s.minibatches === 0, {
    path: ["minibatches"],
    error: "minibatches must divide prompts evenly",
  });
export type ReftSettings = z.infer<typeof reftSettings>;

/** V: linear in the last hidden state, initialised as torch's linear layers are. */
export const VALUE: HeadSpec = { name: "value", width: 1, bias: true, init: "uniform" };

/** Reinforced fine-tuning: PPO from a warmed-up policy, on the questions of the warm-up (ReFT, arXiv 2401.08967, section 3.2). */
export async function reft(stage: Stage, settings: ReftSettings): Promise<void> {
  const { model, task } = stage;
  const critic = settings.critic === "separate" ? separateCritic(stage) : model;
  // The policy of the warm-up, which the KL cost holds on to.
  const reference = await referencePolicy(stage, settings);

  for await (const step of stage.steps()) {
    // 1. One response to each question, from the policy as it is.
    const problems = step.problems(settings.prompts);
    const questions = questionsOf(stage, step, problems);
    const { forest, responses } = await step.time("sample", () =>
      sampleGroups(model, questions, { ...settings, samples: 1, stop: task.stop }),
    );

    // 2. Its score: 1, the partial reward, or 0.
    const items = problems.map((problem, q) => ({ problem, response: responses[q][0] }));
    const grades = (await step.time("grade", () => step.grade(items))).map((grade) => ({
      ...grade,
      reward: scoreOf(grade, settings.partialReward),
    }));
    const samples = forest.map((tree, q): Sample => {
      const [, response] = tree.segments;
      response.outcome = { ...grades[q].parts, reward: grades[q].reward };
      return { tree, response, score: grades[q].reward, advantages_T: new Float64Array(0) };
    });

    // 3. Each token's value, and its log-prob under the reference. Index t is the decision that emits token t.
    await step.time("score", async () => {
      const values = await critic.forward(forest, "current", { logprobs: false });
      const scores = reference === undefined ? undefined : await model.forward(forest, reference);
      samples.forEach(({ tree, response: { fields } }, i) => {
        fields.oldValues = valuesBefore(tree, values[i], VALUE.name)[1];
        if (scores !== undefined) fields.refLogprobs = scores[i].logprobs[1];
      });
    });

    // 4. Rewards, advantages and returns.
    const rewards_ST = samples.map((sample) => tokenRewards(sample, settings.beta));
    const estimates = samples.map(({ response }, i) => gae(rewards_ST[i], response.fields.oldValues, settings));
    const raw_ST = estimates.map(({ advantages_T }) => advantages_T);
    const advantages_ST = settings.whitening === "global" ? whiten(raw_ST) : raw_ST;
    samples.forEach((sample, i) => {
      sample.advantages_T = advantages_ST[i];
      sample.response.fields.returns = Float32Array.from(estimates[i].returns_T);
    });

    // 5. Several passes over the samples, an update for each minibatch.
    const lr = step.lr();
    const updates: Updated[] = [];
    await step.time("train", async () => {
      for (let pass = 0; pass < settings.innerPasses; pass++) {
        const order = `${stage.seed}/${stage.name}/${step.index}/${pass}`;
        for (const minibatch of shares(samples, settings.minibatches, order)) {
          setFields(minibatch, settings);
          const trees = minibatch.map(({ tree }) => tree);
          const at = { lr, warm: step.index >= settings.valueWarmup };
          const updated = await update(model, critic, trees, settings, at);
          if (updates.length === 0) step.log(firstPassMetrics(trees, updated.scores));
          updates.push(updated);
        }
      }
    });

    step.log({
      ...rewardMetrics(grades),
      ...answeredShare(grades),
      ...sampleMetrics(forest),
      ...updateMetrics(updates),
      lr,
    });
    if (reference !== undefined) step.log({ ...klMetrics(forest), ...sequenceKl(samples, settings.beta) });
    logValues(step, samples, rewards_ST, settings);
    step.keep(forest);
  }
}

/** A question's prompt (segment 0) and its response (segment 1). */
interface Sample {
  tree: Tree;
  response: Segment;
  score: number;
  advantages_T: Float64Array;
}

/** 1 where the answer is right, `partialReward` where there is another one, 0 where there is none; or the task's own reward. */
export function scoreOf(grade: Grade, partialReward: number): number {
  if (grade.answered === undefined) return grade.reward;
  return solved(grade) ? 1 : grade.answered ? partialReward : 0;
}

/** r_t = -beta (log p_old - log p_ref), and the score at the decision that ended the response (ReFT, eq. 3, with k1 for the KL). */
export function tokenRewards({ response, score }: Pick<Sample, "response" | "score">, beta: number): Float64Array {
  const { tokens, logprobs, fields } = response;
  const rewards_T = Float64Array.from(tokens, (_, t) =>
    beta === 0 ? 0 : -beta * k1(logprobs?.[t] ?? 0, fields.refLogprobs[t]),
  );
  rewards_T[tokens.length - 1] += score;
  return rewards_T;
}

/** Each token's weight in the minibatch's mean, and its advantage times that weight. */
function setFields(minibatch: Sample[], { normalize }: ReftSettings): void {
  const lengths = minibatch.map(({ response }) => response.tokens.length);
  const weights = tokenWeights(lengths, normalize);
  minibatch.forEach(({ response: { fields }, advantages_T }, i) => {
    fields.weights = new Float32Array(lengths[i]).fill(weights[i]);
    fields.advantages = Float32Array.from(advantages_T, (advantage) => weights[i] * advantage);
  });
}

interface Updated extends Accumulated {
  gradNorm: number;
}

/** One optimizer update on a minibatch: of policy and value head together, or of two models. */
async function update(
  model: Model,
  critic: Model,
  trees: Tree[],
  settings: ReftSettings,
  at: { lr: number; warm: boolean },
): Promise<Updated> {
  const body = at.warm ? at.lr : 0;
  const valueLr = ((settings.valueLr ?? settings.lr) * at.lr) / settings.lr;
  if (critic === model) {
    const result = await accumulate(model, trees, jointLoss(settings), settings.microBatch);
    return { ...result, ...(await model.optimStep(groups(settings, body, valueLr))) };
  }
  const value = await accumulate(critic, trees, clippedValue(valueLoss(settings)), settings.microBatch);
  await critic.optimStep(groups(settings, valueLr, valueLr));
  const policy = await accumulate(model, trees, { ...ppo(clipOf(settings)), entropy: true }, settings.microBatch);
  const { gradNorm } = await model.optimStep(adam(settings, body));
  const parts = { policyLoss: policy.loss, valueLoss: value.loss };
  return { ...policy, metrics: { ...policy.metrics, ...value.metrics, ...parts }, gradNorm };
}

const clipOf = ({ clipLow, clipHigh }: ReftSettings) => ({ low: 1 - clipLow, high: 1 + clipHigh });
const valueLoss = ({ valueClip }: ReftSettings) => ({ head: VALUE.name, clip: valueClip });

function jointLoss(settings: ReftSettings): Loss {
  const { valueClip, valueCoefficient: coefficient } = settings;
  return { ...ppoValue({ clip: clipOf(settings), head: VALUE.name, valueClip, coefficient }), entropy: true };
}

function groups(settings: ReftSettings, body: number, value: number): OptimSettings {
  const ofBody = adam(settings, body);
  return { ...ofBody, groups: { ...ofBody.groups, [`head:${VALUE.name}`]: adam(settings, value).groups.body } };
}

/** The samples in so many equal shares, in an order of their own where there are several. */
function shares(samples: Sample[], count: number, key: string): Sample[][] {
  const order = count === 1 ? samples : new RandomStream(`${key}/minibatches`).shuffle([...samples]);
  const size = samples.length / count;
  return Array.from({ length: count }, (_, m) => order.slice(m * size, (m + 1) * size));
}

function separateCritic({ critic }: Stage): Model {
  if (critic === undefined) throw new Error("the stage was made without the critic that its method asks for");
  return critic;
}

/** Share of responses in which an answer was found. */
function answeredShare(grades: Grade[]): Record<string, number> {
  const known = grades.filter(({ answered }) => answered !== undefined);
  return known.length === 0 ? {} : { answered: known.filter(({ answered }) => answered).length / known.length };
}

function updateMetrics(updates: Updated[]): Record<string, number> {
  const sum = (pick: (update: Updated) => number) => updates.reduce((total, update) => total + pick(update), 0);
  const [{ metrics: first }] = updates;
  const tokens = sum(({ metrics }) => metrics.tokens);
  const valueTokens = sum(({ metrics }) => metrics.valueTokens);
  return {
    policyLoss: sum(({ metrics }) => metrics.policyLoss) / updates.length,
    valueLoss: sum(({ metrics }) => metrics.valueLoss) / updates.length,
    gradNorm: sum(({ gradNorm }) => gradNorm) / updates.length,
    valueClipFraction: sum(({ metrics }) => metrics.valueClipped) / valueTokens,
    // Without a single advantage other than 0 the policy has no ratio.
    ...(tokens === 0 ? {} : { clipFraction: sum(({ metrics }) => metrics.clipped ?? 0) / tokens }),
    ...(first.tokens === 0 ? {} : { ratio: first.ratio / first.tokens }),
  };
}

/** The mean over sequences of the sum of k1, and what it cost. */
function sequenceKl(samples: Sample[], beta: number): Record<string, number> {
  const sums = samples.map(({ response: { logprobs, fields } }) =>
    (logprobs ?? new Float32Array(0)).reduce((sum, lp, t) => sum + k1(lp, fields.refLogprobs[t]), 0),
  );
  const { mean } = meanAndStd(sums);
  return { sequenceKl: mean, "reward/kl": -beta * mean };
}

/** How well the values foretold the returns of samples that they had not been trained on. */
function logValues(step: Step, samples: Sample[], rewards_ST: Float64Array[], { gamma }: ReftSettings): void {
  const values = samples.flatMap(({ response }) => Array.from(response.fields.oldValues));
  const returns = samples.flatMap(({ response }) => Array.from(response.fields.returns));
  const monteCarlo = samples.flatMap(({ response }, i) =>
    Array.from(gae(rewards_ST[i], response.fields.oldValues, { gamma, lambda: 1 }).returns_T),
  );
  step.log({
    value: meanAndStd(values).mean,
    return: meanAndStd(returns).mean,
    explainedVariance: explainedVariance(values, monteCarlo),
    "explainedVariance/lambda": explainedVariance(values, returns),
  });
}

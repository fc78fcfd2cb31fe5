import { z } from "zod";
import type { Loss, Policy } from "../engine/types.ts";
import type { Segment, Tree } from "../forest/types.ts";
import { sampleGroups } from "../rollout/single.ts";
import { groupAdvantages, isFlat, tokenWeights } from "./advantages.ts";
import { firstPassMetrics, klMetrics, rewardMetrics, sampleMetrics } from "./diagnostics.ts";
import { grpoLoss, k1, ppo } from "./losses.ts";
import { drawsWhole, questionsOf, TRUNCATED } from "./sampling.ts";
import type { Stage } from "./stage.ts";
import { accumulate, adam, optimizerSettings } from "./update.ts";

/** Defaults are those of MOTIF's vanilla GRPO (arXiv 2507.02851), but for prompts x samples. */
export const grpoSettings = z
  .strictObject({
    /** Problems a step. */
    prompts: z.int().positive().default(8),
    /** G: samples a problem. */
    samples: z.int().min(2).default(8),
    temperature: z.number().positive().default(1),
    maxTokens: z.int().positive().default(1024),
    topP: z.number().positive().max(1).default(1),
    topK: z.int().min(0).default(0),
    /** Trains on top-p or top-k samples, whose log-probs are not those of the distribution they were drawn from. */
    allowTruncated: z.boolean().default(false),
    /** The ratio counts within [1 - clipLow, 1 + clipHigh]. */
    clipLow: z.number().min(0).max(1).default(0.2),
    clipHigh: z.number().min(0).default(0.2),
    /** mu: times that a step's samples are trained on. */
    innerPasses: z.int().positive().default(1),
    /** Optimizer updates a pass, each on its share of the problems. */
    minibatches: z.int().positive().default(1),
    /** Weight of the KL penalty. */
    beta: z.number().min(0).default(0),
    kl: z.enum(["k1", "k3"]).default("k3"),
    reference: z.enum(["stage-start", "base"]).default("stage-start"),
    /** A mean over all tokens of the minibatch, or over each response's tokens and then over responses. */
    normalize: z.enum(["token", "sequence"]).default("token"),
    scaleByStd: z.boolean().default(true),
    /** Leaves out groups whose rewards are all equal; kept, they dilute the mean (and feel the KL penalty). */
    dropFlatGroups: z.boolean().default(false),
    ...optimizerSettings({ lr: 5e-6, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0.1, maxGradNorm: 0.1 }),
  })
  .refine(drawsWhole, TRUNCATED)
  .refine((s) => s.prompts % s.minibatches === 0, {
    path: ["minibatches"],
    error: (issue) => `minibatches must divide prompts evenly${promptsOf(issue.input)}`,
  });
export type GrpoSettings = z.infer<typeof grpoSettings>;

/** Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300, algorithm 1 with an outcome reward). */
export async function grpo(stage: Stage, settings: GrpoSettings): Promise<void> {
  const { model, task } = stage;
  const { prompts } = settings;
  const reference = await referencePolicy(stage, settings);
  const loss = objective(settings);

  for await (const step of stage.steps()) {
    // G responses to each question from the policy as it is.
    const problems = step.problems(prompts);
    const questions = questionsOf(stage, step, problems);
    const { forest, responses } = await step.time("sample", () =>
      sampleGroups(model, questions, { ...settings, stop: task.stop }),
    );

    // A reward for each response, and its advantage over its group.
    const items = problems.flatMap((problem, q) => responses[q].map((response) => ({ problem, response })));
    const grades = await step.time("grade", () => step.grade(items));
    const groups = forest.map((tree, q): Group => {
      const leaves = tree.segments.slice(1);
      const rewards_G = leaves.map((leaf, i) => {
        const { reward, parts } = grades[q * leaves.length + i];
        leaf.outcome = { ...parts, reward };
        return reward;
      });
      const advantages_G = groupAdvantages(rewards_G, tree.id, settings.scaleByStd);
      return { tree, leaves, advantages_G, flat: isFlat(rewards_G) };
    });

    // Log-probs of the reference policy, where the objective has a KL penalty.
    const kept = groups.filter((group) => !(group.flat && settings.dropFlatGroups));
    if (reference !== undefined && kept.length > 0) {
      const trees = kept.map((group) => group.tree);
      const scores = await step.time("score", () => model.forward(trees, reference));
      trees.forEach((tree, t) =>
        tree.segments.forEach((segment, s) => (segment.fields.refLogprobs = scores[t].logprobs[s])),
      );
      step.log(klMetrics(trees));
    }

    // Several passes over the samples, an update for each minibatch.
    const size = prompts / settings.minibatches;
    const minibatches = Array.from({ length: settings.minibatches }, (_, m) => {
      const share = groups.slice(m * size, (m + 1) * size);
      return share.filter((group) => kept.includes(group));
    });
    for (const minibatch of minibatches) setFields(minibatch, settings);
    const lr = step.lr();
    const sums = { loss: 0, gradNorm: 0, updates: 0, clipped: 0, tokens: 0 };
    await step.time("train", async () => {
      for (let pass = 0; pass < settings.innerPasses; pass++) {
        for (const minibatch of minibatches) {
          const trees = minibatch.map((group) => group.tree);
          // Nothing to learn from: an update would move the weights by momentum and decay alone.
          if (!minibatch.some(carriesWeight)) continue;
          const result = await accumulate(model, trees, loss, settings.microBatch);
          const { gradNorm } = await model.optimStep(adam(settings, lr));
          const { ratio = 0, clipped = 0, tokens = 0 } = result.metrics;
          if (sums.updates === 0) step.log({ ...firstPassMetrics(trees, result.scores), ratio: ratio / tokens });
          sums.loss += result.loss;
          sums.gradNorm += gradNorm;
          sums.clipped += clipped;
          sums.tokens += tokens;
          sums.updates++;
        }
      }
    });

    step.log({ ...rewardMetrics(grades), ...sampleMetrics(forest), flatGroups: shareOfFlat(groups), lr });
    if (sums.updates > 0) {
      const { updates, tokens } = sums;
      step.log({ loss: sums.loss / updates, gradNorm: sums.gradNorm / updates, clipFraction: sums.clipped / tokens });
    }
    step.keep(forest);
  }
}

interface Group {
  tree: Tree;
  leaves: Segment[];
  advantages_G: Float64Array;
  /** All rewards are equal: every advantage is 0. */
  flat: boolean;
}

async function referencePolicy(stage: Stage, { beta, reference }: GrpoSettings): Promise<Policy | undefined> {
  if (beta === 0) return undefined;
  return reference === "base" ? "base" : stage.startPolicy();
}

/** The clipped surrogate; with the k3 penalty inside where there is one (k1's stands in the advantages). */
function objective({ clipLow, clipHigh, beta, kl }: GrpoSettings): Loss {
  const clip = { low: 1 - clipLow, high: 1 + clipHigh };
  const loss = beta > 0 && kl === "k3" ? grpoLoss({ clip, beta }) : ppo(clip);
  return { ...loss, entropy: true };
}

/** Each token's weight in its minibatch's mean, and its advantage times that weight. */
function setFields(minibatch: Group[], { normalize, beta, kl }: GrpoSettings): void {
  const samples = minibatch.flatMap(({ leaves, advantages_G }) =>
    leaves.map((leaf, i) => ({ leaf, advantage: advantages_G[i] })),
  );
  const weights = tokenWeights(
    samples.map(({ leaf }) => leaf.tokens.length),
    normalize,
  );
  samples.forEach(({ leaf: { tokens, logprobs, fields }, advantage }, i) => {
    fields.advantages = new Float32Array(tokens.length).fill(weights[i] * advantage);
    if (beta === 0) return;
    if (kl === "k3") {
      fields.weights = new Float32Array(tokens.length).fill(weights[i]);
    } else if (logprobs) {
      // As a loss k1 has a gradient of expectation zero; as a cost to each token it has the right one.
      fields.advantages = logprobs.map((lp, t) => weights[i] * (advantage - beta * k1(lp, fields.refLogprobs[t])));
    }
  });
}

const carriesWeight = ({ leaves }: Group) =>
  leaves.some(({ fields }) => "weights" in fields || fields.advantages.some((advantage) => advantage !== 0));

const shareOfFlat = (groups: Group[]) => groups.filter((group) => group.flat).length / groups.length;

const promptsOf = (input: unknown) =>
  typeof input === "object" && input !== null && "prompts" in input ? `, which is ${input.prompts}` : "";

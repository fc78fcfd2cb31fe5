import { z } from "zod";
import type { Loss, OptimSettings, Policy } from "../engine/types.ts";
import type { Tree } from "../forest/types.ts";
import { firstPassMetrics, klMetrics } from "./diagnostics.ts";
import type { Stage, Step } from "./stage.ts";
import { carriesWeight } from "./tree-credit.ts";
import { accumulate, adam, type OptimizerSettings } from "./update.ts";

/** A share of a step's samples that one update learns from, its fields filled. */
export interface Minibatch {
  trees: Tree[];
}

const count = z.int().positive();

/** The settings that updates on trees of paths (or of responses that fork) share. */
export const treeUpdateSettings = {
  /** Weight of the KL cost (k1) inside the reward. */
  beta: z.number().min(0).default(0.01),
  reference: z.enum(["stage-start", "base"]).default("stage-start"),
  /** The ratio counts within [1 - clipLow, 1 + clipHigh]. */
  clipLow: z.number().min(0).max(1).default(0.2),
  clipHigh: z.number().min(0).default(0.2),
  innerPasses: count.default(1),
  /** Optimizer updates a pass, each on its share of the questions. */
  minibatches: count.default(1),
  /** A mean over all tokens of the minibatch's paths, or over each path's tokens and then over paths. */
  normalize: z.enum(["token", "sequence"]).default("token"),
};

interface UpdateSettings extends OptimizerSettings {
  /** Times that a step's samples are trained on. */
  innerPasses: number;
}

/** The policy that a KL penalty holds on to; undefined without a penalty. */
export async function referencePolicy(
  stage: Stage,
  { beta, reference }: { beta: number; reference: "stage-start" | "base" },
): Promise<Policy | undefined> {
  if (beta === 0) return undefined;
  return reference === "base" ? "base" : stage.startPolicy();
}

/** Sets the field `refLogprobs` of every segment, and logs the distance of the policy from its reference. */
export async function scoreReference(
  { model }: Stage,
  step: Step,
  trees: Tree[],
  reference: Policy | undefined,
): Promise<void> {
  if (reference === undefined || trees.length === 0) return;
  const scores = await step.time("score", () => model.forward(trees, reference));
  trees.forEach((tree, t) =>
    tree.segments.forEach((segment, s) => (segment.fields.refLogprobs = scores[t].logprobs[s])),
  );
  step.log(klMetrics(trees));
}

/**
 * Several passes over a step's samples, an update for each minibatch; logs what the first of them saw, and means over all. `optim`: what an update is
 * asked for at a learning rate. Returns the loss's metrics, summed over the updates.
 */
export async function updatePolicy(
  { model }: Stage,
  step: Step,
  minibatches: Minibatch[],
  loss: Loss,
  settings: UpdateSettings,
  optim: (lr: number) => OptimSettings = (lr) => adam(settings, lr),
): Promise<Record<string, number>> {
  const lr = step.lr();
  const sums = { loss: 0, gradNorm: 0, updates: 0 };
  const metrics: Record<string, number> = {};
  await step.time("train", async () => {
    for (let pass = 0; pass < settings.innerPasses; pass++) {
      for (const { trees } of minibatches) {
        // Nothing to learn from: an update would move the weights by momentum and decay alone.
        if (!trees.some(carriesWeight)) continue;
        const result = await accumulate(model, trees, loss, settings.microBatch);
        const { gradNorm } = await model.optimStep(optim(lr));
        const { ratio = 0, tokens = 0 } = result.metrics;
        if (sums.updates === 0) {
          step.log({ ...firstPassMetrics(trees, result.scores), ...(tokens > 0 && { ratio: ratio / tokens }) });
        }
        sums.loss += result.loss;
        sums.gradNorm += gradNorm;
        for (const [name, value] of Object.entries(result.metrics)) metrics[name] = (metrics[name] ?? 0) + value;
        sums.updates++;
      }
    }
  });
  step.log({ lr });
  const { updates } = sums;
  if (updates === 0) return metrics;
  step.log({ loss: sums.loss / updates, gradNorm: sums.gradNorm / updates });
  const { clipped = 0, tokens = 0 } = metrics;
  if (tokens > 0) step.log({ clipFraction: clipped / tokens });
  return metrics;
}

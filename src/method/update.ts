import { z } from "zod";
import type { Loss, Model, OptimSettings, Scores } from "../engine/types.ts";
import type { Forest } from "../forest/types.ts";

interface OptimizerDefaults {
  lr: number;
  betas: [number, number];
  eps: number;
  weightDecay: number;
  maxGradNorm: number;
}

const beta = z.number().min(0).lt(1);

/** The settings that every method's updates share, with that method's defaults. */
export function optimizerSettings(defaults: OptimizerDefaults) {
  return {
    /** AdamW's peak learning rate; the stage's schedule scales it. */
    lr: z.number().positive().default(defaults.lr),
    /** Peak learning rate of the rows of functional tokens, scaled likewise; `lr` when absent. */
    tokensLr: z.number().positive().optional(),
    betas: z.tuple([beta, beta]).default(defaults.betas),
    eps: z.number().positive().default(defaults.eps),
    /** Decoupled: each update also takes lr * weightDecay of a weight. */
    weightDecay: z.number().min(0).default(defaults.weightDecay),
    /** The global norm at which gradients are clipped; 0 for never. */
    maxGradNorm: z.number().min(0).default(defaults.maxGradNorm),
    /** Trees a forwardBackward call (all at once when absent): memory only, never the result. */
    microBatch: z.int().positive().optional(),
  };
}

/** What a method's updates read of its settings. */
export interface OptimizerSettings extends OptimizerDefaults {
  tokensLr?: number;
  microBatch?: number;
}

/** What `optimStep` is asked for at this learning rate. */
export function adam(settings: OptimizerSettings, lr: number): OptimSettings {
  const { betas, eps, weightDecay, maxGradNorm, tokensLr } = settings;
  const body = { lr, betas, eps, weightDecay };
  const tokens = tokensLr !== undefined && { tokens: { ...body, lr: (lr / settings.lr) * tokensLr } };
  return { groups: { body, ...tokens }, maxGradNorm: maxGradNorm || undefined };
}

export interface Accumulated {
  loss: number;
  /** Sums over tokens, as the loss gave them. */
  metrics: Record<string, number>;
  /** One entry a tree. */
  scores: Scores[];
}

/** Accumulates the gradient of a loss over a forest, `microBatch` trees a call. */
export async function accumulate(
  model: Model,
  forest: Forest,
  loss: Loss,
  microBatch = forest.length,
): Promise<Accumulated> {
  const total: Accumulated = { loss: 0, metrics: {}, scores: [] };
  for (let from = 0; from < forest.length; from += microBatch) {
    const trees = forest.slice(from, from + microBatch);
    const result = await model.forwardBackward(trees, loss);
    total.loss += result.loss;
    total.scores.push(...result.scores);
    for (const [name, value] of Object.entries(result.metrics)) {
      total.metrics[name] = (total.metrics[name] ?? 0) + value;
    }
  }
  return total;
}

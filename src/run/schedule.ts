import { z } from "zod";

const warmup = z
  .number()
  .nonnegative()
  .refine((w) => w < 1 || Number.isInteger(w), "warmup is a fraction below 1 or a whole number of steps")
  .default(0);
const final = z.number().min(0).max(1).default(0);

/** How the learning rate moves over a stage. `warmup`: a fraction of the stage, or steps; `final`: the fraction of lr at its end. */
export const scheduleSettings = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("constant"), warmup }),
  z.strictObject({ kind: z.literal("linear"), warmup, final }),
  z.strictObject({ kind: z.literal("cosine"), warmup, final }),
]);
export type Schedule = z.infer<typeof scheduleSettings>;

/** What a stage's length is measured in; the learning rate's schedule runs over the same measure. */
export const budgetKinds = ["epochs", "steps", "generatedTokens", "engineSeconds"] as const;
export interface Measure {
  kind: (typeof budgetKinds)[number];
  amount: number;
}
/** One measure, or several of which the last to be used up ends the stage. */
export type Budget = Measure | { kind: "marks"; measures: Measure[] };

/** What a stage has used so far. */
export interface Usage {
  steps: number;
  /** Training problems handed out. */
  problems: number;
  generatedTokens: number;
  engineSeconds: number;
}

/** The fraction of its budget that a stage has used; `splitSize` problems are an epoch. From 1 on it is used up. */
export function fractionUsed(budget: Budget, usage: Usage, splitSize: number): number {
  if (budget.kind === "marks") return Math.min(...budget.measures.map((one) => fractionUsed(one, usage, splitSize)));
  if (budget.kind === "epochs") return usage.problems / (budget.amount * splitSize);
  return usage[budget.kind] / budget.amount;
}

/** True when the stage is over: its budget is used up, or the point inside its schedule is reached where the recipe stops it. */
export function isOver(budget: Budget, stopAt: number | undefined, usage: Usage, splitSize: number): boolean {
  const used = fractionUsed(budget, usage, splitSize);
  // A sum of steps / total may round to just under the whole.
  if (used >= 1 - 1e-12) return true;
  if (stopAt === undefined) return false;
  return stopAt < 1 ? used >= stopAt - 1e-12 : usage.steps >= stopAt;
}

/**
 * The factor on the peak learning rate of a step. Warm-up rises linearly and reaches 1 in its last step; then the rate decays from 1
 * at the end of the warm-up to `final` at the end of the budget, linearly or as half a cosine (Loshchilov and Hutter 2017, without restarts).
 * `before`: the fraction used when the step began; `now`: with what the step has used until it asks. A warm-up in steps under a
 * budget of another measure does not shorten the decay, which then begins with the stage.
 */
export function learningRateFactor(
  schedule: Schedule,
  budget: Budget,
  at: { step: number; before: number; now: number },
): number {
  const { warmup } = schedule;
  const inSteps = warmup >= 1 || budget.kind === "steps";
  const warmupSteps = warmup < 1 && budget.kind === "steps" ? warmup * budget.amount : warmup;
  let rise = 1;
  if (warmup > 0) rise = Math.min(1, inSteps ? (at.step + 1) / warmupSteps : at.now / warmup);
  if (schedule.kind === "constant") return rise;
  let start = 0;
  if (warmup < 1) start = warmup;
  else if (budget.kind === "steps") start = Math.min(warmup / budget.amount, 1);
  const decayed = start < 1 ? Math.min(1, Math.max(0, (at.before - start) / (1 - start))) : 0;
  const shape = schedule.kind === "linear" ? 1 - decayed : (1 + Math.cos(Math.PI * decayed)) / 2;
  return rise * (schedule.final + (1 - schedule.final) * shape);
}

import { z } from "zod";
import { evaluationRounds, roundOptions } from "../eval/rounds.ts";

const whole = z.number().positive("expected a number above 0").refine(Number.isInteger, "a whole number");

/** A recipe's `eval`. */
export const evaluationSchema = z.strictObject({
  /** Steps of a stage from one to the next; its start and its end besides. */
  every: whole,
  /** Problems: the first of the split. */
  limit: whole.default(200),
  split: z.enum(["train", "dev", "test"]).default("dev"),
  /** Longest response. */
  maxTokens: whole.default(512),
  /** One of the problems' other formats. */
  format: z.string().min(1).optional(),
  ...roundOptions,
});

/** Greedy evaluation inside the run. */
export type EvaluationRecipe = z.infer<typeof evaluationSchema>;

/** Throws a UserError where a key has no effect. */
export function checkEvaluation(recipe: EvaluationRecipe, source: string): void {
  evaluationRounds(recipe, (key) => `${source}: \`eval.${key}\``);
}

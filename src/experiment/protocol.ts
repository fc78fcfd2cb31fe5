import { z } from "zod";
import { roundOptions } from "../eval/rounds.ts";
import { searchOptions } from "../eval/searched.ts";
import { BUDGETS } from "./file.ts";

const evaluation = z.strictObject({
  split: z.enum(["train", "dev", "test"]),
  limit: z.number().optional(),
  n: z.number(),
  temperature: z.number(),
  maxTokens: z.number(),
  format: z.string().optional(),
  ...searchOptions,
  ...roundOptions,
  seed: z.number(),
});

/** What the process of a cell is told. */
export const requestSchema = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("run"),
    job: z.strictObject({
      id: z.string(),
      dir: z.string(),
      recipe: z.strictObject({ toml: z.string(), baseDir: z.string() }),
      marks: z.array(z.enum(BUDGETS)),
      evaluation: evaluation.optional(),
      also: z
        .array(
          z.strictObject({
            name: z.string(),
            at: z.enum(["end", "start"]),
            spec: evaluation,
            tokens: z.number().optional(),
          }),
        )
        .optional(),
      /** Samples answers to the training problems with what stands in the folder `model`, or with the base; no run. */
      profile: z
        .strictObject({
          model: z.string().optional(),
          spec: z.strictObject({
            n: z.number(),
            limit: z.number().optional(),
            temperature: z.number(),
            maxTokens: z.number(),
          }),
        })
        .optional(),
      memory: z.number().optional(),
      force: z.boolean(),
    }),
  }),
  z.strictObject({ kind: z.literal("stop") }),
]);
export type Request = z.infer<typeof requestSchema>;

/** What it answers. */
export const answerSchema = z.discriminatedUnion("kind", [
  /** How far it is; `done` is a share of what it is doing. */
  z.strictObject({ kind: z.literal("progress"), text: z.string(), done: z.number() }),
  z.strictObject({ kind: z.literal("complete") }),
  z.strictObject({ kind: z.literal("stopped") }),
  /** `user`: a person can act on the message; otherwise it is a stack. */
  z.strictObject({ kind: z.literal("failed"), message: z.string(), user: z.boolean(), diverged: z.boolean() }),
]);
export type Answer = z.infer<typeof answerSchema>;

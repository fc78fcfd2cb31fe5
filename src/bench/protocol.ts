import { z } from "zod";

/** What the process of a workload tells the bench: once that it is ready, then the result of each repeat that was asked for. */
const numbers = z.record(z.string(), z.number());
export const answerSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("ready"), plan: z.string(), facts: numbers, peak: z.number() }),
  z.strictObject({ kind: z.literal("repeat"), values: numbers, quiet: z.boolean(), peak: z.number() }),
  z.strictObject({ kind: z.literal("failed"), message: z.string(), user: z.boolean() }),
]);
export type Answer = z.infer<typeof answerSchema>;

import { z } from "zod";
import type { Grade } from "./types.ts";

/** What a reward thread says: once `ready` or `broken`; then for each item any `output`, and `graded`, or `flood` in its place. */
export const answerSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("ready") }),
  z.object({ kind: z.literal("broken"), message: z.string() }),
  z.object({ kind: z.literal("output"), text: z.string() }),
  z.object({ kind: z.literal("flood") }),
  z.object({ kind: z.literal("graded"), grade: z.custom<Grade>((value) => typeof value === "object") }),
]);

export type Answer = z.infer<typeof answerSchema>;

/** What a reward thread is told as it starts. */
export const startSchema = z.object({ file: z.string() });

/** Characters that one reward may print. */
export const OUTPUT_LIMIT = 20_000;

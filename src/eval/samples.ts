import { z } from "zod";

/** How one answer of a response fared against the gold. */
export interface AnswerGrade {
  /** The answer that was extracted; absent where the strategies found none. */
  answer?: string;
  /** The strategy that found it. */
  strategy?: string;
  /** `unsure` counts as not equal. */
  verdict: "equal" | "different" | "unsure";
  /** The rule that decided. */
  rule: string;
  reason: string;
}

/** One line of a samples file. It stands for itself: grading it again needs neither model nor data set. */
export interface EvaluatedSample {
  /** The problem's id. */
  problem: string;
  /** From 0, within the problem. */
  sample: number;
  /** The last message of the prompt, or its text. */
  question?: string;
  gold?: string;
  /** Texts of a multiple-choice question's options, A first. */
  options?: string[];
  /** What groups of problems share, such as `level` and `subject`. */
  tags?: Record<string, string>;
  /** The response. */
  text: string;
  tokens: number[];
  /** Natural log, at the sampling temperature (1 where that is 0). */
  logprobs: number[];
  stop: "eos" | "stop" | "length";
  /** In the format that the prompt asks for. Of a task with a reward of its own: whether that counts as right. */
  strict: AnswerGrade;
  /** By every strategy in the documented order; absent where the task has a reward of its own and no gold. */
  flexible?: AnswerGrade;
  reward: number;
  parts: Record<string, number>;
  /** `strict.verdict` is `equal`. */
  solved: boolean;
  /** Why grading failed: the reward threw or passed its deadline. */
  error?: string;
}

const answerGradeSchema = z.strictObject({
  answer: z.string().optional(),
  strategy: z.string().optional(),
  verdict: z.enum(["equal", "different", "unsure"]),
  rule: z.string(),
  reason: z.string(),
});

export const evaluatedSampleSchema: z.ZodType<EvaluatedSample> = z.strictObject({
  problem: z.string().min(1),
  sample: z.int().nonnegative(),
  question: z.string().optional(),
  gold: z.string().optional(),
  options: z.array(z.string()).optional(),
  tags: z.record(z.string(), z.string()).optional(),
  text: z.string(),
  tokens: z.array(z.int().nonnegative()),
  logprobs: z.array(z.number()),
  stop: z.enum(["eos", "stop", "length"]),
  strict: answerGradeSchema,
  flexible: answerGradeSchema.optional(),
  reward: z.number(),
  parts: z.record(z.string(), z.number()),
  solved: z.boolean(),
  error: z.string().optional(),
});

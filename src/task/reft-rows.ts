import { z } from "zod";
import { goldNumber } from "./numbers.ts";
import type { Question } from "./questions.ts";

/** A record of ReFT's data files: all values are texts. */
export const reftRow = z.object({
  item_id: z.string().min(1),
  question: z.string().min(1),
  answer_value: z.string().min(1),
  answer_cot: z.string().optional(),
});

/** Chains of thought that state the answer themselves, `Therefore, the answer is <203>.` */
const STATED_ANSWER = /\s*Therefore, the answer is <[^<>]*>\.?\s*$/;

/** Whether a demonstration of ReFT's is a program. */
export const isProgram = (demonstration: string | undefined): boolean =>
  demonstration?.trimStart().startsWith("def solution") === true;

export function reftQuestion(row: z.infer<typeof reftRow>, place: string): Question {
  const { item_id, question, answer_value, answer_cot } = row;
  const known = { id: item_id, question, answer: goldNumber(answer_value, place), writtenAnswer: answer_value };
  if (isProgram(answer_cot)) return { ...known, program: answer_cot };
  return {
    ...known,
    reasoning: answer_cot?.replace(STATED_ANSWER, ""),
    writtenReasoning: answer_cot,
  };
}

import { z } from "zod";
import { UserError } from "../errors.ts";
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

export function reftQuestion(row: z.infer<typeof reftRow>, place: string): Question {
  const { item_id, question, answer_value, answer_cot } = row;
  if (answer_cot?.startsWith("def solution")) {
    throw new UserError(
      `${place}: the demonstrations are Python programs; expected chains of thought (ReFT's _nl.json files)`,
    );
  }
  return {
    id: item_id,
    question,
    answer: goldNumber(answer_value, place),
    writtenAnswer: answer_value,
    reasoning: answer_cot?.replace(STATED_ANSWER, ""),
    writtenReasoning: answer_cot,
  };
}

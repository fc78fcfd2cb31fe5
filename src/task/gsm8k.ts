import { z } from "zod";
import { UserError } from "../errors.ts";
import type { DatasetPlace } from "./dataset.ts";
import { goldNumber } from "./numbers.ts";
import type { Question } from "./questions.ts";
import { reftRow, reftQuestion } from "./reft-rows.ts";
import type { Row } from "./read.ts";

export const gsm8kPlace: DatasetPlace = { name: "gsm8k", hub: "openai/gsm8k" };

const publishedRow = z.object({ question: z.string().min(1), answer: z.string().min(1) });

/** GSM8K as published (`question`, `answer` with `<<48/2=24>>` annotations and `#### 72`) or in ReFT's schema. */
export function gsm8kQuestion(row: Row, index: number, split: "train" | "test"): Question {
  const reft = reftRow.safeParse(row.value);
  if (reft.success) return reftQuestion(reft.data, row.place);
  const parsed = publishedRow.safeParse(row.value);
  if (!parsed.success) {
    const found = Object.keys(row.value).join(", ") || "nothing";
    throw new UserError(
      `${row.place}: expected the texts question and answer (or ReFT's item_id, question, answer_value), found the fields ${found}`,
    );
  }
  const { question, answer } = parsed.data;
  const mark = answer.lastIndexOf("####");
  if (mark < 0) throw new UserError(`${row.place}: the answer lacks its last line \`#### number\``);
  const written = answer.slice(mark + 4).trim();
  return {
    id: `gsm8k-${split}-${index}`,
    question,
    answer: goldNumber(written, row.place),
    writtenAnswer: written,
    reasoning: answer
      .slice(0, mark)
      .replace(/<<[^<>]*>>/g, "")
      .trim(),
  };
}

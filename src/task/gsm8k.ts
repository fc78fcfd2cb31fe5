import { z } from "zod";
import { UserError } from "../errors.ts";
import { type Benchmark, parseRow } from "./benchmark.ts";
import { goldNumber } from "./numbers.ts";
import { reftQuestion, reftRow } from "./reft-rows.ts";

const publishedRow = z.object({ question: z.string().min(1), answer: z.string().min(1) });

/** GSM8K as published (`question`, `answer` with `<<48/2=24>>` annotations and `#### 72`) or in ReFT's schema. */
export const gsm8k: Benchmark = {
  name: "gsm8k",
  hub: "openai/gsm8k",
  form: "number",
  reft: true,
  parse(row, index, split) {
    const reft = reftRow.safeParse(row.value);
    if (reft.success) return reftQuestion(reft.data, row.place);
    const expected = "the texts question and answer (or ReFT's item_id, question, answer_value)";
    const { question, answer } = parseRow(publishedRow, row, expected);
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
  },
};

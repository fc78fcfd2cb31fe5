import { z } from "zod";
import { type Benchmark, parseRow } from "./benchmark.ts";
import { goldNumber } from "./numbers.ts";
import { reftQuestion, reftRow } from "./reft-rows.ts";

const publishedRow = z.object({
  ID: z.string().min(1),
  Body: z.string(),
  Question: z.string().min(1),
  Equation: z.string().optional(),
  Answer: z.union([z.string().min(1), z.number()]),
});

/** SVAMP as published (`ID`, `Body`, `Question`, `Equation`, `Answer`) or in ReFT's schema, which adds chains of thought. */
export const svamp: Benchmark = {
  name: "svamp",
  hub: "ChilleD/SVAMP",
  form: "number",
  reft: true,
  parse(row) {
    const reft = reftRow.safeParse(row.value);
    if (reft.success) return reftQuestion(reft.data, row.place);
    const expected = "ID, Body, Question and Answer (or ReFT's item_id, question, answer_value)";
    const { ID, Body, Question, Equation, Answer } = parseRow(publishedRow, row, expected);
    const body = Body.trim();
    const answer = goldNumber(String(Answer), row.place);
    return {
      id: ID,
      // Some bodies lack their full stop.
      question: `${body}${/[.?!,]$/.test(body) || body === "" ? "" : "."} ${Question.trim()}`.trim(),
      answer,
      writtenAnswer: String(Answer),
      reasoning: Equation === undefined ? undefined : `${equation(Equation)} = ${answer}`,
    };
  },
};

/** `( 8.0 - 2.0 )` as a person writes it: `8 - 2`. */
function equation(text: string): string {
  const plain = text
    .replace(/(\d)\.0+\b/g, "$1")
    .replace(/\(\s+/g, "(")
    .replace(/\s+\)/g, ")")
    .trim();
  const inner = plain.slice(1, -1);
  return plain.startsWith("(") && plain.endsWith(")") && !/[()]/.test(inner) ? inner : plain;
}

import { z } from "zod";
import { UserError } from "../errors.ts";
import { type Benchmark, parseRow } from "./benchmark.ts";
import { letterOf, type Question } from "./questions.ts";
import type { Row } from "./read.ts";
import { isProgram, reftQuestion, reftRow } from "./reft-rows.ts";

const publishedRow = z.object({
  Problem: z.string().min(1),
  Rationale: z.string().optional(),
  options: z.string().min(1),
  correct: z.string().min(1),
  category: z.string().optional(),
});

/**
 * MathQA (Amini et al. 2019), multiple choice: as published (`Problem`, `Rationale`, `options`, `correct`, `category`) or in ReFT's
 * schema, whose questions end in a line of options.
 */
export const mathqa: Benchmark = {
  name: "mathqa",
  hub: "allenai/math_qa",
  form: "choice",
  reft: true,
  parse(row, index, split) {
    const reft = reftRow.safeParse(row.value);
    if (reft.success) {
      const { item_id, question, answer_value, answer_cot } = reft.data;
      const line = question.lastIndexOf("\n");
      return {
        id: item_id,
        ...choice(question.slice(0, line), question.slice(line + 1), answer_value, row),
        writtenQuestion: question,
        writtenAnswer: answer_value,
        ...(isProgram(answer_cot)
          ? { program: answer_cot }
          : answer_cot === undefined
            ? {}
            : { reasoning: answer_cot, writtenReasoning: answer_cot }),
      };
    }
    const expected = "Problem, options and correct (or ReFT's item_id, question, answer_value)";
    const { Problem, Rationale, options, correct, category } = parseRow(publishedRow, row, expected);
    return {
      id: `mathqa-${split}-${index}`,
      ...choice(Problem, options, correct, row),
      writtenQuestion: `${Problem}\n${options}`,
      writtenAnswer: correct,
      ...(Rationale === undefined ? {} : { reasoning: Rationale.replace(/^"|"$/g, "").trim() }),
      ...(category === undefined ? {} : { tags: { category } }),
    };
  },
};

/** The same questions without options; the answer is a number. ReFT's files only. */
export const mathqaNumeric: Benchmark = {
  name: "mathqa-numeric",
  hub: "allenai/math_qa",
  folders: ["mathqa"],
  form: "number",
  reft: true,
  parse(row) {
    const { item_id, question, answer_value, answer_cot } = parseRow(
      reftRow,
      row,
      "ReFT's texts item_id, question and answer_value",
    );
    return reftQuestion({ item_id, question, answer_value, answer_cot }, row.place);
  },
};

function choice(
  question: string,
  line: string,
  correct: string,
  { place }: Row,
): Pick<Question, "question" | "options" | "answer"> {
  const options = optionTexts(line);
  if (options.length < 2) {
    throw new UserError(
      `${place}: expected options such as "a ) 38 , b ) 30", found ${JSON.stringify(line.slice(0, 80))}`,
    );
  }
  const answer = correct.trim().toUpperCase();
  const letters = options.map((_, i) => letterOf(i));
  if (!letters.includes(answer)) {
    throw new UserError(`${place}: the correct option ${JSON.stringify(correct)} is none of ${letters.join(", ")}`);
  }
  return { question, options, answer };
}

/**
 * The texts of `a ) 38 , b ) 27.675 , c ) 30`, also where it is printed as a list of quoted texts, and where an option repeats its
 * letter (`a ) a ) 38`).
 */
function optionTexts(line: string): string[] {
  const plain = line
    .trim()
    .replace(/^\[\s*['"]|['"]\s*\]$/g, "")
    .replace(/['"]\s*,\s*['"]/g, " , ");
  const texts: string[] = [];
  let rest = plain;
  for (let i = 0; rest !== ""; i++) {
    const letter = letterOf(i).toLowerCase();
    const start = new RegExp(`^${letter}\\s*\\)\\s*`).exec(rest);
    if (start === null) break;
    rest = rest.slice(start[0].length);
    const next = letterOf(i + 1).toLowerCase();
    // The first comma before the next letter; a bracket alone begins no option.
    const end = new RegExp(`\\s*,\\s*(?=${next}\\s*\\))`).exec(rest);
    const text = end === null ? rest : rest.slice(0, end.index);
    texts.push(text.replace(new RegExp(`^${letter}\\s*\\)\\s*`), "").trim());
    rest = end === null ? "" : rest.slice(end.index + end[0].length);
  }
  return texts;
}

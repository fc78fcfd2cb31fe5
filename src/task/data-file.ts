import { existsSync } from "node:fs";
import { basename, extname, resolve } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import type { AnswerForm } from "./grading.ts";
import { goldNumber } from "./numbers.ts";
import { letterOf, type Question, questionOptions, questionTask } from "./questions.ts";
import { readRows, type Row } from "./read.ts";
import type { TaskDefinition } from "./types.ts";

/**
 * `number`: a number, asked for after `####`. `math`: an expression, a set, an interval, ..., asked for in a box. `choice`: a letter
 * of the record's options. `exact`: a text; letter case counts, blanks are one.
 */
const graders = ["number", "math", "choice", "exact"] as const satisfies readonly AnswerForm[];

export const dataFileOptions = z.strictObject({
  name: z.string(),
  grader: z.enum(graders, { error: `expected a grader: ${graders.slice(0, -1).join(", ")} or ${graders.at(-1)}` }),
  /** A file of test problems. */
  test: z.string().min(1).optional(),
  prompt: z.enum(["chat", "completion", "text"]).default("chat"),
  /** What the fields of a record are called. */
  fields: z
    .strictObject({
      id: z.string().default("id"),
      question: z.string().default("question"),
      answer: z.string().default("answer"),
      demonstration: z.string().default("demonstration"),
      options: z.string().default("options"),
      /** The fields that are tags, such as level and subject. */
      tags: z.array(z.string()).default([]),
    })
    .prefault({}),
  ...questionOptions,
});

type DataFileOptions = z.infer<typeof dataFileOptions>;

/** A task whose problems are the records of a data file. A file whose name contains "test" is test data, unless `test` names another. */
export function dataFileTask(file: string, options: DataFileOptions, baseDir: string): Promise<TaskDefinition> {
  if (!existsSync(file)) throw new UserError(`${file}: no such task file`);
  const read = (path: string) => async () =>
    (await readRows(path)).map((row, index) => questionOf(row, index, options));
  const name = basename(file, extname(file));
  const { test, grader } = options;
  const splits =
    test !== undefined
      ? { train: read(file), test: read(resolve(baseDir, test)) }
      : /test/i.test(name)
        ? { test: read(file) }
        : { train: read(file) };
  return questionTask({ name, form: grader, ...splits }, options, baseDir);
}

function questionOf(row: Row, index: number, { grader, fields }: DataFileOptions): Question {
  const id = row.value[fields.id];
  const demonstration = row.value[fields.demonstration];
  if (demonstration !== undefined && (typeof demonstration !== "string" || demonstration === "")) {
    throw new UserError(`${row.place}: expected the field ${fields.demonstration} to be a text`);
  }
  const options = grader === "choice" ? optionsOf(row, fields.options) : undefined;
  const gold = row.value[fields.answer];
  // Several answers are one gold: all are needed.
  const answer = Array.isArray(gold) && gold.length > 0 ? gold.map(String).join(", ") : textOf(row, fields.answer);
  return {
    id: typeof id === "string" || typeof id === "number" || typeof id === "bigint" ? String(id) : `line-${index + 1}`,
    question: textOf(row, fields.question),
    answer:
      grader === "number"
        ? goldNumber(answer, row.place)
        : options
          ? letter(answer, options, row, fields.answer)
          : answer,
    ...(demonstration === undefined ? {} : { demonstration }),
    ...(options === undefined ? {} : { options }),
    ...(fields.tags.length === 0
      ? {}
      : { tags: Object.fromEntries(fields.tags.map((tag) => [tag, textOf(row, tag)])) }),
  };
}

function optionsOf(row: Row, field: string): string[] {
  const parsed = z.array(z.coerce.string()).min(2).safeParse(row.value[field]);
  if (parsed.success) return parsed.data;
  throw new UserError(
    `${row.place}: expected a list of options in the field ${field}; name it in the task's \`fields\``,
  );
}

/** The gold of a multiple-choice question may be a letter, an index from 0, or the option's text. */
function letter(gold: string, options: string[], { place }: Row, field: string): string {
  const letters = options.map((_, i) => letterOf(i));
  const byText = options.map((option) => option.trim()).indexOf(gold.trim());
  const at = [letters.indexOf(gold.trim().toUpperCase()), byText, /^\d+$/.test(gold) ? Number(gold) : -1].find(
    (i) => i >= 0,
  );
  if (at !== undefined && at < options.length) return letters[at];
  throw new UserError(
    `${place}: the field ${field} is ${JSON.stringify(gold)}; expected a letter (${letters.join(", ")}), an index from 0, or an option's text`,
  );
}

function textOf(row: Row, field: string): string {
  const value = row.value[field];
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  if (typeof value === "string" && value.trim() !== "") return value;
  const found = Object.keys(row.value).join(", ") || "nothing";
  throw new UserError(
    `${row.place}: expected a text in the field ${field}, found the fields ${found}; name it in the task's \`fields\``,
  );
}

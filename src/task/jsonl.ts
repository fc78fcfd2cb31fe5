import { existsSync } from "node:fs";
import { z } from "zod";
import { extract } from "../grade/extract.ts";
import { UserError } from "../errors.ts";
import { heldOut } from "./dataset.ts";
import { goldNumber, NUMBER_INSTRUCTION, numberReward } from "./numbers.ts";
import { readRows, type Row } from "./read.ts";
import type { Problem, TaskDefinition } from "./types.ts";
import { basename, resolve } from "node:path";

const blanks = /\s+/g;

/** Named graders: 1 where a response's answer is the problem's `answer`, else 0. */
const graders = {
  /** The number after `####`, in the last `\boxed{}`, or the last in the text. */
  number: (problem: Problem, response: string) => numberReward(problem, response),
  /** The text after `####`, in the last `\boxed{}`, after ReFT's trigger, or the whole response; letter case counts, blanks are one. */
  exact: (problem: Problem, response: string) => {
    const found = extract(response, ["hashes", "boxed", "reft", "whole"])?.text.replace(blanks, " ");
    return found === problem.answer?.trim().replace(blanks, " ") ? 1 : 0;
  },
};

const graderNames = ["number", "exact"] as const;

export const jsonlOptions = z.strictObject({
  name: z.string(),
  grader: z.enum(graderNames, { error: `expected a grader: ${graderNames.join(" or ")}` }),
  /** A file of test problems. */
  test: z.string().min(1).optional(),
  /** The share of `name`'s questions that is held out. */
  dev: z.number().min(0).max(0.5).default(0.1),
  prompt: z.enum(["chat", "text"]).default("chat"),
  /** What the fields of a record are called. */
  fields: z
    .strictObject({
      id: z.string().default("id"),
      question: z.string().default("question"),
      answer: z.string().default("answer"),
      demonstration: z.string().default("demonstration"),
    })
    .prefault({}),
});

type JsonlOptions = z.infer<typeof jsonlOptions>;

/** A task whose problems are the lines of a JSON-lines file. */
export function jsonlTask(file: string, options: JsonlOptions, baseDir: string): TaskDefinition {
  if (!existsSync(file)) throw new UserError(`${file}: no such task file`);
  const read = async (path: string) => {
    const rows = await readRows(path);
    return rows.map((row, index) => ({ question: questionOf(row, options), problem: problemOf(row, index, options) }));
  };
  let training: ReturnType<typeof read> | undefined;
  const trainOrDev = (dev: boolean) => async () => {
    const items = await (training ??= read(file));
    return items.filter(({ question }) => heldOut(question, options.dev) === dev).map(({ problem }) => problem);
  };
  const { test } = options;
  return {
    name: basename(file, ".jsonl"),
    splits: {
      train: trainOrDev(false),
      ...(options.dev > 0 ? { dev: trainOrDev(true) } : {}),
      ...(test === undefined
        ? {}
        : { test: async () => (await read(resolve(baseDir, test))).map(({ problem }) => problem) }),
    },
    reward: graders[options.grader],
  };
}

function problemOf(row: Row, index: number, options: JsonlOptions): Problem {
  const { fields } = options;
  const question = questionOf(row, options);
  const answer = textOf(row, fields.answer);
  const id = row.value[fields.id];
  const demonstration = row.value[fields.demonstration];
  if (demonstration !== undefined && (typeof demonstration !== "string" || demonstration === "")) {
    throw new UserError(`${row.place}: expected the field ${fields.demonstration} to be a text`);
  }
  const content = options.grader === "number" ? `${question}\n\n${NUMBER_INSTRUCTION}` : question;
  return {
    id: typeof id === "string" || typeof id === "number" ? String(id) : `line-${index + 1}`,
    prompt: options.prompt === "text" ? { text: question } : { messages: [{ role: "user", content }] },
    ...(demonstration === undefined ? {} : { demonstrations: [demonstration] }),
    answer: options.grader === "number" ? goldNumber(answer, row.place) : answer,
  };
}

function questionOf(row: Row, options: JsonlOptions): string {
  return textOf(row, options.fields.question);
}

function textOf(row: Row, field: string): string {
  const value = row.value[field];
  if (typeof value === "number") return String(value);
  if (typeof value === "string" && value.trim() !== "") return value;
  const found = Object.keys(row.value).join(", ") || "nothing";
  throw new UserError(
    `${row.place}: expected a text in the field ${field}, found the fields ${found}; name it in the task's \`fields\``,
  );
}

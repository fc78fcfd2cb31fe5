import { resolve } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { pyodideFolder } from "../sandbox/index.ts";
import { type DatasetPlace, findDataset, noSplit, splitFiles } from "./dataset.ts";
import type { AnswerForm } from "./grading.ts";
import { programLimits } from "./program.ts";
import { type Question, questionOptions, questionTask } from "./questions.ts";
import { readRows, type Row } from "./read.ts";
import type { TaskDefinition } from "./types.ts";

/** A published set of questions. */
export interface Benchmark extends DatasetPlace {
  form: AnswerForm;
  /** ReFT publishes it, with a prompt of its own. */
  reft?: boolean;
  /** Throws a UserError that names the row's place for one that is not as published. */
  parse(row: Row, index: number, split: "train" | "test"): Question;
}

const prompts = ["chat", "completion"] as const;

export const benchmarkOptions = z.strictObject({
  name: z.string(),
  path: z.string().min(1).optional(),
  prompt: z.enum(prompts).default("chat"),
  ...questionOptions,
});

export const reftOptions = benchmarkOptions.extend({
  prompt: z.enum([...prompts, "reft"]).default("chat"),
  /** What a response is: text that states the answer, or a Python program whose `solution()` gives it. */
  format: z.enum(["text", "program"]).default("text"),
  /** Of programs: the prompt gives the `def` line and the question as docstring. */
  prefill: z.boolean().default(false),
  programs: programLimits.optional(),
});

/** A task over a published set: `train` (less `dev`) is the training file, `test` the test file. */
export function benchmarkTask(
  benchmark: Benchmark,
  options: z.infer<typeof benchmarkOptions> & Partial<z.infer<typeof reftOptions>>,
  baseDir: string,
): Promise<TaskDefinition> {
  const { format = "text", prefill = false, programs } = options;
  if (format === "text" && (prefill || programs !== undefined)) {
    throw new UserError(`task ${benchmark.name}: \`prefill\` and \`programs\` need \`format = "program"\``);
  }
  const wheels = programs?.wheels === undefined ? {} : { wheels: resolve(baseDir, programs.wheels) };
  const program = format === "text" ? undefined : { prefill, limits: { ...programs, ...wheels } };
  // Where there is no interpreter, that is said before any work.
  if (program !== undefined) pyodideFolder();
  const at = findDataset(benchmark, options.path, baseDir);
  const read = (split: "train" | "test") => async () => {
    const files = splitFiles(benchmark, at, split, format);
    if (files === undefined) throw noSplit(benchmark, at, split);
    const rows: Row[] = [];
    for (const file of files) rows.push(...(await readRows(file)));
    return rows.map((row, index) => {
      const question = benchmark.parse(row, index, split);
      checkFormat(question, format, split, row.place);
      return question;
    });
  };
  return questionTask(
    {
      name: benchmark.name,
      form: benchmark.form,
      ...(program === undefined ? {} : { program }),
      ...(benchmark.testOnly === true ? {} : { train: read("train") }),
      test: read("test"),
    },
    options,
    baseDir,
  );
}

function checkFormat(
  { program, writtenReasoning }: Question,
  format: "text" | "program",
  split: "train" | "test",
  place: string,
): void {
  if (format === "text" && program !== undefined) {
    throw new UserError(
      `${place}: the demonstrations are Python programs; set \`format = "program"\`, or take chains of thought (ReFT's _nl.json files)`,
    );
  }
  if (format === "program" && program === undefined && (split === "train" || writtenReasoning !== undefined)) {
    const found =
      writtenReasoning === undefined ? "there are no programs here" : "the demonstrations are chains of thought";
    throw new UserError(
      `${place}: ${found}; \`format = "program"\` expects ReFT's training file of programs (<data set>_python_sdp.json)`,
    );
  }
}

/** A row by the first schema that fits. Throws a UserError that names the row's place and its fields. */
export function parseRow<S extends z.ZodType>(schema: S, row: Row, expected: string): z.output<S> {
  const parsed = schema.safeParse(row.value);
  if (parsed.success) return parsed.data;
  const found = Object.keys(row.value).join(", ") || "nothing";
  throw new UserError(`${row.place}: expected ${expected}, found the fields ${found}`);
}

import { z } from "zod";
import { UserError } from "../errors.ts";
import { type DatasetPlace, findDataset, noSplit, splitFiles } from "./dataset.ts";
import type { AnswerForm } from "./grading.ts";
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

export const reftOptions = benchmarkOptions.extend({ prompt: z.enum([...prompts, "reft"]).default("chat") });

/** A task over a published set: `train` (less `dev`) is the training file, `test` the test file. */
export function benchmarkTask(
  benchmark: Benchmark,
  options: z.infer<typeof reftOptions>,
  baseDir: string,
): Promise<TaskDefinition> {
  const at = findDataset(benchmark, options.path, baseDir);
  const read = (split: "train" | "test") => async () => {
    const files = splitFiles(benchmark, at, split);
    if (files === undefined) throw noSplit(benchmark, at, split);
    const rows: Row[] = [];
    for (const file of files) rows.push(...(await readRows(file)));
    return rows.map((row, index) => benchmark.parse(row, index, split));
  };
  return questionTask(
    {
      name: benchmark.name,
      form: benchmark.form,
      ...(benchmark.testOnly === true ? {} : { train: read("train") }),
      test: read("test"),
    },
    options,
    baseDir,
  );
}

/** A row by the first schema that fits. Throws a UserError that names the row's place and its fields. */
export function parseRow<S extends z.ZodType>(schema: S, row: Row, expected: string): z.output<S> {
  const parsed = schema.safeParse(row.value);
  if (parsed.success) return parsed.data;
  const found = Object.keys(row.value).join(", ") || "nothing";
  throw new UserError(`${row.place}: expected ${expected}, found the fields ${found}`);
}

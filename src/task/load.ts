import { existsSync } from "node:fs";
import { extname, resolve } from "node:path";
import { z } from "zod";
import { nearest, UserError } from "../errors.ts";
import { parseStrict } from "../strict.ts";
import { arithmetic, arithmeticOptions } from "./arithmetic.ts";
import { createTask } from "./create.ts";
import { loadDefinition } from "./file.ts";
import { type Benchmark, benchmarkOptions, benchmarkTask, reftOptions } from "./benchmark.ts";
import { commonsenseqa, gpqa, mmluPro } from "./choice.ts";
import { gradingSchema } from "./grading.ts";
import { gsm8k } from "./gsm8k.ts";
import { dataFileOptions, dataFileTask } from "./data-file.ts";
import { listOptions, lists } from "./lists.ts";
import { poolGrader } from "./pool.ts";
import { aime2024, amc, math, math500, olympiadbench } from "./math.ts";
import { mathqa, mathqaNumeric } from "./mathqa.ts";
import { DATA_EXTENSIONS } from "./read.ts";
import { svamp } from "./svamp.ts";
import type { Grading, Task, TaskDefinition } from "./types.ts";
import { tagged, taggedOptions } from "./tagged.ts";
import { wordProblemsInFormats } from "./wordformats.ts";
import { wordProblemOptions, wordProblems } from "./wordproblems.ts";

export interface LoadOptions {
  /** What relative paths in the task are relative to: the recipe's folder. */
  baseDir: string;
  /** The run's seed; generators draw their training problems from it unless they have a `seed` of their own. */
  seed: number;
  /** Replaces what it names of the task's own grading. */
  grading?: Partial<Grading>;
}

type Load = (
  spec: Record<string, unknown>,
  source: string,
  options: LoadOptions,
) => TaskDefinition | Promise<TaskDefinition>;

const published =
  (benchmark: Benchmark): Load =>
  (spec, source, { baseDir }) =>
    benchmarkTask(benchmark, parseStrict(benchmark.reft ? reftOptions : benchmarkOptions, spec, source), baseDir);

const builtIn: Record<string, Load> = {
  gsm8k: published(gsm8k),
  svamp: published(svamp),
  wordproblems: (spec, source, { seed }) => {
    const options = parseStrict(wordProblemOptions, spec, source);
    return options.formats ? wordProblemsInFormats(options, seed) : wordProblems(options, seed);
  },
  tagged: (spec, source, { seed }) => tagged(parseStrict(taggedOptions, spec, source), seed),
  arithmetic: (spec, source, { seed }) => arithmetic(parseStrict(arithmeticOptions, spec, source), seed),
  lists: (spec, source, { seed }) => lists(parseStrict(listOptions, spec, source), seed),
  mathqa: published(mathqa),
  "mathqa-numeric": published(mathqaNumeric),
  math: published(math),
  math500: published(math500),
  aime2024: published(aime2024),
  amc: published(amc),
  olympiadbench: published(olympiadbench),
  "mmlu-pro": published(mmluPro),
  gpqa: published(gpqa),
  commonsenseqa: published(commonsenseqa),
};

const codeExtensions = [".ts", ".mts", ".js", ".mjs"];

/**
 * A task by name, by file, or by a table with `name` (either of them) and the task's options. Throws a UserError for a task or an
 * option that nobody knows, naming the nearest, and for a file that does not load.
 */
export async function loadTask(spec: string | Record<string, unknown>, options: LoadOptions): Promise<Task> {
  const table = typeof spec === "string" ? { name: spec } : spec;
  const { name } = table;
  if (typeof name !== "string" || name === "") {
    throw new UserError(
      `task: \`name\` is missing: expected a built-in task (${Object.keys(builtIn).join(", ")}) or a file`,
    );
  }
  if (Object.hasOwn(builtIn, name)) {
    return createTask(regraded(await builtIn[name](table, `task ${name}`, options), options));
  }
  const file = resolve(options.baseDir, name);
  if (DATA_EXTENSIONS.some((extension) => extension === extname(name))) {
    const own = parseStrict(dataFileOptions, table, `task ${name}`);
    return createTask(regraded(await dataFileTask(file, own, options.baseDir), options));
  }
  if (codeExtensions.includes(extname(name))) {
    parseStrict(z.strictObject({ name: z.string() }), table, `task ${name}`);
    const loaded = await loadDefinition(file);
    if (loaded.grading !== undefined) parseStrict(gradingSchema, loaded.grading, file, ["grading"]);
    const definition = regraded(loaded, options);
    // Only code of the user's own needs a thread.
    return definition.reward === undefined || definition.programs !== undefined
      ? createTask(definition)
      : createTask(definition, poolGrader(file, definition.deadline));
  }
  const near = nearest(name, Object.keys(builtIn));
  const hint = near === undefined ? `built-in tasks: ${Object.keys(builtIn).join(", ")}` : `did you mean ${near}?`;
  const files = existsSync(file) ? `; a task file ends in ${[...codeExtensions, ...DATA_EXTENSIONS].join(", ")}` : "";
  throw new UserError(`unknown task ${JSON.stringify(name)} (${hint})${files}`);
}

function regraded(definition: TaskDefinition, { grading = {} }: LoadOptions): TaskDefinition {
  if (Object.keys(grading).length === 0) return definition;
  if (definition.grading === undefined) {
    throw new UserError(
      `task ${definition.name} has a reward of its own and no \`grading\`: mode and strategies do not apply to it`,
    );
  }
  return { ...definition, grading: { ...definition.grading, ...grading } };
}

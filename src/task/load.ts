import { existsSync } from "node:fs";
import { extname, resolve } from "node:path";
import { z } from "zod";
import { nearest, UserError } from "../errors.ts";
import { parseStrict } from "../strict.ts";
import { arithmetic, arithmeticOptions } from "./arithmetic.ts";
import { createTask } from "./create.ts";
import { loadDefinition } from "./file.ts";
import { gsm8kPlace, gsm8kQuestion } from "./gsm8k.ts";
import { jsonlOptions, jsonlTask } from "./jsonl.ts";
import { poolGrader } from "./pool.ts";
import { questionOptions, questionTask } from "./questions.ts";
import { svampPlace, svampQuestion } from "./svamp.ts";
import type { Task, TaskDefinition } from "./types.ts";
import { wordProblemOptions, wordProblems } from "./wordproblems.ts";

export interface LoadOptions {
  /** What relative paths in the task are relative to: the recipe's folder. */
  baseDir: string;
  /** The run's seed; generators draw their training problems from it unless they have a `seed` of their own. */
  seed: number;
}

type Load = (spec: Record<string, unknown>, source: string, options: LoadOptions) => TaskDefinition;

const builtIn: Record<string, Load> = {
  gsm8k: (spec, source, { baseDir }) =>
    questionTask(gsm8kPlace, parseStrict(questionOptions, spec, source), baseDir, gsm8kQuestion),
  svamp: (spec, source, { baseDir }) =>
    questionTask(svampPlace, parseStrict(questionOptions, spec, source), baseDir, svampQuestion),
  wordproblems: (spec, source, { seed }) => wordProblems(parseStrict(wordProblemOptions, spec, source), seed),
  arithmetic: (spec, source, { seed }) => arithmetic(parseStrict(arithmeticOptions, spec, source), seed),
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
  if (Object.hasOwn(builtIn, name)) return createTask(builtIn[name](table, `task ${name}`, options));
  const file = resolve(options.baseDir, name);
  if (extname(name) === ".jsonl") {
    return createTask(jsonlTask(file, parseStrict(jsonlOptions, table, `task ${name}`), options.baseDir));
  }
  if (codeExtensions.includes(extname(name))) {
    parseStrict(z.strictObject({ name: z.string() }), table, `task ${name}`);
    const definition = await loadDefinition(file);
    return createTask(definition, poolGrader(file, definition.deadline));
  }
  const near = nearest(name, Object.keys(builtIn));
  const hint = near === undefined ? `built-in tasks: ${Object.keys(builtIn).join(", ")}` : `did you mean ${near}?`;
  const files = existsSync(file) ? `; a task file ends in ${[...codeExtensions, ".jsonl"].join(", ")}` : "";
  throw new UserError(`unknown task ${JSON.stringify(name)} (${hint})${files}`);
}

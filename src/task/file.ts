import { existsSync } from "node:fs";
import { createJiti } from "jiti";
import { z } from "zod";
import { fileURLToPath } from "node:url";
import { UserError } from "../errors.ts";
import { parseStrict } from "../strict.ts";
import { checkedRounds } from "./file-rounds.ts";
import type { Grading, ProgramSettings, RoundsDefinition, TaskDefinition } from "./types.ts";

const splitSchema = z.custom<TaskDefinition["splits"]["train"]>(
  (value) => typeof value === "function" || (typeof value === "object" && value !== null),
  "expected an array of problems, a source of problems, or a function that gives one",
);

function functionSchema<T>(what: string) {
  return z.custom<T>((value) => typeof value === "function", { error: `expected a function ${what}` });
}

const definitionSchema: z.ZodType<TaskDefinition> = z.strictObject({
  name: z.string().min(1),
  splits: z
    .strictObject({ train: splitSchema.optional(), dev: splitSchema.optional(), test: splitSchema.optional() })
    .refine((splits) => Object.keys(splits).length > 0, "expected at least one of train, dev, test"),
  reward: functionSchema<NonNullable<TaskDefinition["reward"]>>(
    "(problem, response) => number or named numbers",
  ).optional(),
  grading: z.custom<Grading>((value) => typeof value === "object" && value !== null, "expected a record").optional(),
  programs: z
    .custom<ProgramSettings>((value) => typeof value === "object" && value !== null, "expected a record")
    .optional(),
  prompt: z.string().min(1).optional(),
  weights: z.record(z.string(), z.number()).optional(),
  deadline: z.number().positive().max(86_400).optional(),
  stop: z.array(z.string().min(1)).optional(),
  vocabulary: z.array(z.string().min(1)).optional(),
  rounds: z
    .strictObject({
      most: z.int().positive().optional(),
      prompt: functionSchema<RoundsDefinition["prompt"]>("(problem, round, rounds, progress) => prompt"),
      progress: functionSchema<RoundsDefinition["progress"]>("(response) => text or undefined"),
      final: functionSchema<RoundsDefinition["final"]>("(response) => true or false"),
      done: functionSchema<NonNullable<RoundsDefinition["done"]>>(
        "(problem, response) => number or undefined",
      ).optional(),
      demonstrate: functionSchema<NonNullable<RoundsDefinition["demonstrate"]>>(
        "(problem, rounds) => { prompt, response } for each round",
      ).optional(),
    })
    .optional(),
  rates: functionSchema<NonNullable<TaskDefinition["rates"]>>(
    "(problem, response) => { name: { hits, of } }",
  ).optional(),
});

/**
 * The task that a TypeScript or JavaScript file exports as its default; its `grading` and `programs`, if it has them, are not looked into, so that a
 * reward's thread does not load the grader. Each call runs the file anew. Throws a UserError that names
 * the file, and where it can the line.
 */
export async function loadDefinition(file: string): Promise<TaskDefinition> {
  if (!existsSync(file)) throw new UserError(`${file}: no such task file`);
  const suffix = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const own = (path: string) => fileURLToPath(new URL(`${path}.${suffix}`, import.meta.url));
  const alias = { "rifft/task": own("./author"), "rifft/grade": own("../grade/index") };
  const jiti = createJiti(import.meta.url, { moduleCache: false, alias });
  let exported: unknown;
  try {
    exported = await jiti.import(file, { default: true });
  } catch (error) {
    throw new UserError(describeLoadError(file, error));
  }
  if (
    typeof exported !== "object" ||
    exported === null ||
    !("reward" in exported || "grading" in exported || "splits" in exported)
  ) {
    throw new UserError(
      `${file}: expected a task as the default export (export default defineTask({ ... })), found none`,
    );
  }
  const definition = parseStrict(definitionSchema, exported, file);
  if (definition.reward === undefined && definition.grading === undefined) {
    throw new UserError(
      `${file}: expected a \`reward\`, or a \`grading\` whose strict verdict is the reward; found neither`,
    );
  }
  const { rounds } = definition;
  return rounds === undefined ? definition : { ...definition, rounds: checkedRounds(file, rounds) };
}

function describeLoadError(file: string, error: unknown): string {
  if (!(error instanceof Error)) return `${file}: cannot load the task (it threw ${String(error)})`;
  // A syntax error, of this file or one that it imports: the reason, and the place on the next line.
  const syntax = /^ParseError: (.*?)\s*\n\s*(\S.*:\d+:\d+)$/.exec(error.message);
  if (syntax) return `${syntax[2]}: cannot load the task (${syntax[1]})`;
  const at = error.stack?.split("\n").find((line) => line.includes(file));
  const place = at === undefined ? undefined : /:(\d+:\d+)\)?\s*$/.exec(at)?.[1];
  const reason = `${error.name}: ${error.message.split("\n")[0]}`;
  return `${file}${place === undefined ? "" : `:${place}`}: cannot load the task (${reason})`;
}

import { existsSync, readFileSync } from "node:fs";
import { dirname, extname, isAbsolute, resolve } from "node:path";
import { parse, stringify, TomlError } from "smol-toml";
import { z } from "zod";
import type { LoraSettings } from "../engine/types.ts";
import { nearest, UserError } from "../errors.ts";
import { checkEvaluation, type EvaluationRecipe, evaluationSchema } from "./evaluation-recipe.ts";
import { type ConfiguredMethod, methods } from "./methods.ts";
import { checkKeepBest, checkSelection } from "./best.ts";
import { checkFunctions, type Functions } from "./functions.ts";
import { type Marks, marksBudget, marksSchema } from "./marks.ts";
import { type Budget, budgetKinds, type Measure, type Schedule, scheduleSettings } from "./schedule.ts";
import { checkStagesInRounds } from "./rounds-recipe.ts";
import { parseWhere } from "./where.ts";
import { keyPath, parseStrict, unknownKey } from "../strict.ts";

/** A task by name or file, or a table of `name` and the task's own options. */
export type TaskReference = string | ({ name: string } & Record<string, unknown>);

/** A recipe that has been checked, its defaults filled in. */
export interface Recipe {
  /** The recipe's own folder: what a task's relative paths are relative to. */
  baseDir: string;
  model: string;
  task: TaskReference;
  seed: number;
  /** Absent: full fine-tuning. */
  lora?: LoraSettings;
  /** The functional tokens of search: "tokens" of the vocabulary, or "text" that spells them. Absent: the model has none. */
  functions?: Functions;
  /** A checkpoint every so many steps of a stage (and at its end); the last `keep` are kept. */
  checkpoint: {
    every: number;
    keep: number;
    /** The best by this metric is kept besides. */
    keepBest?: string;
  };
  /** What choices are made on; "reference": the test split, as the published code does. `dev` when absent. */
  selection?: "dev" | "reference";
  /** Absent: no evaluation inside the run. */
  eval?: EvaluationRecipe;
  /** A profile of the task's training problems, and which of them are trained on by how often they were solved. */
  profile?: string;
  where?: string;
  /** Memory budget in GB. */
  memory?: number;
  /** Longest prompt with response, in tokens; the model's own limit when absent. */
  context?: number;
  stages: StageRecipe[];
}

export interface StageRecipe extends ConfiguredMethod {
  /** Position from 1 and method, such as "2-grpo". */
  name: string;
  method: string;
  /** "previous", "previous-best", "base", the name of an earlier stage, or a folder. */
  from: string;
  /** Asks the training problems in one of their other formats. */
  format?: string;
  budget: Budget;
  /** Where weights are kept; the budget is then `marks`. */
  marks?: Marks;
  /** Ends the stage after so many evaluations in a row that did not raise its accuracy. */
  patience?: number;
  /** Ends the stage inside its schedule: a fraction of the budget below 1, or a number of steps. */
  stopAt?: number;
  schedule: Schedule;
}

const amount = z.number().positive("expected a number above 0");
const wholeAmount = amount.refine(Number.isInteger, "a whole number");
const stageCommon = z.strictObject({
  from: z.string().min(1).default("previous"),
  format: z.string().min(1).optional(),
  epochs: amount.optional(),
  steps: wholeAmount.optional(),
  generatedTokens: wholeAmount.optional(),
  engineSeconds: amount.optional(),
  marks: marksSchema(wholeAmount, amount).optional(),
  patience: wholeAmount.optional(),
  stopAt: amount
    .refine((v) => v < 1 || Number.isInteger(v), "a fraction below 1 or a whole number of steps")
    .optional(),
  schedule: scheduleSettings.default({ kind: "constant", warmup: 0 }),
});
const commonKeys = Object.keys(stageCommon.shape);

const lora = z.strictObject({
  rank: z.number().int().positive(),
  alpha: z.number().positive(),
  targets: z
    .array(z.enum(["q", "k", "v", "o", "gate", "up", "down"]))
    .min(1)
    .optional(),
});

const taskSchema = z.union([z.string().min(1), z.looseObject({ name: z.string().min(1) })]);

const table = z.record(z.string(), z.unknown());
const recipeSchema = z.strictObject({
  model: z.string().min(1),
  task: taskSchema,
  seed: z.number().int().nonnegative().default(0),
  lora: lora.optional(),
  functions: z.enum(["tokens", "text"]).optional(),
  checkpoint: z
    .strictObject({
      every: wholeAmount.default(20),
      keep: wholeAmount.default(2),
      keepBest: z.string().min(1).optional(),
    })
    .default({ every: 20, keep: 2 }),
  eval: evaluationSchema.optional(),
  selection: z.enum(["dev", "reference"]).optional(),
  profile: z.string().min(1).optional(),
  where: z.string().optional(),
  memory: amount.optional(),
  context: wholeAmount.optional(),
  stage: z.array(table).min(1, "a recipe needs at least one [[stage]]"),
});

/**
 * Reads a recipe from a TOML file. `overrides`: `key=value` as on the command line, `stage.1.lr=1e-5` (stages count from 1) or
 * `grpo.lr=1e-5` (every stage of that method). Throws a UserError naming the file and the line or key.
 */
export function readRecipe(file: string, overrides: string[] = []): Recipe {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    throw new UserError(`cannot read the recipe ${file}: give the path of a TOML file`);
  }
  return parseRecipe(text, { source: file, baseDir: dirname(resolve(file)), overrides });
}

/** Checks a recipe's text. `source` names it in errors; relative paths in it resolve against the absolute `baseDir`. */
export function parseRecipe(
  text: string,
  { source, baseDir, overrides = [] }: { source: string; baseDir: string; overrides?: string[] },
): Recipe {
  const raw = parseToml(text, source);
  for (const override of overrides) applyOverride(raw, override);
  return checkRecipe(raw, { source, baseDir });
}

/** Checks a recipe as a table, in the layout of its file. */
export function checkRecipe(
  raw: Record<string, unknown>,
  { source, baseDir }: { source: string; baseDir: string },
): Recipe {
  const recipe = parseStrict(recipeSchema, raw, source);
  if (recipe.eval !== undefined) checkEvaluation(recipe.eval, source);
  const stages = recipe.stage.map((stage, i) => parseStage(stage, i, source));
  const names: string[] = [];
  stages.forEach((stage, i) => {
    stage.from = resolveFrom(stage.from, i, names, source, baseDir);
    names.push(stage.name);
  });
  const checked: Recipe = {
    baseDir,
    model: resolveModel(recipe.model, baseDir),
    task: resolveTask(recipe.task, baseDir),
    seed: recipe.seed,
    lora: recipe.lora,
    functions: recipe.functions,
    checkpoint: recipe.checkpoint,
    selection: recipe.selection,
    eval: recipe.eval,
    ...checkWhere(recipe, source, baseDir),
    memory: recipe.memory,
    context: recipe.context,
    stages,
  };
  checkKeepBest(checked, source);
  checkFunctions(checked, source);
  checkSelection(checked, source);
  checkStagesInRounds(checked, source);
  return checked;
}

/** A profile and the condition on it, which are of use together alone. */
function checkWhere({ profile, where }: { profile?: string; where?: string }, source: string, baseDir: string) {
  if (where === undefined && profile === undefined) return {};
  if (where === undefined || profile === undefined) {
    const [given, missing] = where === undefined ? ["profile", "where"] : ["where", "profile"];
    const hint = missing === "where" ? 'where = "0.1 < solved < 0.9"' : "the samples that `rifft task profile` wrote";
    throw new UserError(`${source}: \`${given}\` needs \`${missing}\` beside it: ${hint}`);
  }
  try {
    parseWhere(where);
  } catch (error) {
    throw error instanceof UserError ? new UserError(`${source}: \`where\`: ${error.message}`) : error;
  }
  return { profile: resolve(baseDir, profile), where };
}

function parseStage(raw: Record<string, unknown>, index: number, source: string): StageRecipe {
  const path = ["stage", index];
  const { method: name, ...rest } = raw;
  const valid = Object.keys(methods).join(", ");
  if (typeof name !== "string")
    throw new UserError(`${source}: \`${keyPath([...path, "method"])}\` is missing: ${valid}`);
  const method = Object.hasOwn(methods, name) ? methods[name] : undefined;
  if (method === undefined) {
    const near = nearest(name, Object.keys(methods));
    const hint = near === undefined ? `methods: ${valid}` : `did you mean "${near}"?`;
    throw new UserError(`${source}: \`${keyPath([...path, "method"])}\`: there is no method "${name}" (${hint})`);
  }
  const keys = ["method", ...commonKeys, ...method.keys];
  const strange = Object.keys(rest).find((key) => !keys.includes(key));
  if (strange !== undefined) throw new UserError(`${source}: ${unknownKey(path, strange, keys)}`);
  const entries = Object.entries(rest);
  const common = parseStrict(
    stageCommon,
    Object.fromEntries(entries.filter(([key]) => commonKeys.includes(key))),
    source,
    path,
  );
  const own = Object.fromEntries(entries.filter(([key]) => !commonKeys.includes(key)));
  const configured = method.configure(own, source, path);

  const { from, format, stopAt, schedule, marks, patience } = common;
  const shared = { from, format, stopAt, schedule, marks, patience };
  const given = budgetKinds.filter((kind) => common[kind] !== undefined);
  if (given.length > 1 || (given.length === 0 && marks === undefined)) {
    const found = given.length === 0 ? "none" : given.join(" and ");
    throw new UserError(
      `${source}: \`${keyPath(path)}\` needs exactly one of ${budgetKinds.join(", ")}, or marks, to say how long it runs; found ${found}`,
    );
  }
  if (configured.markAtEnd && common.generatedTokens !== undefined) {
    throw new UserError(
      `${source}: \`${keyPath([...path, "generatedTokens"])}\`: ${name} generates nothing while it trains; say how long that runs with steps, epochs or engineSeconds${"sampleTokens" in configured.settings ? ", and cap its sampling with sampleTokens" : ""}`,
    );
  }
  const measures = given.map((kind): Measure => ({ kind, amount: common[kind] ?? 0 }));
  const budget: Budget =
    marks === undefined
      ? measures[0]
      : marksBudget(marks, measures[0], { ...shared, method: name, atEnd: configured.markAtEnd }, source, path);
  if (common.stopAt !== undefined && common.stopAt >= 1 && budget.kind === "steps" && common.stopAt > budget.amount) {
    throw new UserError(
      `${source}: \`${keyPath([...path, "stopAt"])}\` (${common.stopAt}) lies beyond the stage's ${budget.amount} steps`,
    );
  }
  return { name: `${index + 1}-${name}`, method: name, budget, ...shared, ...configured };
}

function resolveFrom(from: string, index: number, earlier: string[], source: string, baseDir: string): string {
  if (from === "previous-best" && index === 0) {
    throw new UserError(
      `${source}: \`stage.1.from\`: the first stage has none before it; leave it out or name "base" or a folder`,
    );
  }
  if (from === "previous" || from === "previous-best" || from === "base" || earlier.includes(from)) return from;
  if (/[\\/]/.test(from) || from.startsWith(".")) {
    const dir = resolve(baseDir, from);
    if (!existsSync(dir)) throw new UserError(`${source}: \`stage.${index + 1}.from\`: there is no folder ${dir}`);
    return dir;
  }
  const valid = ["previous", "previous-best", "base", ...earlier];
  const near = nearest(from, valid);
  const hint =
    near === undefined ? `valid: ${valid.join(", ")}, or a folder such as ./runs/a` : `did you mean "${near}"?`;
  throw new UserError(`${source}: \`stage.${index + 1}.from\`: there is no earlier stage "${from}" (${hint})`);
}

/** A path beside the recipe, or a name that `rifft pull` has put under models/, there or where the command runs. */
function resolveModel(model: string, baseDir: string): string {
  if (model === "tiny" || isAbsolute(model)) return model;
  const path = resolve(baseDir, model);
  const pulled = [baseDir, process.cwd()].map((dir) => resolve(dir, "models", model));
  const found = [path, ...pulled].find((candidate) => existsSync(candidate));
  if (found !== undefined) return found;
  return model.startsWith(".") || model.endsWith(".gguf") ? path : model;
}

const taskFiles = [".ts", ".mts", ".js", ".mjs", ".json", ".jsonl"];

function resolveTask(task: TaskReference, baseDir: string): TaskReference {
  const resolveName = (name: string) =>
    name.startsWith(".") || taskFiles.includes(extname(name)) ? resolve(baseDir, name) : name;
  if (typeof task === "string") return resolveName(task);
  const options = Object.entries(task).map(([key, value]) =>
    typeof value === "string" && /^\.\.?[\\/]/.test(value) ? [key, resolve(baseDir, value)] : [key, value],
  );
  return { ...Object.fromEntries(options), name: resolveName(task.name) };
}

export function parseToml(text: string, source: string): Record<string, unknown> {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = error.message.split("\n")[0].replace(/^Invalid TOML document: /, "");
    throw new UserError(`${source}:${error.line}:${error.column}: not valid TOML: ${reason}`);
  }
}

/** Applies one `--set key=value` to the recipe as read. The value is TOML; what is not becomes a string. */
function applyOverride(raw: Record<string, unknown>, override: string): void {
  const equals = override.indexOf("=");
  if (equals < 1) throw new UserError(`--set ${override}: expected key=value, such as stage.1.lr=1e-5`);
  applyChange(raw, override.slice(0, equals).trim(), tomlValue(override.slice(equals + 1).trim()), `--set ${override}`);
}

/** Changes a key of a recipe's table, written as in `--set`. `source` begins the line of an error. */
export function applyChange(raw: Record<string, unknown>, key: string, value: unknown, source: string): void {
  const path = key.split(".");
  const stages: unknown[] = Array.isArray(raw.stage) ? raw.stage : [];
  const isMethod = Object.hasOwn(methods, path[0]);
  if (path[0] !== "stage" && !isMethod) {
    setAt(raw, path, value, source);
    return;
  }
  const rest = path.slice(isMethod ? 1 : 2);
  const chosen = isMethod
    ? stages.filter((stage) => isTable(stage) && stage.method === path[0])
    : stages.slice(Number(path[1]) - 1, Number(path[1]));
  if (!isMethod && !/^[1-9]\d*$/.test(path[1] ?? "")) {
    throw new UserError(`${source}: stages are numbered from 1, such as stage.1.lr=1e-5`);
  }
  if (rest.length === 0) throw new UserError(`${source}: name a key of the stage, such as ${key}.lr=1e-5`);
  if (chosen.length === 0) {
    throw new UserError(`${source}: the recipe has no such stage (it has ${stages.length})`);
  }
  for (const stage of chosen) if (isTable(stage)) setAt(stage, rest, value, source);
}

function setAt(target: Record<string, unknown>, path: string[], value: unknown, source: string): void {
  let at = target;
  for (const part of path.slice(0, -1)) {
    const next = Object.hasOwn(at, part) ? at[part] : undefined;
    if (next !== undefined && !isTable(next)) throw new UserError(`${source}: \`${part}\` is not a table`);
    const child = next ?? {};
    define(at, part, child);
    at = child;
  }
  define(at, path[path.length - 1], value);
}

/** Plain assignment would reach the prototype for a key named `__proto__`. */
function define(target: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true });
}

function tomlValue(text: string): unknown {
  try {
    return parse(`value = ${text}`).value;
  } catch {
    return text;
  }
}

/** A task as the command line names it: a name, a file, or a table such as `{ name = "gsm8k", path = "data" }`. */
export function parseTaskReference(text: string): TaskReference {
  if (!text.trimStart().startsWith("{")) return text;
  const value = parseToml(`task = ${text}`, "--task").task;
  return parseStrict(taskSchema, value, "--task");
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The complete recipe as a table, defaults written out, in the layout that `parseRecipe` reads. */
export function recipeTable(recipe: Recipe): Record<string, unknown> {
  const { stages, baseDir: _, ...top } = recipe;
  const stage = stages.map((s) => ({
    method: s.method,
    from: s.from,
    format: s.format,
    ...budgetTable(s),
    marks: s.marks,
    patience: s.patience,
    stopAt: s.stopAt,
    schedule: s.schedule,
    ...s.settings,
  }));
  return { ...top, stage };
}

/** The keys that say how long a stage runs; its marks stand for themselves. */
function budgetTable({ budget, marks = {} }: StageRecipe): Record<string, number> {
  const measures = budget.kind === "marks" ? budget.measures : [budget];
  return Object.fromEntries(measures.filter(({ kind }) => !(kind in marks)).map(({ kind, amount }) => [kind, amount]));
}

/** The complete recipe as TOML. */
export function recipeToml(recipe: Recipe): string {
  return `${stringify(recipeTable(recipe))}\n`;
}

/** The first key on which two recipes differ, with both values, or undefined when they are the same. */
export function recipeDifference(
  before: Record<string, unknown>,
  now: Record<string, unknown>,
): { key: string; before: unknown; now: unknown } | undefined {
  return differenceAt([], before, now);
}

/** A difference in words; `began`: what was there before. */
export function differenceText(
  { key, before, now }: NonNullable<ReturnType<typeof recipeDifference>>,
  began: string,
): string {
  const shown = (value: unknown) => (value === undefined ? "absent" : JSON.stringify(value));
  return `\`${key}\` was ${shown(before)} when ${began} and is ${shown(now)}`;
}

function differenceAt(
  path: PropertyKey[],
  a: unknown,
  b: unknown,
): { key: string; before: unknown; now: unknown } | undefined {
  if (Array.isArray(a) && Array.isArray(b)) {
    for (let i = 0; i < Math.max(a.length, b.length); i++) {
      const found = differenceAt([...path, i], a[i], b[i]);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  if (isTable(a) && isTable(b)) {
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      const found = differenceAt([...path, key], a[key], b[key]);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  return Object.is(a, b) ? undefined : { key: keyPath(path), before: a, now: b };
}

import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { UserError } from "../errors.ts";
import { methods } from "../method/index.ts";
import { applyChange, checkRecipe, isTable, parseToml, type Recipe } from "../run/recipe.ts";
import { parseWhere } from "../run/where.ts";
import { type ArmSpec, askedOf, BUDGETS, type BudgetName, type ExperimentFile } from "./file.ts";

/** An arm with one of its settings, as a recipe. */
export interface ArmRecipe {
  arm: string;
  /** Position among the arm's settings, from 0. */
  setting: number;
  /**
   * The budgets that apply. An arm that generates nothing has no mark of generated tokens beside one of engine seconds; where tokens
   * are the only budget it is within it however long it trains, and its own length ends it.
   */
  budgets: BudgetName[];
  /** The recipe with the marks of the given budgets. */
  recipe(seed: number, marks: readonly BudgetName[]): Recipe;
}

/** Keys that say how long a stage runs. */
const LENGTHS = ["epochs", "steps", "patience", "stopAt"] as const;

/** Every arm with every setting, its recipe checked. A UserError names the arm, the setting and the key. */
export function armRecipes(experiment: ExperimentFile): ArmRecipe[] {
  return experiment.arm.flatMap((arm) =>
    arm.settings.map((_, setting) => {
      const made = armRecipe(experiment, arm, setting);
      // Every mistake is found now, not when the cell's turn comes.
      made.recipe(experiment.final.seeds[0], made.budgets);
      return made;
    }),
  );
}

function armRecipe(experiment: ExperimentFile, arm: ArmSpec, setting: number): ArmRecipe {
  const file = resolve(experiment.baseDir, arm.recipe ?? experiment.recipe ?? "");
  const several = arm.settings.length > 1;
  const source = `${experiment.source}: arm "${arm.name}"${several ? `, setting ${setting + 1}` : ""}`;
  const compose = (): { raw: Record<string, unknown>; stages: Record<string, unknown>[] } => {
    const raw = readTable(file, source);
    const stages = (Array.isArray(raw.stage) ? raw.stage : []).filter(isTable);
    if (stages.length + arm.stage.length === 0) throw new UserError(`${source}: it has no stage; add [[arm.stage]]`);
    // The experiment's budgets take the place of the length that the recipe's own last stage has.
    const end = stages[stages.length - 1];
    if (arm.stage.length === 0 && !endsItself(end, experiment)) for (const key of ["epochs", "steps"]) delete end[key];
    stages.push(...structuredClone(arm.stage));
    raw.stage = stages;
    for (const changes of [experiment.set, arm.set, arm.settings[setting]]) {
      for (const [key, value] of flatten(changes)) {
        if (key === "seed")
          throw new UserError(`${source}: \`seed\` is the experiment's own: see tuning.seeds and final.seeds`);
        applyChange(raw, key, structuredClone(value), `${source}: ${key}`);
      }
    }
    return { raw, stages };
  };
  const { stages } = compose();
  if (arm.where !== undefined) {
    try {
      parseWhere(arm.where);
    } catch (error) {
      throw error instanceof UserError ? new UserError(`${source}: \`where\`: ${error.message}`) : error;
    }
  }
  const last = stages[stages.length - 1];
  checkBudget(experiment, last, stages.length, source);
  const generates = methodOf(last)?.generates === true;
  const given = BUDGETS.filter((name) => experiment.budgets[name] !== undefined);
  const budgets = generates || given.length === 1 ? given : given.filter((name) => name !== "generatedTokens");
  return {
    arm: arm.name,
    setting,
    budgets,
    recipe(seed, marks) {
      const { raw, stages } = compose();
      const end = stages[stages.length - 1];
      for (const name of BUDGETS) delete end[name];
      const tokens = experiment.budgets.generatedTokens;
      if (samplesFirst(end) && tokens !== undefined) end.sampleTokens ??= tokens;
      end.marks = Object.fromEntries(marks.map((name) => [name, experiment.budgets[name]]));
      raw.seed = seed;
      const { curve, dev } = experiment;
      if (curve !== undefined) {
        const { split, maxTokens, format, rounds, adaptive, style, progressTokens } = askedOf(
          experiment,
          arm.name,
          dev,
        );
        const asked = Object.entries({ format, rounds, adaptive, style, progressTokens });
        const given = Object.fromEntries(asked.filter(([, v]) => v !== undefined));
        raw.eval = { split, maxTokens, ...given, ...curve, ...arm.curve };
      }
      const recipe = checkRecipe(raw, { source, baseDir: dirname(file) });
      // The profile's place is the plan's to say.
      return arm.where === undefined ? recipe : { ...recipe, where: arm.where };
    },
  };
}

/** What the registry says of a stage's method; undefined where the recipe names none that there is. */
const methodOf = (stage: Record<string, unknown>): { generates: boolean; markAtEnd?: boolean } | undefined =>
  Object.values(methods).find(({ name }) => name === stage.method);

/** A method that samples before it trains. */
const samplesFirst = (stage: Record<string, unknown>): boolean => methodOf(stage)?.markAtEnd === true;

/** Whether a stage ends by a length of its own, which stands beside the marks: one that samples first, and one that tokens do not measure. */
const endsItself = (stage: Record<string, unknown>, { budgets }: Pick<ExperimentFile, "budgets">): boolean =>
  samplesFirst(stage) || (methodOf(stage)?.generates === false && budgets.engineSeconds === undefined);

/** Arms are compared at the experiment's budgets and no others. */
function checkBudget(experiment: ExperimentFile, last: Record<string, unknown>, count: number, source: string): void {
  const { budgets } = experiment;
  const length = LENGTHS.find((key) => key in last && (key === "stopAt" || !endsItself(last, experiment)));
  if (length !== undefined) {
    throw new UserError(
      `${source}: \`stage.${count}.${length}\` would end its last stage, which the experiment's \`budgets\` do for all arms alike; remove it`,
    );
  }
  const { sampleTokens } = last;
  if (typeof sampleTokens === "number" && sampleTokens > (budgets.generatedTokens ?? Infinity)) {
    throw new UserError(
      `${source}: \`stage.${count}.sampleTokens\` is ${sampleTokens}, and the experiment's budget of generated tokens is ${budgets.generatedTokens}; leave it out`,
    );
  }
  const own = { ...(isTable(last.marks) ? last.marks : {}), ...last };
  for (const name of BUDGETS) {
    if (own[name] === undefined || own[name] === budgets[name]) continue;
    throw new UserError(
      `${source}: its last stage has ${name} = ${String(own[name])}, and the experiment's budget is ${budgets[name] ?? "none"}: arms are compared at equal budgets; remove it`,
    );
  }
}

function readTable(file: string, source: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    throw new UserError(`${source}: cannot read the recipe ${file}`);
  }
  return parseToml(text, file);
}

/** Overrides as `--set` writes their keys: `grpo = { lr = 1 }` and `"grpo.lr" = 1` are the same. */
function flatten(changes: Record<string, unknown>): [string, unknown][] {
  return Object.entries(changes).flatMap(([key, value]): [string, unknown][] => {
    if (!isTable(value)) return [[key, value]];
    if (Object.hasOwn(methods, key)) return Object.entries(value).map(([inner, v]) => [`${key}.${inner}`, v]);
    if (key !== "stage") return [[key, value]];
    return Object.entries(value).flatMap(([at, stage]): [string, unknown][] =>
      isTable(stage)
        ? Object.entries(stage).map(([inner, v]) => [`stage.${at}.${inner}`, v])
        : [[`stage.${at}`, stage]],
    );
  });
}

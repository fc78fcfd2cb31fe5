import { createHash } from "node:crypto";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { type Recipe, recipeTable, type StageRecipe } from "../run/recipe.ts";
import type { ArmRecipe } from "./arms.ts";
import { BUDGETS, type BudgetName, type ExperimentFile, seedsOf } from "./file.ts";

/** One run of an experiment. */
export interface Cell {
  /** Its folder in the experiment's, with slashes: `final/grpo/seed-3`. */
  id: string;
  phase: "shared" | "profile" | "tuning" | "final";
  seed: number;
  /** Absent for a shared beginning. */
  arm?: string;
  /** Position among the arm's settings, from 0. */
  setting?: number;
  /** What is evaluated: the weights at these points of its last stage. */
  marks: BudgetName[];
  recipe: Recipe;
  /** The id of the cell that must be complete before: the shared beginning that it starts from, or the profile made of that. */
  after?: string;
}

/** Cells, and the beginnings that several of them share, which are run first. */
export interface Plan {
  shared: Cell[];
  /** Profiles of the training problems by what stands at the end of a beginning (or by the base). Their cost counts in their arms' budgets. */
  profiles: Cell[];
  cells: Cell[];
}

/** The budget at which an arm's settings are compared: the file's, else the one at which all its contrasts judge it; where it lacks that, its first. */
export function tuningBudget({ tuning, budgets, contrast }: ExperimentFile, arm: ArmRecipe): BudgetName {
  const judged = new Set(contrast.filter(({ a, b }) => a === arm.arm || b === arm.arm).map(({ budget }) => budget));
  const [only] = judged.size === 1 ? judged : [];
  // Seconds are the budget that every arm has.
  const wanted = tuning?.budget ?? only ?? (budgets.engineSeconds === undefined ? "generatedTokens" : "engineSeconds");
  return arm.budgets.includes(wanted) ? wanted : arm.budgets[0];
}

/** Every setting of every arm with every tuning seed, up to the mark at which they are compared. */
export function tuningPlan(experiment: ExperimentFile, arms: readonly ArmRecipe[], dir: string): Plan {
  if (experiment.arm[0].settings.length === 1) return { shared: [], profiles: [], cells: [] };
  const cells = arms.flatMap((arm) =>
    (experiment.tuning?.seeds ?? []).map((seed): Cell => {
      const marks = [tuningBudget(experiment, arm)];
      const id = `tuning/${arm.arm}/setting-${arm.setting + 1}/seed-${seed}`;
      return { id, phase: "tuning", arm: arm.arm, setting: arm.setting, seed, marks, recipe: arm.recipe(seed, marks) };
    }),
  );
  return shareBeginnings(cells, dir);
}

/** The chosen setting of every arm with every final seed, through all marks. */
export function finalPlan(experiment: ExperimentFile, chosen: readonly ArmRecipe[], dir: string): Plan {
  const cells = chosen.flatMap((arm) =>
    seedsOf(experiment, arm.arm).map((seed): Cell => {
      const marks = BUDGETS.filter((name) => arm.budgets.includes(name));
      const id = `final/${arm.arm}/seed-${seed}`;
      return { id, phase: "final", arm: arm.arm, setting: arm.setting, seed, marks, recipe: arm.recipe(seed, marks) };
    }),
  );
  return shareBeginnings(cells, dir);
}

/**
 * Finds the leading stages that several cells share (same model, task, seed and stage tables): they become cells of their own, and the
 * others start from those folders. Each cell shares the longest beginning that another has too.
 */
export function shareBeginnings(cells: readonly Cell[], dir: string): Plan {
  const uses = new Map<string, number>();
  for (const { recipe } of cells) {
    for (const { key } of beginnings(recipe)) uses.set(key, (uses.get(key) ?? 0) + 1);
  }
  const shared = new Map<string, Cell>();
  const profiles = new Map<string, Cell>();
  // `own`: how many cells need all of this one.
  const cut = (cell: Cell, own: number): Cell => {
    const { recipe } = cell;
    const found = beginnings(recipe).findLast(({ key }) => (uses.get(key) ?? 0) > own);
    if (found === undefined) return profiled(cell, undefined);
    const { key, length, digest } = found;
    let first = shared.get(key);
    if (first === undefined) {
      const stages = recipe.stages.slice(0, length);
      const id = `shared/${stages.map(({ method }) => method).join("-")}-${digest}/seed-${cell.seed}`;
      const own = { ...recipe, where: undefined, eval: isEvaluated(recipe, length) ? recipe.eval : undefined, stages };
      first = cut({ id, phase: "shared", seed: cell.seed, marks: [], recipe: own }, uses.get(key) ?? 0);
      shared.set(key, first);
    }
    const from = join(dir, ...first.id.split("/"));
    const rest = recipe.stages.slice(length).map((stage, i): StageRecipe => {
      return { ...stage, name: `${i + 1}-${stage.method}`, from: i === 0 ? from : stage.from };
    });
    return profiled({ ...cell, recipe: { ...recipe, stages: rest }, after: first.id }, first);
  };
  const profiled = (cell: Cell, first: Cell | undefined): Cell => {
    const { recipe, seed } = cell;
    if (recipe.where === undefined || recipe.profile !== undefined) return cell;
    if (recipe.stages.length > 1) {
      throw new UserError(
        `arm "${cell.arm}" has \`where\`, so that its stages before the last must be able to run by themselves: leave out \`from\` in them, or name none of them in another`,
      );
    }
    const name = first?.id.split("/")[1] ?? "base";
    const id = `profile/${name}/seed-${seed}`;
    const own = first?.recipe ?? { ...recipe, where: undefined };
    if (!profiles.has(id)) profiles.set(id, { id, phase: "profile", seed, marks: [], recipe: own, after: first?.id });
    return { ...cell, recipe: { ...recipe, profile: join(dir, ...id.split("/")) }, after: id };
  };
  // What is profiled must stand alone, even where one cell goes on from it.
  const rest = cells.map((cell) => cut(cell, cell.recipe.where === undefined ? 1 : 0));
  return { shared: [...shared.values()], profiles: [...profiles.values()], cells: rest };
}

interface Beginning {
  /** The same for cells that can share it. */
  key: string;
  /** Stages. */
  length: number;
  /** Names it, whatever the seed. */
  digest: string;
}

/** Each leading part of a recipe that could be run on its own, the shortest first; never the whole. */
function beginnings(recipe: Recipe): Beginning[] {
  const { stage, checkpoint: _, where: __, eval: evaluation, seed, ...top } = recipeTable(recipe);
  if (!Array.isArray(stage)) return [];
  // A stage that names another one by its position needs them in one run.
  const named = recipe.stages.findLastIndex(({ from }) => recipe.stages.some(({ name }) => name === from));
  return recipe.stages.flatMap(({ from }, length) => {
    if (length === 0 || length <= named || from !== "previous") return [];
    const evaluated = isEvaluated(recipe, length) ? { eval: evaluation } : {};
    const text = JSON.stringify([{ ...top, ...evaluated }, stage.slice(0, length)]);
    const digest = createHash("sha256").update(text).digest("hex").slice(0, 6);
    return [{ key: `${String(seed)} ${text}`, length, digest }];
  });
}

/** Whether a beginning of so many stages depends on evaluations inside it; others are the same with and without. */
const isEvaluated = ({ checkpoint, stages }: Recipe, length: number): boolean =>
  checkpoint.keepBest !== undefined || stages.slice(0, length).some(({ patience }) => patience !== undefined);

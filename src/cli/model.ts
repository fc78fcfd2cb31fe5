import { resolve } from "node:path";
import { createLocalEngine } from "../engine/local/index.ts";
import type { HeadSpec, Model, ModelSpec } from "../engine/types.ts";
import { isRunFolder } from "../run/folder.ts";
import { createSpec, modelFolder, recipeOf } from "../run/models.ts";
import type { Recipe } from "../run/recipe.ts";
import { loadTask } from "../task/load.ts";
import type { Grading, Task } from "../task/types.ts";

export interface ModelOptions {
  model: string;
  /** Of a run: which. */
  checkpoint?: string;
  /** Trained heads that are of use. */
  heads?: HeadSpec[];
}

/** The option that chooses among a run's checkpoints. */
export const checkpointOption = [
  "--checkpoint <which>",
  "of a run: latest, best, generatedTokens, engineSeconds or a name such as step-00000040 (default: latest)",
] as const;

/** Opens the model that `--model` and `--checkpoint` name, and closes it when the work is done, whatever happens. */
export async function withModel<T>(
  { model: name, checkpoint, heads }: ModelOptions,
  task: Pick<Task, "vocabulary"> | undefined,
  work: (model: Model) => Promise<T>,
): Promise<T> {
  const recipe = runRecipe(name);
  const engine = createLocalEngine({ memoryGb: recipe?.memory });
  try {
    return await work(await engine.create(await specOf(name, checkpoint, recipe, task, heads)));
  } finally {
    await engine.close();
  }
}

/** The recipe of the run that `--model` names; undefined where it names no run folder. */
export function runRecipe(name: string): Recipe | undefined {
  return isRunFolder(resolve(name)) ? recipeOf(resolve(name)) : undefined;
}

/** The task of a recipe; `grading` replaces what it names of the task's own. */
export function recipeTask(recipe: Recipe, grading?: Partial<Grading>): Promise<Task> {
  return loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed, grading });
}

async function specOf(
  name: string,
  checkpoint: string | undefined,
  recipe: Recipe | undefined,
  task: Pick<Task, "vocabulary"> | undefined,
  heads: HeadSpec[] | undefined,
): Promise<ModelSpec> {
  if (recipe === undefined) {
    // Only a run has checkpoints; says so.
    if (checkpoint !== undefined) await modelFolder(name, checkpoint);
    return { base: name, train: "none", vocabulary: task?.vocabulary };
  }
  const from = { dir: await modelFolder(name, checkpoint), optimizer: false };
  if (recipe.model !== "tiny") return createSpec(recipe, {}, from, heads);
  // A tiny model's tokenizer is made of the words of the task it was trained on.
  const own = await recipeTask(recipe);
  try {
    return createSpec(recipe, own, from, heads);
  } finally {
    await own.close();
  }
}

import { resolve } from "node:path";
import { createLocalEngine } from "../engine/local/index.ts";
import type { Model, ModelSpec } from "../engine/types.ts";
import { isRunFolder } from "../run/folder.ts";
import { createSpec, modelFolder, recipeOf } from "../run/models.ts";
import type { Recipe } from "../run/recipe.ts";
import { loadTask } from "../task/load.ts";
import type { Grading, Task } from "../task/types.ts";

/** Opens the model that `--model` names, and closes it when the work is done, whatever happens. */
export async function withModel<T>(
  name: string,
  task: Pick<Task, "vocabulary"> | undefined,
  work: (model: Model) => Promise<T>,
): Promise<T> {
  const recipe = runRecipe(name);
  const engine = createLocalEngine({ memoryGb: recipe?.memory });
  try {
    return await work(await engine.create(await specOf(name, recipe, task)));
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
  recipe: Recipe | undefined,
  task: Pick<Task, "vocabulary"> | undefined,
): Promise<ModelSpec> {
  if (recipe === undefined) return { base: name, train: "none", vocabulary: task?.vocabulary };
  const from = { dir: await modelFolder(name), optimizer: false };
  if (recipe.model !== "tiny") return createSpec(recipe, {}, from);
  // A tiny model's tokenizer is made of the words of the task it was trained on.
  const own = await recipeTask(recipe);
  try {
    return createSpec(recipe, own, from);
  } finally {
    await own.close();
  }
}

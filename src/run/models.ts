import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { ModelSpec } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { Task } from "../task/types.ts";
import { latestCheckpoint, listCheckpoints, modelDir } from "./checkpoint.ts";
import { isRunFolder, readRecord } from "./folder.ts";
import { parseRecipe, type Recipe } from "./recipe.ts";

/** What the engine is asked for by a stage of a run. */
export function createSpec(recipe: Recipe, task: Pick<Task, "vocabulary">, from: ModelSpec["from"]): ModelSpec {
  return {
    base: recipe.model,
    train: recipe.lora === undefined ? "full" : { lora: recipe.lora },
    seed: recipe.seed,
    vocabulary: task.vocabulary,
    context: recipe.context,
    from,
  };
}

/** The folder that `Model.save` wrote, given itself, a checkpoint or a run folder (its newest intact checkpoint). */
export async function modelFolder(path: string): Promise<string> {
  const dir = resolve(path);
  if (!isRunFolder(dir)) return existsSync(modelDir(dir)) ? modelDir(dir) : dir;
  const found = await latestCheckpoint(join(dir, "checkpoints"), () => {});
  if (found !== undefined) return modelDir(found.path);
  const none = listCheckpoints(join(dir, "checkpoints")).length === 0;
  throw new UserError(`${dir} has no ${none ? "checkpoint yet" : "intact checkpoint"}; resume it first`);
}

/** The recipe of a run folder, as it was started. */
export function recipeOf(dir: string): Recipe {
  const source = join(dir, "recipe.toml");
  return parseRecipe(readFileSync(source, "utf8"), { source, baseDir: readRecord(dir).baseDir });
}

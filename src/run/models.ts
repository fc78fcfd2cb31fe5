import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { HeadSpec, ModelSpec } from "../engine/types.ts";
import { nearest, UserError } from "../errors.ts";
import type { Task } from "../task/types.ts";
import { bestOf } from "./best.ts";
import {
  type FoundCheckpoint,
  latestCheckpoint,
  listCheckpoints,
  modelDir,
  readCheckpoint,
  type RunState,
} from "./checkpoint.ts";
import { addedTokens } from "./functions.ts";
import { isRunFolder, readRecord, requireRun } from "./folder.ts";
import { markKinds } from "./marks.ts";
import { parseRecipe, type Recipe, type StageRecipe } from "./recipe.ts";

/** What the engine is asked for by a stage of a run; `heads` where they are of use. */
export function createSpec(
  recipe: Recipe,
  task: Pick<Task, "vocabulary">,
  from: ModelSpec["from"],
  heads: HeadSpec[] = [],
): ModelSpec {
  return {
    heads,
    base: recipe.model,
    train: recipe.lora === undefined ? "full" : { lora: recipe.lora },
    seed: recipe.seed,
    vocabulary: task.vocabulary,
    addTokens: addedTokens(recipe),
    context: recipe.context,
    from,
  };
}

/**
 * The folder that `Model.save` wrote, given itself, a checkpoint or a run folder. `which` of a run's checkpoints: `latest` (the newest
 * intact one, the default), `best` (by the recipe's `checkpoint.keepBest`), a mark (`generatedTokens`, `engineSeconds`; of the last stage that has it), or
 * a checkpoint's name. Throws a UserError that names the nearest where there is no such checkpoint.
 */
export async function modelFolder(path: string, which = "latest"): Promise<string> {
  const dir = resolve(path);
  if (isRunFolder(dir)) return modelDir((await findCheckpoint(dir, which)).path);
  if (which !== "latest") {
    throw new UserError(
      `${path} is not a run folder, so that it has no checkpoint "${which}"; leave the checkpoint out`,
    );
  }
  return existsSync(modelDir(dir)) ? modelDir(dir) : dir;
}

/** Where a run stood, with its counts and engine seconds, at one of its checkpoints (as of `modelFolder`). */
export async function checkpointState(dir: string, which = "latest"): Promise<RunState> {
  requireRun(resolve(dir));
  return (await findCheckpoint(dir, which)).state;
}

/** The stage whose weights a checkpoint holds; undefined where none has begun. */
export function stageAt(recipe: Recipe, { stage, step }: Pick<RunState, "stage" | "step">): StageRecipe | undefined {
  return recipe.stages[step === 0 ? stage - 1 : stage];
}

/** The heads of the policy in a checkpoint. */
export function headsAt(recipe: Recipe, state: Pick<RunState, "stage" | "step">): HeadSpec[] {
  return stageAt(recipe, state)?.heads ?? [];
}

/** A run's checkpoint by what it is or by its name, every file compared with its checksum. */
export async function findCheckpoint(path: string, which = "latest"): Promise<FoundCheckpoint> {
  const dir = resolve(path);
  const folder = join(dir, "checkpoints");
  const newest = await latestCheckpoint(folder, () => {});
  if (newest === undefined) {
    const none = listCheckpoints(folder).length === 0;
    throw new UserError(`${dir} has no ${none ? "checkpoint yet" : "intact checkpoint"}; resume it first`);
  }
  if (which === "latest") return newest;
  const recipe = recipeOf(dir);
  const names = new Map(listCheckpoints(folder).map((name) => [name, name]));
  const best = bestOf(recipe, newest.state);
  if (best !== undefined) names.set("best", best.checkpoint);
  for (const { mark, checkpoint } of newest.state.marks ?? []) names.set(mark, checkpoint);
  const name = names.get(which);
  if (name === undefined) {
    const valid = ["latest", ...[...names.keys()].reverse()];
    const near = nearest(which, valid);
    const why =
      which === "best" && recipe.checkpoint.keepBest === undefined
        ? "its recipe has no checkpoint.keepBest, which says by what"
        : markKinds.some((mark) => mark === which) && recipe.stages.every(({ marks }) => marks === undefined)
          ? "none of its stages has marks"
          : near === undefined
            ? `it has ${valid.join(", ")}`
            : `did you mean ${near}? It has ${valid.join(", ")}`;
    throw new UserError(`${dir} has no checkpoint ${JSON.stringify(which)}: ${why}`);
  }
  // The newest has been read whole.
  if (name === newest.name) return newest;
  const chosen = join(folder, name);
  const state = existsSync(chosen) ? await readCheckpoint(chosen) : "it is missing";
  if (typeof state === "string")
    throw new UserError(`${chosen} cannot be used as ${which}: ${state}; choose another checkpoint`);
  return { name, path: chosen, state };
}

/** The recipe of a run folder, as it was started. */
export function recipeOf(dir: string): Recipe {
  const source = join(dir, "recipe.toml");
  return parseRecipe(readFileSync(source, "utf8"), { source, baseDir: readRecord(dir).baseDir });
}

import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { addTokens as withTokens } from "../model/add-tokens.ts";
import { loadTokenizer } from "../model/load.ts";
import { tinyFiles } from "../model/tiny.ts";
import type { Tokenizer } from "../model/types.ts";
import { isRunFolder } from "../run/folder.ts";
import { addedTokens } from "../run/functions.ts";
import { recipeOf } from "../run/models.ts";
import { loadTask } from "../task/load.ts";
import type { Task } from "../task/types.ts";

/** The tokenizer of a recipe's model; undefined, with a note, where it cannot be read. */
export async function tokenizerOf(
  model: string,
  vocabulary: readonly string[] | undefined,
  note: (text: string) => void,
  addTokens: readonly string[] = [],
): Promise<Tokenizer | undefined> {
  try {
    if (model !== "tiny") return await loadTokenizer(model, addTokens);
    if (vocabulary === undefined) throw new Error("a tiny model's words are those of its task");
    const files = tinyFiles({ vocabulary, without: addTokens }, () => 0);
    return addTokens.length > 0 ? withTokens(files, addTokens, { normal: () => 0 }).tokenizer : files.tokenizer;
  } catch (error) {
    note(`texts are shown whole, not token by token: the tokenizer cannot be read (${reasonOf(error)})`);
    return undefined;
  }
}

/** The tokenizer of what `--model` named when an evaluation was made: a run folder or a model. */
export async function evaluatedTokenizer(
  model: string | undefined,
  note: (text: string) => void,
): Promise<Tokenizer | undefined> {
  const missing = (why: string) => note(`texts are shown whole, not token by token: ${why}`);
  if (model === undefined) return void missing("no record beside the samples names their model");
  if (!existsSync(resolve(model))) return void missing(`the model ${model} is not here`);
  if (!isRunFolder(resolve(model))) return tokenizerOf(model, undefined, note);
  try {
    const recipe = recipeOf(resolve(model));
    const task = recipe.model === "tiny" ? await openTask(recipe.task, recipe.baseDir, recipe.seed) : undefined;
    await task?.close();
    return await tokenizerOf(recipe.model, task?.vocabulary, note, addedTokens(recipe));
  } catch (error) {
    return void missing(reasonOf(error));
  }
}

const openTask = (task: Parameters<typeof loadTask>[0], baseDir: string, seed: number): Promise<Task> =>
  loadTask(task, { baseDir, seed });

export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { Capabilities, Model } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { inFormat } from "../task/formats.ts";
import type { ProblemSource, Task } from "../task/types.ts";
import type { Recipe } from "./recipe.ts";

/** Of a split without an end, this many problems are measured. */
const MEASURED = 256;

/** Refuses, by name, what the recipe needs and the engine lacks. */
export function checkCapabilities(recipe: Recipe, has: Capabilities): void {
  const refuse = (key: string, what: string): never => {
    throw new UserError(`\`${key}\`: this engine has no ${what}; change the recipe or use another engine`);
  };
  if (recipe.lora === undefined && !has.fullFineTune)
    refuse("lora", "full fine-tuning, and the recipe names no adapter");
  if (recipe.functions === "tokens" && !has.addTokens) {
    throw new UserError(
      '`functions`: this engine cannot add tokens to a vocabulary; with functions = "text" the model spells the tags instead',
    );
  }
  recipe.stages.forEach((stage, i) => {
    const { settings } = stage;
    const key = (name: string) => `stage.${i + 1}.${name}`;
    if (stage.heads.length + (stage.criticHeads?.length ?? 0) > 0 && !has.heads) refuse(key("method"), "scalar heads");
    if (!has.customLoss) refuse(key("method"), "losses of a method's own");
    if (typeof settings.maxGradNorm === "number" && settings.maxGradNorm > 0 && !has.gradClip) {
      refuse(key("maxGradNorm"), "gradient clipping");
    }
    if (settings.reference === "stage-start" && settings.beta !== 0 && !has.snapshots) {
      refuse(key("reference"), "snapshots");
    }
  });
}

/** Throws a UserError that names the stage's file that is not there. */
export function checkFiles({ baseDir, stages }: Recipe): void {
  for (const { name, files } of stages) {
    const missing = files.map((file) => resolve(baseDir, file)).find((path) => !existsSync(path));
    if (missing !== undefined) throw new UserError(`stage ${name} reads ${missing}, and there is no such file`);
  }
}

/** Before any step: every stage can train on the task and finds enough problems, and the longest row of each fits the context. */
export function checkProblems(recipe: Recipe, task: Task, source: ProblemSource, model: Model): void {
  const context = model.info.maxContext;
  recipe.stages.forEach((stage, i) => {
    try {
      stage.check(task);
    } catch (error) {
      throw error instanceof UserError ? new UserError(`\`stage.${i + 1}\`: ${error.message}`) : error;
    }
    if (stage.problemsPerStep > source.size) {
      throw new UserError(
        `\`stage.${i + 1}\` takes ${stage.problemsPerStep} problems a step, and ${task.name}'s training split has ${source.size}; take fewer`,
      );
    }
  });
  const measured = source.size === Infinity ? MEASURED : source.size;
  // Stages of one method and settings read the same rows.
  const distinct = new Map(
    recipe.stages.map((stage) => [JSON.stringify([stage.method, stage.settings, stage.format]), stage]),
  );
  for (const stage of distinct.values()) {
    for (let i = 0; i < measured; i++) {
      const problem = inFormat(source.at(i), stage.format);
      const length = stage.rowLength(model.tokenizer, problem, task);
      if (length > context) {
        const lower = stage.shortens.length === 0 ? "" : `lower ${stage.shortens.join(" or ")}, `;
        throw new UserError(
          `problem ${problem.id} needs ${length} tokens in stage ${stage.name}, and the context holds ${context}; ${lower}leave it out, or use a model or \`context\` that holds more`,
        );
      }
    }
  }
}

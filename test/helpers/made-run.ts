import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Forest, Segment, Tree } from "../../src/forest/types.ts";
import { tinyFiles } from "../../src/model/tiny.ts";
import { currentEnvironment } from "../../src/run/environment.ts";
import { RunFolder } from "../../src/run/folder.ts";
import { parseRecipe, recipeTable, recipeToml } from "../../src/run/recipe.ts";
import type { Problem } from "../../src/task/types.ts";

export interface MadeRun {
  dir: string;
  /** The words of the model that the task's texts are made of. */
  vocabulary: string[];
  problems: Problem[];
  metrics?: Record<string, unknown>[];
  timings?: Record<string, unknown>[];
  /** By step, of the one stage. */
  rollouts: Forest[];
}

export const STAGE = "1-grpo";

/** A run folder of known content, written as a run writes it. Its task's file lies beside it. */
export function makeRun({ dir, vocabulary, problems, metrics = [], timings = [], rollouts }: MadeRun): void {
  const task = `${dir}-task.mjs`;
  const definition = { name: "made", splits: { train: problems }, grading: { strict: ["hashes"] }, vocabulary };
  writeFileSync(task, `export default ${JSON.stringify(definition)};\n`);
  const text = `model = "tiny"\ntask = ${JSON.stringify(task)}\n[[stage]]\nmethod = "grpo"\nsteps = 9\n`;
  const recipe = parseRecipe(text, { source: "made", baseDir: dirname(dir) });
  const record = { environment: currentEnvironment(""), baseDir: recipe.baseDir, recipe: recipeTable(recipe) };
  const folder = RunFolder.create(dir, recipeToml(recipe), record);
  const { tokenizer } = tinyFiles({ vocabulary }, () => 0);
  folder.append("metrics", ...metrics);
  folder.append("timings", ...timings);
  rollouts.forEach((forest, step) => folder.writeRollouts(STAGE, step, forest, tokenizer, false));
  folder.close();
}

/** A segment of these words of the vocabulary, ended by EOS where it is the policy's; word i has the log-prob -(i + 1) / 4. */
export function words(vocabulary: string[], parent: number, texts: string[], rest: Partial<Segment> = {}): Segment {
  const ids = texts.map((text) => vocabulary.indexOf(text) + 1);
  if (ids.includes(0)) throw new Error(`the vocabulary lacks one of ${JSON.stringify(texts)}`);
  const given = parent < 0;
  const tokens = Int32Array.from(given ? ids : [...ids, 0]);
  return {
    parent,
    tokens,
    source: given ? "prompt" : "policy",
    ...(given ? {} : { logprobs: Float32Array.from(tokens, (_, i) => -(i + 1) / 4), stop: "eos" }),
    fields: {},
    ...rest,
  };
}

export const tree = (id: string, problem: string, segments: Segment[], cause?: Tree["cause"]): Tree => ({
  id,
  problem,
  segments,
  ...(cause && { cause }),
});

export const rolloutPath = (dir: string, step: number): string =>
  join(dir, "rollouts", STAGE, `${String(step).padStart(6, "0")}.jsonl`);

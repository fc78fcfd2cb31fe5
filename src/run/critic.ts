import { z } from "zod";
import { createLocalEngine } from "../engine/local/index.ts";
import { UserError } from "../errors.ts";
import { criticReport, type CriticReport, type ValuedResponse } from "../eval/critic.ts";
import type { EvaluatedSample } from "../eval/samples.ts";
import { sequenceTree } from "../forest/build.ts";
import { NO_ANSWER } from "../grade/index.ts";
import { gae } from "../method/advantages.ts";
import { valuesBefore } from "../method/losses.ts";
import { scoreOf, VALUE } from "../method/reft.ts";
import { encodePrompt } from "../task/prompt.ts";
import { sourceInFormat } from "../task/formats.ts";
import { loadTask } from "../task/load.ts";
import { programAnswered } from "../task/program.ts";
import type { GradingMode, Split } from "../task/types.ts";
import { modelDir } from "./checkpoint.ts";
import { requireRun } from "./folder.ts";
import { createSpec, findCheckpoint, recipeOf, stageAt } from "./models.ts";
import { problemsOf } from "./rerank.ts";
import { criticDir } from "./run-model.ts";

export interface CriticOptions {
  /** The run folder whose last stage has a critic. */
  run: string;
  checkpoint?: string;
  /** Samples of that run's policy. */
  samples: EvaluatedSample[];
  /** Where their problems are, in the run's own task. */
  split: Split;
  /** The format in which they were asked. */
  format?: string;
  onProgress?: (done: number, of: number) => void;
}

/** What a stage with a critic says of its returns. */
const returnsSchema = z.object({ gamma: z.number(), partialReward: z.number() });

/** Samples a pass. */
const CHUNK = 64;

/**
 * How well the critic of a run foretells the Monte-Carlo returns of samples that it was not trained on: their scores, without the KL.
 * Throws a UserError for a run without a critic.
 */
export async function measureCritic({
  run,
  checkpoint,
  samples,
  split,
  format,
  onProgress,
}: CriticOptions): Promise<CriticReport> {
  requireRun(run);
  const recipe = recipeOf(run);
  const { path, state } = await findCheckpoint(run, checkpoint);
  const stage = stageAt(recipe, state);
  const separate = stage?.criticHeads?.some(({ name }) => name === VALUE.name) === true;
  if (stage === undefined || !(separate || stage.heads.some(({ name }) => name === VALUE.name))) {
    throw new UserError(`${run} has no critic; expected a run whose last stage is \`method = "reft"\``);
  }
  const { gamma, partialReward } = returnsSchema.parse(stage.settings);
  const task = await loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed });
  const engine = createLocalEngine({ memoryGb: recipe.memory });
  try {
    const source = sourceInFormat(await task.problems(split), format);
    const problems = await problemsOf(source, samples, `${task.name}, ${split}`);
    const dir = modelDir(path);
    const from = { dir: separate ? criticDir(dir) : dir, optimizer: false };
    const model = await engine.create(createSpec(recipe, task, from, [VALUE]));
    const responses: ValuedResponse[] = [];
    for (let at = 0; at < samples.length; at += CHUNK) {
      const chunk = samples.slice(at, at + CHUNK);
      const trees = chunk.map(({ problem: id, tokens }, i) => {
        const problem = problems.get(id);
        if (problem === undefined) throw new Error(`problem ${id} was not found before`);
        return sequenceTree(
          { id: `${at + i}`, problem: id },
          encodePrompt(model.tokenizer, problem),
          Int32Array.from(tokens),
        );
      });
      const scores = await model.forward(trees, "current", { logprobs: false });
      chunk.forEach((sample, i) => {
        const values = valuesBefore(trees[i], scores[i], VALUE.name)[1];
        const rewards = new Float64Array(values.length);
        rewards[values.length - 1] = scoreOf(gradeOf(sample, task.grading?.mode), partialReward);
        const { returns_T: returns } = gae(rewards, values, { gamma, lambda: 1 });
        responses.push({ problem: sample.problem, values, returns });
      });
      onProgress?.(at + chunk.length, samples.length);
    }
    return criticReport(responses);
  } finally {
    await engine.close();
    await task.close();
  }
}

/** A stored sample's grade, as it was when it was drawn. */
function gradeOf({ strict, reward, parts, error, program }: EvaluatedSample, mode: GradingMode | undefined) {
  const own = strict.rule === "reward" || error !== undefined;
  const answered = program === undefined ? strict.rule !== NO_ANSWER : programAnswered(program, mode);
  return { reward, parts, answered: own ? undefined : answered };
}

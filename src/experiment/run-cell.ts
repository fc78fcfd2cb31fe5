import { existsSync, readFileSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { createLocalEngine } from "../engine/local/index.ts";
import type { Engine, Model, ModelSpec, TokenCounts } from "../engine/types.ts";
import { DivergedError, UserError } from "../errors.ts";
import { checkGolds, takeProblems } from "../eval/evaluate.ts";
import { type EvaluationSettings, gradingSettings } from "../eval/report.ts";
import { evaluationRounds } from "../eval/rounds.ts";
import { evaluationSearch } from "../eval/searched.ts";
import { modelDir } from "../run/checkpoint.ts";
import { evaluationRecord, modelDigest } from "../run/evaluation.ts";
import { isRunFolder } from "../run/folder.ts";
import { InUseError } from "../run/lock.ts";
import { leafScores } from "../run/leaf-scores.ts";
import { type Measured, measure } from "../run/measure.ts";
import { checkpointState, createSpec, findCheckpoint, modelFolder } from "../run/models.ts";
import type { Progress } from "../run/progress.ts";
import { parseRecipe, type Recipe } from "../run/recipe.ts";
import { resume, train } from "../run/train.ts";
import { loadTask } from "../task/load.ts";
import { type CellResult, comparable, type Cost, noCounts, subtractCost, writeCellResult } from "./cell.ts";
import { atTokens } from "./equal-tokens.ts";
import type { Also, BudgetName, EvaluationSpec, ProfileSpec } from "./file.ts";

/** A cell as a process of its own is told of it. */
export interface CellJob {
  id: string;
  /** The run folder. */
  dir: string;
  recipe: { toml: string; baseDir: string };
  marks: BudgetName[];
  evaluation?: EvaluationSpec;
  /** Further evaluations of a final run. */
  also?: Also[];
  /** Of a profile: the run folder whose weights answer (the base when absent), and how. */
  profile?: { model?: string; spec: ProfileSpec };
  /** Memory budget in GB where the recipe names none. */
  memory?: number;
  /** Goes on although the environment changed. */
  force: boolean;
}

export interface CellWatch {
  progress: Progress;
  /** Samples of an evaluation that are done. */
  evaluating(what: string, done: number, of: number): void;
  signal: AbortSignal;
}

/** How long the process of an experiment that was killed may take to be gone, in milliseconds. */
const PATIENCE = 10_000;

/** Trains what is missing of a cell, evaluates it at its marks and writes `cell.json`. False when it was interrupted. */
export async function runCell(job: CellJob, watch: CellWatch): Promise<boolean> {
  const recipe = parseRecipe(job.recipe.toml, { source: job.id, baseDir: job.recipe.baseDir });
  const engine = createLocalEngine({ memoryGb: recipe.memory ?? job.memory });
  try {
    if (job.profile === undefined && !(await trained(job, recipe, engine, watch))) return false;
    const work = job.profile === undefined ? evaluated : profiled;
    const result = await work(job, recipe, engine, watch);
    if (result === undefined) return false;
    writeCellResult(job.dir, result);
    return true;
  } catch (error) {
    if (!(error instanceof DivergedError)) throw error;
    const zero = { counts: noCounts(), engineSeconds: 0 };
    const whole = { ...zero, counts: countsSoFar(job.dir) };
    writeCellResult(job.dir, { diverged: error.message, before: zero, whole, marks: {} });
    throw error;
  } finally {
    await engine.close();
  }
}

async function trained({ dir, force }: CellJob, recipe: Recipe, engine: Engine, watch: CellWatch): Promise<boolean> {
  const { progress, signal } = watch;
  for (const began = performance.now(); ;) {
    try {
      const options = { engine, progress, signal };
      const result = isRunFolder(dir)
        ? await resume(dir, { ...options, force })
        : await train(recipe, { ...options, run: dir });
      return result.complete;
    } catch (error) {
      if (!(error instanceof InUseError) || performance.now() - began > PATIENCE) throw error;
      await sleep(200);
    }
  }
}

async function evaluated(
  job: CellJob,
  recipe: Recipe,
  engine: Engine,
  { evaluating, signal }: CellWatch,
): Promise<CellResult | undefined> {
  const { dir, evaluation } = job;
  const end = await checkpointState(dir);
  const before: Cost = {
    counts: countsBefore(dir, recipe.stages[recipe.stages.length - 1].name),
    engineSeconds: end.atStageStart.engineSeconds,
  };
  const result: CellResult = { before, whole: { counts: end.counts, engineSeconds: end.engineSeconds }, marks: {} };
  if (evaluation === undefined) return result;
  result.evaluation = comparable(evaluation);
  const task = await loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed });
  /** Asks the weights in a folder that `Model.save` wrote. */
  const ask = async (
    spec: EvaluationSpec,
    weights: { named: Pick<EvaluationSettings, "model" | "checkpoint">; run?: string; digest: string; dir: string },
    what: string,
  ): Promise<Measured | undefined> => {
    const { split, limit, n, temperature, maxTokens, seed, format } = spec;
    const name = (key: string) => `${job.id}: ${key}`;
    const rounds = evaluationRounds(spec, name);
    const functions = evaluationSearch(spec, name);
    const leaves = await leafScores(functions.search, weights.run, weights.named.checkpoint);
    const problems = await takeProblems(task, split, limit, format);
    await checkGolds(task, problems);
    const sampling = { n, temperature, maxTokens, ...functions, ...(rounds && { rounds }), seed };
    const asked = { ...gradingSettings(task), ...(format && { format }) };
    return measure({
      dir,
      settings: { ...weights.named, split, ...asked, ...sampling },
      weights: weights.digest,
      task,
      problems,
      leafScores: leaves.of,
      withModel: (work) =>
        withEngineModel(engine, createSpec(recipe, task, { dir: weights.dir, optimizer: false }, leaves.heads), work),
      interrupted: () => signal.aborted,
      onSample: ({ done, of }) => evaluating(what, done, of),
    });
  };
  const marked = async (mark: BudgetName) => {
    const { path, state } = await findCheckpoint(dir, mark);
    const digest = await modelDigest(dir, mark);
    return { weights: { named: { model: dir, checkpoint: mark }, run: dir, digest, dir: modelDir(path) }, state };
  };
  try {
    for (const mark of job.marks) {
      const { weights, state } = await marked(mark);
      const measured = await ask(evaluation, weights, `evaluation at ${mark}`);
      if (measured === undefined) return undefined;
      result.marks[mark] = {
        step: end.marks?.find((kept) => kept.mark === mark)?.step ?? 0,
        cost: subtractCost({ counts: state.counts, engineSeconds: state.engineSeconds }, before),
        samples: measured.line.file,
        problems: measured.report.problems,
        accuracy: measured.report.accuracy,
      };
    }
    for (const { name, at, spec, tokens } of job.also ?? []) {
      const weights =
        at === "start" ? await startOf(recipe, job.id) : (await marked(job.marks[job.marks.length - 1])).weights;
      const measured = await ask(spec, weights, name);
      if (measured === undefined) return undefined;
      const { report, line, samples } = measured;
      const majority = report.measures.find(
        (m) => m.name === "maj@k" && m.grading === "strict" && m.k === report.n,
      )?.value;
      const cost = evaluationRecord(join(dir, line.file))?.cost;
      result.also = [
        ...(result.also ?? []),
        {
          name,
          at,
          evaluation: comparable(spec),
          samples: line.file,
          accuracy: report.accuracy,
          ...(majority !== undefined && { majority }),
          ...(tokens !== undefined && { equal: { tokens, ...atTokens(report, samples, tokens) } }),
          tokensPerProblem: report.tokensPerProblem,
          generated: cost?.generated ?? 0,
          prefilled: cost?.prefilled ?? 0,
        },
      ];
    }
    return result;
  } finally {
    await task.close();
  }
}

/** The weights with which a run's last stage begins: those of the shared beginning that it names. */
async function startOf(recipe: Recipe, id: string) {
  const { from, name } = recipe.stages[recipe.stages.length - 1];
  if (!isAbsolute(from)) {
    throw new UserError(
      `${id}: stage ${name} begins with weights that no other arm shares, so that they are not kept; leave at = "start" out for this arm`,
    );
  }
  const run = isRunFolder(from) ? from : undefined;
  return { named: { model: from }, run, digest: await modelDigest(from), dir: await modelFolder(from) };
}

/** Answers to the training problems, whose cost stands in the record beside them. */
async function profiled(
  { dir, profile }: CellJob,
  recipe: Recipe,
  engine: Engine,
  { evaluating, signal }: CellWatch,
): Promise<CellResult | undefined> {
  if (profile === undefined) throw new Error("no profile is asked for");
  const { limit, ...sampling } = profile.spec;
  const task = await loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed });
  try {
    const problems = await takeProblems(task, "train", limit);
    await checkGolds(task, problems);
    const model = profile.model ?? recipe.model;
    const from = profile.model === undefined ? undefined : { dir: await modelFolder(profile.model), optimizer: false };
    const measured = await measure({
      dir,
      settings: { model, split: "train", ...gradingSettings(task), ...sampling, seed: recipe.seed },
      weights: await modelDigest(model),
      task,
      problems,
      withModel: (work) => withEngineModel(engine, createSpec(recipe, task, from), work),
      interrupted: () => signal.aborted,
      onSample: ({ done, of }) => evaluating("the training problems", done, of),
    });
    if (measured === undefined) return undefined;
    const cost = evaluationRecord(join(dir, measured.line.file))?.cost;
    if (cost === undefined) throw new Error(`${dir}: what the profile cost was not recorded`);
    const counts = { ...noCounts(), generated: cost.generated, prefilled: cost.prefilled };
    const before = { counts: noCounts(), engineSeconds: 0 };
    return { evaluation: comparable(profile.spec), before, whole: { counts, engineSeconds: cost.seconds }, marks: {} };
  } finally {
    await task.close();
  }
}

async function withEngineModel(engine: Engine, spec: ModelSpec, work: (model: Model) => Promise<void>): Promise<void> {
  const model = await engine.create(spec);
  try {
    await work(model);
  } finally {
    await model.close();
  }
}

/** The run's counts when its last stage began. */
function countsBefore(dir: string, last: string): TokenCounts {
  const { stage: _, ...counts } = metricsLines(dir).findLast(({ stage }) => stage !== last) ?? {
    ...noCounts(),
    stage: "",
  };
  return counts;
}

/** What a run that did not end had used; its engine seconds stand with the line that was not written. */
function countsSoFar(dir: string): TokenCounts {
  const { stage: _, ...counts } = metricsLines(dir).at(-1) ?? { ...noCounts(), stage: "" };
  return counts;
}

const metricsLine = z.object({
  stage: z.string(),
  generated: z.number(),
  prefilled: z.number(),
  scored: z.number(),
  trained: z.number(),
});

function metricsLines(dir: string): z.infer<typeof metricsLine>[] {
  const path = join(dir, "metrics.jsonl");
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n");
  return lines.flatMap((line) => (line === "" ? [] : [metricsLine.parse(JSON.parse(line))]));
}

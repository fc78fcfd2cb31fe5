import { appendFileSync, existsSync, readFileSync, truncateSync } from "node:fs";
import { z } from "zod";
import { createLocalEngine } from "../engine/local/index.ts";
import { UserError } from "../errors.ts";
import type { EvaluatedSample } from "../eval/samples.ts";
import { SCORE, solutionScore, solutionTree } from "../method/rerank.ts";
import { parseStrict } from "../strict.ts";
import { sourceInFormat } from "../task/formats.ts";
import { loadTask } from "../task/load.ts";
import type { Problem, Split } from "../task/types.ts";
import { modelDir } from "./checkpoint.ts";
import { diskError } from "./disk.ts";
import { modelDigest } from "./evaluation.ts";
import { requireRun } from "./folder.ts";
import { createSpec, findCheckpoint, headsAt, recipeOf } from "./models.ts";
import type { TaskReference } from "./recipe.ts";

export interface RerankOptions {
  /** The run folder of a reranker. */
  run: string;
  checkpoint?: string;
  /** The file that the samples were read from; the scores are kept beside it. */
  samplesFile: string;
  samples: EvaluatedSample[];
  /** Where the samples' problems are; the run's own task when absent. */
  task?: { reference: TaskReference; baseDir: string };
  split: Split;
  /** The format in which they were asked. */
  format?: string;
  onProgress?: (done: number, of: number) => void;
}

export interface Reranked {
  /** The scores' file. */
  file: string;
  /** The probability that a sample is right, as the reranker sees it. */
  score(sample: Pick<EvaluatedSample, "problem" | "sample">): number | undefined;
  /** Share of samples whose class (right where the score is above one half) is told rightly. */
  accuracy: number;
}

const lineSchema = z.strictObject({ problem: z.string(), sample: z.int().nonnegative(), score: z.number() });
type Line = z.infer<typeof lineSchema>;

/** Samples a pass. A fixed number, so that rows share a pass in the same way after an interruption. */
const CHUNK = 64;

/**
 * Scores samples with a reranker. Scores are kept in `<samples>.rerank-<digest of the reranker>` (JSON lines) and read there the next time. Throws
 * a UserError for a run that is no reranker, and for a sample whose problem the task does not have.
 */
export async function rerankSamples(options: RerankOptions): Promise<Reranked> {
  const { run, checkpoint, samples } = options;
  requireRun(run);
  const recipe = recipeOf(run);
  const { path, state } = await findCheckpoint(run, checkpoint);
  const heads = headsAt(recipe, state);
  if (!heads.some(({ name }) => name === SCORE.name)) {
    throw new UserError(`${run} trained no reranker; expected a run whose last stage is \`method = "rerank"\``);
  }
  const digest = (await modelDigest(run, checkpoint)).slice(0, 8);
  const file = options.samplesFile.replace(/(\.jsonl)?$/, `.rerank-${digest}`);
  const known = new Map(keepChunks(file, samples).map((line) => [keyOf(line), line.score]));
  const missing = samples.slice(known.size);
  if (missing.length > 0) {
    const given = options.task ?? { reference: recipe.task, baseDir: recipe.baseDir };
    const task = await loadTask(given.reference, { baseDir: given.baseDir, seed: recipe.seed });
    const engine = createLocalEngine({ memoryGb: recipe.memory });
    try {
      const source = sourceInFormat(await task.problems(options.split), options.format);
      const problems = await problemsOf(source, missing, `${task.name}, ${options.split}`);
      const own = await loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed });
      const from = { dir: modelDir(path), optimizer: false };
      const model = await engine.create(createSpec(recipe, own, from, heads));
      await own.close();
      for (let at = 0; at < missing.length; at += CHUNK) {
        const chunk = missing.slice(at, at + CHUNK);
        const trees = chunk.map((sample, i) => {
          const problem = problems.get(sample.problem);
          if (problem === undefined) throw new Error(`problem ${sample.problem} was not found before`);
          return solutionTree(model, `${at + i}`, problem, sample.text);
        });
        const scores = await model.forward(trees, "current", { logprobs: false });
        const lines = chunk.map(({ problem, sample }, i): Line => ({
          problem,
          sample,
          score: solutionScore(trees[i], scores[i]),
        }));
        append(file, lines);
        for (const line of lines) known.set(keyOf(line), line.score);
        options.onProgress?.(at + chunk.length, missing.length);
      }
      await model.close();
    } finally {
      await engine.close();
      await task.close();
    }
  }
  const score: Reranked["score"] = (sample) => known.get(keyOf(sample));
  const told = samples.filter((sample) => (score(sample) ?? 0) > 0.5 === sample.solved);
  return { file, score, accuracy: told.length / samples.length };
}

const keyOf = ({ problem, sample }: Pick<EvaluatedSample, "problem" | "sample">) => JSON.stringify([problem, sample]);

/** The problems that samples answer, by id. Throws a UserError for one that is not there. */
export async function problemsOf(
  source: { size: number; at(index: number): Problem },
  samples: EvaluatedSample[],
  where: string,
): Promise<Map<string, Problem>> {
  if (source.size === Infinity) throw new UserError(`task ${where}: its problems have no end, and cannot be looked up`);
  const wanted = new Set(samples.map(({ problem }) => problem));
  const found = new Map<string, Problem>();
  for (let i = 0; i < source.size && found.size < wanted.size; i++) {
    const problem = source.at(i);
    if (wanted.has(problem.id)) found.set(problem.id, problem);
  }
  const lost = [...wanted].find((id) => !found.has(id));
  if (lost !== undefined) {
    throw new UserError(
      `task ${where}: it has no problem ${lost}, which the samples answer; name their own with --task and --split`,
    );
  }
  return found;
}

/** The scores of the whole chunks at the file's beginning, in the samples' order; the rest is cut off, because its rows shared passes with missing ones. */
function keepChunks(file: string, samples: EvaluatedSample[]): Line[] {
  if (!existsSync(file)) return [];
  const text = readFileSync(file, "utf8").split("\n").slice(0, -1);
  const lines = text.map((line, i) => parseStrict(lineSchema, parseJson(line, `${file}:${i + 1}`), `${file}:${i + 1}`));
  const other = lines.findIndex((line, i) => samples[i] === undefined || keyOf(samples[i]) !== keyOf(line));
  const same = other < 0 ? lines.length : other;
  const kept = same === samples.length ? same : Math.floor(same / CHUNK) * CHUNK;
  truncateSync(
    file,
    Buffer.byteLength(
      text
        .slice(0, kept)
        .map((line) => `${line}\n`)
        .join(""),
    ),
  );
  return lines.slice(0, kept);
}

function parseJson(line: string, place: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw new UserError(`${place}: not valid JSON; remove the file, and the scores are computed again`);
  }
}

function append(file: string, lines: Line[]): void {
  try {
    appendFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  } catch (error) {
    throw diskError(error, file);
  }
}

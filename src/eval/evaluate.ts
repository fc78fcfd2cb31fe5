import type { Model, Sample } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { Tokenizer } from "../model/types.ts";
import type { ProcessReward } from "../rollout/process-reward.ts";
import { checkRoundBudgets } from "../rollout/rounds.ts";
import { openingTags } from "../rollout/search.ts";
import { responseRoom } from "../rollout/single.ts";
import { inFormat } from "../task/formats.ts";
import { gradeGold } from "../task/grading.ts";
import { encodePrompt } from "../task/prompt.ts";
import { checkPrograms } from "../task/program.ts";
import type { Fn } from "../tags/index.ts";
import type { Problem, Split, Task } from "../task/types.ts";
import { gradeSample, problemFields } from "./regrade.ts";
import { evaluateByPrompts } from "./prompted.ts";
import { evaluateBySearch } from "./search.ts";
import { type EvaluationRounds, evaluateInRounds } from "./rounds.ts";
import type { EvaluatedSample } from "./samples.ts";
import type { EvaluationSearch } from "./searched.ts";

/**
 * Samples that are drawn together. The engine is at the state between two steps before each such chunk, so that which rows share a
 * batch depends on the evaluation alone, not on where it was interrupted. Twice the rows that the engine has in flight.
 */
const CHUNK_SAMPLES = 128;
/** Problems that are searched together: rows that the engine has in flight. */
const CHUNK_TREES = 32;

/** Problems whose samples are drawn together: a fixed number, at least one. */
export function chunkProblems(n: number, searched = false): number {
  if (searched) return CHUNK_TREES;
  return Math.max(1, Math.floor(CHUNK_SAMPLES / n));
}

export interface EvaluateOptions {
  model: Model;
  tokenizer: Tokenizer;
  task: Task;
  problems: Problem[];
  maxTokens: number;
  /** 0: arg max. */
  temperature: number;
  /** Samples come from so many of the most probable tokens; absent: from all. */
  topK?: number;
  /** Samples a problem. */
  n?: number;
  /** Searches, `n` rollouts a problem, a path of at most `maxTokens` each. */
  search?: EvaluationSearch;
  /** Functions that are never chosen; they need a model whose tags are tokens. */
  without?: Fn[];
  /** What leaves are worth, where `search.value` is a file. */
  processReward?: ProcessReward;
  /** Asks in rounds, each of which may have `maxTokens`. */
  rounds?: EvaluationRounds;
  /** Names the random streams of sampling. */
  seed?: number;
  /** Samples of the first so many problems are there already: whole chunks, or all. */
  done?: number;
  /** Asked before each chunk, and in a search before each wave; true ends the evaluation there. */
  interrupted?: () => boolean;
  /** Called for each graded sample, in the order of problems and samples, as soon as those before it are graded. */
  onSample?: (sample: EvaluatedSample) => void;
  /** Called with the graded rollouts of a search that was interrupted: of each problem those that had ended, the first ones. */
  onPartial?: (samples: EvaluatedSample[]) => void;
  /** Called when a chunk's samples have all been handed on. */
  onChunk?: () => void;
}

/**
 * Samples answers to problems, chunk by chunk, and grades them. Which tokens are drawn is a function of seed, problem and sample
 * number. Returns the new samples in order.
 */
export async function evaluate(options: EvaluateOptions): Promise<EvaluatedSample[]> {
  const { model, n = 1, problems, done = 0 } = options;
  const size = chunkProblems(n, options.search !== undefined);
  const samples: EvaluatedSample[] = [];
  if (options.rounds !== undefined) {
    const settings = { ...options.rounds, maxTokens: options.maxTokens };
    for (const problem of problems) checkRoundBudgets(model, options.task, problem, settings);
  }
  for (let start = done; start < problems.length; start += size) {
    if (options.interrupted?.() === true) break;
    // What the cache holds decides how a prefix is computed.
    await model.discard();
    const chunk = problems.slice(start, start + size);
    const found = await evaluateChunk(chunk, options);
    if (found.length < chunk.length * n) {
      options.onPartial?.(found);
      break;
    }
    samples.push(...found);
    options.onChunk?.();
  }
  return samples;
}

async function evaluateChunk(problems: Problem[], options: EvaluateOptions): Promise<EvaluatedSample[]> {
  if (options.search !== undefined) {
    const { by } = options.search;
    const found = await (by === "prompts"
      ? evaluateByPrompts(problems, options)
      : evaluateBySearch(problems, options.search, options));
    if (found.length === problems.length * (options.n ?? 1)) for (const sample of found) options.onSample?.(sample);
    return found;
  }
  if (options.rounds !== undefined) return evaluateInRounds(problems, options.rounds, options);
  const { model, tokenizer, task, n = 1, topK, without = [] } = options;
  const banned = without.length === 0 ? undefined : openingTags(tokenizer, without);
  const requests = problems.map((problem) => {
    const prefix = encodePrompt(tokenizer, problem);
    return {
      prefix,
      n,
      maxTokens: responseRoom(problem.id, prefix, model.info.maxContext, options.maxTokens),
      temperature: options.temperature,
      ...(topK !== undefined && { topK }),
      stop: task.stop,
      ...(banned && { banned }),
      key: `eval/${options.seed ?? 0}/${problem.id}`,
    };
  });
  // Grading runs beside sampling; what waits for an earlier sample is held back so that the order never depends on speed.
  const graded: EvaluatedSample[] = [];
  let handedOn = 0;
  const grading: Promise<void>[] = [];
  await model.sample(requests, (sample, request, i) => {
    const recorded = evaluatedSample(task, problems[request], i, sample).then((evaluated) => {
      graded[request * n + i] = evaluated;
      for (; graded[handedOn] !== undefined; handedOn++) options.onSample?.(graded[handedOn]);
    });
    // Awaited below; a failure before then must not pass for one that nobody handles.
    recorded.catch(() => undefined);
    grading.push(recorded);
  });
  await Promise.all(grading);
  return graded;
}

async function evaluatedSample(
  task: Task,
  problem: Problem,
  index: number,
  { text, tokens, logprobs, stop }: Sample,
): Promise<EvaluatedSample> {
  return {
    problem: problem.id,
    sample: index,
    ...problemFields(problem),
    text,
    tokens: Array.from(tokens),
    logprobs: Array.from(logprobs),
    stop,
    ...(await gradeSample(task, problem, text)),
  };
}

/** A split's problems, the first `limit` of them, in one of their formats. A UserError when the split is endless and there is no limit. */
export async function takeProblems(task: Task, split: Split, limit?: number, format?: string): Promise<Problem[]> {
  const source = await task.problems(split);
  const count = Math.min(source.size, limit ?? Infinity);
  if (!Number.isFinite(count)) {
    throw new UserError(`task ${task.name}: its ${split} split is endless: give a limit, the number of problems`);
  }
  if (count === 0) throw new UserError(`task ${task.name}: its ${split} split holds no problem to evaluate on`);
  return Array.from({ length: count }, (_, i) => inFormat(source.at(i), format));
}

/**
 * Throws a UserError for the first problem whose gold, stated as the prompt asks, does not grade equal to itself, and for the first
 * whose gold program does not give the gold.
 */
export async function checkGolds(task: Task, problems: Problem[]): Promise<void> {
  if (task.grading === undefined) return;
  for (const problem of problems) {
    const { verdict, reason } = gradeGold(problem, task.grading);
    if (verdict === "equal") continue;
    throw new UserError(
      `task ${task.name}: no rule can read the gold of problem ${problem.id}, ${JSON.stringify(problem.answer)} (${reason}): correct it, or leave the problem out; \`rifft eval --validate\` lists all such golds`,
    );
  }
  await checkPrograms(task, problems);
}

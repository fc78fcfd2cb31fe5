import type { Model, Sample, SampleRequest } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { groupTree } from "../forest/build.ts";
import type { Forest, Tree } from "../forest/types.ts";
import { encodePrompt } from "../task/prompt.ts";
import {
  capProgress,
  checkRounds,
  extractProgress,
  isFinal,
  roundPrompt,
  type RoundTask,
  type RoundWording,
} from "../task/rounds.ts";
import type { Problem } from "../task/types.ts";
import { responseRoom } from "./single.ts";

/** A question's rounds and their budgets. */
export interface RoundsSettings extends RoundWording {
  /** Tokens that a response may have; one number for each round, or one for all. */
  maxTokens: number | readonly number[];
  /** Tokens of progress that are handed on at most, cut at the end of a sentence; absent: what leaves `maxTokens` room in the context. */
  progressTokens?: number;
  adaptive: boolean;
}

/** How rounds are sampled. */
export interface RoundsSampling {
  temperature: number;
  /** 1: the whole distribution. */
  topP: number;
  /** 0: the whole vocabulary. */
  topK: number;
  stop: string[];
  /** Who answers; the policy when absent. */
  policy?: string;
}

/** A first round's response whose question goes on. */
export interface FirstResponse {
  problem: Problem;
  /** The segment that holds it. */
  tree: string;
  segment: number;
  text: string;
  /** Names the random streams of the later rounds. */
  key: string;
}

/** A response, and what it was asked. */
export interface RoundResponse {
  /** Tokens of its prompt. */
  prompt: number;
  /** What it was handed of the round before. */
  progress?: string;
  sample: Sample;
}

/** A later round of one chain. */
export interface ChainRound extends RoundResponse {
  tree: string;
  segment: number;
}

/** What became of one continuation of a first response. */
export interface Chain {
  /** Position of its first response. */
  first: number;
  /** Its later rounds: fewer than there could be where it ended by itself. */
  rounds: ChainRound[];
}

export interface Continued {
  /** Each round's trees, in the order of rounds; `cause` names the response that a tree continues. */
  forest: Forest;
  /** k chains for each first response, in their order. */
  chains: Chain[];
}

/** Tokens that the response of round `round` (from 1) may have. */
export function roundBudget({ maxTokens }: Pick<RoundsSettings, "maxTokens">, round: number): number {
  return typeof maxTokens === "number" ? maxTokens : (maxTokens[round - 1] ?? maxTokens[maxTokens.length - 1]);
}

/**
 * The prompt of a round and the progress in it, which is cut so that prompt and response fit the context. Throws a UserError where not even
 * the prompt without progress leaves room.
 */
export function encodeRound(
  model: Model,
  task: RoundTask,
  problem: Problem,
  round: number,
  settings: RoundsSettings,
  progress?: string,
): { prompt: Int32Array; progress?: string } {
  const { maxContext } = model.info;
  const encode = (text?: string) => {
    const prompt = roundPrompt(task, problem, round, settings, text);
    return encodePrompt(model.tokenizer, { ...problem, prompt });
  };
  const length = (text: string) => model.tokenizer.encode(text).length;
  let handed = progress;
  if (handed !== undefined && settings.progressTokens !== undefined)
    handed = capProgress(model.tokenizer, handed, settings.progressTokens) || undefined;
  let prompt = encode(handed);
  const most = maxContext - roundBudget(settings, round);
  while (handed !== undefined && prompt.length > most && task.rounds === undefined) {
    handed = capProgress(model.tokenizer, handed, Math.max(0, length(handed) - (prompt.length - most))) || undefined;
    prompt = encode(handed);
  }
  responseRoom(problem.id, prompt, maxContext, 1);
  return { prompt, ...(handed !== undefined && { progress: handed }) };
}

/** Before any work: throws a UserError where a round cannot fit the context, with progress as long as it may be. */
export function checkRoundBudgets(model: Model, task: RoundTask, problem: Problem, settings: RoundsSettings): void {
  checkRounds(task, settings);
  // The usual wording is longest in the last round; a task's own has no progress that could be made up.
  const { prompt } = encodeRound(model, task, problem, settings.rounds, settings);
  if (task.rounds !== undefined) return;
  for (let round = 1; round <= settings.rounds; round++) {
    const progress = round === 1 ? 0 : (settings.progressTokens ?? 0);
    const needed = prompt.length + progress + roundBudget(settings, round);
    if (needed <= model.info.maxContext) continue;
    throw new UserError(
      `problem ${problem.id}: round ${round} needs ${needed} tokens (prompt ${prompt.length}, progress ${progress}, response ${roundBudget(settings, round)}), and the context holds ${model.info.maxContext}; lower maxTokens or progressTokens, or leave it out`,
    );
  }
}

/**
 * Answers the rounds after the first: `k` continuations of each first response, one batched call a round. In round 2 the k chains of a first
 * response share its prompt and are one tree; after that each goes on by itself. A response without progress hands on what it was handed.
 */
export async function continueRounds(
  model: Model,
  task: RoundTask,
  firsts: readonly FirstResponse[],
  k: number,
  settings: RoundsSettings & RoundsSampling,
): Promise<Continued> {
  const { temperature, topP, topK, stop, adaptive, policy } = settings;
  const forest: Forest = [];
  const chains = firsts.flatMap((_, first) => Array.from({ length: k }, (): Chain => ({ first, rounds: [] })));
  for (let round = 2; round <= settings.rounds; round++) {
    // Chains that share a prompt are asked together: in round 2 those of one first response.
    const asked: { chains: Chain[]; cause: { tree: string; segment: number }; key: string; last: string }[] = [];
    for (let c = 0; c < chains.length; c += round === 2 ? k : 1) {
      const together = chains.slice(c, c + (round === 2 ? k : 1));
      const { first, rounds } = together[0];
      const before = rounds.at(-1);
      const { tree, segment, text, key } = firsts[first];
      if (rounds.length < round - 2) continue;
      const last = before?.sample.text ?? text;
      if (adaptive && isFinal(task, last)) continue;
      const cause = before === undefined ? { tree, segment } : { tree: before.tree, segment: before.segment };
      asked.push({ chains: together, cause, last, key: round === 2 ? `${key}/2` : `${key}/${round}/${c % k}` });
    }
    if (asked.length === 0) break;
    const prompts = asked.map(({ chains: [{ first, rounds }], last }) => {
      // The authors' code hands on nothing where a response has nothing between its answer tags.
      const kept = settings.style === "reference" && task.rounds === undefined ? undefined : rounds.at(-1)?.progress;
      const progress = extractProgress(task, last, settings) ?? kept;
      return encodeRound(model, task, firsts[first].problem, round, settings, progress);
    });
    const requests = asked.map(({ chains: together, key }, i): SampleRequest => ({
      prefix: prompts[i].prompt,
      n: together.length,
      maxTokens: Math.min(roundBudget(settings, round), model.info.maxContext - prompts[i].prompt.length),
      temperature,
      ...(topP < 1 && { topP }),
      ...(topK > 0 && { topK }),
      ...(policy !== undefined && { policy }),
      stop,
      key,
    }));
    const drawn = await model.sample(requests);
    let at = 0;
    asked.forEach(({ chains: together, cause }, i) => {
      const { prompt, progress } = prompts[i];
      const samples = drawn.slice(at, (at += together.length));
      const about = { id: `${cause.tree}.${cause.segment}`, problem: firsts[together[0].first].problem.id };
      const tree: Tree = groupTree(about, prompt, samples, { temperature, truncated: topP < 1 || topK > 0 });
      forest.push({ ...tree, cause });
      together.forEach((chain, j) =>
        chain.rounds.push({ tree: tree.id, segment: 1 + j, prompt: prompt.length, progress, sample: samples[j] }),
      );
    });
  }
  return { forest, chains };
}

/** Answers problems from the first round on, `n` samples each. Of each sample, in order, the responses of its rounds. */
export async function answerInRounds(
  model: Model,
  task: RoundTask,
  problems: readonly Problem[],
  n: number,
  settings: RoundsSettings & RoundsSampling & { key: (problem: Problem) => string },
): Promise<{ problem: Problem; sample: number; responses: RoundResponse[] }[]> {
  const { temperature, topP, topK, stop, key } = settings;
  const prompts = problems.map((problem) => encodeRound(model, task, problem, 1, settings).prompt);
  const requests = problems.map((problem, p): SampleRequest => ({
    prefix: prompts[p],
    n,
    maxTokens: Math.min(roundBudget(settings, 1), model.info.maxContext - prompts[p].length),
    temperature,
    ...(topP < 1 && { topP }),
    ...(topK > 0 && { topK }),
    stop,
    key: key(problem),
  }));
  const drawn = await model.sample(requests);
  const firsts = drawn.map(({ text }, s): FirstResponse => {
    const problem = problems[Math.floor(s / n)];
    return { problem, tree: problem.id, segment: (s % n) + 1, text, key: `${key(problem)}/${s % n}` };
  });
  const { chains } = await continueRounds(model, task, firsts, 1, settings);
  return chains.map(({ rounds }, s) => ({
    problem: firsts[s].problem,
    sample: s % n,
    responses: [{ prompt: prompts[Math.floor(s / n)].length, sample: drawn[s] }, ...rounds],
  }));
}

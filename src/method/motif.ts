import { z } from "zod";
import type { Segment } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";
import {
  type Chain,
  checkRoundBudgets,
  continueRounds,
  encodeRound,
  roundBudget,
  type RoundsSettings,
} from "../rollout/rounds.ts";
import { sampleGroups } from "../rollout/single.ts";
import { encodePrompt } from "../task/prompt.ts";
import { checkRounds, ROUND_STYLES, roundPrompt } from "../task/rounds.ts";
import { solved } from "../task/solved.ts";
import type { Grade, Problem, Task } from "../task/types.ts";
import { groupAdvantages, tokenWeights } from "./advantages.ts";
import { firstPassMetrics, rewardMetrics, sampleMetrics } from "./diagnostics.ts";
import { ppo } from "./losses.ts";
import { formatReward, referenceAccuracy, referenceFormat } from "./motif-rewards.ts";
import type { Stage } from "./stage.ts";
import { accumulate, adam, optimizerSettings } from "./update.ts";

/** Tokens that a response may have: of every round, or of each. */
export const roundTokens = z.union([z.int().positive(), z.array(z.int().positive()).min(1)]);

/** Defaults are those of the paper's code (arXiv 2507.02851), but for the number of prompts. */
export const motifSettings = z
  .strictObject({
    /** Problems a step. */
    prompts: z.int().positive().default(8),
    /** m: first responses a problem. */
    samples: z.int().positive().default(8),
    /** k: continuations of each first response. */
    continuations: z.int().positive().default(4),
    /** n: rounds a problem. */
    rounds: z.int().positive().default(3),
    style: z.enum(ROUND_STYLES).default("default"),
    /** A response that states its final answer ends the question. */
    adaptive: z.boolean().default(false),
    maxTokens: roundTokens.default(1024),
    progressTokens: z.int().positive().optional(),
    /** "first": the first responses alone, as in the paper; "all": every round's. */
    trainRounds: z.enum(["first", "all"]).default("first"),
    /** With "all", what a chain's outcome is compared with: the k chains of its first response, or all m x k of its question. */
    credit: z.enum(["siblings", "question"]).default("question"),
    /** Who answers the later rounds: the policy as it is, or the untrained base, as the released code does by accident. */
    continuationPolicy: z.enum(["current", "base"]).default("current"),
    /** Of the first round. */
    temperature: z.number().positive().default(1),
    laterTemperature: z.number().positive().default(0.8),
    /** Of the later rounds: 0.95, or 1 where they are trained. */
    laterTopP: z.number().positive().max(1).optional(),
    /** Trains on later rounds that were cut by top-p, or that the base answered. */
    allowTruncated: z.boolean().default(false),
    /** "task": the task's; "reference": those of the released code. */
    reward: z.enum(["task", "reference"]).default("task"),
    /** With the task's reward: what a first response in the layout that was asked for earns beside it. */
    format: z.number().min(0).default(0),
    clipLow: z.number().min(0).max(1).default(0.2),
    clipHigh: z.number().min(0).default(0.2),
    /** Times that a step's samples are trained on. */
    innerPasses: z.int().positive().default(1),
    normalize: z.enum(["token", "sequence"]).default("token"),
    scaleByStd: z.boolean().default(true),
    /** Leaves out questions that teach nothing; kept, they dilute the mean. */
    dropFlatGroups: z.boolean().default(false),
    ...optimizerSettings({ lr: 5e-6, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0.1, maxGradNorm: 0.1 }),
  })
  .refine((s) => s.trainRounds === "first" || s.allowTruncated || (s.laterTopP ?? 1) === 1, {
    path: ["laterTopP"],
    error: "training on later rounds cut by top-p needs allowTruncated = true, for their log-probs are untruncated",
  })
  .refine((s) => s.trainRounds === "first" || s.continuationPolicy === "current", {
    path: ["continuationPolicy"],
    error: 'what the base answers is not the policy\'s own; use trainRounds = "first"',
  })
  .refine((s) => s.samples > 1 || (s.trainRounds === "all" && s.continuations > 1 && s.rounds > 1), {
    path: ["samples"],
    error: 'a group of one has no advantage; take more samples, or trainRounds = "all" with several continuations',
  })
  .refine((s) => typeof s.maxTokens === "number" || s.maxTokens.length === s.rounds, {
    path: ["maxTokens"],
    error: "expected one number, or one for each of `rounds`",
  });
export type MotifSettings = z.infer<typeof motifSettings>;

/** MOTIF: thinking in rounds, trained on how the continuations of a first round end (arXiv 2507.02851, algorithm 1). */
export async function motif(stage: Stage, settings: MotifSettings): Promise<void> {
  const { model, task } = stage;
  const { prompts, samples: m, continuations: k, trainRounds } = settings;
  checkRounds(task, settings.rounds);
  const loss = { ...ppo({ low: 1 - settings.clipLow, high: 1 + settings.clipHigh }), entropy: true };
  const policy = settings.continuationPolicy === "base" ? "base" : undefined;
  const laterTopP = settings.laterTopP ?? (trainRounds === "first" ? 0.95 : 1);

  for await (const step of stage.steps()) {
    // 1. m first responses to each question.
    const problems = step.problems(prompts);
    for (const problem of problems) checkRoundBudgets(model, task, problem, settings);
    const questions = problems.map((problem, q) => ({
      id: `${stage.name}/${step.index}/${q}`,
      problem: problem.id,
      prompt: encodeRound(model, task, problem, 1, settings).prompt,
      key: step.key(problem),
    }));
    const { forest, responses } = await step.time("sample", () =>
      sampleGroups(model, questions, {
        samples: m,
        temperature: settings.temperature,
        maxTokens: roundBudget(settings, 1),
        topP: 1,
        topK: 0,
        stop: task.stop,
      }),
    );

    // 2. k continuations of each through the later rounds, one batched call a round.
    const firsts = questions.flatMap(({ id, key }, q) =>
      responses[q].map((text, i) => ({ problem: problems[q], tree: id, segment: i + 1, text, key: `${key}/${i}` })),
    );
    const continued = await step.time("sample", () =>
      continueRounds(model, task, firsts, k, {
        ...settings,
        temperature: settings.laterTemperature,
        topP: laterTopP,
        topK: 0,
        stop: task.stop,
        policy,
      }),
    );

    // 3. A reward for each chain by its last response. First responses are graded too, to tell what the later rounds add.
    const ends = continued.chains.map(({ first, rounds }) => ({
      problem: firsts[first].problem,
      response: rounds.at(-1)?.sample.text ?? firsts[first].text,
    }));
    const grades = await step.time("grade", () =>
      step.grade([...ends, ...firsts.map(({ problem, text: response }) => ({ problem, response }))]),
    );
    const ofChains = grades.slice(0, ends.length);
    const outcomes = ends.map(({ problem, response }, c) => outcomeOf(problem, response, ofChains[c], settings));
    const trees = new Map([...forest, ...continued.forest].map((tree) => [tree.id, tree]));
    const segmentOf = (tree: string, segment: number): Segment => {
      const found = trees.get(tree)?.segments[segment];
      if (found === undefined) throw new Error(`tree ${tree} has no segment ${segment}`);
      return found;
    };

    // 4. Each trained response's advantage.
    const groups = questions.map(({ id }, q) => {
      const chains = continued.chains.slice(q * m * k, (q + 1) * m * k).map((chain, c): CreditedChain => ({
        later: chain.rounds.map((round) => segmentOf(round.tree, round.segment)),
        outcome: outcomes[q * m * k + c],
      }));
      chains.forEach(({ later, outcome }, c) => {
        for (const segment of later) segment.outcome = { reward: outcome };
        const last = later.at(-1);
        if (last !== undefined) last.outcome = { ...ofChains[q * m * k + c].parts, reward: outcome };
      });
      const first = forest[q].segments.slice(1).map((segment, i): CreditedFirst => {
        const own = chains.slice(i * k, (i + 1) * k);
        const bonus = bonusOf(responses[q][i], settings);
        const accuracy = own.reduce((sum, { outcome }) => sum + outcome, 0) / k;
        segment.outcome = { reward: accuracy + bonus, accuracy, ...(bonus !== 0 && { format: bonus }) };
        return { segment, reward: accuracy + bonus, bonus, chains: own };
      });
      return { tree: id, trained: creditOf(id, first, settings) };
    });
    const kept = groups.filter(({ trained }) => !settings.dropFlatGroups || trained.some(hasAdvantage));
    const trained = kept.flatMap((group) => group.trained);
    const weights = tokenWeights(
      trained.map(({ segment }) => segment.tokens.length),
      settings.normalize,
    );
    trained.forEach(({ segment: { tokens, fields }, advantage }, i) => {
      fields.advantages = new Float32Array(tokens.length).fill(weights[i] * advantage);
    });

    // 5. One update a pass.
    const all = [...trees.values()];
    const lr = step.lr();
    const sums = { loss: 0, gradNorm: 0, updates: 0, clipped: 0, tokens: 0 };
    await step.time("train", async () => {
      // Trees of rounds that are not trained carry no weight: they are not computed.
      const weighed = all.filter(({ segments }) =>
        segments.some(({ fields }) => fields.advantages?.some((a) => a !== 0)),
      );
      for (let pass = 0; pass < settings.innerPasses && weighed.length > 0; pass++) {
        const result = await accumulate(model, weighed, loss, settings.microBatch);
        const { gradNorm } = await model.optimStep(adam(settings, lr));
        const { ratio = 0, clipped = 0, tokens = 0 } = result.metrics;
        if (pass === 0) step.log({ ...firstPassMetrics(weighed, result.scores), ratio: ratio / tokens });
        sums.loss += result.loss;
        sums.gradNorm += gradNorm;
        sums.clipped += clipped;
        sums.tokens += tokens;
        sums.updates++;
      }
    });
    const flat = groups.filter(({ trained }) => !trained.some(hasAdvantage)).length / groups.length;
    step.log({
      ...rewardMetrics(ofChains),
      reward: outcomes.reduce((sum, outcome) => sum + outcome, 0) / outcomes.length,
      "solveRate/round1": grades.slice(ends.length).filter(solved).length / firsts.length,
      ...sampleMetrics(all),
      ...roundMetrics(
        forest.flatMap(({ segments }) => segments.slice(1)),
        continued.chains,
      ),
      flatGroups: flat,
      lr,
    });
    if (sums.updates > 0) {
      const { updates, tokens } = sums;
      step.log({ loss: sums.loss / updates, gradNorm: sums.gradNorm / updates, clipFraction: sums.clipped / tokens });
    }
    step.keep(all);
  }
}

/** What a chain earns by its last response. */
function outcomeOf({ id, answer }: Problem, response: string, grade: Grade, { reward }: MotifSettings): number {
  if (reward === "task") return grade.reward;
  if (answer === undefined) throw new Error(`problem ${id} has no gold, which the reference's reward compares with`);
  return referenceAccuracy(response, answer);
}

/** What a first response earns by its layout. */
function bonusOf(response: string, { reward, format }: MotifSettings): number {
  if (reward === "task") return format === 0 ? 0 : format * formatReward(response);
  const { count, soft, strict } = referenceFormat(response);
  return count + soft + strict;
}

export interface CreditedChain {
  /** The responses of its later rounds. */
  later: Segment[];
  outcome: number;
}

export interface CreditedFirst {
  segment: Segment;
  /** The mean outcome of its chains, and what its layout earns. */
  reward: number;
  bonus: number;
  chains: CreditedChain[];
}

interface Trained {
  segment: Segment;
  advantage: number;
}

/**
 * The responses of a question that are trained, with their advantages. Relative to siblings: a first response's mean outcome among the question's
 * m, a later response's outcome among the k chains of its first response. Relative to the question: every chain's outcome among all m x k; a
 * first response, which k chains share, has the mean of theirs.
 */
export function creditOf(
  tree: string,
  firsts: readonly CreditedFirst[],
  { trainRounds, credit, scaleByStd }: Pick<MotifSettings, "trainRounds" | "credit" | "scaleByStd">,
): Trained[] {
  const within = (rewards: number[]) => groupAdvantages(rewards, tree, scaleByStd);
  if (trainRounds === "first" || credit === "siblings") {
    const advantages_M = within(firsts.map(({ reward }) => reward));
    return firsts.flatMap(({ segment, chains }, i): Trained[] => {
      const own = { segment, advantage: advantages_M[i] };
      if (trainRounds === "first") return [own];
      const advantages_K = within(chains.map(({ outcome }) => outcome));
      return [
        own,
        ...chains.flatMap(({ later }, j) => later.map((one) => ({ segment: one, advantage: advantages_K[j] }))),
      ];
    });
  }
  const advantages = within(firsts.flatMap(({ bonus, chains }) => chains.map(({ outcome }) => outcome + bonus)));
  let at = 0;
  return firsts.flatMap(({ segment, chains }): Trained[] => {
    const own = advantages.slice(at, (at += chains.length));
    const mean = own.reduce((sum, advantage) => sum + advantage, 0) / own.length;
    const later = chains.flatMap((chain, j) => chain.later.map((one) => ({ segment: one, advantage: own[j] })));
    return [{ segment, advantage: mean }, ...later];
  });
}

const hasAdvantage = ({ advantage }: Trained): boolean => advantage !== 0;

/** Rounds that a chain took, and the mean tokens of a response in each round. */
function roundMetrics(firsts: Segment[], chains: readonly Chain[]): Record<string, number> {
  const mean = (lengths: number[]) => lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
  const metrics: Record<string, number> = {
    rounds: 1 + mean(chains.map(({ rounds }) => rounds.length)),
    "responseLength/round1": mean(firsts.map(({ tokens }) => tokens.length)),
  };
  for (let r = 0; ; r++) {
    const lengths = chains.flatMap(({ rounds }) => rounds[r]?.sample.tokens.length ?? []);
    if (lengths.length === 0) return metrics;
    metrics[`responseLength/round${r + 2}`] = mean(lengths);
  }
}

/** Tokens of context that a problem's longest round needs; where the task words its own, of the first with a token to answer. */
export function roundsRowLength(tokenizer: Tokenizer, problem: Problem, settings: RoundsSettings, task: Task): number {
  const prompt = (round: number) =>
    encodePrompt(tokenizer, { ...problem, prompt: roundPrompt(task, problem, round, settings) }).length;
  if (task.rounds !== undefined) return prompt(1) + 1;
  return Math.max(
    ...Array.from({ length: settings.rounds }, (_, i) => {
      const progress = i === 0 ? 0 : (settings.progressTokens ?? 0);
      return prompt(i + 1) + progress + roundBudget(settings, i + 1);
    }),
  );
}

import { z } from "zod";
import type { Segment, Tree } from "../forest/types.ts";
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
import type { Grade, Problem, Task } from "../task/types.ts";
import { groupAdvantages, isFlat, NORMALIZATIONS } from "./advantages.ts";
import { k1 } from "./losses.ts";
import { type GradedChain, roundMetrics } from "./motif-metrics.ts";
import { chainReward, formatWeight, ROUND_REWARDS } from "./motif-rewards.ts";
import { type CreditedResponse, objective, RATIOS, setFields } from "./parts.ts";
import { referencePolicy, scoreReference, updatePolicy } from "./policy-update.ts";
import { questionsOf } from "./sampling.ts";
import type { Stage, Step } from "./stage.ts";
import { optimizerSettings } from "./update.ts";

/** Defaults are those of the paper and its code (arXiv 2507.02851), but for the number of prompts. */
export const motifSettings = z
  .strictObject({
    /** Problems a step. */
    prompts: z.int().positive().default(8),
    /** m: first responses a problem. */
    samples: z.int().positive().default(8),
    /** k: continuations of each first response. */
    continuations: z.int().positive().default(4),
    /** n: rounds a problem; 1 is GRPO with a first round's prompt. */
    rounds: z.int().positive().default(3),
    /** How rounds are worded, where the task does not say. */
    style: z.enum(ROUND_STYLES).default("default"),
    /** A response that states its final answer ends the question. */
    adaptive: z.boolean().default(false),
    /** Tokens that a response may have: in every round, or one number for each. */
    maxTokens: z.union([z.int().positive(), z.array(z.int().positive()).min(1)]).default(1024),
    /** Tokens of progress that are handed on at most; absent: what leaves `maxTokens` room in the context. */
    progressTokens: z.int().positive().optional(),
    /** "first": the first responses alone, as in the paper; "all": those of every round. */
    trainRounds: z.enum(["first", "all"]).default("first"),
    /** With "all", what a chain's outcome is compared with: the k chains of its first response, or all m x k of its question. */
    credit: z.enum(["siblings", "question"]).default("question"),
    /** Who answers the later rounds: the policy as it is (the paper), or the base without what was trained (the authors' code). */
    continuationPolicy: z.enum(["current", "frozenBase"]).default("current"),
    /** Of the first round, which is drawn from the whole distribution. */
    temperature: z.number().positive().default(1),
    laterTemperature: z.number().positive().default(0.8),
    /** Of the later rounds; absent: 0.95, or 1 where they are trained. */
    laterTopP: z.number().positive().max(1).optional(),
    /** Trains on later rounds cut by top-p, whose log-probs are not those of the distribution that they were drawn from. */
    allowTruncated: z.boolean().default(false),
    reward: z.enum(ROUND_REWARDS).default("default"),
    /** What the layout that the prompt asks for earns; absent: 1 in the paper's reward, 0.2 in the default one. */
    formatWeight: z.number().min(0).optional(),
    /** Whose layout counts: the first response's, or the mean over the chain's. */
    formatRounds: z.enum(["first", "all"]).default("first"),
    /** In the default reward: the part of its accuracy that a last response keeps whose answer stands outside of its answer tags. */
    outsideTags: z.number().min(0).max(1).default(0.5),
    /** With `adaptive`: what a right answer earns that took one round; less for more rounds, nothing for all of them. */
    early: z.number().min(0).default(0),
    /** Grades every response, for the accuracy by round; false: each chain's last alone, where grading is dear. */
    gradeRounds: z.boolean().default(true),
    /** An advantage is divided by the standard deviation of what it is compared with, or not. */
    scale: z.enum(["group", "none"]).default("group"),
    /** What has a ratio of its own: a token, or a whole response. */
    ratio: z.enum(RATIOS).default("token"),
    /** The ratio counts within [1 - clipLow, 1 + clipHigh]. */
    clipLow: z.number().min(0).max(1).default(0.2),
    clipHigh: z.number().min(0).default(0.2),
    /** What the sum over a minibatch's tokens is divided by. */
    normalize: z.enum(NORMALIZATIONS).default("token"),
    /** Weight of the KL penalty, and where it acts: k3 inside the loss, or k1 charged to its token. */
    beta: z.number().min(0).default(0),
    kl: z.enum(["k3", "k1"]).default("k3"),
    reference: z.enum(["stage-start", "base"]).default("stage-start"),
    /** Leaves out responses that were compared with equal outcomes alone; kept, they dilute the mean. */
    dropFlatGroups: z.boolean().default(false),
    /** Times that a step's samples are trained on. */
    innerPasses: z.int().positive().default(1),
    /** Optimizer updates a pass, each on its share of the problems. */
    minibatches: z.int().positive().default(1),
    ...optimizerSettings({ lr: 5e-6, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0.1, maxGradNorm: 0.1 }),
  })
  .superRefine((settings, context) => {
    for (const { key, why } of contradictions(settings)) {
      context.addIssue({ code: "custom", path: [key], message: why, input: settings[key] });
    }
  });
export type MotifSettings = z.output<typeof motifSettings>;

/** MOTIF: thinking in rounds, trained by how the continuations of first responses end (Mitra and Ulukus 2025, arXiv 2507.02851, algorithm 1). */
export async function motif(stage: Stage, settings: MotifSettings): Promise<void> {
  checkRounds(stage.task, settings.rounds);
  formatWeight(stage.task, settings);
  const reference = await referencePolicy(stage, settings);
  const loss = objective({ ...settings, clip: "surrogate" });

  for await (const step of stage.steps()) {
    // 1. m first responses to each question, and k continuations of each through the later rounds: a batched call a round.
    const problems = step.problems(settings.prompts);
    const { trees, questions } = await sampleRounds(stage, step, problems, settings);

    // 2. Each chain's outcome, by its last response. A first response's reward is the mean over its k chains.
    await gradeChains(stage, step, questions, settings);

    // 3. Advantages of the responses that are trained.
    const credited = questions.map((question) => credit(question, settings));
    const trained = credited.map((responses) => responses.filter(({ flat }) => !(flat && settings.dropFlatGroups)));
    const treesOf = new Map(trees.flatMap((tree) => tree.segments.map((segment) => [segment, tree])));
    const trainedTrees = (responses: CreditedRound[]) => [
      ...new Set(responses.flatMap(({ response }) => treesOf.get(response) ?? [])),
    ];
    await scoreReference(stage, step, trainedTrees(trained.flat()), reference);
    const longest = Math.max(...Array.from({ length: settings.rounds }, (_, r) => roundBudget(settings, r + 1)));
    const size = settings.prompts / settings.minibatches;
    const minibatches = Array.from({ length: settings.minibatches }, (_, b) => {
      const share = trained.slice(b * size, (b + 1) * size).flat();
      const responses = share.map((one) => ({ response: one.response, advantages_T: tokenAdvantages(one, settings) }));
      setFields(responses, settings, longest);
      return { trees: trainedTrees(share) };
    });

    // 4. The GRPO step on them.
    await updatePolicy(stage, step, minibatches, loss, settings);
    const flat = credited.filter((responses) => responses.every((response) => response.flat)).length;
    step.log({
      ...roundMetrics(
        stage.task,
        questions.flatMap(({ chains }) => chains),
        settings,
      ),
      flatGroups: flat / questions.length,
      trainedResponses: trained.flat().length,
    });
    step.keep(trees);
  }
}

/** A question with its m first responses and its m x k chains: those of the i-th response are the chains i k to (i + 1) k. */
interface Question {
  tree: Tree;
  problem: Problem;
  firsts: Segment[];
  chains: RoundChain[];
}

/** A chain of responses, of which the first belongs to k chains. */
interface RoundChain extends GradedChain {
  problem: Problem;
  later: Segment[];
}

/** Samples all rounds. Trees: one a question with its first responses, then those of the later rounds, which name their cause. */
async function sampleRounds(
  stage: Stage,
  step: Step,
  problems: Problem[],
  settings: MotifSettings,
): Promise<{ trees: Tree[]; questions: Question[] }> {
  const { model, task } = stage;
  const { samples: m, continuations: k } = settings;
  for (const problem of problems) checkRoundBudgets(model, task, problem, settings);
  const asked = questionsOf(stage, step, problems).map((question, q) => ({
    ...question,
    prompt: encodeRound(model, task, problems[q], 1, settings).prompt,
  }));
  const { forest, responses } = await step.time("sample", () =>
    sampleGroups(model, asked, {
      samples: m,
      temperature: settings.temperature,
      maxTokens: roundBudget(settings, 1),
      topP: 1,
      topK: 0,
      stop: task.stop,
    }),
  );
  const firsts = asked.flatMap(({ id, key }, q) =>
    responses[q].map((text, i) => ({ problem: problems[q], tree: id, segment: i + 1, text, key: `${key}/${i}` })),
  );
  const continued = await step.time("sample", () =>
    continueRounds(model, task, firsts, k, {
      ...settings,
      temperature: settings.laterTemperature,
      topP: laterTopP(settings),
      topK: 0,
      stop: task.stop,
      ...(settings.continuationPolicy === "frozenBase" && { policy: "base" }),
    }),
  );
  const trees = [...forest, ...continued.forest];
  const byId = new Map(trees.map((tree) => [tree.id, tree]));
  const segmentOf = ({ tree, segment }: { tree: string; segment: number }): Segment => {
    const found = byId.get(tree)?.segments[segment];
    if (found === undefined) throw new Error(`tree ${tree} has no segment ${segment}`);
    return found;
  };
  const chains = continued.chains.map(({ first, rounds }: Chain): RoundChain => {
    const later = rounds.map(segmentOf);
    const texts = [firsts[first].text, ...rounds.map(({ sample }) => sample.text)];
    return {
      problem: firsts[first].problem,
      segments: [segmentOf(firsts[first]), ...later],
      later,
      texts,
      grades: [],
      parts: {},
      outcome: 0,
    };
  });
  const questions = forest.map((tree, q): Question => ({
    tree,
    problem: problems[q],
    firsts: tree.segments.slice(1),
    chains: chains.slice(q * m * k, (q + 1) * m * k),
  }));
  return { trees, questions };
}

/** Grades the last response of each chain, and with `gradeRounds` those before it, each response once; sets outcomes. */
async function gradeChains({ task }: Stage, step: Step, questions: Question[], settings: MotifSettings): Promise<void> {
  const { continuations: k, gradeRounds } = settings;
  // A first response is graded once for its k chains. Its sample is its number among m, a later one's that of its chain among m x k.
  const items = new Map<Segment, { problem: Problem; response: string; sample: number; turn: number }>();
  for (const { problem, chains } of questions) {
    chains.forEach(({ segments, texts }, c) =>
      segments.forEach((segment, r) => {
        if (!gradeRounds && r < segments.length - 1) return;
        const sample = r === 0 ? Math.floor(c / k) : c;
        items.set(segment, { problem, response: texts[r], sample, turn: r + 1 });
      }),
    );
  }
  const graded = await step.time("grade", () => step.grade([...items.values()]));
  const grades = new Map<Segment, Grade>([...items.keys()].map((segment, i) => [segment, graded[i]]));

  for (const { firsts, problem, chains } of questions) {
    for (const chain of chains) {
      const { segments, texts } = chain;
      chain.grades = segments.map((segment) => grades.get(segment));
      const grade = chain.grades[chain.grades.length - 1];
      if (grade === undefined) throw new Error(`problem ${problem.id}: a chain was not graded`);
      chain.parts = chainReward(task, { problem, responses: texts, grade }, settings);
      chain.outcome = Object.values(chain.parts).reduce((sum, part) => sum + part, 0);
      chain.later.forEach((segment, r) => {
        const own = chain.grades[r + 1];
        segment.outcome = { ...chain.parts, reward: chain.outcome, ...(own && { ownReward: own.reward }) };
      });
    }
    firsts.forEach((first, i) => {
      const own = chains.slice(i * k, (i + 1) * k);
      const mean = (of: (chain: RoundChain) => number) => own.reduce((sum, chain) => sum + of(chain), 0) / k;
      const parts = Object.keys(own[0].parts).map((name) => [name, mean(({ parts }) => parts[name])]);
      const right = grades.get(first);
      first.outcome = {
        ...Object.fromEntries(parts),
        reward: mean(({ outcome }) => outcome),
        ...(right && { ownReward: right.reward }),
      };
    });
  }
}

/** A response that is trained. */
export interface CreditedRound {
  response: Segment;
  advantage: number;
  /** It was compared with equal outcomes alone. */
  flat: boolean;
}

/**
 * The responses of a question that are trained. Relative to siblings: a first response's mean outcome among the question's m, a later
 * response's outcome among the k chains of its first response. Relative to the question: every chain's outcome among all m x k; a first
 * response, which k chains share, has the mean of theirs.
 */
export function credit(
  {
    tree,
    firsts,
    chains,
  }: { tree: Pick<Tree, "id">; firsts: Segment[]; chains: Pick<RoundChain, "outcome" | "later">[] },
  {
    trainRounds,
    credit,
    scale,
    continuations: k,
  }: Pick<MotifSettings, "trainRounds" | "credit" | "scale" | "continuations">,
): CreditedRound[] {
  const compared = (rewards: number[]) => ({
    advantages: groupAdvantages(rewards, tree.id, scale === "group"),
    flat: isFlat(rewards),
  });
  const laterOf = (own: typeof chains, advantages: ArrayLike<number>, flat: boolean): CreditedRound[] =>
    own.flatMap(({ later }, c) => later.map((response) => ({ response, advantage: advantages[c], flat })));
  const outcomes = chains.map(({ outcome }) => outcome);
  const means = firsts.map((_, i) => outcomes.slice(i * k, (i + 1) * k).reduce((sum, one) => sum + one, 0) / k);

  if (trainRounds === "all" && credit === "question") {
    const { advantages, flat } = compared(outcomes);
    const shared = firsts.map((response, i): CreditedRound => {
      const own = advantages.slice(i * k, (i + 1) * k);
      return { response, advantage: own.reduce((sum, advantage) => sum + advantage, 0) / k, flat };
    });
    return [...shared, ...laterOf(chains, advantages, flat)];
  }
  const { advantages, flat } = compared(means);
  const own = firsts.map((response, i): CreditedRound => ({ response, advantage: advantages[i], flat }));
  if (trainRounds === "first") return own;
  return firsts.reduce((all, _, i) => {
    const siblings = compared(outcomes.slice(i * k, (i + 1) * k));
    return [...all, ...laterOf(chains.slice(i * k, (i + 1) * k), siblings.advantages, siblings.flat)];
  }, own);
}

/** The response's advantage for each of its tokens, less its share of a KL cost. */
function tokenAdvantages(
  { response, advantage }: CreditedRound,
  { beta, kl }: MotifSettings,
): CreditedResponse["advantages_T"] {
  const { tokens, logprobs = [], fields } = response;
  if (beta === 0 || kl === "k3") return new Float64Array(tokens.length).fill(advantage);
  return Float64Array.from(logprobs, (lp, t) => advantage - beta * k1(lp, fields.refLogprobs[t]));
}

/** Tokens of context that a problem's longest round needs; where the task words its own, those of the first with a token to answer. */
export function roundsRowLength(tokenizer: Tokenizer, problem: Problem, settings: RoundsSettings, task: Task): number {
  const prompt = (round: number) =>
    encodePrompt(tokenizer, { ...problem, prompt: roundPrompt(task, problem, round, settings) }).length;
  if (task.rounds !== undefined) return prompt(1) + 1;
  const lengths = Array.from({ length: settings.rounds }, (_, i) => {
    const progress = i === 0 ? 0 : (settings.progressTokens ?? 0);
    return prompt(i + 1) + progress + roundBudget(settings, i + 1);
  });
  return Math.max(...lengths);
}

/** The authors' 0.95, where the later rounds carry no gradient. */
function laterTopP({ laterTopP, trainRounds }: MotifSettings): number {
  return laterTopP ?? (trainRounds === "first" ? 0.95 : 1);
}

/** Settings that cannot stand beside each other: by which key, and why. */
function contradictions(s: MotifSettings): { key: keyof MotifSettings; why: string }[] {
  const all = s.trainRounds === "all";
  const rules: [boolean, keyof MotifSettings, string][] = [
    [
      all && !s.allowTruncated && laterTopP(s) < 1,
      "laterTopP",
      "training on later rounds cut by top-p needs allowTruncated = true, for their log-probs are untruncated",
    ],
    [
      all && s.continuationPolicy === "frozenBase",
      "continuationPolicy",
      'what the frozen base answers is not the policy\'s own and cannot be trained; use trainRounds = "first"',
    ],
    [
      s.samples === 1 && (!all || s.rounds === 1 || s.continuations === 1),
      "samples",
      'one response has nothing to be compared with; take 2 samples or more, or trainRounds = "all" with several continuations',
    ],
    [
      all && s.credit === "siblings" && s.continuations === 1 && s.rounds > 1,
      "credit",
      'credit = "siblings" compares the continuations of one response, and there is one; take more continuations, or credit = "question"',
    ],
    [
      typeof s.maxTokens !== "number" && s.maxTokens.length !== s.rounds,
      "maxTokens",
      `expected one number, or one for each of ${s.rounds} rounds`,
    ],
    [
      s.early > 0 && !(s.adaptive && s.rounds > 1),
      "early",
      "no question ends early without adaptive = true and several rounds",
    ],
    [
      s.reward === "reference" && (s.formatWeight !== undefined || s.early > 0),
      s.early > 0 ? "early" : "formatWeight",
      'reward = "reference" is that of the authors\' code, which has no such part',
    ],
    [s.prompts % s.minibatches !== 0, "minibatches", `minibatches must divide prompts evenly, which is ${s.prompts}`],
  ];
  return rules.flatMap(([broken, key, why]) => (broken ? [{ key, why }] : []));
}

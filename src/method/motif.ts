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
import { roundPrompt } from "../task/rounds.ts";
import type { Grade, Problem, Task } from "../task/types.ts";
import { groupAdvantages, isFlat } from "./advantages.ts";
import { k1 } from "./losses.ts";
import { type GradedChain, roundMetrics } from "./motif-metrics.ts";
import { chainReward } from "./motif-rewards.ts";
import { laterTopP, type MotifSettings } from "./motif-settings.ts";
import { type CreditedResponse, objective, setFields } from "./parts.ts";
import { referencePolicy, scoreReference, updatePolicy } from "./policy-update.ts";
import { questionsOf } from "./sampling.ts";
import type { Stage, Step } from "./stage.ts";

/** MOTIF: thinking in rounds, trained by how the continuations of first responses end (Mitra and Ulukus 2025, arXiv 2507.02851, algorithm 1). */
export async function motif(stage: Stage, settings: MotifSettings): Promise<void> {
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
      const mean = (of: (chain: RoundChain) => number) => meanOf(own.map(of));
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
 * response, which k chains share, has the mean of theirs. Without later rounds both are GRPO's among the m.
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
  const means = firsts.map((_, i) => meanOf(outcomes.slice(i * k, (i + 1) * k)));
  // Where no response was continued, its k chains are one, which counts once.
  const continued = chains.some(({ later }) => later.length > 0);

  if (trainRounds === "all" && credit === "question" && continued) {
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

/** The mean, rounded alike whatever the order of the values: groups of equal means are told by comparing these. */
function meanOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b).reduce((sum, value) => sum + value, 0) / values.length;
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

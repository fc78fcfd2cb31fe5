import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import type { HeadSpec, Loss, OptimSettings } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { breaksPath, type Fn, FUNCTIONS, G2, parseTolerant, validate, withoutFunctions } from "../tags/index.ts";
import { HttpProcessReward, type ProcessReward, processRewardSettings } from "../rollout/process-reward.ts";
import { type End, SEARCH_DEFAULTS, type SearchLeaf, searchTrees } from "../rollout/search.ts";
import { sampleGroups } from "../rollout/single.ts";
import { questionText } from "../task/questions.ts";
import { solved } from "../task/solved.ts";
import type { Grade, Problem } from "../task/types.ts";
import { type Contradiction, refuse } from "./contradictions.ts";
import { cutMetrics, rewardMetrics } from "./diagnostics.ts";
import { ppo } from "./losses.ts";
import { referencePolicy, scoreReference, treeUpdateSettings, updatePolicy } from "./policy-update.ts";
import { HeadProcessReward, PROCESS, setStepTargets } from "./process-head.ts";
import { exploredMetrics } from "./rftt-metrics.ts";
import { needsScores, rewardOf, REWARDS } from "./rftt-rewards.ts";
import { drawsWhole, questionsOf, TRUNCATED } from "./sampling.ts";
import type { Stage, Step } from "./stage.ts";
import { carriesWeight, creditOf, type Explored, isChoice, isKept, type Path, setFields } from "./tree-credit.ts";
import { allActions, stepValues, sumOf } from "./tree-losses.ts";
import { adam, optimizerSettings } from "./update.ts";

const count = z.int().positive();

/** Defaults are those of RFTT's scripts (arXiv 2502.13389), but for step texts at temperature 1 and top-p 1, a floor, group advantages and `searchTokens`. */
const everySetting = z.strictObject({
  /** Questions a step. */
  prompts: count.default(16),
  /** `none`: as many plain samples of each question as a search would have rollouts. */
  search: z.enum(["tree", "none"]).default("tree"),
  rollouts: z.int().min(2).default(SEARCH_DEFAULTS.rollouts),
  /** Rollouts of a tree at a time; 1: the sequential search. */
  inFlight: count.default(SEARCH_DEFAULTS.inFlight),
  /** Texts that a function may get at a node. */
  texts: count.default(SEARCH_DEFAULTS.texts),
  /** Steps of the longest path. */
  depth: count.default(SEARCH_DEFAULTS.depth),
  /** Exploration weight, and how it falls. */
  c: z.number().min(0).default(SEARCH_DEFAULTS.c),
  exploration: z.enum(["const", "exp", "lin"]).default(SEARCH_DEFAULTS.schedule),
  /** Functions less likely than this are not expanded. */
  floor: z.number().min(0).lt(1).default(SEARCH_DEFAULTS.floor),
  /** Functions that the search never chooses. */
  without: z.array(z.enum(FUNCTIONS)).default([]),
  temperature: z.number().positive().default(SEARCH_DEFAULTS.temperature),
  topP: z.number().positive().max(1).default(SEARCH_DEFAULTS.topP),
  /** Trains on top-p samples, whose log-probs are not those of the distribution they were drawn from. */
  allowTruncated: z.boolean().default(false),
  /** Longest step, and longest `direct_answer`. */
  stepTokens: count.default(SEARCH_DEFAULTS.stepTokens),
  answerTokens: count.default(SEARCH_DEFAULTS.answerTokens),
  /** Longest response. */
  maxTokens: count.default(SEARCH_DEFAULTS.maxTokens),
  reward: z.enum(REWARDS).default("paper"),
  /** What an answer that is there but wrong earns. */
  partialReward: z.number().min(0).lt(1).default(0.1),
  /** `head`: learnt from the tree's own values, on the policy's hidden state; or a server's address. */
  processReward: z.union([z.enum(["none", "head"]), processRewardSettings]).default("none"),
  /** Weight of the difference that a step makes to the process reward model's score. */
  stepCredit: z.number().min(0).default(0),
  /** Weight of the head's loss, and its peak learning rate (`lr` when absent). */
  processCoefficient: z.number().positive().default(1),
  processLr: z.number().positive().optional(),
  advantages: z.enum(["group", "tree", "whiten"]).default("group"),
  /** Where V comes from: values weighed by the policy, or the search's visits, which its exploration biases. */
  values: z.enum(["policy", "visits"]).default("policy"),
  scaleByStd: z.boolean().default(true),
  searchTokens: z.enum(["expected", "paper", "masked"]).default("expected"),
  /** A path counts as often as rollouts ended there; without it once. */
  duplicates: z.boolean().default(false),
  /** Leaves out questions whose paths all have the same reward; with `stepCredit` none, for steps teach there too. */
  dropFlatGroups: z.boolean().default(true),
  ...treeUpdateSettings,
  ...optimizerSettings({ lr: 5e-7, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }),
});
const DEFAULTS = everySetting.parse({});

export const rfttSettings = everySetting
  .refine((s) => drawsWhole({ ...s, topK: 0 }), TRUNCATED)
  .refine((s) => s.prompts % s.minibatches === 0, {
    path: ["minibatches"],
    error: "minibatches must divide prompts evenly",
  })
  .superRefine((settings, context) => {
    refuse(contradictions(settings), settings, context);
  });
export type RfttSettings = z.infer<typeof rfttSettings>;

/** Settings that exclude each other, or of which one would count for nothing. */
function contradictions(s: z.output<typeof everySetting>): Contradiction<RfttSettings>[] {
  const found: Contradiction<RfttSettings>[] = [];
  const rule = (wrong: boolean, key: keyof RfttSettings, why: string) => void (wrong && found.push({ key, why }));
  const unused = (key: keyof RfttSettings, why: string, change: string) =>
    rule(
      !isDeepStrictEqual(s[key], DEFAULTS[key]),
      key,
      `${why}, so ${key} would count for nothing; ${change} or leave it out`,
    );
  const cut = cutBy(s.without);
  if (cut !== undefined) rule(true, "without", cut);
  const released = s.reward !== "paper";
  if (s.search === "none") {
    rule(
      s.advantages === "tree",
      "advantages",
      'advantages = "tree" needs search = "tree", for plain samples share no steps',
    );
    for (const key of OF_A_SEARCH) unused(key, 'search = "none" draws plain samples', 'take search = "tree"');
  } else if (released) {
    const why = `the values in the tree are 1 for right and 0 for wrong where reward = "${s.reward}"`;
    rule(
      s.searchTokens === "expected",
      "searchTokens",
      `${why}, another scale than the reward's; take "paper" or "masked"`,
    );
    rule(
      s.advantages === "tree",
      "advantages",
      `${why}, so that steps would not get that reward; take "group" or "whiten"`,
    );
  }
  if (released) unused("partialReward", `reward = "${s.reward}" has no such part`, 'take reward = "paper"');
  if (s.reward === "released-prm") {
    const why = 'released-prm rewards each step where it ends, which needs advantages = "whiten"';
    rule(s.advantages !== "whiten", "reward", why);
  }
  if (s.advantages === "whiten")
    unused("scaleByStd", "whitening divides by a deviation of its own", 'take advantages = "group"');
  if (s.advantages === "tree") unused("normalize", "a token of a step counts once", 'take advantages = "group"');
  if (s.processReward !== "head") {
    for (const key of ["processLr", "processCoefficient"] as const)
      unused(key, "there is no head", 'take processReward = "head"');
  }
  if (s.processReward === "none") {
    rule(
      s.stepCredit > 0 || needsScores(s.reward),
      "processReward",
      "stepCredit and the rewards released-prm and released-orm need a process reward model",
    );
  }
  return found;
}

/** Why no path comes to its end without these functions; undefined where one does. */
function cutBy(fns: readonly Fn[]): string | undefined {
  try {
    withoutFunctions(G2, fns);
    return undefined;
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}

/** What only a search has; but for the limits of its steps, so that one setting turns it off. */
const OF_A_SEARCH = [
  "inFlight",
  "texts",
  "depth",
  "c",
  "exploration",
  "floor",
  "without",
  "processReward",
  "values",
  "searchTokens",
  "duplicates",
] as const;

/** The head that a process reward model on the policy needs. */
export const rfttHeads = ({ processReward }: RfttSettings): HeadSpec[] => (processReward === "head" ? [PROCESS] : []);

/** Reinforced functional token tuning: RL on the trees of a search in which the policy itself proposes functions (RFTT, arXiv 2502.13389, its second phase). */
export async function rftt(stage: Stage, settings: RfttSettings): Promise<void> {
  const judge = processReward(stage, settings);
  // The policy of the warm-up, which the KL cost holds on to.
  const reference = await referencePolicy(stage, settings);
  const loss = objective(settings);

  for await (const step of stage.steps()) {
    // 1. A tree of paths for each question, and a reward for each path.
    const problems = step.problems(settings.prompts);
    const explore = settings.search === "tree" ? search : samplePlainly;
    const { explored, grades, metrics } = await explore(stage, step, problems, settings, judge);
    const forest = explored.map(({ tree }) => tree);

    // 2. Log-probs of the reference policy.
    await scoreReference(stage, step, forest, reference);

    // 3. Advantages of paths or of steps, and the values of the functions that the search chose among.
    const credits = creditOf(explored, settings);

    // 4. Several passes, an update for each minibatch.
    const size = settings.prompts / settings.minibatches;
    const minibatches = Array.from({ length: settings.minibatches }, (_, m) => {
      const own = explored.slice(m * size, (m + 1) * size);
      setFields(
        credits.slice(m * size, (m + 1) * size).filter((credit) => isKept(credit, settings)),
        settings.normalize,
      );
      if (settings.processReward === "head") setStepTargets(own);
      return { trees: own.map(({ tree }) => tree).filter(carriesWeight) };
    });
    const { processError = 0, processSteps = 0 } = await updatePolicy(stage, step, minibatches, loss, settings, (lr) =>
      groups(settings, lr),
    );
    step.log({
      ...rewardMetrics(grades),
      ...metrics,
      ...exploredMetrics(explored),
      flatGroups: credits.filter(({ flat }) => flat).length / credits.length,
      ...(processSteps > 0 && { processError: processError / processSteps }),
      ...(judge instanceof HttpProcessReward && serverMetrics(judge)),
    });
    step.keep(forest);
  }
}

function processReward({ model }: Stage, { processReward: kind }: RfttSettings): ProcessReward | undefined {
  if (kind === "none") return undefined;
  return kind === "head" ? new HeadProcessReward(model) : new HttpProcessReward(kind);
}

/** The clipped surrogate; functions by all actions where they are trained so; the head's loss where there is one. */
function objective(settings: RfttSettings): Loss {
  const { clipLow, clipHigh, processCoefficient: coefficient } = settings;
  const losses = [ppo({ low: 1 - clipLow, high: 1 + clipHigh })];
  if (settings.searchTokens === "expected") losses.push(allActions());
  if (settings.processReward === "head") losses.push(stepValues({ head: PROCESS.name, coefficient }));
  return { ...sumOf("rftt", losses), entropy: true };
}

function groups(settings: RfttSettings, lr: number): OptimSettings {
  const ofBody = adam(settings, lr);
  if (settings.processReward !== "head") return ofBody;
  const ofHead = adam(settings, ((settings.processLr ?? settings.lr) * lr) / settings.lr).groups.body;
  return { ...ofBody, groups: { ...ofBody.groups, [`head:${PROCESS.name}`]: ofHead } };
}

interface Exploration {
  explored: Explored[];
  /** One a path. */
  grades: Grade[];
  metrics: Record<string, number>;
}

/** One tree a question: the search asks for the value of each leaf, which is its reward, or with the released rewards whether it is right. */
async function search(
  stage: Stage,
  step: Step,
  problems: Problem[],
  settings: RfttSettings,
  judge: ProcessReward | undefined,
): Promise<Exploration> {
  const questions = questionsOf(stage, step, problems);
  const ends = problems.map(() => new Map<number, { grade: Grade; reward: number; steps?: number[] }>());
  const scores = problems.map(() => new Map<SearchLeaf, number[]>());
  const value = async (leaves: SearchLeaf[]): Promise<number[]> => {
    const finished = leaves.filter((leaf) => leaf.finished);
    const items = finished.map(({ question, text }) => ({ problem: problems[question], response: text }));
    const graded = await step.time("grade", () => step.grade(items));
    const gradeOf = new Map(finished.map((leaf, i) => [leaf, graded[i]]));
    // What every path's steps are worth, or of the unfinished paths alone where nothing else asks for it.
    const all = settings.stepCredit > 0 || settings.reward !== "paper";
    const asked = judge === undefined ? [] : leaves.filter((leaf) => all || !leaf.finished);
    const states = asked.map(({ question, steps, ids }) => ({
      question: questionText(problems[question]),
      steps,
      ids,
    }));
    // A head is the engine's work; a server's is not.
    const kind = settings.processReward === "head" ? "score" : "grade";
    const found = judge && (await step.time(kind, () => judge.score(states)));
    asked.forEach((leaf, i) => scores[leaf.question].set(leaf, found?.[i] ?? []));
    return leaves.map((leaf) => {
      const { question, node } = leaf;
      const grade = gradeOf.get(leaf);
      const key = `${questions[question].key}/${node}`;
      const cutOff = CUT_OFF.includes(leaf.end);
      const judged = { grade, cutOff, scores: scores[question].get(leaf), key };
      const { reward, steps } = rewardOf(settings.reward, judged, settings.partialReward);
      ends[question].set(node, { grade: { ...(grade ?? UNFINISHED), reward }, reward, steps });
      return settings.reward === "paper" ? reward : Number(grade !== undefined && solved(grade));
    });
  };
  const { forest, trees, waves } = await step.time("sample", () =>
    searchTrees(stage.model, questions, { ...settings, schedule: settings.exploration, grammar: G2 }, { value }),
  );
  const segments = forest.flatMap((tree) => tree.segments);
  step.countGenerated(segments.filter(isChoice).length);
  const grades: Grade[] = [];
  const explored = forest.map((tree, q): Explored => {
    const { nodes, leaves } = trees[q];
    const paths = [...new Set(leaves)].flatMap((leaf): Path[] => {
      const end = ends[q].get(leaf);
      const segments = segmentsTo(nodes, leaf);
      if (end === undefined || segments.length === 0) return [];
      grades.push(end.grade);
      const { outcome } = tree.segments[nodes[leaf].segment];
      Object.assign(outcome ?? {}, end.grade.parts, { reward: end.reward });
      const count = settings.duplicates ? nodes[leaf].rollouts : 1;
      // Steps end at every second segment, after their function's.
      const placed = end.steps?.map((reward, j) => ({ segment: segments[2 * j + 1], reward }));
      return [{ segments, count, reward: end.reward, placed }];
    });
    return { tree, nodes, paths, scores: scoresByNode(nodes, scores[q]) };
  });
  return { explored, grades, metrics: { waves, ...cutMetrics(segments) } };
}

/** Ends of paths that might have come to an answer. */
const CUT_OFF: readonly End[] = ["depth", "budget", "length"];

/** A path that was cut off or lost its way: nothing to grade. */
const UNFINISHED: Grade = { reward: 0, parts: {} };

function segmentsTo(nodes: Explored["nodes"], leaf: number): number[] {
  const segments: number[] = [];
  for (let node = nodes[leaf]; node.parent >= 0; node = nodes[node.parent]) segments.push(node.segment, node.choice);
  return segments.reverse();
}

/** A path's scores, step by step, belong to the nodes on it; the first path through a node says. */
function scoresByNode(nodes: Explored["nodes"], scores: ReadonlyMap<SearchLeaf, number[]>): Map<number, number> {
  const byNode = new Map<number, number>();
  for (const [leaf, ofSteps] of scores) {
    for (let node = nodes[leaf.node]; node.parent >= 0; node = nodes[node.parent]) {
      if (!byNode.has(node.id) && node.depth <= ofSteps.length) byNode.set(node.id, ofSteps[node.depth - 1]);
    }
  }
  return byNode;
}

/** Plain samples in place of a search: the tree is the prompt with a leaf for each. */
async function samplePlainly(
  stage: Stage,
  step: Step,
  problems: Problem[],
  settings: RfttSettings,
): Promise<Exploration> {
  const questions = questionsOf(stage, step, problems);
  const { forest, responses } = await step.time("sample", () =>
    sampleGroups(stage.model, questions, { ...settings, topK: 0, samples: settings.rollouts, stop: stage.task.stop }),
  );
  const items = problems.flatMap((problem, q) => responses[q].map((response) => ({ problem, response })));
  const verdicts = await step.time("grade", () => step.grade(items));
  const grades: Grade[] = [];
  let faulty = 0;
  const explored = forest.map((tree, q): Explored => {
    const paths = tree.segments.slice(1).map((leaf, i): Path => {
      const verdict = verdicts[q * settings.rollouts + i];
      const { stop, tokens } = leaf;
      // With the closing tag that ended it, which is no part of the response.
      const written = stage.tokenizer.decode(stop === "eos" ? tokens.subarray(0, -1) : tokens);
      const { steps, faults } = parseTolerant(written);
      const broken = faults.some(breaksPath);
      // As at a leaf of the search, only a path of the grammar that has come to its end is graded.
      const finished = stop !== "length" && !broken && validate(steps, G2) === undefined;
      faulty += Number(broken);
      const judged = { grade: finished ? verdict : undefined, key: `${questions[q].key}/${i}` };
      const { reward } = rewardOf(settings.reward, judged, settings.partialReward);
      grades.push({ ...(finished ? verdict : UNFINISHED), reward });
      leaf.outcome = { ...verdict.parts, reward, finished: Number(finished) };
      return { segments: [i + 1], count: 1, reward };
    });
    return { tree, nodes: [], paths, scores: new Map() };
  });
  const cut = cutMetrics(forest.flatMap((tree) => tree.segments));
  return { explored, grades, metrics: { faulty: faulty / grades.length, ...cut } };
}

function serverMetrics({ counts }: HttpProcessReward): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).map(([name, value]) => [`processReward/${name}`, value]));
}

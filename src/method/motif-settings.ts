import { z } from "zod";
import { UserError } from "../errors.ts";
import { asksForBox, checkRounds, ROUND_STYLES } from "../task/rounds.ts";
import type { Task } from "../task/types.ts";
import { NORMALIZATIONS } from "./advantages.ts";
import { type Contradiction, refuse } from "./contradictions.ts";
import { formatWeight, ROUND_REWARDS } from "./motif-rewards.ts";
import { RATIOS } from "./parts.ts";
import { optimizerSettings } from "./update.ts";

/** Defaults are those of the paper and its code (arXiv 2507.02851), but for the number of prompts. */
const fields = z.strictObject({
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
  /** Who answers the later rounds: the policy as it is (the paper), or the recipe's base model, without any training (the authors' code). */
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
});
const DEFAULTS = fields.parse({});

export const motifSettings = fields.superRefine((settings, context) => {
  refuse(contradictions(settings), settings, context);
});
export type MotifSettings = z.output<typeof motifSettings>;

/** Before any step: throws a UserError where a task's rounds and these rewards do not go together. */
export function checkMotif(settings: MotifSettings, task: Task): void {
  checkRounds(task, settings);
  formatWeight(task, settings);
  if (task.rounds === undefined) {
    if (settings.reward !== "reference" || asksForBox(task, settings.style)) return;
    throw new UserError(
      `reward = "reference" looks for \\boxed{}, and the rounds of task ${task.name} ask for the answer elsewhere (strict: ${task.grading?.strict.join(", ") ?? "none"}); set the task's \`strict\` to "boxed", or take another reward`,
    );
  }
  if (settings.reward === "reference") {
    throw new UserError(
      `reward = "reference" looks for \\boxed{} in the authors' layout, and task ${task.name} words its own rounds; take another reward`,
    );
  }
  const idle = (["outsideTags", "formatRounds"] as const).find((key) => isSet(settings, key));
  if (idle === undefined) return;
  throw new UserError(forNothing(idle, `task ${task.name} words its own rounds, which have no tags`));
}

/** The authors' 0.95, where the later rounds carry no gradient. */
export function laterTopP({ laterTopP, trainRounds }: MotifSettings): number {
  return laterTopP ?? (trainRounds === "first" ? 0.95 : 1);
}

/** Settings that cannot stand beside each other, and those that count for nothing: by which key, and why. */
function contradictions(s: z.output<typeof fields>): Contradiction<MotifSettings>[] {
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
  const idle: [boolean, string, (keyof MotifSettings)[]][] = [
    [!all, 'trainRounds = "first" trains no later response', ["credit", "allowTruncated"]],
    [
      s.rounds === 1,
      "with rounds = 1 nothing comes after the first response",
      [
        "adaptive",
        "progressTokens",
        "continuations",
        "continuationPolicy",
        "laterTemperature",
        "laterTopP",
        "formatRounds",
      ],
    ],
    [s.reward !== "default", `reward = "${s.reward}" does not ask where the answer stands`, ["outsideTags"]],
    [s.reward === "reference", 'reward = "reference" scores the layout of first responses alone', ["formatRounds"]],
    [s.formatWeight === 0, "formatWeight = 0 pays for no layout", ["formatRounds"]],
    [s.beta === 0, "with beta = 0 there is no KL penalty", ["kl", "reference"]],
  ];
  return [
    ...rules.flatMap(([broken, key, why]) => (broken ? [{ key, why }] : [])),
    ...idle.flatMap(([holds, why, keys]) =>
      holds ? keys.filter((key) => isSet(s, key)).map((key) => ({ key, why: forNothing(key, why) })) : [],
    ),
  ];
}

/** Whether a setting is another than its default. */
const isSet = (settings: MotifSettings, key: keyof MotifSettings): boolean => settings[key] !== DEFAULTS[key];

const forNothing = (key: string, why: string): string => `${why}, so that ${key} counts for nothing; leave it out`;

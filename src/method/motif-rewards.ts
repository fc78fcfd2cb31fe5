import { UserError } from "../errors.ts";
import { answersInTags, boxedGold } from "../task/round-answers.ts";
import type { RoundTask } from "../task/rounds.ts";
import { solved } from "../task/solved.ts";
import type { Grade, Problem } from "../task/types.ts";

/** Rewards of a question answered in rounds: rifft's own, the paper's, and that of the authors' code. */
export const ROUND_REWARDS = ["default", "paper", "reference"] as const;

export interface RoundRewardSettings {
  reward: (typeof ROUND_REWARDS)[number];
  /** Most rounds that a question can have. */
  rounds: number;
  /** What the layout that the prompt asks for earns; absent: see `formatWeight`. */
  formatWeight?: number;
  /** Whose layout counts. */
  formatRounds: "first" | "all";
  /** The part of its accuracy that a response keeps whose answer stands outside of the answer tags. */
  outsideTags: number;
  /** What a right answer earns that needed one round, of several; less for more rounds. */
  early: number;
}

/** One chain: a first response, and how it went on. */
export interface AnsweredChain {
  problem: Problem;
  /** Of each round that was needed. */
  responses: readonly string[];
  /** Of the last. */
  grade: Grade;
}

/**
 * What a chain earns, by part; the outcome is the sum. `paper`: 1[answer = gold] + format in {0, 1} of the first response (MOTIF, arXiv 2507.02851).
 * `reference`: the authors' code, section by section. `default`: the task's reward by the last response, less where the answer stands outside of
 * the tags, with the weight of the format, and with `early`.
 */
export function chainReward(
  task: RoundTask,
  chain: AnsweredChain,
  settings: RoundRewardSettings,
): Record<string, number> {
  const { problem, responses, grade } = chain;
  const [first] = responses;
  const last = responses[responses.length - 1];
  if (settings.reward === "reference") {
    return { accuracy: referenceAccuracy(last, writtenGold(problem), settings.rounds), ...referenceFormat(first) };
  }
  const right = solved(grade);
  const accuracy =
    settings.reward === "paper" ? Number(right) : grade.reward * (answersInTags(task, last) ? 1 : settings.outsideTags);
  const weight = formatWeight(task, settings);
  const counted = settings.formatRounds === "first" ? [first] : responses;
  const format = counted.reduce((sum, response) => sum + formatReward(response), 0) / counted.length;
  const saved = (settings.rounds - responses.length) / Math.max(1, settings.rounds - 1);
  return {
    accuracy,
    ...(weight > 0 && { format: weight * format }),
    ...(settings.early > 0 && { early: right ? settings.early * saved : 0 }),
  };
}

/** The weight of the format: what the recipe says, else 1 in the paper's reward and 0.2 in the default one. Tasks that word their own rounds have no layout to reward. */
export function formatWeight(task: RoundTask, { reward, formatWeight }: RoundRewardSettings): number {
  if (task.rounds === undefined) return formatWeight ?? (reward === "paper" ? 1 : 0.2);
  if (formatWeight === undefined || formatWeight === 0) return 0;
  throw new UserError(
    `formatWeight is ${formatWeight}, and task ${task.name} words its own rounds, which have no tags; leave it out and reward the layout in the task`,
  );
}

/** 1 for reasoning tags and then answer tags with nothing around them, each once, over as many lines as may be; else 0. */
export function formatReward(response: string): number {
  const once = ["<reasoning>", "</reasoning>", "<answer>", "</answer>"].every(
    (tag) => response.split(tag).length === 2,
  );
  return Number(once && /^\s*<reasoning>[^]*<\/reasoning>\s*<answer>[^]*<\/answer>\s*$/.test(response));
}

/**
 * Accuracy in the authors' code: 2 where the answer part of the last response holds `\boxed{gold}` literally, 1 where the response holds it elsewhere, else 0; of
 * their GRPO, which has one round: 2 wherever it stands.
 */
export function referenceAccuracy(response: string, gold: string, rounds: number): number {
  const place = boxedGold(response, gold);
  if (place === "nowhere") return 0;
  return place === "answer part" || rounds === 1 ? 2 : 1;
}

/**
 * The three rewards of format in the authors' code, of a first response. A response without a newline after its last tag loses 0.001 a character, and a dot
 * matches no newline, so that no layout earns both `soft` and `strict`.
 */
export function referenceFormat(response: string): { tags: number; soft: number; strict: number } {
  const once = (marker: string) => response.split(marker).length === 2;
  const after = (marker: string) => Array.from(response.split(marker).at(-1) ?? "").length;
  let tags = 0;
  if (once("<reasoning>\n")) tags += 0.125;
  if (once("\n</reasoning>\n")) tags += 0.125;
  if (once("\n<answer>\n")) {
    tags += 0.125;
    tags -= after("\n</answer>\n") * 0.001;
  }
  if (once("\n</answer>")) {
    tags += 0.125;
    tags -= (after("\n</answer>") - 1) * 0.001;
  }
  // What `.` and `\s` match in Python.
  const line = "[^\\n]*?";
  const white = "[\\s\\x1c-\\x1f\\x85]*";
  const soft = new RegExp(`^<reasoning>${line}</reasoning>${white}<answer>${line}</answer>`);
  const strict = new RegExp(`^<reasoning>\\n${line}\\n</reasoning>\\n<answer>\\n${line}\\n</answer>\\n\\n?$`);
  return { tags, soft: soft.test(response) ? 0.5 : 0, strict: strict.test(response) ? 0.5 : 0 };
}

/** The gold as its data set writes it, which the authors' code compares literally. */
function writtenGold({ id, answer, data }: Problem): string {
  const written = data?.writtenAnswer;
  if (typeof written === "string") return written;
  if (answer !== undefined) return answer;
  throw new UserError(
    `problem ${id} has no answer, and reward = "reference" looks for it in the response; take another reward`,
  );
}

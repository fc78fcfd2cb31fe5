import { RandomStream } from "../engine/random.ts";
import { solved } from "../task/solved.ts";
import type { Grade } from "../task/types.ts";
import { meanAndStd } from "./advantages.ts";
import { scoreOf } from "./reft.ts";

/** `paper`: as the paper defines it; the others: as the released code computes it with a process reward model, with its search and without one, and without a search. */
export const REWARDS = ["paper", "released-prm", "released-orm", "released-normal"] as const;
export type RewardName = (typeof REWARDS)[number];

/** The end of a path. */
export interface JudgedPath {
  /** It ended with an answer of its own accord; only then is there a grade. */
  grade?: Grade;
  /** It ran out of steps or tokens, and might have come to an answer. */
  cutOff?: boolean;
  /** The process reward model's score after each step. */
  scores?: readonly number[];
  /** Names its random stream. */
  key: string;
}

/** Which rewards are made of a process reward model's scores. */
export const needsScores = (name: RewardName): boolean => name === "released-prm" || name === "released-orm";

const RIGHT = [0.8, 0.82, 0.85, 0.88, 0.9, 0.92, 0.95, 0.98];
const WRONG = [0.06, 0.1, 0.12, 0.15, 0.18, 0.2, 0.22, 0.25];

/**
 * A path's reward, and what its steps earn where they are rewarded apart.
 *
 * - `paper` (RFTT, arXiv 2502.13389): 1 for a right answer, `partialReward` for another one; where the path was cut off before there was one sigma, the process
 *   reward model's score of it; else 0.
 * - `released-prm`: each step earns its score s_j where it ends, the last one 0.6 right + 0.4 s_L; the reward is their mean.
 * - `released-orm`: that mean at the path's end.
 * - `released-normal`: one of eight numbers from 0.80 to 0.98 for a right answer, and from 0.06 to 0.25 otherwise, at random.
 */
export function rewardOf(
  name: RewardName,
  path: JudgedPath,
  partialReward: number,
): { reward: number; steps?: number[] } {
  const { grade, cutOff = false, scores = [], key } = path;
  if (name === "paper") {
    const sigma = cutOff ? (scores.at(-1) ?? 0) : 0;
    return { reward: grade === undefined ? sigma : scoreOf(grade, partialReward) };
  }
  const right = grade !== undefined && solved(grade);
  if (name === "released-normal")
    return { reward: (right ? RIGHT : WRONG)[new RandomStream(`${key}/reward`).below(8)] };
  if (scores.length === 0) return { reward: Number(right) };
  const steps = scores.map((score, j) => (j === scores.length - 1 ? 0.6 * Number(right) + 0.4 * score : score));
  const { mean } = meanAndStd(steps);
  return name === "released-orm" ? { reward: mean } : { reward: mean, steps };
}

import { UserError } from "../errors.ts";

/** Added to the standard deviation, as TRL does. */
const EPS = 1e-4;

/**
 * Advantages of a group, one a reward: (r - mean) / (std + 1e-4) with the unbiased standard deviation (DeepSeekMath, arXiv
 * 2402.03300, section 4.1.2; TRL's epsilon), or r - mean without `scaleByStd` (Liu et al. 2025, arXiv 2503.20783). Rewards that
 * are all equal give zeros. A reward that is not finite is a UserError naming `tree`.
 */
export function groupAdvantages(rewards_G: number[], tree: string, scaleByStd = true): Float64Array {
  checkFinite(rewards_G, tree);
  if (isFlat(rewards_G)) return new Float64Array(rewards_G.length);
  const { mean, std } = meanAndStd(rewards_G);
  return Float64Array.from(rewards_G, (reward) => (reward - mean) / (scaleByStd ? std + EPS : 1));
}

/**
 * Each reward less the mean of the group's others (RLOO: Ahmadian et al. 2024, arXiv 2402.14740, eq. 6), which does not depend on it: n / (n - 1)
 * times its distance from the mean of all n. Equal rewards give zeros; needs two samples; a reward that is not finite is a UserError naming `tree`.
 */
export function leaveOneOutAdvantages(rewards_G: number[], tree: string): Float64Array {
  const n = rewards_G.length;
  if (n < 2) throw new UserError(`tree ${tree}: a leave-one-out baseline needs two samples or more, found ${n}`);
  return groupAdvantages(rewards_G, tree, false).map((advantage) => (advantage * n) / (n - 1));
}

/** Throws a UserError that names `tree` and the sample where a reward is not a finite number. */
export function checkFinite(rewards_G: number[], tree: string): void {
  const i = rewards_G.findIndex((reward) => !Number.isFinite(reward));
  if (i < 0) return;
  throw new UserError(
    `tree ${tree}, sample ${i}: expected a finite reward, found ${rewards_G[i]}: see the task's reward`,
  );
}

/**
 * What a response of `length` tokens loses, 0 to 1, where it may have `limit` (DAPO's soft overlong punishment, arXiv 2503.14476, eq. 13): nothing
 * outside the last `buffer` tokens, then linearly more, 1 at the limit.
 */
export function overlong(length: number, limit: number, buffer: number): number {
  return Math.min(1, Math.max(0, (length - (limit - buffer)) / buffer));
}

/** Whether a group teaches nothing: all its rewards are equal. */
export function isFlat(rewards_G: number[]): boolean {
  return rewards_G.every((reward) => reward === rewards_G[0]);
}

/** What a batch's sum over tokens is divided by. */
export const NORMALIZATIONS = ["token", "sequence", "sum", "max-tokens"] as const;
export type Normalization = (typeof NORMALIZATIONS)[number];

/**
 * The weight of each response's tokens, of which the batch has n:
 *   token       1 / sum of lengths       a mean over all tokens (DAPO, eq. 8; TRL's bnpo)
 *   sequence    1 / (n length)           over each response's tokens, then over responses (DeepSeekMath, eq. 3)
 *   sum         1 / n                    each response's sum, as in the gradient of its log-prob (REINFORCE, RLOO)
 *   max-tokens  1 / (n maxTokens)        the same with a constant scale (Dr. GRPO, arXiv 2503.20783, appendix)
 */
export function tokenWeights(lengths: number[], normalize: Normalization, maxTokens?: number): number[] {
  const n = lengths.length;
  if (normalize === "max-tokens") {
    if (maxTokens === undefined) throw new Error("max-tokens: expected the longest length");
    return lengths.map(() => 1 / (n * maxTokens));
  }
  if (normalize === "sum") return lengths.map(() => 1 / n);
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  return lengths.map((length) => 1 / (normalize === "token" ? tokens : n * length));
}

/** Mean and unbiased standard deviation (0 for a single value, NaN for none). */
export function meanAndStd(values: number[]): { mean: number; std: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, std: values.length === 1 ? 0 : Math.sqrt(squares / (values.length - 1)) };
}

/**
 * Generalised advantage estimation of one sequence (Schulman et al. 2016, arXiv 1506.02438, eq. 16), float64:
 *   delta_t = r_t + gamma V_t+1 - V_t,   A_t = delta_t + gamma lambda A_t+1,   R_t = A_t + V_t
 * Index t is the decision that emits token t; after the last one the value is 0, whether it ended the sequence or was cut there
 * (ReFT). At lambda = 1, R_t is the discounted sum of the rewards to come.
 */
export function gae(
  rewards_T: ArrayLike<number>,
  values_T: ArrayLike<number>,
  { gamma, lambda }: { gamma: number; lambda: number },
): { advantages_T: Float64Array; returns_T: Float64Array } {
  const length = rewards_T.length;
  const advantages_T = new Float64Array(length);
  const returns_T = new Float64Array(length);
  let nextValue = 0;
  let nextAdvantage = 0;
  for (let t = length - 1; t >= 0; t--) {
    const delta = rewards_T[t] + gamma * nextValue - values_T[t];
    nextAdvantage = delta + gamma * lambda * nextAdvantage;
    nextValue = values_T[t];
    advantages_T[t] = nextAdvantage;
    returns_T[t] = nextAdvantage + values_T[t];
  }
  return { advantages_T, returns_T };
}

/** Added to the variance, as TRL does. */
const VARIANCE_EPS = 1e-8;

/**
 * Advantages over all tokens of the sequences with mean 0 and, unless `scaled` is false, unbiased variance 1: (A - mean) / sqrt(var + 1e-8)
 * (REINFORCE++, arXiv 2501.03262). All alike give exact zeros, which rounding would not.
 */
export function whiten(advantages_ST: Float64Array[], scaled = true): Float64Array[] {
  const all = advantages_ST.flatMap((advantages_T) => Array.from(advantages_T));
  if (isFlat(all)) return advantages_ST.map((advantages_T) => new Float64Array(advantages_T.length));
  const { mean, std } = meanAndStd(all);
  const scale = scaled ? Math.sqrt(std * std + VARIANCE_EPS) : 1;
  return advantages_ST.map((advantages_T) => advantages_T.map((advantage) => (advantage - mean) / scale));
}

/**
 * How much of the returns' variance the values explain: max(-1, 1 - var(R - V) / (var(R) + 1e-8)), over tokens. 1: all; 0: as much as
 * a constant; the floor of -1 as in ReFT's code.
 */
export function explainedVariance(values: readonly number[], returns: readonly number[]): number {
  const variance = (numbers: readonly number[]) => meanAndStd([...numbers]).std ** 2;
  const rest = variance(returns.map((value, i) => value - values[i]));
  return Math.max(-1, 1 - rest / (variance(returns) + VARIANCE_EPS));
}

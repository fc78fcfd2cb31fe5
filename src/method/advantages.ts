import { UserError } from "../errors.ts";

/** Added to the standard deviation, as TRL does. */
const EPS = 1e-4;

/**
 * Advantages of a group, one a reward: (r - mean) / (std + 1e-4) with the unbiased standard deviation (DeepSeekMath, arXiv
 * 2402.03300, section 4.1.2; TRL's epsilon), or r - mean without `scaleByStd` (Liu et al. 2025, arXiv 2503.20783). Rewards that
 * are all equal give zeros. A reward that is not finite is a UserError naming `tree`.
 */
export function groupAdvantages(rewards_G: number[], tree: string, scaleByStd = true): Float64Array {
  rewards_G.forEach((reward, i) => {
    if (!Number.isFinite(reward)) {
      throw new UserError(
        `tree ${tree}, sample ${i}: expected a finite reward, found ${reward}: see the task's reward`,
      );
    }
  });
  const advantages_G = new Float64Array(rewards_G.length);
  if (isFlat(rewards_G)) return advantages_G;
  const { mean, std } = meanAndStd(rewards_G);
  rewards_G.forEach((reward, i) => (advantages_G[i] = (reward - mean) / (scaleByStd ? std + EPS : 1)));
  return advantages_G;
}

/** Whether a group teaches nothing: all its rewards are equal. */
export function isFlat(rewards_G: number[]): boolean {
  return rewards_G.every((reward) => reward === rewards_G[0]);
}

/**
 * The weight of each response's tokens, so that the weighted sum over a batch is its mean: over all tokens ("token", 1 / sum of
 * lengths; TRL's bnpo) or over each response's tokens and then over responses ("sequence", DeepSeekMath, eq. 3).
 */
export function tokenWeights(lengths: number[], normalize: "token" | "sequence"): number[] {
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  return lengths.map((length) => 1 / (normalize === "token" ? tokens : lengths.length * length));
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

/** Advantages over all tokens of the sequences with mean 0 and unbiased variance 1: (A - mean) / sqrt(var + 1e-8). */
export function whiten(advantages_ST: Float64Array[]): Float64Array[] {
  const { mean, std } = meanAndStd(advantages_ST.flatMap((advantages_T) => Array.from(advantages_T)));
  const scale = Math.sqrt(std * std + VARIANCE_EPS);
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

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

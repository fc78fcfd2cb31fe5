export interface Interval {
  low: number;
  high: number;
}

/** 97.5 % quantile of the standard normal distribution. */
export const normalQuantile95 = 1.959963984540054;

/**
 * Wilson's 95 % score interval for a proportion (Wilson 1927; Newcombe 1998, method 3), without continuity correction.
 * `successes` may be fractional, where a trial is itself a mean. No trials: [0, 1].
 */
export function wilson95(successes: number, trials: number): Interval {
  if (trials === 0) return { low: 0, high: 1 };
  const p = successes / trials;
  const square = normalQuantile95 * normalQuantile95;
  const centre = p + square / (2 * trials);
  const half = normalQuantile95 * Math.sqrt((p * (1 - p) + square / (4 * trials)) / trials);
  const scale = 1 + square / trials;
  // At the ends the bound is exact; rounding must not move it inside.
  return {
    low: successes <= 0 ? 0 : (centre - half) / scale,
    high: successes >= trials ? 1 : (centre + half) / scale,
  };
}

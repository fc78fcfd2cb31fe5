import { normalCdf, tQuantile } from "./distributions.ts";

/**
 * Holm's step-down correction (Holm 1979, Scand. J. Stat. 6:65): the adjusted p values, in the order given. Rejecting those of at most
 * 0.05 keeps the chance of any false rejection among all of them at 5 %, however they depend on each other.
 */
export function holm(p: readonly number[]): number[] {
  const order = p.map((_, i) => i).sort((a, b) => p[a] - p[b]);
  const adjusted = p.map(() => 1);
  let highest = 0;
  order.forEach((i, rank) => {
    highest = Math.max(highest, Math.min(1, (p.length - rank) * p[i]));
    adjusted[i] = highest;
  });
  return adjusted;
}

/** Intervals of the integral over the chi distribution; the integrand is smooth, so more change no digit that matters. */
const INTERVALS = 2000;

/**
 * The power of the two-sided paired t test over `n` differences: the chance that |T| passes the critical value where their mean is
 * `difference` and their standard deviation `deviation`, T being noncentral t with n - 1 degrees of freedom and noncentrality
 * difference sqrt(n) / deviation (Johnson, Kotz and Balakrishnan 1995, 31.1). T = (Z + delta) / (X / sqrt(df)) with X chi
 * distributed, so the chance is integrated over X, by Simpson's rule.
 */
export function pairedTPower(difference: number, deviation: number, n: number, alpha = 0.05): number {
  if (n < 2) return 0;
  if (deviation === 0) return difference === 0 ? alpha : 1;
  const df = n - 1;
  const delta = (Math.abs(difference) / deviation) * Math.sqrt(n);
  const critical = tQuantile(1 - alpha / 2, df);
  // Of the chi distribution: x^(df - 1) exp(-x^2 / 2), normalised by its own sum. Beyond nine deviations nothing is left.
  const mode = Math.sqrt(Math.max(0, df - 1));
  const low = Math.max(0, mode - 9);
  const step = (mode + 9 - low) / INTERVALS;
  let power = 0;
  let mass = 0;
  for (let i = 0; i <= INTERVALS; i++) {
    const x = low + i * step;
    const log = (df === 1 ? 0 : (df - 1) * Math.log(x / Math.max(mode, 1))) - (x * x - mode * mode) / 2;
    const weight = (i === 0 || i === INTERVALS ? 1 : i % 2 === 1 ? 4 : 2) * Math.exp(log);
    const limit = (critical * x) / Math.sqrt(df);
    power += weight * (normalCdf(delta - limit) + normalCdf(-delta - limit));
    mass += weight;
  }
  return power / mass;
}

/** The smallest difference that the paired t test over `n` differences finds with the given `power`; infinite for fewer than two. */
export function detectableDifference(deviation: number, n: number, alpha = 0.05, power = 0.8): number {
  if (n < 2) return Infinity;
  if (deviation === 0) return 0;
  let high = deviation;
  while (pairedTPower(high, deviation, n, alpha) < power) high *= 2;
  let low = 0;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (pairedTPower(middle, deviation, n, alpha) < power) low = middle;
    else high = middle;
  }
  return high;
}

import { tQuantile, tTwoSided, Z80, Z975 } from "./distributions.ts";
import { type Interval, sparse } from "./intervals.ts";

/**
 * McNemar's exact test: the two-sided probability of a split at least as uneven as `first` against `second` among the problems
 * that only one of two models solves, if each were as likely to be either's (McNemar 1947; exact as in Fay 2010, R Journal 2:1:
 * twice the smaller binomial tail, at most 1). 1 where nothing differs. With more than two outcomes a problem it is the exact
 * sign test over the problems on which one side does better.
 */
export function mcnemarExact(first: number, second: number): number {
  const n = first + second;
  const fewer = Math.min(first, second);
  // Terms of the tail relative to its largest, the last: no power of two under- or overflows.
  let log = -n * Math.LN2;
  for (let i = 1; i <= fewer; i++) log += Math.log((n - i + 1) / i);
  let tail = 0;
  let term = 1;
  for (let i = fewer; i >= 0 && term > 0; i--) {
    tail += term;
    term *= i / (n - i + 1);
  }
  return Math.min(1, 2 * tail * Math.exp(log));
}

export interface Difference {
  mean: number;
  interval: Interval;
}

/** Mean and standard deviation (divisor n - 1; 0 for one value). */
export function moments(values: ArrayLike<number>): { mean: number; deviation: number } {
  const n = values.length;
  let sum = 0;
  for (let i = 0; i < n; i++) sum += values[i];
  const mean = sum / n;
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (values[i] - mean) ** 2;
  return { mean, deviation: n < 2 ? 0 : Math.sqrt(squares / (n - 1)) };
}

/** The 95 % t interval of a mean: mean +- t(0.975, n - 1) s / sqrt(n) (Student 1908). Unbounded for fewer than two values. */
export function tInterval95(values: readonly number[]): Difference {
  const { mean, deviation } = moments(values);
  const n = values.length;
  if (n < 2) return { mean, interval: { low: -Infinity, high: Infinity } };
  const half = (tQuantile(0.975, n - 1) * deviation) / Math.sqrt(n);
  return { mean, interval: { low: mean - half, high: mean + half } };
}

/** The two-sided p value of the paired t test: t = mean sqrt(n) / s with n - 1 degrees of freedom (Student 1908). 1 for fewer than two values. */
export function pairedT(values: readonly number[]): number {
  const { mean, deviation } = moments(values);
  const n = values.length;
  if (n < 2 || mean === 0) return 1;
  return tTwoSided((mean * Math.sqrt(n)) / deviation, n - 1);
}

/**
 * The 95 % interval of the mean of paired differences of shares, each in [-1, 1]. Where a problem is right or wrong (all
 * differences -1, 0 or 1), or where few problems differ, the adjusted Wald interval of Bonett and Price 2012 (J. Educ. Behav.
 * Stat. 37:479, equation 6): two more problems, one in favour of each side. Otherwise the t interval over problems.
 */
export function pairedDifference95(differences: readonly number[]): Difference {
  if (!differences.every(Number.isInteger) && !sparse(differences.map(Math.abs))) return tInterval95(differences);
  const n = differences.length;
  const { mean } = moments(differences);
  const centre = (mean * n) / (n + 2);
  const squares = (differences.reduce((sum, d) => sum + d * d, 0) + 2) / (n + 2);
  const half = Z975 * Math.sqrt((squares - centre * centre) / (n + 2));
  return { mean, interval: { low: Math.max(-1, centre - half), high: Math.min(1, centre + half) } };
}

/** More seeds than this are not enumerated. */
export const MOST_SIGN_FLIPS = 20;

/**
 * The exact sign-flip test of paired differences (Fisher 1935, section 21): the share of the 2^n ways to give them signs whose
 * sum is at least as far from 0 as the one found. Never below 2 / 2^n: 0.125 with four, 0.03125 with six. Undefined above
 * MOST_SIGN_FLIPS values.
 */
export function signFlipExact(differences: readonly number[]): number | undefined {
  const n = differences.length;
  if (n === 0 || n > MOST_SIGN_FLIPS) return undefined;
  const total = differences.reduce((sum, d) => sum + d, 0);
  // Sums that are equal on paper may differ by rounding.
  const scale = differences.reduce((sum, d) => sum + Math.abs(d), 0);
  const limit = Math.abs(total) - 1e-9 * scale;
  let extreme = 0;
  // Gray code: each step flips one sign.
  const signs = differences.map(() => 1);
  let sum = total;
  for (let step = 1; ; step++) {
    if (Math.abs(sum) >= limit) extreme++;
    if (step === 2 ** n) break;
    const flipped = 31 - Math.clz32(step & -step);
    sum -= 2 * signs[flipped] * differences[flipped];
    signs[flipped] = -signs[flipped];
  }
  return extreme / 2 ** n;
}

/**
 * About how many problems (or seeds) would be needed to see a difference of `mean` with 95 % confidence in four of five such
 * comparisons: (z_0.975 + z_0.8)^2 s^2 / d^2 (Lachin 1981, equation 1, for a paired mean). Infinite for a difference of 0.
 */
export function neededFor(mean: number, deviation: number): number {
  return mean === 0 ? Infinity : Math.ceil((((Z975 + Z80) * deviation) / mean) ** 2);
}

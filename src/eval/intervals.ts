import { RandomStream } from "../engine/random.ts";
import { normalCdf, normalQuantile, tQuantile, Z975 } from "./distributions.ts";

export interface Interval {
  low: number;
  high: number;
}

/**
 * Wilson's 95 % score interval for a proportion (Wilson 1927; Newcombe 1998, method 3), without continuity correction.
 * `successes` may be fractional, where a trial is itself a mean. No trials: [0, 1].
 */
export function wilson95(successes: number, trials: number): Interval {
  if (trials === 0) return { low: 0, high: 1 };
  const p = successes / trials;
  const square = Z975 * Z975;
  const centre = p + square / (2 * trials);
  const half = Z975 * Math.sqrt((p * (1 - p) + square / (4 * trials)) / trials);
  const scale = 1 + square / trials;
  // At the ends the bound is exact; rounding must not move it inside.
  return {
    low: successes <= 0 ? 0 : (centre - half) / scale,
    high: successes >= trials ? 1 : (centre + half) / scale,
  };
}

/** One number a problem, whose mean over problems is what is reported. */
export interface Column {
  values: readonly number[];
  /** Every value is a share of something, in [0, 1]. */
  share: boolean;
}

/** A mean over problems with its 95 % interval. */
export interface Estimate extends Interval {
  value: number;
  method: "wilson" | "bootstrap";
}

/**
 * A ratio of sums over problems, each of which has hits and trials, with its 95 % interval: Wilson's at the effective number of trials, for those of one problem
 * go together. That number is p (1 - p) over the ratio's linearised variance over problems, narrowed to Student's t (Korn and Graubard 1998, Survey
 * Methodology 24:193, with Wilson's interval in place of theirs; Dean and Pagano 2015, J. Surv. Stat. Methodol. 3:484), no more than the trials; where all
 * trials came out alike, the number of problems that have some. Undefined where there are no trials.
 */
export function ratio95(problems: readonly { hits: number; of: number }[]): Estimate | undefined {
  const own = problems.filter(({ of }) => of > 0);
  const trials = own.reduce((sum, { of }) => sum + of, 0);
  if (trials === 0) return undefined;
  const value = own.reduce((sum, { hits }) => sum + hits, 0) / trials;
  const n = own.length;
  let effective = n;
  if (n > 1 && value > 0 && value < 1) {
    const squares = own.reduce((sum, { hits, of }) => sum + (hits - value * of) ** 2, 0);
    const variance = (squares * n) / (n - 1) / trials ** 2;
    const narrowed = (Z975 / tQuantile(0.975, n - 1)) ** 2;
    effective = Math.min(trials, ((value * (1 - value)) / variance) * narrowed);
  }
  return { value, method: "wilson", ...wilson95(value * effective, effective) };
}

const RESAMPLES = 2000;

/**
 * Means over problems with 95 % intervals. All columns hold the same problems in the same order and share their resamples, which
 * depend on the number of problems and the seed alone.
 *
 * - Shares that are all 0 or 1, one trial a problem: Wilson's interval.
 * - Otherwise the bootstrap over problems, 2,000 resamples (a problem's samples stay together): BCa (Efron 1987, JASA 82:171),
 *   its level widened to that of Student's t (Hesterberg 2015, Am. Stat. 69:371, "expanded").
 * - Shares whose distance from 0 or from 1 rests on a handful of problems (`sparse`): Wilson's interval too. Resampling cannot
 *   know of the kinds of problems that a sample lacks; a share varies at most as much as a 0 or 1, so Wilson's is then too wide.
 */
export function estimates95(columns: readonly Column[], seed = 0): Estimate[] {
  const exact = columns.map(({ values, share }) => {
    if (!share || !(values.every(Number.isInteger) || sparse(values) || sparse(values.map((v) => 1 - v))))
      return undefined;
    const sum = values.reduce((total, value) => total + value, 0);
    const estimate: Estimate = { value: sum / values.length, method: "wilson", ...wilson95(sum, values.length) };
    return estimate;
  });
  const rest = columns.filter((_, c) => exact[c] === undefined).map(({ values }) => values);
  const resampled = bootstrap(rest, seed);
  return exact.map(
    (estimate) => estimate ?? resampled.shift() ?? { value: NaN, low: NaN, high: NaN, method: "bootstrap" },
  );
}

/** Below this effective number of problems a share rests on too few of them for a bootstrap; chosen by coverage. */
const FEWEST = 8;

/** Whether a sum of non-negative values rests on few of them: Kish's effective number, (sum)^2 / sum of squares (1965, 11.7). */
export function sparse(values: readonly number[]): boolean {
  let sum = 0;
  let squares = 0;
  for (const value of values) {
    sum += value;
    squares += value * value;
  }
  return sum * sum < FEWEST * squares || squares === 0;
}

function bootstrap(columns: readonly (readonly number[])[], seed: number): Estimate[] {
  if (columns.length === 0) return [];
  const n = columns[0].length;
  const random = new RandomStream(`bootstrap/${seed}/${n}`);
  const means = columns.map(() => new Float64Array(RESAMPLES));
  const drawn = new Uint32Array(n);
  for (let r = 0; r < RESAMPLES; r++) {
    for (let i = 0; i < n; i++) drawn[i] = random.below(n);
    columns.forEach((values, c) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += values[drawn[i]];
      means[c][r] = sum / n;
    });
  }
  return columns.map((values, c) => ({ method: "bootstrap", ...expandedBca(values, means[c].sort()) }));
}

/** The BCa interval at Student's level from sorted means of resamples; a single value where nothing varies. */
function expandedBca(values: readonly number[], sorted: Float64Array): Interval & { value: number } {
  const n = values.length;
  const value = values.reduce((sum, v) => sum + v, 0) / n;
  let squares = 0;
  let cubes = 0;
  for (const v of values) {
    squares += (v - value) ** 2;
    cubes += (v - value) ** 3;
  }
  if (n < 2 || squares <= 1e-24 * value * value) return { value, low: value, high: value };
  const tolerance = 1e-12 * Math.abs(value);
  const below = sorted.reduce((count, v) => count + (v < value - tolerance ? 1 : v <= value + tolerance ? 0.5 : 0), 0);
  const bias = normalQuantile(Math.min(Math.max(below, 1), sorted.length - 1) / sorted.length);
  const acceleration = cubes / (6 * squares ** 1.5);
  const z = tQuantile(0.975, n - 1) * Math.sqrt(n / (n - 1));
  const end = (at: number) => quantile(sorted, normalCdf(bias + (bias + at) / (1 - acceleration * (bias + at))));
  return { value, low: end(-z), high: end(z) };
}

/** The p-quantile of sorted values, interpolated at p (n + 1) (Efron and Tibshirani 1993, 12.5). */
export function quantile(sorted: Float64Array, p: number): number {
  const at = Math.min(Math.max(p * (sorted.length + 1) - 1, 0), sorted.length - 1);
  const left = Math.floor(at);
  const right = Math.min(left + 1, sorted.length - 1);
  return sorted[left] + (at - left) * (sorted[right] - sorted[left]);
}

import { hashKey, RandomStream } from "../engine/random.ts";
import { UserError } from "../errors.ts";
import type { Interval } from "./intervals.ts";

/** One response: what the critic says before each token, and the return from there on. */
export interface ValuedResponse {
  problem: string;
  values: ArrayLike<number>;
  returns: ArrayLike<number>;
}

/** How well a critic foretells returns. Explained variance: 1 - var(R - V) / var(R), over all tokens of all responses. */
export interface CriticReport {
  explainedVariance: number;
  /** Of a regression on position and length alone, fitted on the other half of the problems. */
  baseline: number;
  /** Critic minus baseline, with the 95 % percentile interval of a bootstrap over problems. */
  difference: number;
  interval: Interval;
  problems: number;
  tokens: number;
}

const RESAMPLES = 2000;

/** Throws a UserError where all problems fall into one half. */
export function criticReport(responses: readonly ValuedResponse[]): CriticReport {
  const byProblem = new Map<string, ValuedResponse[]>();
  for (const response of responses) {
    const own = byProblem.get(response.problem);
    if (own === undefined) byProblem.set(response.problem, [response]);
    else own.push(response);
  }
  const problems = [...byProblem.values()];
  // By the id's hash: the order of problems may mean something.
  const halfOf = ([{ problem }]: ValuedResponse[]) => hashKey(`critic/${problem}`)[0] % 2;
  const halves = [0, 1].map((half) => problems.filter((own) => halfOf(own) === half).flat());
  if (halves.some((half) => half.length === 0)) {
    throw new UserError(
      `the critic is judged against a regression fitted on the other half of the problems; ${problems.length} are too few, take a larger --limit`,
    );
  }
  const fits = halves.map((_, half) => fit(halves[1 - half]));
  const moments = problems.map((own) => momentsOf(own, fits[halfOf(own)]));
  const whole = measure(moments);
  const random = new RandomStream("critic/bootstrap");
  const differences = Array.from({ length: RESAMPLES }, () => {
    const drawn = moments.map(() => moments[random.below(moments.length)]);
    return measure(drawn).difference;
  }).sort((a, b) => a - b);
  return {
    ...whole,
    interval: { low: differences[Math.floor(0.025 * RESAMPLES)], high: differences[Math.ceil(0.975 * RESAMPLES) - 1] },
    problems: problems.length,
    tokens: moments.reduce((sum, { n }) => sum + n, 0),
  };
}

/** Sums over a problem's tokens: how many, returns, and the errors of critic and baseline, each with its squares. */
interface Moments {
  n: number;
  returns: Sums;
  critic: Sums;
  baseline: Sums;
}
type Sums = [sum: number, squares: number];

function momentsOf(responses: ValuedResponse[], weights: number[]): Moments {
  const moments: Moments = { n: 0, returns: [0, 0], critic: [0, 0], baseline: [0, 0] };
  const add = (sums: Sums, x: number) => {
    sums[0] += x;
    sums[1] += x * x;
  };
  for (const { values, returns } of responses) {
    for (let t = 0; t < returns.length; t++) {
      const plain = features(t, returns.length).reduce((sum, x, i) => sum + x * weights[i], 0);
      moments.n++;
      add(moments.returns, returns[t]);
      add(moments.critic, returns[t] - values[t]);
      add(moments.baseline, returns[t] - plain);
    }
  }
  return moments;
}

function measure(moments: Moments[]): Pick<CriticReport, "explainedVariance" | "baseline" | "difference"> {
  const n = moments.reduce((sum, one) => sum + one.n, 0);
  const variance = (name: "returns" | "critic" | "baseline") => {
    const [sum, squares] = [0, 1].map((k) => moments.reduce((total, one) => total + one[name][k], 0));
    return squares / n - (sum / n) ** 2;
  };
  const whole = variance("returns");
  const explained = (name: "critic" | "baseline") => (whole > 0 ? 1 - variance(name) / whole : 0);
  const [explainedVariance, baseline] = [explained("critic"), explained("baseline")];
  return { explainedVariance, baseline, difference: explainedVariance - baseline };
}

/** Polynomials of a token's position and its response's length, which ends the response's suspense for free. */
function features(position: number, length: number): number[] {
  const [p, l] = [position / 100, length / 100];
  const left = l - p;
  return [1, p, l, left > 0 ? 1 / (1 + 100 * left) : 0, p * p, l * l, p * l, position / length];
}

const RIDGE = 1e-6;

/** Least squares of the returns on the features, by the normal equations. */
function fit(responses: ValuedResponse[]): number[] {
  const size = features(0, 1).length;
  const matrix = Array.from({ length: size }, (_, i) =>
    Array.from({ length: size + 1 }, (_, j) => (i === j ? RIDGE : 0)),
  );
  for (const { returns } of responses) {
    for (let t = 0; t < returns.length; t++) {
      const x = features(t, returns.length);
      for (let i = 0; i < size; i++) {
        for (let j = 0; j < size; j++) matrix[i][j] += x[i] * x[j];
        matrix[i][size] += x[i] * returns[t];
      }
    }
  }
  return solve(matrix);
}

/** Gaussian elimination with pivots; the last column is the right side. */
function solve(matrix: number[][]): number[] {
  const size = matrix.length;
  for (let k = 0; k < size; k++) {
    let pivot = k;
    for (let i = k + 1; i < size; i++) if (Math.abs(matrix[i][k]) > Math.abs(matrix[pivot][k])) pivot = i;
    [matrix[k], matrix[pivot]] = [matrix[pivot], matrix[k]];
    for (let i = 0; i < size; i++) {
      if (i === k) continue;
      const factor = matrix[i][k] / matrix[k][k];
      for (let j = k; j <= size; j++) matrix[i][j] -= factor * matrix[k][j];
    }
  }
  return matrix.map((row, i) => row[size] / row[i]);
}

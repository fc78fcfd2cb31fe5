import { RandomStream } from "../engine/random.ts";
import { tQuantile, Z975 } from "./distributions.ts";
import { type Interval, quantile } from "./intervals.ts";
import { moments } from "./paired.ts";

/** With fewer, a sign-flip test cannot go below 0.05 and a t interval rests on next to nothing. */
export const FEWEST_SEEDS = 6;

const RESAMPLES = 2000;

/**
 * The 95 % interval of a mean over a crossed design, `differences[seed][problem]`, for other seeds and other problems alike: a
 * bootstrap that draws seeds and problems, each with replacement (Owen 2007, Ann. Appl. Stat. 1:386, the pigeonhole bootstrap).
 *
 * Taken as it is it misses its level both ways: it counts the noise of single answers three times (Owen 2007, theorem 3), and
 * with few seeds it sees too little of their spread (McCullagh 2000, Bernoulli 6:285: no resampling of both is right). So
 * its deviations from the mean are scaled to the unbiased variance of the design,
 *   V = s_seeds^2 / S + s_problems^2 / N - s_residual^2 / (S N),
 * at least each of the first two (Searle, Casella and McCulloch 1992, 4.3), and from the normal quantile to Student's
 * at Satterthwaite's degrees of freedom (1946, Biometrics Bulletin 2:110), rounded down.
 */
export function twoWayBootstrap95(differences: readonly (readonly number[])[], seed = 0): Interval {
  const seeds = differences.length;
  const problems = differences[0].length;
  if (seeds < 2 || problems < 2) return { low: -Infinity, high: Infinity };
  const bySeed = differences.map((row) => moments(row).mean);
  const byProblem = differences[0].map((_, i) => moments(differences.map((row) => row[i])).mean);
  const { mean, deviation: seedDeviation } = moments(bySeed);

  let residual = 0;
  differences.forEach((row, s) => row.forEach((d, i) => (residual += (d - bySeed[s] - byProblem[i] + mean) ** 2)));
  const ofSeeds = seedDeviation ** 2 / seeds;
  const ofProblems = moments(byProblem).deviation ** 2 / problems;
  const ofResidual = residual / ((seeds - 1) * (problems - 1) * seeds * problems);
  const variance = Math.max(ofSeeds + ofProblems - ofResidual, ofSeeds, ofProblems);
  if (variance === 0) return { low: mean, high: mean };
  const df =
    variance ** 2 /
    (ofSeeds ** 2 / (seeds - 1) + ofProblems ** 2 / (problems - 1) + ofResidual ** 2 / ((seeds - 1) * (problems - 1)));

  const sorted = resampledMeans(differences, seed).sort();
  const scale =
    (Math.sqrt(variance) / moments(sorted).deviation) * (tQuantile(0.975, Math.max(1, Math.floor(df))) / Z975);
  return {
    low: mean + scale * (quantile(sorted, 0.025) - mean),
    high: mean + scale * (quantile(sorted, 0.975) - mean),
  };
}

function resampledMeans(differences: readonly (readonly number[])[], seed: number): Float64Array {
  const seeds = differences.length;
  const problems = differences[0].length;
  const random = new RandomStream(`two-way bootstrap/${seed}/${seeds}/${problems}`);
  const times = new Uint32Array(problems);
  return Float64Array.from({ length: RESAMPLES }, () => {
    times.fill(0);
    for (let i = 0; i < problems; i++) times[random.below(problems)]++;
    const means = differences.map((row) => {
      let sum = 0;
      for (let i = 0; i < problems; i++) sum += times[i] * row[i];
      return sum / problems;
    });
    let sum = 0;
    for (let s = 0; s < seeds; s++) sum += means[random.below(seeds)];
    return sum / seeds;
  });
}

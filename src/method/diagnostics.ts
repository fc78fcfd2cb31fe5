import { type Scores, WEIGHT_FIELDS } from "../engine/types.ts";
import { solved } from "../task/solved.ts";
import type { Forest, Segment } from "../forest/types.ts";
import type { Grade } from "../task/types.ts";
import { meanAndStd } from "./advantages.ts";
import { k3 } from "./losses.ts";

/** Mean and standard deviation of the reward, the mean of each named part, the share solved, and gradings that failed. */
export function rewardMetrics(grades: Grade[]): Record<string, number> {
  const { mean, std } = meanAndStd(grades.map((grade) => grade.reward));
  const metrics: Record<string, number> = {
    reward: mean,
    rewardStd: std,
    solveRate: grades.filter(solved).length / grades.length,
    gradeErrors: grades.filter((grade) => grade.error !== undefined).length,
  };
  for (const name of new Set(grades.flatMap((grade) => Object.keys(grade.parts)))) {
    metrics[`reward/${name}`] = grades.reduce((sum, grade) => sum + (grade.parts[name] ?? 0), 0) / grades.length;
  }
  return metrics;
}

/** Share of samples that ended at their length limit, the mean length in tokens, and the probability that top-k or top-p cut. */
export function sampleMetrics(forest: Forest): Record<string, number> {
  const samples = policySegments(forest);
  return {
    truncated: samples.filter((sample) => sample.stop === "length").length / samples.length,
    responseLength: samples.reduce((sum, sample) => sum + sample.tokens.length, 0) / samples.length,
    ...cutMetrics(samples),
  };
}

/** `cutMass`: the mean over tokens drawn with top-k or top-p of the probability that these took away from the distribution. */
export function cutMetrics(samples: readonly Segment[]): Record<string, number> {
  const cut = samples.flatMap(({ fields }) => ("cutMass" in fields ? Array.from(fields.cutMass) : []));
  return cut.length === 0 ? {} : { cutMass: cut.reduce((sum, mass) => sum + mass, 0) / cut.length };
}

/** `kl`: the mean over sampled tokens of k3 between the policy that chose them and `refLogprobs`. */
export function klMetrics(forest: Forest): Record<string, number> {
  let sum = 0;
  let tokens = 0;
  for (const { logprobs, fields } of policySegments(forest)) {
    logprobs?.forEach((lp, t) => (sum += k3(lp, fields.refLogprobs[t])[0]));
    tokens += logprobs?.length ?? 0;
  }
  return { kl: sum / tokens };
}

const policySegments = (forest: Forest) =>
  forest.flatMap((tree) => tree.segments.filter((segment) => segment.source === "policy"));

/**
 * What the first pass over fresh samples shows, over the tokens that carry weight: `mismatch`, the mean of |trainer's - sampler's
 * log-prob|, with its 99.9th percentile and maximum (sampler and trainer hold the same weights, so it measures rounding
 * alone), and the mean `entropy` in nats. Empty when no token carries weight.
 */
export function firstPassMetrics(forest: Forest, scores: Scores[]): Record<string, number> {
  const differences: number[] = [];
  let entropy = 0;
  forest.forEach((tree, t) =>
    tree.segments.forEach((segment, s) => {
      const { logprobs } = segment;
      if (!logprobs || !scores[t].logprobs[s]) return;
      for (let i = 0; i < logprobs.length; i++) {
        if (!carriesWeight(segment, i)) continue;
        differences.push(Math.abs(scores[t].logprobs[s][i] - logprobs[i]));
        entropy += scores[t].entropy[s][i];
      }
    }),
  );
  if (differences.length === 0) return {};
  differences.sort((a, b) => a - b);
  const count = differences.length;
  return {
    mismatch: differences.reduce((sum, d) => sum + d, 0) / count,
    "mismatch/p99.9": differences[Math.ceil(0.999 * count) - 1],
    "mismatch/max": differences[count - 1],
    entropy: entropy / count,
  };
}

const carriesWeight = (segment: Segment, i: number) =>
  WEIGHT_FIELDS.some((name) => name in segment.fields && segment.fields[name][i] !== 0);

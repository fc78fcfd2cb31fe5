import { sameAnswer } from "../task/grading.ts";
import type { GradingMode } from "../task/types.ts";
import { problemOf } from "./regrade.ts";
import { type EvaluatedSample, responsesOf } from "./samples.ts";
import { clusterAnswers } from "./subsets.ts";

export const SEARCH_MEASURES = ["maj@r", "vote@r", "oracle@r"] as const;
export type SearchMeasure = (typeof SEARCH_MEASURES)[number];

type Grading = "strict" | "flexible";

/**
 * Which of a problem's first r rollouts states the answer: the one that begins the cluster of equal answers with the largest sum of
 * weights (for `maj`, of rollouts); ties go to the higher mean weight, then to the earlier rollout. Undefined where none
 * states an answer or every answer weighs nothing.
 */
export function chosenRollout(
  samples: readonly EvaluatedSample[],
  r: number,
  vote: "maj" | "vote",
  mode: GradingMode,
  grading: Grading = "strict",
): number | undefined {
  const first = samples.slice(0, r);
  const problem = problemOf(samples[0]);
  const clusters = clusterAnswers(
    first.map((sample) => sample[grading]?.answer),
    (a, b) => sameAnswer(problem, a, b, mode),
  );
  const sums = new Map<number, { sum: number; weight: number; count: number }>();
  clusters.forEach((cluster, i) => {
    if (cluster === undefined) return;
    const weight = first[i].search?.weight ?? 1;
    const found = sums.get(cluster) ?? { sum: 0, weight: 0, count: 0 };
    found.sum += vote === "maj" ? 1 : weight;
    found.weight += weight;
    found.count++;
    sums.set(cluster, found);
  });
  let best: number | undefined;
  let [highest, mean] = [0, 0];
  // In the order of the first rollout that states it, so that an earlier one stays on a tie.
  for (const [cluster, { sum, weight, count }] of sums) {
    if (sum < highest || (sum === highest && weight / count <= mean)) continue;
    [best, highest, mean] = [cluster, sum, weight / count];
  }
  return best;
}

/** Whether a problem counts as right after its first r rollouts. Of one rollout `maj`, `vote` and `oracle` are pass@1. */
export function rightAfter(
  measure: SearchMeasure,
  samples: readonly EvaluatedSample[],
  r: number,
  mode: GradingMode,
  grading: Grading = "strict",
): boolean {
  const right = (sample: EvaluatedSample) => sample[grading]?.verdict === "equal";
  if (measure === "oracle@r" || r === 1) return samples.slice(0, r).some(right);
  const chosen = chosenRollout(samples, r, measure === "maj@r" ? "maj" : "vote", mode, grading);
  return chosen !== undefined && right(samples[chosen]);
}

/** Tokens that a problem's first r rollouts made; what they share counts once. */
export function tokensAfter(samples: readonly EvaluatedSample[], r: number): number {
  return samples
    .slice(0, r)
    .flatMap((sample) => sample.search?.fresh ?? responsesOf(sample).map(({ tokens }) => tokens.length))
    .reduce((sum, count) => sum + count, 0);
}

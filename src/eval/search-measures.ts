import { UserError } from "../errors.ts";
import { sameAnswer } from "../task/grading.ts";
import type { GradingMode } from "../task/types.ts";
import type { Column } from "./intervals.ts";
import { problemOf } from "./regrade.ts";
import { byProblem, type EvaluatedSample, responsesOf } from "./samples.ts";
import { clusterAnswers, majorityAtK } from "./subsets.ts";

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
  const clusters = votes(first, grading, mode);
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
  const right = (sample: EvaluatedSample) => isFinished(sample) && sample[grading]?.verdict === "equal";
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

/** Whether a path came to its end; what the text of another one happens to state is no answer of the search. */
const isFinished = ({ search }: EvaluatedSample): boolean => search === undefined || search.end === "output";

/** The cluster of each sample's answer; one that no rule can compare with those before it stands alone. */
export function votes(
  samples: readonly EvaluatedSample[],
  grading: Grading,
  mode: GradingMode,
): (number | undefined)[] {
  const problem = problemOf(samples[0]);
  return clusterAnswers(
    samples.map((sample) => (isFinished(sample) ? sample[grading]?.answer : undefined)),
    (first, second) => sameAnswer(problem, first, second, mode),
  );
}

/** A measure of searches before its interval: one number a problem. */
export interface SearchColumn extends Column {
  name: SearchMeasure | "tokens@r" | "gain@r" | "slope" | "maj@tokens" | "vote - maj";
  grading?: Grading;
  k?: number;
  of?: number;
}

type Group = readonly EvaluatedSample[];

/** What the first r rollouts of searches come to; they are no sample of equals, so that their order counts. `beside`: plain samples of the same problems. */
export function searchColumns(
  groups: readonly Group[],
  gradings: readonly Grading[],
  rs: readonly number[],
  mode: GradingMode | "reward",
  beside?: EvaluatedSample[],
): SearchColumn[] {
  const tokens = rs.map((k): SearchColumn => ({
    name: "tokens@r",
    k,
    values: groups.map((group) => tokensAfter(group, k)),
    share: false,
  }));
  // A task with a reward of its own has no answers that could vote.
  if (mode === "reward") return tokens;
  const plain = beside && plainOf(groups, beside);
  const columns = gradings.flatMap((grading): SearchColumn[] => {
    const right = (name: SearchMeasure, k: number) =>
      groups.map((group) => Number(rightAfter(name, group, k, mode, grading)));
    const voted = rs.map((k) => right("vote@r", k));
    const once = right("vote@r", 1);
    const last = rs.length - 1;
    const less = (a: number[], b: number[]) => a.map((value, i) => value - b[i]);
    return [
      ...SEARCH_MEASURES.flatMap((name) =>
        rs.map((k, i): SearchColumn => ({
          name,
          grading,
          k,
          values: name === "vote@r" ? voted[i] : right(name, k),
          share: true,
        })),
      ),
      ...(rs.length < 2
        ? []
        : ([
            { name: "gain@r", grading, k: rs[last], values: less(voted[last], once), share: false },
            { name: "slope", grading, values: slopes(rs, voted), share: false },
          ] satisfies SearchColumn[])),
      ...rs.flatMap((k, i): SearchColumn[] => {
        const equal = plain && majorityForTokens(plain, sum(tokens[i].values) / groups.length, grading, mode);
        if (equal === undefined) return [];
        const { of, values } = equal;
        return [
          { name: "maj@tokens", grading, k, of, values, share: true },
          { name: "vote - maj", grading, k, of, values: less(voted[i], values), share: false },
        ];
      }),
    ];
  });
  return [...columns, ...tokens];
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** Of each problem the least-squares slope of what it counts after r rollouts over log2 r, so that their mean is the slope of the means. */
function slopes(rs: readonly number[], byRollouts: readonly number[][]): number[] {
  const doublings = rs.map(Math.log2);
  const centre = sum(doublings) / rs.length;
  const squares = sum(doublings.map((x) => (x - centre) ** 2));
  return byRollouts[0].map((_, p) => sum(doublings.map((x, i) => (x - centre) * byRollouts[i][p])) / squares);
}

/** The plain samples of each searched problem. Throws a UserError where one has none, or not as many as the others. */
function plainOf(groups: readonly Group[], beside: EvaluatedSample[]): Group[] {
  const found = new Map(byProblem(beside).map((group) => [group[0].problem, group]));
  const plain = groups.map(([{ problem, gold }]) => {
    const own = found.get(problem);
    if (own === undefined || own[0].gold !== gold)
      throw new UserError(
        `the plain samples ${own === undefined ? "lack" : "have another gold of"} problem ${problem}: sample the same problems`,
      );
    if (own[0].search !== undefined)
      throw new UserError(
        "the samples to set beside the search are rollouts of one themselves: expected plain samples",
      );
    return own;
  });
  const n = Math.min(...plain.map(({ length }) => length));
  return plain.map((group) => group.slice(0, n));
}

/**
 * The chance that the majority of as many plain samples is right as cost `tokens` a problem, in the mean over problems: `of` of them, one at least; between
 * whole numbers, of either in its share. Undefined where there are not as many.
 */
function majorityForTokens(
  plain: readonly Group[],
  tokens: number,
  grading: Grading,
  mode: GradingMode,
): { of: number; values: number[] } | undefined {
  const n = plain[0].length;
  const each = sum(plain.map((group) => tokensAfter(group, n))) / plain.length / n;
  const of = Math.max(1, tokens / each);
  if (of > n) return undefined;
  const [below, above] = [Math.floor(of), Math.ceil(of)];
  const values = plain.map((group) => {
    const clusters = votes(group, grading, mode);
    const right = group.map((sample) => sample[grading]?.verdict === "equal");
    const [low, high] = [below, above].map((k) => majorityAtK(clusters, right, k));
    return low + (of - below) * (high - low);
  });
  return { of, values };
}

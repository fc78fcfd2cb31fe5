import { tInterval95 } from "../eval/paired.ts";
import type { Interval } from "../eval/intervals.ts";
import type { AlsoResult, CellResult } from "./cell.ts";
import type { ExperimentFile } from "./file.ts";
import type { Cell } from "./plan.ts";

/** A further evaluation of an arm's final runs; means over seeds. */
export interface AlsoAt {
  name: string;
  arm: string;
  at: AlsoResult["at"];
  seeds: { seed: number; accuracy: number; majority?: number }[];
  accuracy: number;
  interval: Interval;
  /** Of all n samples; absent of one. */
  majority?: number;
  majorityInterval?: Interval;
  /** By the majority of as many samples as a budget of tokens allows: `k` over the seeds from least to most. */
  equal?: { tokens: number; k: [number, number]; accuracy: number; interval: Interval; tokensPerProblem: number };
  tokensPerProblem: number;
  generated: number;
  prefilled: number;
}

const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

function equalMeans(found: NonNullable<AlsoResult["equal"]>[]): NonNullable<AlsoAt["equal"]> {
  const { mean: accuracy, interval } = tInterval95(found.map((one) => one.accuracy));
  const ks = found.map(({ k }) => k);
  return {
    tokens: found[0].tokens,
    k: [Math.min(...ks), Math.max(...ks)],
    accuracy,
    interval,
    tokensPerProblem: mean(found.map((one) => one.tokensPerProblem)),
  };
}

/** What the further evaluations came to, in the order of the file. */
export function alsoMeasured(
  { also, arm }: ExperimentFile,
  final: readonly { cell: Cell; result: CellResult | undefined }[],
): AlsoAt[] {
  return also.flatMap(({ name, at }) =>
    arm.flatMap(({ name: of }): AlsoAt[] => {
      const found = final.flatMap(({ cell, result }) => {
        const one = cell.arm === of ? result?.also?.find((other) => other.name === name) : undefined;
        return one === undefined ? [] : [{ seed: cell.seed, ...one }];
      });
      if (found.length === 0) return [];
      const { mean: accuracy, interval } = tInterval95(found.map((one) => one.accuracy));
      const votes = found.flatMap(({ majority }) => majority ?? []);
      const voted = votes.length < found.length ? undefined : tInterval95(votes);
      const equal = found.flatMap((one) => one.equal ?? []);
      return [
        {
          name,
          arm: of,
          at,
          seeds: found.map((one) => ({ seed: one.seed, accuracy: one.accuracy, majority: one.majority })),
          accuracy,
          interval,
          ...(voted && { majority: voted.mean, majorityInterval: voted.interval }),
          ...(equal.length === found.length && { equal: equalMeans(equal) }),
          tokensPerProblem: mean(found.map((one) => one.tokensPerProblem)),
          generated: mean(found.map((one) => one.generated)),
          prefilled: mean(found.map((one) => one.prefilled)),
        },
      ];
    }),
  );
}

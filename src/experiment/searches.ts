import type { Interval } from "../eval/intervals.ts";
import { moments, tInterval95 } from "../eval/paired.ts";
import { defaultKs } from "../eval/report.ts";
import { byProblem, type EvaluatedSample } from "../eval/samples.ts";
import { type SearchColumn, searchColumns } from "../eval/search-measures.ts";
import { twoWayBootstrap95 } from "../eval/seeds.ts";
import type { GradingMode } from "../task/types.ts";

/** A difference over seeds: Student's interval for other seeds, the two-way bootstrap for other seeds and other problems. */
export interface Spread {
  mean: number;
  tInterval: Interval;
  twoWay: Interval;
}

/** A search of an arm's final runs, after each number of rollouts; means over seeds. */
export interface SearchAt {
  name: string;
  arm: string;
  seeds: number;
  /** After the first r rollouts: how many are right by the vote, with Student's interval, how many by any rollout; tokens a problem. */
  rollouts: { r: number; accuracy: number; interval: Interval; oracle: number; tokens: number }[];
  /** By the vote after all rollouts, less after one. */
  gain?: Spread;
  /** What the vote gains as the rollouts double: least squares over log2 r. */
  slope?: Spread;
}

/** `samples`: of each seed. */
export function searchAt(
  about: Pick<SearchAt, "name" | "arm">,
  samples: readonly EvaluatedSample[][],
  mode: GradingMode,
): SearchAt {
  const seeds = samples.map(byProblem);
  const rs = defaultKs(Math.min(...seeds.flatMap((groups) => groups.map(({ length }) => length))));
  const columns = seeds.map((groups) => searchColumns(groups, ["strict"], rs, mode));
  const rows = (name: SearchColumn["name"], k?: number) =>
    columns.flatMap((own) =>
      own.filter((one) => one.name === name && (k === undefined || one.k === k)).map(({ values }) => [...values]),
    );
  const means = (name: SearchColumn["name"], k: number) => rows(name, k).map((row) => moments(row).mean);
  const spread = (name: SearchColumn["name"]): Spread | undefined => {
    const differences = rows(name);
    if (differences.length === 0) return undefined;
    const { mean, interval: tInterval } = tInterval95(differences.map((row) => moments(row).mean));
    return { mean, tInterval, twoWay: twoWayBootstrap95(differences) };
  };
  const [gain, slope] = [spread("gain@r"), spread("slope")];
  return {
    ...about,
    seeds: seeds.length,
    rollouts: rs.map((r) => {
      const { mean: accuracy, interval } = tInterval95(means("vote@r", r));
      return {
        r,
        accuracy,
        interval,
        oracle: moments(means("oracle@r", r)).mean,
        tokens: moments(means("tokens@r", r)).mean,
      };
    }),
    ...(gain && { gain }),
    ...(slope && { slope }),
  };
}

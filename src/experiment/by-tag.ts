import { tInterval95 } from "../eval/paired.ts";
import type { Interval } from "../eval/intervals.ts";
import type { EvaluatedSample } from "../eval/samples.ts";
import type { BudgetName } from "./file.ts";

/** An arm on the test problems that share a tag's value: the mean over seeds, with Student's interval over them. */
export interface TagAt {
  tag: string;
  value: string;
  problems: number;
  arm: string;
  budget: BudgetName;
  mean: number;
  interval: Interval;
}

/** Tags with more values than this say little in a table. */
const MOST_VALUES = 8;

/** Accuracy by tag. `runs`: of an arm at a budget, each seed's samples. */
export function byTag(runs: readonly { arm: string; budget: BudgetName; seeds: EvaluatedSample[][] }[]): TagAt[] {
  const values = new Map<string, Set<string>>();
  for (const sample of runs[0]?.seeds[0] ?? [])
    for (const [tag, value] of Object.entries(sample.tags ?? {}))
      values.set(tag, (values.get(tag) ?? new Set()).add(value));
  const inOrder = new Intl.Collator("en", { numeric: true });
  return [...values].flatMap(([tag, found]) => {
    if (found.size > MOST_VALUES) return [];
    return [...found].sort(inOrder.compare).flatMap((value) =>
      runs.map(({ arm, budget, seeds }): TagAt => {
        const own = seeds.map((samples) => samples.filter(({ tags }) => tags?.[tag] === value));
        const shares = own.map((samples) => samples.filter(({ solved }) => solved).length / samples.length);
        const { mean, interval } = tInterval95(shares);
        const problems = new Set(own[0].map(({ problem }) => problem)).size;
        return { tag, value, problems, arm, budget, mean, interval };
      }),
    );
  });
}

import type { Interval } from "../eval/intervals.ts";
import { tInterval95 } from "../eval/paired.ts";
import { roundColumns, type RoundColumn, roundSteps } from "../eval/round-measures.ts";
import { byProblem, type EvaluatedSample } from "../eval/samples.ts";
import type { BudgetName } from "./file.ts";

/** How an arm's final runs were asked: by the test at a budget, or by a further evaluation of theirs or of the weights they began with. */
interface Asked {
  arm: string;
  budget?: BudgetName;
  also?: { name: string; at: "start" | "end" };
}

/** What was reached by round: means over seeds, with Student's interval over them. */
export interface RoundsAt extends Asked {
  /** Accuracy after each round. */
  right: { mean: number; interval: Interval }[];
  /** Steps that each round added to questions that had not ended; empty where the task counts none. */
  steps: { mean: number; interval: Interval }[];
}

/** Accuracy and steps by round; undefined where nothing was asked in rounds. `seeds` reads each seed's samples, one after another: they are large. */
export function byRound(asked: Asked, seeds: readonly (() => EvaluatedSample[])[]): RoundsAt | undefined {
  const columns = seeds.map((samples) => {
    const groups = byProblem(samples());
    const right = roundColumns(groups, ["strict"]).filter(({ name }) => name === "round accuracy");
    return { right, steps: roundSteps(groups) };
  });
  const over = (of: "right" | "steps") => {
    const rounds = Math.max(0, ...columns.flatMap((one) => one[of].map(({ round = 0 }) => round)));
    return Array.from({ length: rounds }, (_, r) =>
      tInterval95(columns.flatMap((one) => one[of].filter(({ round }) => round === r + 1).map(meanOf))),
    );
  };
  const right = over("right");
  return right.length === 0 ? undefined : { ...asked, right, steps: over("steps") };
}

const meanOf = ({ values }: RoundColumn): number => values.reduce((sum, value) => sum + value, 0) / values.length;

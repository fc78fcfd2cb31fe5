import { points } from "../eval/compare.ts";
import type { Interval } from "../eval/intervals.ts";
import type { RoundsAt } from "./by-round.ts";
import { armAt, cell, label, table } from "./page-parts.ts";

/** Accuracy after each round, and the steps that each added, of whatever was asked in rounds. */
export function roundsSection(measured: readonly RoundsAt[]): string[] {
  if (measured.length === 0) return [];
  const steps = tableOf(measured, "steps", (value) => value.toFixed(2));
  return [
    "## By round",
    "Descriptive: means over seeds, with Student's interval over them. Accuracy after each round in %, each response graded as if it were the last:",
    ...tableOf(measured, "right", points),
    ...(steps.length === 0
      ? []
      : ["Steps of the problem that each round added, as its response states them, where the question had not ended:"]),
    ...steps,
  ];
}

function tableOf(measured: readonly RoundsAt[], what: "right" | "steps", text: (value: number) => string): string[] {
  const shown = measured.filter((one) => one[what].length > 0);
  if (shown.length === 0) return [];
  const most = Math.max(...shown.map((one) => one[what].length));
  const estimate = ({ mean, interval: { low, high } }: { mean: number; interval: Interval }) =>
    Number.isFinite(low) ? `${text(mean)} [${text(low)}, ${text(high)}]` : text(mean);
  const rows = shown.map(({ arm, budget, also, [what]: rounds }) => [
    cell(also?.name ?? (budget === undefined ? "" : `at equal ${label(budget)}`)),
    armAt(arm, also?.at),
    ...Array.from({ length: most }, (_, r) => (r < rounds.length ? estimate(rounds[r]) : "")),
  ]);
  return [table(["asked", "arm", ...Array.from({ length: most }, (_, r) => `round ${r + 1}`)], rows)];
}

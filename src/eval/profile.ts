import { wilson95, type Interval } from "./intervals.ts";
import { byProblem, type EvaluatedSample } from "./samples.ts";

/** How often a problem was solved. */
export interface SolveRate extends Interval {
  /** Its id. */
  problem: string;
  /** Share of its samples that were right (strict); `low` and `high` are Wilson's 95 %. */
  solved: number;
}

/** Problems by their solve rate: those above `from` up to `to`; the first bar's `from` counts too. */
export interface Bar {
  from: number;
  to: number;
  problems: number;
}

/** The solve rate of each problem, in the order of its first sample. */
export function solveRates(samples: readonly EvaluatedSample[]): SolveRate[] {
  return byProblem(samples).map((group) => {
    const right = group.filter(({ solved }) => solved).length;
    return { problem: group[0].problem, solved: right / group.length, ...wilson95(right, group.length) };
  });
}

/** More bars than this are joined to tenths. */
const BARS = 10;

/** How many problems were solved 0, 1, ..., n times of n: a bar each; from 11 samples on one for never, one for always, and tenths between. */
export function histogram(rates: readonly SolveRate[], n: number): Bar[] {
  const count = (from: number, to: number) =>
    rates.filter(({ solved }) => (from === to ? solved === from : solved > from && solved <= to)).length;
  const bars: Bar[] =
    n <= BARS
      ? Array.from({ length: n + 1 }, (_, k) => ({ from: k / n, to: k / n, problems: 0 }))
      : [
          { from: 0, to: 0, problems: 0 },
          ...Array.from({ length: BARS }, (_, b) => ({ from: b / BARS, to: (b + 1) / BARS, problems: 0 })),
          { from: 1, to: 1, problems: 0 },
        ];
  for (const bar of bars) bar.problems = count(bar.from, bar.to);
  // Those that were always solved have a bar of their own.
  if (n > BARS) bars[BARS].problems -= bars[BARS + 1].problems;
  return bars;
}

/** The histogram in lines of at most `width`. */
export function histogramText(bars: readonly Bar[], width: number): string {
  const percent = (share: number) => (100 * share).toFixed(Number.isInteger(100 * share) ? 0 : 1);
  const last = bars.length - 1;
  const labels = bars.map(({ from, to }, i) => {
    if (from === to) return `${percent(to)} %`;
    return i === last - 1 && bars[last].from === 1
      ? `${percent(from)}-${percent(to)} %, not all`
      : `${percent(from)}-${percent(to)} %`;
  });
  const counts = bars.map(({ problems }) => String(problems));
  const [label, number] = [labels, counts].map((texts) => Math.max(...texts.map((text) => text.length)));
  const room = Math.max(4, Math.min(50, width - label - number - 4));
  const most = Math.max(1, ...bars.map(({ problems }) => problems));
  return bars
    .map(({ problems }, i) => {
      const length = problems === 0 ? 0 : Math.max(1, Math.round((room * problems) / most));
      return `${labels[i].padStart(label)}  ${counts[i].padStart(number)}  ${"█".repeat(length)}`.trimEnd();
    })
    .join("\n");
}

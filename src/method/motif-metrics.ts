import type { Segment } from "../forest/types.ts";
import type { RoundTask } from "../task/rounds.ts";
import { solved } from "../task/solved.ts";
import type { Grade } from "../task/types.ts";
import { meanAndStd } from "./advantages.ts";
import { cutMetrics, rewardMetrics } from "./diagnostics.ts";
import { formatReward } from "./motif-rewards.ts";

/** A chain of responses, [round]. */
export interface GradedChain {
  segments: Segment[];
  texts: string[];
  /** Undefined where a round was not graded; the last is. */
  grades: (Grade | undefined)[];
  /** What the chain earns, by part. */
  parts: Record<string, number>;
  /** The sum of its parts. */
  outcome: number;
}

/**
 * What the chains of a step show: their outcome and its parts; the share that ended right (`solveRate`), after each round (`accuracy/round1`, where a
 * chain that has ended keeps its last response); of those that ended right, the share whose first response was right already (`rightFromRound1`); rounds and
 * tokens of a chain (`rounds`, `chainLength`); length and truncation of responses, all and by round; the share in the layout that was asked for (`tagged`).
 */
export function roundMetrics(
  task: RoundTask,
  chains: readonly GradedChain[],
  { rounds, gradeRounds }: { rounds: number; gradeRounds: boolean },
): Record<string, number> {
  const last = ({ grades }: GradedChain) => grades[grades.length - 1];
  const { std, mean: reward } = meanAndStd(chains.map(({ outcome }) => outcome));
  const metrics: Record<string, number> = {
    ...rewardMetrics(chains.flatMap((chain) => last(chain) ?? [])),
    reward,
    rewardStd: std,
    rounds: mean(chains, ({ segments }) => segments.length),
    chainLength: mean(chains, ({ segments }) => segments.reduce((sum, { tokens }) => sum + tokens.length, 0)),
  };
  for (const name of Object.keys(chains[0].parts)) metrics[`reward/${name}`] = mean(chains, ({ parts }) => parts[name]);
  if (gradeRounds) {
    for (let r = 0; r < rounds; r++) metrics[`accuracy/round${r + 1}`] = mean(chains, (chain) => right(chain, r));
  }
  // Responses that several chains share count once.
  const responses = new Map<Segment, { text: string; round: number }>();
  for (const { segments, texts } of chains) {
    segments.forEach((segment, r) => responses.set(segment, { text: texts[r], round: r + 1 }));
  }
  Object.assign(metrics, lengthMetrics([...responses.keys()], ""), cutMetrics([...responses.keys()]));
  if (task.rounds === undefined) metrics.tagged = mean([...responses.values()], ({ text }) => formatReward(text));
  for (let round = 1; round <= rounds; round++) {
    const own = [...responses].flatMap(([segment, about]) => (about.round === round ? [segment] : []));
    if (own.length > 0) Object.assign(metrics, lengthMetrics(own, `/round${round}`));
  }
  const ended = chains.filter((chain) => right(chain, rounds - 1) === 1);
  if (gradeRounds && ended.length > 0) metrics.rightFromRound1 = mean(ended, (chain) => right(chain, 0));
  return metrics;
}

/** Whether a chain's response of a round is right, or its last one where it ended before. */
function right({ grades }: GradedChain, round: number): number {
  const grade = grades[Math.min(round, grades.length - 1)];
  return Number(grade !== undefined && solved(grade));
}

function lengthMetrics(responses: Segment[], of: string): Record<string, number> {
  return {
    [`responseLength${of}`]: mean(responses, ({ tokens }) => tokens.length),
    [`truncated${of}`]: mean(responses, ({ stop }) => Number(stop === "length")),
  };
}

function mean<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((sum, item) => sum + of(item), 0) / items.length;
}

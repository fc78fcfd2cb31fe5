import type { Column } from "./intervals.ts";
import { type EvaluatedSample, responsesOf } from "./samples.ts";

export type Grade = "strict" | "flexible";

/** A measure of questions that were answered in rounds, before its interval: one number a problem. */
export interface RoundColumn extends Column {
  name: "round accuracy" | "right from round 1" | "round tokens" | "round steps" | "rounds" | "prompt tokens";
  grading?: Grade;
  round?: number;
}

type Group = readonly EvaluatedSample[];

/** Accuracy and tokens by round, rounds taken, and the prompts' tokens, of each problem's samples. None where nothing was answered in rounds. */
export function roundColumns(groups: readonly Group[], gradings: readonly Grade[]): RoundColumn[] {
  if (!inRounds(groups)) return [];
  const counts = groups.flatMap((group) => group.map((sample) => responsesOf(sample).length));
  const rounds = Array.from({ length: counts.reduce((most, count) => Math.max(most, count), 0) }, (_, i) => i + 1);
  const mean = (of: (sample: EvaluatedSample) => number) =>
    groups.map((group) => group.reduce((sum, sample) => sum + of(sample), 0) / group.length);
  return [
    ...gradings.flatMap((grading) =>
      rounds.map((round): RoundColumn => ({
        name: "round accuracy",
        grading,
        round,
        values: mean((sample) => Number(rightAfter(sample, round, grading))),
        share: true,
      })),
    ),
    ...rounds.map((round): RoundColumn => ({
      name: "round tokens",
      round,
      values: mean((sample) => responsesOf(sample)[round - 1]?.tokens.length ?? 0),
      share: false,
    })),
    { name: "rounds", values: mean((sample) => responsesOf(sample).length), share: false },
    { name: "prompt tokens", values: groups.map(promptTokens), share: false },
  ];
}

/** Of the problems with a sample that is right at the end: the share of those samples whose first response was right already. */
export function rightFromStart(groups: readonly Group[], gradings: readonly Grade[]): RoundColumn[] {
  if (!inRounds(groups)) return [];
  return gradings.flatMap((grading): RoundColumn[] => {
    const values = groups.flatMap((group) => {
      const right = group.filter((sample) => sample[grading]?.verdict === "equal");
      return right.length === 0 ? [] : right.filter((sample) => rightAfter(sample, 1, grading)).length / right.length;
    });
    return values.length === 0 ? [] : [{ name: "right from round 1", grading, values, share: true }];
  });
}

/** Of each round, the steps that it added: of the problems with a sample that had not ended before. None where the task counts no steps. */
export function roundSteps(groups: readonly Group[]): RoundColumn[] {
  const all = groups.map((group) => group.map(responsesOf));
  const most = all.flat().reduce((count, responses) => Math.max(count, responses.length), 0);
  return Array.from({ length: most }, (_, r): RoundColumn => {
    const values = all.flatMap((group) => {
      const added = group.flatMap((responses) => responses[r]?.added ?? []);
      return added.length === 0 ? [] : added.reduce((sum, steps) => sum + steps, 0) / added.length;
    });
    return { name: "round steps", round: r + 1, values, share: false };
  }).filter(({ values }) => values.length > 0);
}

const inRounds = (groups: readonly Group[]): boolean =>
  groups.some((group) => group.some(({ rounds }) => rounds !== undefined));

/** A question that ended before that round keeps its last response. */
function rightAfter(sample: EvaluatedSample, round: number, grading: Grade): boolean {
  const responses = responsesOf(sample);
  return responses[Math.min(round, responses.length) - 1][grading]?.verdict === "equal";
}

function promptTokens(group: Group): number {
  const prompts = group.map((sample) => [...(sample.rounds ?? []).map(({ prompt }) => prompt), sample.prompt ?? 0]);
  const later = prompts.reduce((sum, [, ...rest]) => sum + rest.reduce((total, prompt) => total + prompt, 0), 0);
  return prompts[0][0] + later;
}

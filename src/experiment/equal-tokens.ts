import { type EvaluationReport, reportOf } from "../eval/report.ts";
import type { EvaluatedSample } from "../eval/samples.ts";
import { tokensAfter } from "../eval/search-measures.ts";
import { byProblem } from "../eval/samples.ts";

/** What an answer by several samples comes to within a budget of inference. */
export interface EqualTokens {
  /** Samples, or rollouts of a search. */
  k: number;
  /** Share of problems that the majority of k samples answers right; of a search, the vote of its first k rollouts; of one sample, its accuracy. */
  accuracy: number;
  /** Generated, a problem. */
  tokensPerProblem: number;
}

/**
 * The most samples whose generated tokens are at most `tokens` a problem in the mean, one at least, and what they answer. Samples are equals, so that
 * k of them take k times their mean; of a search the first k rollouts are what a search of k makes.
 */
export function atTokens(report: EvaluationReport, samples: EvaluatedSample[], tokens: number): EqualTokens {
  const { n, search } = report;
  const problems = byProblem(samples);
  const taken = (k: number): number =>
    search === undefined
      ? (report.tokensPerProblem * k) / n
      : problems.reduce((sum, own) => sum + tokensAfter(own, k), 0) / problems.length;
  let k = 1;
  while (k < n && taken(k + 1) <= tokens) k++;
  const name = search === undefined ? "maj@k" : "vote@r";
  const found = reportOf(report, samples, [k]).measures.find(
    (one) => one.name === name && one.grading === "strict" && one.k === k,
  );
  const single = samples.filter(({ solved }) => solved).length / samples.length;
  return { k, accuracy: found?.value ?? single, tokensPerProblem: taken(k) };
}

import { UserError } from "../errors.ts";
import { NO_ANSWER, type Strategy } from "../grade/index.ts";
import type { Fn } from "../tags/index.ts";
import type { GradingMode, Task } from "../task/types.ts";
import { type Column, estimates95, type Interval, ratio95 } from "./intervals.ts";
import { type Grade, rightFromStart, roundColumns, roundSteps } from "./round-measures.ts";
import type { EvaluationRounds } from "./rounds.ts";
import { byProblem, type EvaluatedSample, responsesOf } from "./samples.ts";
import { rightAfter, searchColumns, type SearchMeasure, tokensAfter, votes } from "./search-measures.ts";
import type { EvaluationSearch } from "./searched.ts";
import { bestOfK, majorityAtK, passAtK } from "./subsets.ts";

/** A number with its 95 % interval. */
export interface Measure extends Interval {
  name:
    | "accuracy" // share of samples that are right, mean over problems
    | "pass@k" // at least one of k samples is right (Chen et al. 2021, unbiased)
    | "maj@k" // the answer that most of k samples give is right
    | "best@k" // of k samples the one with the highest mean log-prob is right
    | "rerank@k" // of k samples that state an answer the one with the reranker's highest score is right
    | "truncated" // share of samples of which a response ended at its length limit
    | "tokens" // generated tokens a problem, all its samples together
    | SearchMeasure // of the first `k` rollouts of a search: their majority's answer, that of a vote by weight, or any is right
    | "tokens@r" // generated tokens a problem of the first `k` rollouts
    | "gain@r" // vote@r less vote@1, problem by problem
    | "slope" // what vote@r gains as the rollouts double: least squares over log2 of the reported r
    // Beside plain samples of the same problems, of which `of` (no whole number) cost the tokens of the first `k` rollouts:
    | "maj@tokens" // their majority's answer is right
    | "vote - maj" // vote@r less that, problem by problem
    // Of questions that were answered in rounds:
    | "round accuracy" // share of samples that are right after that many rounds
    | "right from round 1" // of the samples that are right at the end, the share whose first response was so already
    | "round tokens" // generated tokens of that round, a sample
    | "round steps" // steps of the problem that the round added, of samples that had not ended before
    | "rate" // a rate that the task counts: of all samples together, hits over the times that there could have been one
    | "rounds" // rounds that a sample took
    | "prompt tokens"; // tokens of all prompts of a problem; the first one's, which its samples share, once
  /** Which grade counts as right; absent for `truncated` and `tokens`. */
  grading?: "strict" | "flexible";
  /** Absent where there is no k. */
  k?: number;
  /** Of a rate: what the task calls it, and of how many times it is a share. */
  rate?: string;
  /** Beside plain samples: how many. */
  of?: number;
  /** From 1; of what is measured round by round. */
  round?: number;
  value: number;
  /** Wilson where every problem counts 0 or 1 (or where a share rests on too few problems to resample), else bootstrap over problems. */
  method: "wilson" | "bootstrap";
}

/** The problems that share a tag's value. */
export interface Group {
  /** `level`, `subject`, ... */
  tag: string;
  value: string;
  problems: number;
  /** Accuracy, strict and flexible. */
  measures: Measure[];
}

/** What an evaluation was asked to do; names everything that a number depends on. */
export interface EvaluationSettings {
  /** As it was named on the command line. This and what else may be absent is so where the samples' record is lost. */
  model?: string;
  /** Of a run, the checkpoint that was evaluated. */
  checkpoint?: string;
  task: string;
  split?: string;
  /** The task's prompt: `chat`, `reft`, `chat, 8 shots from examples.jsonl`, ... */
  prompt?: string;
  /** One of the problems' other formats; absent where they were asked as they are. */
  format?: string;
  /** Mode of comparison, `math` by default; `reward` where the task has a reward of its own. */
  mode: GradingMode | "reward";
  /** Extraction strategies in order; empty where the task has a reward of its own. */
  strict: Strategy[];
  flexible: Strategy[];
  n: number;
  temperature?: number;
  /** Samples were drawn from so many of the most probable tokens; absent: from all. */
  topK?: number;
  maxTokens?: number;
  /** Absent where questions were answered without search; else `n` counts rollouts, and `maxTokens` is of a path. */
  search?: EvaluationSearch;
  /** Functions that are never chosen, in a search or in plain samples; absent where there are none. */
  without?: Fn[];
  /** Absent where questions were answered in one go. `maxTokens` is then of each response. */
  rounds?: EvaluationRounds;
  seed?: number;
}

/** An evaluation's result, the same bytes for the same samples and grading. */
export interface EvaluationReport extends EvaluationSettings {
  problems: number;
  samples: number;
  /** Strict, as in `measures`. */
  accuracy: number;
  interval: Interval;
  /** Mean reward. */
  reward: number;
  truncationRate: number;
  /** Generated tokens, mean. */
  tokensPerProblem: number;
  /** Samples whose verdict is `unsure`; they count as not right. */
  unsure: { strict: number; flexible: number };
  /** Samples whose reward threw or passed its deadline; they count as not right. */
  gradeErrors: number;
  measures: Measure[];
  /** By each tag's values, in order; empty where problems have no tags. */
  groups: Group[];
}

/** What a task says of its prompt and its grading. */
export function gradingSettings({
  name,
  prompt,
  grading,
}: Pick<Task, "name" | "prompt" | "grading">): Pick<
  EvaluationSettings,
  "task" | "prompt" | "mode" | "strict" | "flexible"
> {
  const asked = { task: name, prompt };
  if (grading === undefined) return { ...asked, mode: "reward", strict: [], flexible: [] };
  const { mode = "math", strict, flexible = ["auto"] } = grading;
  return { ...asked, mode, strict, flexible };
}

const GRADINGS = ["strict", "flexible"] as const satisfies readonly Grade[];

/** The powers of two up to n, and n. */
export function defaultKs(n: number): number[] {
  const ks = new Set([n]);
  for (let k = 1; k < n; k *= 2) ks.add(k);
  return [...ks].sort((a, b) => a - b);
}

/** Throws a UserError where a k is larger than n. */
export function checkKs(ks: readonly number[], n: number): void {
  const k = Math.max(...ks);
  if (k > n) {
    throw new UserError(
      `--k ${k} needs ${k} samples a problem, there are ${n}: sample more with --n ${k}, or ask for a smaller k`,
    );
  }
}

/** What is computed of each problem: one number by each measure. */
interface ProblemScores {
  samples: EvaluatedSample[];
  right: Record<Grade, boolean[]>;
}

/**
 * The report of an evaluation's samples. The mode of `settings` says how votes are compared; verdicts are those in the samples. A k
 * larger than the smallest number of samples that a problem has is a UserError. `score`: a reranker's, for rerank@k; `beside`: plain samples
 * of the problems that `samples` are a search of.
 */
export function reportOf(
  settings: EvaluationSettings,
  samples: EvaluatedSample[],
  ks?: readonly number[],
  { score, beside }: { score?: (sample: EvaluatedSample) => number | undefined; beside?: EvaluatedSample[] } = {},
): EvaluationReport {
  const grouped = byProblem(samples);
  const problems = grouped.map((group): ProblemScores => ({
    samples: group,
    right: {
      strict: group.map(({ strict }) => strict.verdict === "equal"),
      flexible: group.map(({ flexible }) => flexible?.verdict === "equal"),
    },
  }));
  const n = Math.min(...problems.map((problem) => problem.samples.length));
  const wanted = [...new Set(ks ?? defaultKs(n))].sort((a, b) => a - b);
  checkKs(wanted, n);
  const gradings = GRADINGS.filter(
    (name) => name === "strict" || samples.every(({ flexible }) => flexible !== undefined),
  );
  const count = (holds: (sample: EvaluatedSample) => boolean) => samples.filter(holds).length;
  const measures = estimated([
    ...gradings.map((grading) => accuracy(problems, grading, settings)),
    ...(settings.search !== undefined
      ? searchColumns(grouped, gradings, wanted, settings.mode, beside)
      : n === 1
        ? []
        : gradings.flatMap((grading) => atK(problems, grading, wanted, settings, score))),
    column({ name: "truncated" }, problems, ({ samples }) =>
      mean(samples.map((sample) => responsesOf(sample).some(({ stop }) => stop === "length"))),
    ),
    tokensOf(problems),
    ...roundColumns(grouped, gradings),
  ]);
  // Of some of the problems: with resamples of their own.
  const ofSome = [...rightFromStart(grouped, gradings), ...roundSteps(grouped)];
  measures.push(...ofSome.flatMap((one) => estimated([one])));
  measures.push(...ratesOf(grouped));
  const value = (name: Measure["name"]) => measures.find((found) => found.name === name)?.value ?? 0;
  const { low, high } = measures[0];
  return {
    ...settings,
    problems: problems.length,
    samples: samples.length,
    accuracy: value("accuracy"),
    interval: { low, high },
    reward: samples.reduce((sum, { reward }) => sum + reward, 0) / samples.length,
    truncationRate: value("truncated"),
    tokensPerProblem: value("tokens"),
    unsure: {
      strict: count(({ strict }) => strict.verdict === "unsure"),
      flexible: count(({ flexible }) => flexible?.verdict === "unsure"),
    },
    gradeErrors: count(({ error }) => error !== undefined),
    measures,
    groups: groupsOf(problems, gradings, settings),
  };
}

/** The rates that the task counts, in the order in which they occur first. */
function ratesOf(problems: EvaluatedSample[][]): Measure[] {
  const names = [...new Set(problems.flat().flatMap(({ rates = {} }) => Object.keys(rates)))];
  return names.flatMap((rate): Measure[] => {
    const counts = problems.map((samples) =>
      samples.reduce(
        ({ hits, of }, { rates }) => ({ hits: hits + (rates?.[rate]?.hits ?? 0), of: of + (rates?.[rate]?.of ?? 0) }),
        { hits: 0, of: 0 },
      ),
    );
    const estimate = ratio95(counts);
    return estimate === undefined
      ? []
      : [{ name: "rate", rate, of: counts.reduce((sum, { of }) => sum + of, 0), ...estimate }];
  });
}

/** A measure before its interval: one number a problem. */
type MeasureColumn = Column & Pick<Measure, "name" | "grading" | "k" | "round" | "of">;

function column(
  about: Pick<Measure, "name" | "grading" | "k" | "round">,
  problems: ProblemScores[],
  score: (problem: ProblemScores, index: number) => number,
): MeasureColumn {
  return { ...about, values: problems.map(score), share: true };
}

/** All in one call, so that they share their resamples. */
function estimated(columns: MeasureColumn[]): Measure[] {
  const estimates = estimates95(columns);
  return columns.map((one, i) => {
    const { values: _, share: __, ...about } = one;
    return { ...about, ...estimates[i] };
  });
}

const mean = (right: boolean[]): number => right.filter(Boolean).length / right.length;

/** Of a search, of the answer that its vote chooses. */
function accuracy(
  problems: ProblemScores[],
  grading: Grade,
  { search, mode }: Pick<EvaluationSettings, "search" | "mode">,
): MeasureColumn {
  if (search !== undefined && mode !== "reward") {
    return column({ name: "accuracy", grading }, problems, ({ samples }) =>
      Number(rightAfter("vote@r", samples, samples.length, mode, grading)),
    );
  }
  return column({ name: "accuracy", grading }, problems, ({ right }) => mean(right[grading]));
}

function tokensOf(problems: ProblemScores[]): MeasureColumn {
  const count = ({ samples }: ProblemScores) => tokensAfter(samples, samples.length);
  return { name: "tokens", values: problems.map(count), share: false };
}

function atK(
  problems: ProblemScores[],
  grading: Grade,
  ks: number[],
  { mode }: EvaluationSettings,
  score?: (sample: EvaluatedSample) => number | undefined,
): MeasureColumn[] {
  // A task with a reward of its own extracts no answers that could be voted on.
  const clusters = mode === "reward" ? [] : problems.map(({ samples }) => votes(samples, grading, mode));
  const passed = ks.map((k) =>
    column({ name: "pass@k", grading, k }, problems, ({ right }) =>
      passAtK(right[grading].length, right[grading].filter(Boolean).length, k),
    ),
  );
  // Of one sample nothing is chosen: maj@1 and best@1 are pass@1.
  const several = ks.filter((k) => k > 1);
  const majority = (mode === "reward" ? [] : several).map((k) =>
    column({ name: "maj@k", grading, k }, problems, ({ right }, index) =>
      majorityAtK(clusters[index], right[grading], k),
    ),
  );
  const best = several.map((k) =>
    column({ name: "best@k", grading, k }, problems, ({ samples, right }) =>
      bestOfK(samples.map(meanLogprob), right[grading].map(Number), k),
    ),
  );
  if (score === undefined) return [...passed, ...majority, ...best];
  const reranked = several.map((k) =>
    column({ name: "rerank@k", grading, k }, problems, ({ samples, right }) =>
      bestOfK(
        samples.map((sample) => (sample[grading]?.rule === NO_ANSWER ? undefined : score(sample))),
        right[grading].map(Number),
        k,
      ),
    ),
  );
  return [...passed, ...majority, ...best, ...reranked];
}

/** The mean log-prob of a sample's tokens, the score of best@k. */
function meanLogprob(sample: EvaluatedSample): number | undefined {
  const logprobs = responsesOf(sample).flatMap((response) => response.logprobs);
  return logprobs.length === 0 ? undefined : logprobs.reduce((sum, logprob) => sum + logprob, 0) / logprobs.length;
}

function groupsOf(problems: ProblemScores[], gradings: Grade[], settings: EvaluationSettings): Group[] {
  const byTag = new Map<string, Map<string, ProblemScores[]>>();
  for (const problem of problems) {
    for (const [tag, value] of Object.entries(problem.samples[0].tags ?? {})) {
      const values = byTag.get(tag) ?? new Map<string, ProblemScores[]>();
      const members = values.get(value) ?? [];
      members.push(problem);
      values.set(value, members);
      byTag.set(tag, values);
    }
  }
  const inOrder = new Intl.Collator("en", { numeric: true });
  return [...byTag].flatMap(([tag, values]) =>
    [...values]
      .sort(([a], [b]) => inOrder.compare(a, b))
      .map(([value, members]) => ({
        tag,
        value,
        problems: members.length,
        measures: estimated(gradings.map((grading) => accuracy(members, grading, settings))),
      })),
  );
}

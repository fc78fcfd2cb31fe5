import type { Interval } from "./intervals.ts";

/** A number with its 95 % interval. */
export interface Measure extends Interval {
  name:
    | "accuracy" // share of samples that are right, mean over problems
    | "pass@k" // at least one of k samples is right (Chen et al. 2021, unbiased)
    | "maj@k" // the answer that most of k samples give is right
    | "best@k" // of k samples the one with the highest mean log-prob is right
    | "truncated" // share of samples that ended at their length limit
    | "tokens"; // generated tokens a problem, all its samples together
  /** Which grade counts as right; absent for `truncated` and `tokens`. */
  grading?: "strict" | "flexible";
  /** Absent where there is no k. */
  k?: number;
  value: number;
  /** Wilson for a proportion of problems, else bootstrap over problems. */
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
  /** As it was named on the command line. */
  model: string;
  task: string;
  split: string;
  /** The task's prompt: `chat`, `reft`, `8-shot from examples.jsonl`, ... */
  prompt: string;
  /** Mode of comparison, `math` by default; `reward` where the task has a reward of its own. */
  mode: string;
  /** Extraction strategies in order. */
  strict: string[];
  flexible: string[];
  n: number;
  temperature: number;
  maxTokens: number;
  seed: number;
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

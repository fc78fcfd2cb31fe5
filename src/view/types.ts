import type { AnswerGrade } from "../eval/samples.ts";

/** What the page's script reads: the shape of the data that the page embeds. Row columns are in `columns.ts`. */
export interface ViewHead {
  kind: "run" | "evaluation" | "comparison";
  /** Lines of metrics.jsonl in their order. `values[i]` belongs to line i; null where the line has no such number. */
  lines: { stage: string[]; step: number[] };
  metrics: { name: string; values: (number | null)[] }[];
  alarms: ViewAlarm[];
  points: ViewPoint[];
  /** Steps that have samples. */
  places: { stage: string; step: number; samples: number }[];
  problems: ViewProblem[];
  /** Names of the numbers a token, such as `logprobs` and `advantages`. */
  series: string[];
  /** Token ids and the text that each stands for, of each side. */
  pieces: [number[], string[]][];
  /** Names of the sides that are compared. */
  sides: string[];
  blocks: number;
  samples: number;
}

export interface ViewAlarm {
  /** Index into `lines`. */
  line: number;
  kind: string;
  metric: string;
  value: number;
  text: string;
}

/** An evaluation inside the run. */
export interface ViewPoint {
  /** Name of its curve: `dev accuracy`. */
  name: string;
  /** Lines of `lines` that stand before it. */
  at: number;
  stage: string;
  step: number;
  value: number;
  low: number;
  high: number;
  problems: number;
  correct: number;
}

export interface ViewProblem {
  id: string;
  question?: string;
  gold?: string;
  options?: string[];
  tags?: Record<string, string>;
  /** The question with formulas as MathML, where it has some. */
  html?: string;
}

/** One tree of tokens as a block of texts holds it. */
export interface ViewTree {
  id: string;
  group?: string;
  cause?: { tree: string; segment: number };
  segments: ViewSegment[];
}

export interface ViewSegment {
  parent: number;
  source: string;
  text: string;
  /** The text with formulas as MathML, where it has some. */
  html?: string;
  /** Tokens, and where they begin in the block's `ids`. */
  tokens: number;
  at: number;
  /** The text of each token, where the table of pieces would not give this text. Empty where the next one completes a character. */
  pieces?: string[];
  /** Numbers a token: where each series begins in the block's `values`. */
  series: Record<string, number>;
  temperature?: number;
  stop?: string;
  /** Numbers that JSON has none for are strings. */
  outcome?: Record<string, number | string>;
  strict?: AnswerGrade;
  flexible?: AnswerGrade;
  error?: string;
  side?: number;
}

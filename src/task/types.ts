import type { ModeName, Strategy } from "../grade/index.ts";
import type { Message } from "../model/types.ts";

/** What the policy is asked. */
export type Prompt = (
  | { messages: Message[] } // rendered by the model's chat template
  | { text: string }
) & {
  /** The untrained beginning of the response. */
  prefill?: string;
};

/** A question as it is asked, with the responses that SFT imitates. */
export interface AskedQuestion {
  prompt: Prompt;
  /** SFT's targets: whole responses (without the prefill). */
  demonstrations?: string[];
  /** For each demonstration the spans, in characters [start, end), that are context only: read, and out of SFT's loss. */
  masks?: (readonly [start: number, end: number])[][];
}

export interface Problem extends AskedQuestion {
  /** Unique in its task. */
  id: string;
  /** The same question asked in other formats, by their names; its answer is graded alike. */
  formats?: Record<string, AskedQuestion>;
  /** The gold: what the reward compares with. */
  answer?: string;
  /** The question by itself, without instructions and examples, where the prompt holds more. */
  question?: string;
  /** Texts of a multiple-choice question's options, A first; `answer` is a letter. */
  options?: string[];
  /** Absolute difference that numbers may have, where the data set grants one. */
  tolerance?: number;
  /** What groups of problems share, such as `level` and `subject`; evaluation reports by each. */
  tags?: Record<string, string>;
  /** Anything else that the reward reads. */
  data?: Record<string, unknown>;
}

/** Problems by number, so that a run's data cursor is an integer; a generator may have no end (`size` Infinity). */
export interface ProblemSource {
  readonly size: number;
  at(index: number): Problem;
}

export type Split = "train" | "dev" | "test";

/** A reward: one number, or named parts that are summed with the task's weights (1 when absent). */
export type Reward = number | Record<string, number>;

/**
 * How answers are compared: `math` by what they mean; `exact` as texts, in which letter case counts and blanks are one; or a published
 * grader by name, which also finds the answer in its own way.
 */
export type GradingMode = "math" | "exact" | ModeName;

/** How a response is compared with the gold: in the reward (the strict verdict) and in evaluation. */
export interface Grading {
  /** How answers are compared; `math` when absent. */
  mode?: GradingMode;
  /** Where the prompt asks for the answer: the strategies of extraction in order. */
  strict: Strategy[];
  /** Wherever else an answer may stand; every strategy in the documented order (`auto`) when absent. */
  flexible?: Strategy[];
}

/** That responses are Python programs whose `solution()` gives the answer, and how they are run; docs/sandbox.md. */
export interface ProgramSettings {
  /** What is compared: the result as a number, or its text. */
  answer: "number" | "text";
  /** Where the program stands: `reft`, at the beginning and up to the first blank line; `plain`, in the last fenced block, or all of it. */
  style: "reft" | "plain";
  /** Seconds that a program may take; 2 when absent. */
  seconds?: number;
  /** Megabytes of the interpreter; 256 when absent. */
  memory?: number;
  /** Processes; as many as the machine runs threads, at most 4, when absent. */
  workers?: number;
  /** A folder of wheels of sympy and mpmath. */
  wheels?: string;
}

/** What the program of a response came to: its answer, or why there is none. */
export interface ProgramResult {
  answer?: string;
  failure?: string;
}

/** A round of a demonstration: what it is asked, and the whole response. */
export interface RoundDemonstration {
  prompt: Prompt;
  response: string;
}

/** How a task words the rounds of a question, where the usual chat does not do. Rounds count from 1. */
export interface RoundsDefinition {
  /** Most rounds that it can word. */
  most?: number;
  /** What a round is asked; `progress` is that of the round before. */
  prompt(problem: Problem, round: number, rounds: number, progress?: string): Prompt;
  /** What a response hands on; undefined where it has none to hand on. */
  progress(response: string): string | undefined;
  /** Whether a response states the final answer. */
  final(response: string): boolean;
  /** How many of the problem's steps are done by what a response states; undefined where it states none. For the report of each round's steps. */
  done?(problem: Problem, response: string): number | undefined;
  /** A demonstration of every round, for supervised fine-tuning. */
  demonstrate?(problem: Problem, rounds: number): RoundDemonstration[];
}

/** How often something happened of the times that it could. */
export interface Rate {
  hits: number;
  of: number;
}

/** What a task's author writes. */
export interface TaskDefinition {
  name: string;
  /** Splits by name; a function is called at most once. */
  splits: Partial<Record<Split, Problem[] | ProblemSource | (() => Promise<Problem[] | ProblemSource>)>>;
  /** Needed where there is no `grading`; without it the reward is 1 where the strict verdict is equal, else 0. */
  reward?(problem: Problem, response: string): Reward | Promise<Reward>;
  grading?: Grading;
  /** Responses are programs; their results are graded. Needs `grading`. */
  programs?: ProgramSettings;
  /** The prompt's name, for reports; `own` when absent. */
  prompt?: string;
  /** Weights of named reward parts. */
  weights?: Record<string, number>;
  /** Seconds that one reward may take; 10 when absent. */
  deadline?: number;
  /** Strings that end a response. */
  stop?: string[];
  /** All strings that prompts and responses are made of: the vocabulary of a model made from scratch ("tiny"). */
  vocabulary?: string[];
  /** Called in the run's own thread, as prompts are made: no deadline guards it. */
  rounds?: RoundsDefinition;
  /**
   * What evaluation reports of a response beside its grade, by name: how often something that can happen several times in it did happen. Called in the
   * run's own thread.
   */
  rates?(problem: Problem, response: string): Record<string, Rate>;
}

/** A graded response. */
export interface Grade {
  /** The weighted sum of the parts; 0 where grading failed. */
  reward: number;
  parts: Record<string, number>;
  /** Whether there was an answer, right or wrong; absent where the task has a reward of its own, or grading failed. */
  answered?: boolean;
  /** Set where the reward threw or passed its deadline: problem, response and reason in one line. */
  error?: string;
  /** Of a response that is a program. */
  program?: ProgramResult;
}

/** A task ready for use: its problems read, its reward behind a deadline. */
export interface Task {
  readonly name: string;
  readonly stop: string[];
  /** The prompt's name, for reports. */
  readonly prompt: string;
  /** Absent where only the task's own reward says what is right. */
  readonly grading?: Grading;
  /** Whether responses are programs. */
  readonly programs: boolean;
  /** The words of a tiny model's tokenizer, where the task knows them all. */
  readonly vocabulary?: string[];
  readonly splits: readonly Split[];
  readonly rounds?: RoundsDefinition;
  readonly rates?: TaskDefinition["rates"];
  /** Throws a UserError when the task has no such split, naming those it has. */
  problems(split: Split): Promise<ProblemSource>;
  grade(items: { problem: Problem; response: string }[]): Promise<Grade[]>;
  close(): Promise<void>;
}

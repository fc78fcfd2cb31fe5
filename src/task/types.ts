import type { Message } from "../model/types.ts";

/** What the policy is asked. */
export type Prompt = (
  | { messages: Message[] } // rendered by the model's chat template
  | { text: string }
) & {
  /** The untrained beginning of the response. */
  prefill?: string;
};

export interface Problem {
  /** Unique in its task. */
  id: string;
  prompt: Prompt;
  /** SFT's targets: whole responses (without the prefill). */
  demonstrations?: string[];
  /** What the reward compares with. */
  answer?: string;
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

/** What a task's author writes. */
export interface TaskDefinition {
  name: string;
  /** Splits by name; a function is called at most once. */
  splits: Partial<Record<Split, Problem[] | ProblemSource | (() => Promise<Problem[] | ProblemSource>)>>;
  reward(problem: Problem, response: string): Reward | Promise<Reward>;
  /** Weights of named reward parts. */
  weights?: Record<string, number>;
  /** Seconds that one reward may take; 10 when absent. */
  deadline?: number;
  /** Strings that end a response. */
  stop?: string[];
  /** All strings that prompts and responses are made of: the vocabulary of a model made from scratch ("tiny"). */
  vocabulary?: string[];
}

/** A graded response. */
export interface Grade {
  /** The weighted sum of the parts; 0 where grading failed. */
  reward: number;
  parts: Record<string, number>;
  /** Set where the reward threw or passed its deadline: problem, response and reason in one line. */
  error?: string;
}

/** A task ready for use: its problems read, its reward behind a deadline. */
export interface Task {
  readonly name: string;
  readonly stop: string[];
  /** The words of a tiny model's tokenizer, where the task knows them all. */
  readonly vocabulary?: string[];
  /** Throws a UserError when the task has no such split, naming those it has. */
  problems(split: Split): Promise<ProblemSource>;
  grade(items: { problem: Problem; response: string }[]): Promise<Grade[]>;
  close(): Promise<void>;
}

import type { Model, Policy } from "../engine/types.ts";
import type { Forest } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";
import type { Grade, Problem, ProblemSource, Task } from "../task/types.ts";

/**
 * What a method sees of the run it is a stage of. A method is a function of (stage, its settings) whose loop is
 * `for await (const step of stage.steps()) { ... }`; when the body has finished, the run writes the step's metrics and samples and,
 * where one is due, a checkpoint. A resumed stage yields the steps that are left.
 */
export interface Stage {
  /** Unique in the run, such as "2-grpo". */
  readonly name: string;
  readonly seed: number;
  readonly model: Model;
  /** The second model, where the method asks for one. */
  readonly critic?: Model;
  readonly tokenizer: Tokenizer;
  readonly task: Task;
  /** The weights with which the stage began, frozen; the same in a resumed stage. Asked for before the first step, if at all. */
  startPolicy(): Promise<Policy>;
  /** Numbers that a method carries from one step to the next. Empty when the stage begins; a checkpoint holds them. */
  readonly memory: Record<string, number>;
  steps(): AsyncIterable<Step>;
}

/** A sample that was stored with its verdict. */
export interface StoredSample {
  problem: string;
  text: string;
  /** As they were sampled, with the one that ended them. */
  tokens: Int32Array;
  solved: boolean;
  /** Whether it states an answer. */
  answered: boolean;
}

/** A line of a file of records, not yet checked, and where it stands. */
export interface RecordLine {
  place: string;
  value: unknown;
}

/** A response to be graded. */
export interface GradedItem {
  problem: Problem;
  response: string;
  /** Names its verdict, with `turn`, among those of the step's responses to this problem; absent: its position. */
  sample?: number;
  /** Of an answer that takes several: a round, from 1. */
  turn?: number;
}

/** What a method sees that chooses by itself what it trains on. */
export interface DataStage extends Stage {
  /** The problems that the stage trains on. */
  readonly source: ProblemSource;
  /** Grades demonstrations, by their number in their problem, once in the stage: the verdicts belong to no step. */
  gradeDemonstrations(items: { problem: Problem; demonstration: number }[]): Promise<Grade[]>;
  /**
   * Steps that only sample, before those that train: one pass over the problems in the stage's order, `problems` a step, which ends
   * early once the stage has generated `generatedTokens`. They count in a budget of tokens or seconds, not in one of steps or epochs.
   */
  sampling(pass: { problems: number; generatedTokens?: number }): AsyncIterable<Step>;
  /** What these steps kept, a forest each, as it was written; undefined where the run was interrupted before the pass was over. */
  sampled(): Iterable<Forest> | undefined;
  /** Reads a file of samples that `rifft eval` wrote, one response each. Relative paths are the recipe's. */
  storedSamples(file: string): StoredSample[];
  /** Whether the stage has used up its budget; false after a loop over its steps that an interrupt ended. */
  readonly over: boolean;
  /** Writes records of this stage, one a line, durably; the same name overwrites. */
  storeRecords(name: string, records: readonly object[]): void;
  /** Writes what came of the questions of the whole stage beside its records. */
  storeYield(counts: Record<string, number>): void;
  /** Records of an earlier stage by its name, or of a file or folder; relative paths are the recipe's. */
  records(from: string): RecordLine[];
  /** What the steps of this stage logged so far. */
  logged(): Record<string, number>[];
  /** The questions of the task's dev and test splits, and those of data files; relative paths are the recipe's. */
  evaluatedQuestions(files: readonly string[]): Promise<Problem[]>;
  /** Says something in the progress view and in the run's log. */
  note(text: string): void;
  /** Between sampling and training: takes the model back to the base, as a stage begins from it. */
  restart(): Promise<void>;
  /** Steps on so many items of the method's own, which make an epoch. */
  stepsOver(items: number): AsyncIterable<DrawingStep>;
}

export interface DrawingStep extends Step {
  /** The next `count` items, as indices. Order: a permutation for each epoch, drawn from the seed. */
  draw(count: number): number[];
}

export interface Step {
  /** From 0, in the stage. */
  readonly index: number;
  /** The next `count` training problems. Order: a permutation of the split for each epoch, drawn from the seed. */
  problems(count: number): Problem[];
  /** The learning rate after warm-up and decay. */
  lr(): number;
  /** Names the random stream of what is sampled for a problem in this step. */
  key(problem: Problem): string;
  /** Grades responses through the run's journal of verdicts. */
  grade(items: GradedItem[]): Promise<Grade[]>;
  /** Numbers for metrics.jsonl and the progress view. Later calls add to earlier ones. */
  log(metrics: Record<string, number>): void;
  /** Samples for rollouts/. */
  keep(forest: Forest): void;
  /** Counts tokens as generated that stand in samples although no model drew them, such as the functions that a search chose. */
  countGenerated(tokens: number): void;
  /** Time spent sampling and training, for timings.jsonl: `await step.time("sample", () => ...)`. What is timed inside of it counts there alone. */
  time<T>(what: "sample" | "grade" | "score" | "train", work: () => Promise<T>): Promise<T>;
}

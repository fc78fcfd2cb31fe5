import type { Model, Sample } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { Tokenizer } from "../model/types.ts";
import { responseRoom } from "../rollout/single.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { Grade, Problem, Split, Task } from "../task/types.ts";
import { type Interval, wilson95 } from "./intervals.ts";
import { solved } from "../task/solved.ts";

export interface EvaluateOptions {
  model: Model;
  tokenizer: Tokenizer;
  task: Task;
  split: Split;
  /** Problems, from the split's first; all when absent. */
  limit?: number;
  maxTokens: number;
  /** 0: arg max. */
  temperature: number;
  /** Samples a problem. */
  n?: number;
  /** Names the random streams of sampling. */
  seed?: number;
  /** Called for each graded sample, in the order of problems and samples, as soon as those before it are graded. */
  onSample?: (sample: EvaluatedSample, done: number, total: number) => void;
}

/** One line of a samples file. */
export interface EvaluatedSample {
  problem: string;
  /** From 0, within the problem. */
  sample: number;
  text: string;
  tokens: number[];
  /** Natural log, at the sampling temperature (1 where that is 0). */
  logprobs: number[];
  stop: Sample["stop"];
  reward: number;
  parts: Record<string, number>;
  solved: boolean;
  error?: string;
}

export interface Evaluation {
  /** Share of samples that solve their problem. */
  accuracy: number;
  /** Wilson's 95 % interval of the accuracy over problems; samples of one problem count as one trial, their mean. */
  interval: Interval;
  problems: number;
  samples: number;
  reward: number;
  /** Share of samples that ended at their length limit. */
  truncationRate: number;
  /** Generated tokens, mean. */
  tokensPerProblem: number;
  /** Samples whose reward threw or passed its deadline; they count as unsolved. */
  gradeErrors: number;
}

/** Samples answers to a split's problems and grades them. A UserError when the split is endless and there is no limit. */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { model, tokenizer, task, n = 1 } = options;
  const problems = await takeProblems(task, options.split, options.limit);
  const total = problems.length * n;
  const requests = problems.map((problem) => {
    const prefix = encodePrompt(tokenizer, problem);
    return {
      prefix,
      n,
      maxTokens: responseRoom(problem.id, prefix, model.info.maxContext, options.maxTokens),
      temperature: options.temperature,
      stop: task.stop,
      key: `eval/${options.seed ?? 0}/${problem.id}`,
    };
  });

  // Grading runs beside sampling; what waits for an earlier sample is held back so that the order never depends on speed.
  const graded: EvaluatedSample[] = [];
  let handedOn = 0;
  const record = (index: number, sample: Sample, [grade]: Grade[]) => {
    graded[index] = evaluatedSample(problems[Math.floor(index / n)], index % n, sample, grade);
    for (; graded[handedOn] !== undefined; handedOn++) options.onSample?.(graded[handedOn], handedOn + 1, total);
  };
  const grading: Promise<void>[] = [];
  await model.sample(requests, (sample, request, i) => {
    const grade = task.grade([{ problem: problems[request], response: sample.text }]);
    const recorded = grade.then((grades) => record(request * n + i, sample, grades));
    // Awaited below; a failure before then must not pass for one that nobody handles.
    recorded.catch(() => undefined);
    grading.push(recorded);
  });
  await Promise.all(grading);
  return summary(graded, problems.length);
}

async function takeProblems(task: Task, split: Split, limit?: number): Promise<Problem[]> {
  const source = await task.problems(split);
  const count = Math.min(source.size, limit ?? Infinity);
  if (!Number.isFinite(count)) {
    throw new UserError(`task ${task.name}: its ${split} split is endless: give a limit, the number of problems`);
  }
  if (count === 0) throw new UserError(`task ${task.name}: its ${split} split holds no problem to evaluate on`);
  return Array.from({ length: count }, (_, i) => source.at(i));
}

function evaluatedSample(problem: Problem, index: number, sample: Sample, grade: Grade): EvaluatedSample {
  const { text, tokens, logprobs, stop } = sample;
  return {
    problem: problem.id,
    sample: index,
    text,
    tokens: Array.from(tokens),
    logprobs: Array.from(logprobs),
    stop,
    ...grade,
    solved: grade.error === undefined && solved(grade),
  };
}

function summary(samples: EvaluatedSample[], problems: number): Evaluation {
  const mean = (number: (sample: EvaluatedSample) => number) =>
    samples.reduce((sum, sample) => sum + number(sample), 0) / samples.length;
  const accuracy = mean((sample) => Number(sample.solved));
  return {
    accuracy,
    interval: wilson95(accuracy * problems, problems),
    problems,
    samples: samples.length,
    reward: mean((sample) => sample.reward),
    truncationRate: mean((sample) => Number(sample.stop === "length")),
    tokensPerProblem: mean((sample) => sample.tokens.length) * (samples.length / problems),
    gradeErrors: samples.filter((sample) => sample.error !== undefined).length,
  };
}

import { z } from "zod";
import type { Model, Sample } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { answerInRounds, type RoundResponse, type RoundsSettings } from "../rollout/rounds.ts";
import { isFinal, ROUND_STYLES } from "../task/rounds.ts";
import type { Problem, Task } from "../task/types.ts";
import { gradeSample, problemFields } from "./regrade.ts";
import type { EarlierRound, EvaluatedSample } from "./samples.ts";

/** Keys by which a recipe or an experiment asks for an evaluation in rounds; all but `rounds` need `rounds` beside them. */
export const roundOptions = {
  /** Rounds a question; absent: questions are answered in one go, by the task's own prompt. */
  rounds: z.int().positive().optional(),
  /** A response that states its final answer ends the question. */
  adaptive: z.boolean().optional(),
  /** How rounds are worded, where the task does not say. */
  style: z.enum(ROUND_STYLES).optional(),
  /** Tokens of progress that are handed on at most. */
  progressTokens: z.int().positive().optional(),
};

/** How an evaluation asks in rounds. */
export type EvaluationRounds = Omit<RoundsSettings, "maxTokens">;

interface RoundOptions {
  /** One of the problems' other formats. */
  format?: string;
  rounds?: number;
  adaptive?: boolean;
  style?: EvaluationRounds["style"];
  progressTokens?: number;
}

/** Undefined where no rounds are asked for. Throws a UserError for options that would then do nothing; `name` writes an option as the user does. */
export function evaluationRounds(options: RoundOptions, name: (key: string) => string): EvaluationRounds | undefined {
  const { rounds, adaptive = false, style = "default", progressTokens } = options;
  if (rounds !== undefined && options.format !== undefined) {
    throw new UserError(
      `${name("format")}: rounds have a prompt of their own, so that a format counts for nothing beside ${name("rounds")}; leave one of the two out`,
    );
  }
  if (rounds !== undefined) return { rounds, adaptive, style, ...(progressTokens !== undefined && { progressTokens }) };
  const alone = (["adaptive", "style", "progressTokens"] as const).find((key) => options[key] !== undefined);
  if (alone === undefined) return undefined;
  throw new UserError(`${name(alone)} needs ${name("rounds")}, the number of rounds`);
}

/** What `evaluate` hands on. */
export interface RoundedOptions {
  model: Model;
  task: Task;
  maxTokens: number;
  temperature: number;
  topK?: number;
  n?: number;
  seed?: number;
  onSample?: (sample: EvaluatedSample) => void;
}

/** Answers problems in rounds, one batched call a round, and grades every response as if it were the last. Samples in the order of `evaluate`. */
export async function evaluateInRounds(
  problems: Problem[],
  rounds: EvaluationRounds,
  { model, task, maxTokens, n = 1, temperature, topK = 0, seed = 0, onSample }: RoundedOptions,
): Promise<EvaluatedSample[]> {
  const answered = await answerInRounds(model, task, problems, n, {
    ...rounds,
    maxTokens,
    temperature,
    topP: 1,
    topK,
    stop: task.stop,
    key: ({ id }) => `eval/${seed}/${id}`,
  });
  const samples: EvaluatedSample[] = [];
  for (const { problem, sample: index, responses } of answered) {
    const sample = await gradedSample(task, problem, index, responses);
    samples.push(sample);
    onSample?.(sample);
  }
  return samples;
}

async function gradedSample(
  task: Task,
  problem: Problem,
  index: number,
  responses: RoundResponse[],
): Promise<EvaluatedSample> {
  const earlier: EarlierRound[] = [];
  const added = stepsAdded(task, problem, responses);
  for (const [r, response] of responses.slice(0, -1).entries()) {
    const { strict, flexible } = await gradeSample(task, problem, response.sample.text);
    earlier.push({ ...recorded(response), ...added[r], strict, ...(flexible !== undefined && { flexible }) });
  }
  const last = responses[responses.length - 1];
  return {
    problem: problem.id,
    sample: index,
    ...problemFields(problem),
    rounds: earlier,
    ...recorded(last),
    ...added[responses.length - 1],
    ...(await gradeSample(task, problem, last.sample.text)),
  };
}

/** What each round added to the steps that are done; a response that states none leaves them as they were. Nothing after a final answer. */
function stepsAdded(task: Task, problem: Problem, responses: RoundResponse[]): { added?: number }[] {
  const { rounds } = task;
  if (rounds?.done === undefined) return responses.map(() => ({}));
  let before = 0;
  let ended = false;
  return responses.map(({ sample: { text } }) => {
    if (ended) return {};
    const after = rounds.done?.(problem, text) ?? before;
    const added = after - before;
    before = after;
    ended = isFinal(task, text);
    return { added };
  });
}

function recorded({
  prompt,
  progress,
  sample,
}: RoundResponse): Pick<EarlierRound, "prompt" | "progress" | keyof Recorded> {
  const { text, tokens, logprobs, stop }: Sample = sample;
  return {
    prompt,
    ...(progress !== undefined && { progress }),
    text,
    tokens: Array.from(tokens),
    logprobs: Array.from(logprobs),
    stop,
  };
}

type Recorded = Pick<EvaluatedSample, "text" | "tokens" | "logprobs" | "stop">;

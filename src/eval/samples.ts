import { readFileSync } from "node:fs";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { parseStrict } from "../strict.ts";
import type { ProgramResult, Rate } from "../task/types.ts";
import type { SearchedSample } from "./searched.ts";

/** How one answer of a response fared against the gold. */
export interface AnswerGrade {
  /** The answer that was extracted; absent where the strategies found none. */
  answer?: string;
  /** The strategy that found it. */
  strategy?: string;
  /** `unsure` counts as not equal. */
  verdict: "equal" | "different" | "unsure";
  /** The rule that decided. */
  rule: string;
  reason: string;
}

/** A response and how it fares as an answer. */
interface GradedResponse {
  text: string;
  tokens: number[];
  /** Natural log, at the sampling temperature (1 where that is 0). */
  logprobs: number[];
  stop: "eos" | "stop" | "length";
  /** Of a round: steps of the problem that it did, where the task counts them; absent where the question had ended before. */
  added?: number;
  /** In the format that the prompt asks for. Of a task with a reward of its own: whether that counts as right. */
  strict: AnswerGrade;
  /** By every strategy in the documented order; absent where the task has a reward of its own and no gold. */
  flexible?: AnswerGrade;
}

/** A response of a round before the last. */
export interface EarlierRound extends GradedResponse {
  /** Tokens of what the round was asked. */
  prompt: number;
  /** What it was handed of the round before; absent where that was nothing. */
  progress?: string;
}

/** One line of a samples file: a response, of several rounds the last one's. It stands for itself: grading it again needs neither model nor data set. */
export interface EvaluatedSample extends GradedResponse {
  /** The problem's id. */
  problem: string;
  /** From 0, within the problem. */
  sample: number;
  /** The last message of the prompt, or its text. */
  question?: string;
  gold?: string;
  /** Texts of a multiple-choice question's options, A first. */
  options?: string[];
  /** Where the data set grants one. */
  tolerance?: number;
  /** What groups of problems share, such as `level` and `subject`. */
  tags?: Record<string, string>;
  /** Of a question that was answered in rounds: the rounds before the last, whose response follows with what it was asked. */
  rounds?: EarlierRound[];
  prompt?: number;
  progress?: string;
  reward: number;
  parts: Record<string, number>;
  /** `strict.verdict` is `equal`. */
  solved: boolean;
  /** Why grading failed: the reward threw or passed its deadline. */
  error?: string;
  /** Of a response that is a program: what it came to. */
  program?: ProgramResult;
  /** What the task counts of a response beside its grade; of several rounds of the last one's. */
  rates?: Record<string, Rate>;
  /** Of a rollout of a search. */
  search?: SearchedSample;
}

const answerGradeSchema = z.strictObject({
  answer: z.string().optional(),
  strategy: z.string().optional(),
  verdict: z.enum(["equal", "different", "unsure"]),
  rule: z.string(),
  reason: z.string(),
});

const response = {
  prompt: z.int().positive(),
  progress: z.string().optional(),
  text: z.string(),
  tokens: z.array(z.int().nonnegative()),
  logprobs: z.array(z.number()),
  stop: z.enum(["eos", "stop", "length"]),
  added: z.number().optional(),
  strict: answerGradeSchema,
  flexible: answerGradeSchema.optional(),
};

export const programResultSchema: z.ZodType<ProgramResult> = z.strictObject({
  answer: z.string().optional(),
  failure: z.string().optional(),
});

/** How often something happened of the times that it could. */
export const rateSchema: z.ZodType<Rate> = z
  .strictObject({ hits: z.int().nonnegative(), of: z.int().nonnegative() })
  .refine(({ hits, of }) => hits <= of, "expected no more hits than times");

export const evaluatedSampleSchema: z.ZodType<EvaluatedSample> = z.strictObject({
  problem: z.string().min(1),
  sample: z.int().nonnegative(),
  question: z.string().optional(),
  gold: z.string().optional(),
  options: z.array(z.string()).optional(),
  tolerance: z.number().positive().optional(),
  tags: z.record(z.string(), z.string()).optional(),
  rounds: z.array(z.strictObject(response)).optional(),
  ...response,
  prompt: response.prompt.optional(),
  reward: z.number(),
  parts: z.record(z.string(), z.number()),
  solved: z.boolean(),
  error: z.string().optional(),
  program: programResultSchema.optional(),
  rates: z.record(z.string(), rateSchema).optional(),
  search: z
    .strictObject({ node: z.int(), end: z.string(), weight: z.number(), fresh: z.int().nonnegative() })
    .optional(),
});

/** A samples file as far as it was written. */
export interface SamplesRead {
  samples: EvaluatedSample[];
  /** Where each sample's line ends, in bytes from the file's start. */
  ends: number[];
  /** Whether a last line was cut off. */
  cut: boolean;
}

/**
 * The samples of a file. A last line without an end was cut off, unless it is whole all the same. Throws a UserError that names file
 * and line where a line is no sample, and where two lines are the same sample of the same problem.
 */
export function readSamples(path: string): SamplesRead {
  const bytes = readBytes(path);
  const samples: EvaluatedSample[] = [];
  const ends: number[] = [];
  const places = new Map<string, number>();
  for (let start = 0; start < bytes.length;) {
    const found = bytes.indexOf(10, start);
    const end = found < 0 ? bytes.length : found;
    const place = `${path}:${samples.length + 1}`;
    const value = parseLine(bytes.toString("utf8", start, end), place, found < 0);
    if (value === undefined) return { samples, ends, cut: true };
    const sample = parseStrict(evaluatedSampleSchema, value, place);
    const key = JSON.stringify([sample.problem, sample.sample]);
    const other = places.get(key);
    if (other !== undefined) {
      throw new UserError(
        `${place}: sample ${sample.sample} of problem ${sample.problem} is on line ${other} already; remove one of them`,
      );
    }
    samples.push(sample);
    places.set(key, samples.length);
    start = end + 1;
    ends.push(start);
  }
  return { samples, ends, cut: false };
}

function readBytes(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const reason = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new UserError(`${path}: cannot read the samples (${reason}); expected a file that \`rifft eval\` wrote`);
  }
}

function parseLine(line: string, place: string, last: boolean): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    if (last) return undefined;
    const reason = error instanceof Error ? error.message : String(error);
    throw new UserError(
      `${place}: expected a sample as JSON, found ${JSON.stringify(line.slice(0, 40))} (${reason}); repair or remove the line, the others are not lost`,
    );
  }
}

/** Samples by problem, problems in the order of their first line, samples by number. */
export function byProblem(samples: readonly EvaluatedSample[]): EvaluatedSample[][] {
  const groups = new Map<string, EvaluatedSample[]>();
  for (const sample of samples) {
    const group = groups.get(sample.problem);
    if (group === undefined) groups.set(sample.problem, [sample]);
    else group.push(sample);
  }
  return [...groups.values()].map((group) => group.sort((a, b) => a.sample - b.sample));
}

/** A sample's responses in the order of its rounds; of one that was not asked in rounds its only one. */
export function responsesOf(sample: EvaluatedSample): Omit<EarlierRound, "prompt" | "progress">[] {
  return [...(sample.rounds ?? []), sample];
}

import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { TokenCounts } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { wilson95 } from "../eval/intervals.ts";
import { countsSchema } from "./checkpoint.ts";
import { diskError, replaceFile, syncFile } from "./disk.ts";

/** One evaluation inside a run. */
export interface CurvePoint {
  stage: string;
  /** Steps of the stage done. */
  step: number;
  totalSteps: number;
  /** Cumulative counts of the run. */
  counts: TokenCounts;
  /** Of the run, cumulative. */
  engineSeconds: number;
  split: string;
  problems: number;
  correct: number;
  accuracy: number;
  /** Wilson's 95 % interval. */
  low: number;
  high: number;
  /** Its samples, relative to the run folder. */
  file: string;
}

const count = z.int().nonnegative();
/** A line of evals.jsonl that the run itself wrote: unlike those of `rifft eval` it names a stage and holds no clock. */
const lineSchema = z.looseObject({
  stage: z.string(),
  step: count,
  totalSteps: count,
  counts: countsSchema,
  split: z.string(),
  problems: z.int().positive(),
  correct: count,
  file: z.string(),
});
type EvaluationLine = z.infer<typeof lineSchema>;

const timingSchema = z.looseObject({ stage: z.string(), step: count, engineSeconds: z.number() });

/**
 * The evaluations inside a run, in order; none where there is no file. A last line that is cut off is left out. Throws a UserError
 * that names file and line where one cannot be read.
 */
export function readCurve(dir: string): CurvePoint[] {
  const points = readLines(dir).flatMap(({ line }) => (line === undefined ? [] : [line]));
  if (points.length === 0) return [];
  const seconds = engineSecondsOf(dir);
  return points.map(({ stage, step, totalSteps, counts, split, problems, correct, file }) => {
    const { low, high } = wilson95(correct, problems);
    const accuracy = correct / problems;
    const engineSeconds = seconds(stage, step);
    return { stage, step, totalSteps, counts, engineSeconds, split, problems, correct, accuracy, low, high, file };
  });
}

/** Appends the line of one evaluation inside the run, and makes it durable. */
export function appendEvaluation(dir: string, line: Omit<EvaluationLine, "file"> & { file: string }): void {
  const path = join(dir, "evals.jsonl");
  try {
    appendFileSync(path, `${JSON.stringify(line)}\n`);
    syncFile(path);
  } catch (error) {
    throw diskError(error, path);
  }
}

/** Brings evals.jsonl back to the first `keep` evaluations of the run itself; lines of `rifft eval` stay. */
export function cutBackEvaluations(dir: string, keep: number): void {
  const path = join(dir, "evals.jsonl");
  const lines = readLines(dir);
  const own = lines.filter(({ line }) => line !== undefined).length;
  if (own < keep) {
    throw new UserError(
      `${path} has ${own} evaluations of the run where the checkpoint counts ${keep}: it was cut or edited; restore it and resume`,
    );
  }
  let seen = 0;
  const kept = lines.filter(({ line }) => line === undefined || seen++ < keep);
  const text = kept.map((line) => `${line.text}\n`).join("");
  if (!existsSync(path) || readFileSync(path, "utf8") === text) return;
  replaceFile(path, text, { durable: true });
}

/** Every whole line of evals.jsonl; `line` is absent where it is one of `rifft eval`. */
function readLines(dir: string): { text: string; line?: EvaluationLine }[] {
  const path = join(dir, "evals.jsonl");
  if (!existsSync(path)) return [];
  const texts = readFileSync(path, "utf8").split("\n");
  return texts.flatMap((text, i) => {
    if (text === "") return [];
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      if (i === texts.length - 1) return [];
      throw new UserError(`${path}:${i + 1}: not valid JSON; repair or remove the line`);
    }
    if (typeof value !== "object" || value === null || !("stage" in value)) return [{ text }];
    const line = lineSchema.safeParse(value);
    if (!line.success) throw new UserError(`${path}:${i + 1}: not an evaluation of this version of rifft`);
    return [{ text, line: line.data }];
  });
}

/** The run's engine seconds after so many steps of a stage. */
function engineSecondsOf(dir: string): (stage: string, step: number) => number {
  const path = join(dir, "timings.jsonl");
  const after = new Map<string, number>();
  const before = new Map<string, number>();
  let last = 0;
  for (const text of existsSync(path) ? readFileSync(path, "utf8").split("\n") : []) {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      continue;
    }
    const timing = timingSchema.safeParse(value);
    if (!timing.success) continue;
    const { stage, step, engineSeconds } = timing.data;
    if (!before.has(stage)) before.set(stage, last);
    after.set(`${stage}/${step + 1}`, engineSeconds);
    last = engineSeconds;
  }
  return (stage, step) => (step === 0 ? before.get(stage) : after.get(`${stage}/${step}`)) ?? last;
}

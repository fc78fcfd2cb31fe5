import { createHash } from "node:crypto";
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, readFileSync, rmSync, statSync } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { chunkProblems } from "../eval/evaluate.ts";
import type { EvaluationSettings } from "../eval/report.ts";
import { roundOptions } from "../eval/rounds.ts";
import { type EvaluatedSample, readSamples } from "../eval/samples.ts";
import { STRATEGIES } from "../grade/index.ts";
import { FUNCTIONS } from "../tags/index.ts";
import { GRADING_MODES } from "../task/grading.ts";
import { ROUND_STYLES } from "../task/rounds.ts";
import { parseStrict } from "../strict.ts";
import type { Problem } from "../task/types.ts";
import { diskError, replaceFile, writeAll } from "./disk.ts";
import { currentEnvironment, type Environment, environmentDifference, environmentSchema } from "./environment.ts";
import { isRunFolder } from "./folder.ts";
import { lockFolder } from "./lock.ts";
import { modelFolder, recipeOf } from "./models.ts";

/** What the samples beside it were asked for. */
const recordSchema = z.strictObject({
  model: z.string().optional(),
  checkpoint: z.string().optional(),
  task: z.string(),
  split: z.string().optional(),
  prompt: z.string().optional(),
  format: z.string().optional(),
  mode: z.enum([...GRADING_MODES, "reward"]),
  strict: z.array(z.enum(STRATEGIES)),
  flexible: z.array(z.enum(STRATEGIES)),
  n: z.int().positive(),
  temperature: z.number().nonnegative().optional(),
  topK: z.int().positive().optional(),
  maxTokens: z.int().positive().optional(),
  search: z
    .strictObject({ by: z.literal("prompts").optional(), value: z.string(), texts: z.int().positive() })
    .optional(),
  without: z.array(z.enum(FUNCTIONS)).optional(),
  rounds: z
    .strictObject({ ...roundOptions, rounds: z.int(), adaptive: z.boolean(), style: z.enum(ROUND_STYLES) })
    .optional(),
  seed: z.int().nonnegative().optional(),
  /** Digests of the model's files and of the problems as they were asked. */
  weights: z.string(),
  problems: z.string(),
  environment: environmentSchema.optional(),
  /** What the samples cost; of an evaluation that was interrupted, of the first `samples` of them. */
  cost: z
    .strictObject({
      samples: z.int().nonnegative(),
      of: z.int().positive(),
      generated: z.int().nonnegative(),
      prefilled: z.int().nonnegative(),
      seconds: z.number().nonnegative(),
    })
    .optional(),
});
/** Tokens and engine seconds that samples cost. */
export type SamplingCost = Pick<NonNullable<EvaluationRecord["cost"]>, "generated" | "prefilled" | "seconds">;
export type EvaluationRecord = z.infer<typeof recordSchema>;

/**
 * The samples file of one evaluation: `evals/<task>-<split>-<digest>.jsonl`, the digest being of everything that the samples depend on,
 * so that the same evaluation finds what it has sampled already; or `evals/<name>.jsonl`. Beside it a `.json` with what was asked.
 * Locked while it is open.
 */
export class EvaluationFile {
  /** Relative to the folder. */
  readonly file: string;
  /** What is there already: whole chunks, or everything. */
  readonly kept: EvaluatedSample[];
  private readonly path: string;
  private readonly fd: number;
  private readonly unlock: () => void;
  private record: EvaluationRecord;
  private readonly total: number;
  /** What the kept samples cost, where that was noted. */
  private readonly paid: EvaluationRecord["cost"];

  constructor(dir: string, settings: EvaluationSettings, weights: string, problems: Problem[], givenName?: string) {
    const record = { ...settings, weights, problems: problemsDigest(problems) };
    this.total = problems.length * settings.n;
    const { model: _, checkpoint: __, ...identity } = record;
    const name = givenName ?? `${settings.task}-${settings.split}-${digest(JSON.stringify(identity)).slice(0, 8)}`;
    this.file = `evals/${name}.jsonl`;
    this.path = join(dir, this.file);
    try {
      mkdirSync(dirname(this.path), { recursive: true });
    } catch (error) {
      throw diskError(error, this.path);
    }
    this.unlock = lockFolder(dirname(this.path), `${name}.lock`);
    try {
      const before = evaluationRecord(this.path);
      this.record = { ...record, environment: before?.environment };
      // A chunk whose cost was not written yet counts as cut off.
      const paid = before?.cost?.samples ?? Infinity;
      this.kept = existsSync(this.path) ? keepChunks(this.path, settings, problems, paid) : [];
      this.paid = before?.cost;
      if (this.kept.length > 0) this.record.cost = this.paid;
      this.fd = openSync(this.path, "a");
    } catch (error) {
      this.unlock();
      throw diskError(error, this.path);
    }
  }

  /** Notes where sampling goes on: what differs from where it began, in words, or undefined. `plan` is the model's memory plan. */
  begin(plan: string): string | undefined {
    const now = currentEnvironment(plan);
    const before: Environment = this.kept.length > 0 ? (this.record.environment ?? now) : now;
    this.write({ ...this.record, environment: before });
    rmSync(partialPath(this.path), { force: true });
    return environmentDifference(before, now);
  }

  /** Notes what the new samples up to now have cost: `samples` of them, all those before included. */
  spent(samples: number, cost: SamplingCost): void {
    const before = this.kept.length > 0 ? this.paid : { generated: 0, prefilled: 0, seconds: 0 };
    // Samples of before costs were noted.
    if (before === undefined) return;
    const { generated, prefilled, seconds } = cost;
    this.write({
      ...this.record,
      cost: {
        samples,
        of: this.total,
        generated: before.generated + generated,
        prefilled: before.prefilled + prefilled,
        seconds: before.seconds + seconds,
      },
    });
  }

  private write(record: EvaluationRecord): void {
    this.record = record;
    replaceFile(recordPath(this.path), `${JSON.stringify(record, null, 2)}\n`);
  }

  append(sample: EvaluatedSample): void {
    try {
      writeAll(this.fd, Buffer.from(`${JSON.stringify(sample)}\n`));
    } catch (error) {
      throw diskError(error, this.path);
    }
  }

  /** Keeps the answers of a search that was interrupted, beside the samples, until sampling goes on. */
  keepPartial(samples: readonly EvaluatedSample[]): void {
    replaceFile(partialPath(this.path), samples.map((sample) => `${JSON.stringify(sample)}\n`).join(""));
  }

  close(): void {
    closeSync(this.fd);
    this.unlock();
  }
}

/** The settings of a samples file; undefined where no record lies beside it. */
export function recordedSettings(path: string): EvaluationSettings | undefined {
  const record = evaluationRecord(path);
  if (record === undefined) return undefined;
  const { weights: _, problems: __, environment: ___, cost: ____, ...settings } = record;
  return settings;
}

/** What lies beside a samples file; undefined where nothing does. */
export function evaluationRecord(path: string): EvaluationRecord | undefined {
  const source = recordPath(path);
  if (!existsSync(source)) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(source, "utf8"));
  } catch (error) {
    throw new UserError(
      `${source}: not valid JSON (${error instanceof Error ? error.message : String(error)}); remove it`,
    );
  }
  return parseStrict(recordSchema, value, source);
}

const partialPath = (samples: string): string => samples.replace(/\.jsonl$/, ".partial.jsonl");

const recordPath = (samples: string): string => samples.replace(/(\.jsonl)?$/, ".json");

/** The samples of the whole chunks at the file's beginning; the rest is cut off, because its rows shared a batch with missing ones. */
function keepChunks(
  path: string,
  { n, search }: EvaluationSettings,
  problems: Problem[],
  most: number,
): EvaluatedSample[] {
  const { samples, ends } = readSamples(path);
  samples.forEach(({ problem, sample }, i) => {
    const expected = problems[Math.floor(i / n)]?.id;
    if (problem === expected && sample === i % n) return;
    throw new UserError(
      `${path}:${i + 1}: expected sample ${i % n} of problem ${expected ?? "(none)"}, found sample ${sample} of problem ${problem}: the lines are out of order; put them back, or move the file away and sample again`,
    );
  });
  const total = problems.length * n;
  const { size } = statSync(path);
  // A last line that lost only its end counts as cut.
  const whole = Math.min(most, ends.filter((end) => end <= size).length);
  const chunk = chunkProblems(n, search !== undefined) * n;
  const kept = whole === total ? total : Math.floor(whole / chunk) * chunk;
  const fd = openSync(path, "r+");
  try {
    ftruncateSync(fd, kept === 0 ? 0 : ends[kept - 1]);
  } finally {
    closeSync(fd);
  }
  return samples.slice(0, kept);
}

/** A digest of problems as they are asked, in their order. */
export function problemsDigest(problems: Problem[]): string {
  return digest(JSON.stringify(problems));
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Bytes of a block, and how many of a large file are read. */
const BLOCK = 4096;
const BLOCKS = 64;

/**
 * A digest of the model that a name stands for: of a run folder a checkpoint (the newest when absent) and the base. Large files are judged by their
 * size and 64 blocks spread over them, for training changes every weight.
 */
export async function modelDigest(name: string, checkpoint?: string): Promise<string> {
  const hash = createHash("sha256");
  const add = async (path: string): Promise<void> => {
    const found = await stat(path).catch(() => undefined);
    if (found === undefined) return void hash.update(path);
    if (found.isDirectory()) {
      for (const entry of (await readdir(path)).sort()) {
        if (/\.(json|safetensors|jinja)$/.test(entry)) await add(join(path, entry));
      }
      return;
    }
    hash.update(`${basename(path)} ${found.size} `);
    const file = await open(path);
    try {
      const buffer = Buffer.alloc(BLOCK);
      for (let i = 0; i < BLOCKS; i++) {
        const { bytesRead } = await file.read(buffer, 0, BLOCK, Math.floor((found.size * i) / BLOCKS));
        hash.update(buffer.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  };
  const dir = resolve(name);
  if (isRunFolder(dir)) {
    await add(await modelFolder(name, checkpoint));
    await add(recipeOf(dir).model);
  } else {
    await add(name);
  }
  return hash.digest("hex");
}

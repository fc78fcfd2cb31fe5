import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { decodeTree, encodeTree } from "../forest/json.ts";
import type { Forest } from "../forest/types.ts";
import type { RecordLine } from "../method/stage.ts";
import type { Tokenizer } from "../model/types.ts";
import { diskError, syncDir, syncFile, writeAll } from "./disk.ts";
import { environmentSchema } from "./environment.ts";
import { lockFolder } from "./lock.ts";
import { readRecords, removeFrom, writeRecords } from "./records.ts";

const journals = ["metrics", "timings", "verdicts"] as const;
type JournalName = (typeof journals)[number];
/** Cut back to the checkpoint on resume; verdicts are kept, because steps that are done again read them. */
const cutOnResume = ["metrics", "timings"] as const;

const recordSchema = z.strictObject({
  environment: environmentSchema,
  /** The folder of the recipe as it was given. */
  baseDir: z.string(),
  recipe: z.record(z.string(), z.unknown()),
  /** SHA-256 of the profile's samples, where the recipe names one. */
  profile: z.string().optional(),
});
/** What a run was started with: compared on resume. */
export type RunRecord = z.infer<typeof recordSchema>;

const metricsLine = z.looseObject({ stage: z.string(), step: z.number() });

/** The folder of one run, locked against a second process while it is open. JSON lines are the truth. */
export class RunFolder {
  readonly dir: string;
  private readonly unlock: () => void;
  private readonly files = new Map<JournalName, number>();

  private constructor(dir: string, unlock: () => void) {
    this.dir = dir;
    this.unlock = unlock;
    for (const name of journals) this.files.set(name, openSync(join(dir, `${name}.jsonl`), "a+"));
  }

  /** Makes the folder of a new run. Throws a UserError where there is a run already. */
  static create(dir: string, recipeToml: string, record: RunRecord): RunFolder {
    try {
      mkdirSync(join(dir, "checkpoints"), { recursive: true });
      mkdirSync(join(dir, "rollouts"), { recursive: true });
    } catch (error) {
      throw diskError(error, dir);
    }
    const unlock = lockFolder(dir);
    try {
      if (existsSync(join(dir, "run.json"))) {
        throw new UserError(
          `${dir} holds a run already; continue it with \`rifft resume ${dir}\`, or choose another folder with --run`,
        );
      }
      writeFileSync(join(dir, "recipe.toml"), recipeToml);
      syncFile(join(dir, "recipe.toml"));
      const folder = new RunFolder(dir, unlock);
      // Last, because this file is what makes the folder a run.
      writeFileSync(join(dir, "run.json"), `${JSON.stringify(record, null, 2)}\n`);
      syncFile(join(dir, "run.json"));
      syncDir(dir);
      return folder;
    } catch (error) {
      unlock();
      throw diskError(error, dir);
    }
  }

  /** Opens the folder of a run that goes on. */
  static open(dir: string): RunFolder {
    requireRun(dir);
    const unlock = lockFolder(dir);
    try {
      return new RunFolder(dir, unlock);
    } catch (error) {
      unlock();
      throw diskError(error, dir);
    }
  }

  get checkpoints(): string {
    return join(this.dir, "checkpoints");
  }

  /** What the run was started with. */
  record(): RunRecord {
    return readRecord(this.dir);
  }

  /** Records another environment, after a forced resume. */
  rewriteRecord(record: RunRecord): void {
    writeFileSync(join(this.dir, "run.json"), `${JSON.stringify(record, null, 2)}\n`);
  }

  /** Appends one JSON line. */
  append(name: JournalName, ...lines: object[]): void {
    if (lines.length === 0) return;
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
    try {
      writeAll(this.fd(name), Buffer.from(text));
    } catch (error) {
      throw diskError(error, join(this.dir, `${name}.jsonl`));
    }
  }

  /** Appends a line with the time to log.txt. */
  log(text: string): void {
    try {
      appendFileSync(join(this.dir, "log.txt"), `${new Date().toISOString()} ${text}\n`);
    } catch (error) {
      throw diskError(error, join(this.dir, "log.txt"));
    }
  }

  /** Writes the samples of one step, one tree a line; `durable` where they will be read again. */
  writeRollouts(stage: string, step: number, forest: Forest, tokenizer: Tokenizer, durable: boolean): void {
    const folder = join(this.dir, "rollouts", stage);
    try {
      mkdirSync(folder, { recursive: true });
      const textOf = (tokens: Int32Array) => tokenizer.decode(tokens, { special: true });
      const lines = forest.map((tree) => `${encodeTree(tree, textOf)}\n`);
      writeFileSync(join(folder, rolloutFile(step)), lines.join(""));
      if (!durable) return;
      syncFile(join(folder, rolloutFile(step)));
      syncDir(folder);
    } catch (error) {
      throw diskError(error, join(folder, rolloutFile(step)));
    }
  }

  /** The samples of one step. Throws a UserError where their file is gone or is not as it was written. */
  readRollouts(stage: string, step: number): Forest {
    const file = join(this.dir, "rollouts", stage, rolloutFile(step));
    if (!existsSync(file)) {
      throw new UserError(`${file} is missing: it holds samples that stage ${stage} trains on; restore it and resume`);
    }
    const lines = readFileSync(file, "utf8").split("\n").slice(0, -1);
    return lines.map((line, i) => decodeTree(line, `${file}:${i + 1}`));
  }

  /** Writes records of a stage, a file of its folder `records/<stage>`. */
  writeRecords(stage: string, name: string, records: readonly object[]): void {
    writeRecords(this.recordsOf(stage), name, records);
  }

  /** Writes what came of a stage's questions. */
  writeYield(stage: string, counts: Record<string, number>): void {
    const file = join(this.recordsOf(stage), "yield.json");
    try {
      writeFileSync(file, `${JSON.stringify(counts, null, 2)}\n`);
      syncFile(file);
    } catch (error) {
      throw diskError(error, file);
    }
  }

  /** The records of a stage of this run; undefined where it has none. */
  readRecords(stage: string): RecordLine[] | undefined {
    return /^[\w-]+$/.test(stage) && existsSync(this.recordsOf(stage)) ? readRecords(this.recordsOf(stage)) : undefined;
  }

  private recordsOf(stage: string): string {
    return join(this.dir, "records", stage);
  }

  /** Makes the JSON-lines files durable and returns their sizes in bytes. */
  sync(): Record<string, number> {
    const sizes: Record<string, number> = {};
    try {
      for (const fd of this.files.values()) fsyncSync(fd);
      for (const name of cutOnResume) sizes[name] = fstatSync(this.fd(name)).size;
    } catch (error) {
      throw diskError(error, this.dir);
    }
    return sizes;
  }

  /**
   * Brings the files back to a checkpoint: metrics and timings to their sizes then, no samples of later steps, and no torn last line
   * in the journal of verdicts. `stages` are the names of the recipe's stages, `stage` the index of the one that goes on at `step`.
   */
  cutBack(sizes: Record<string, number>, stages: string[], stage: number, step: number): void {
    for (const name of cutOnResume) {
      const wanted = sizes[name] ?? 0;
      const { size } = fstatSync(this.fd(name));
      if (size < wanted) {
        throw new UserError(
          `${join(this.dir, `${name}.jsonl`)} has ${size} bytes where the checkpoint counts ${wanted}: it was cut or edited; restore it and resume`,
        );
      }
      ftruncateSync(this.fd(name), wanted);
    }
    const verdicts = readFileSync(join(this.dir, "verdicts.jsonl"));
    ftruncateSync(this.fd("verdicts"), verdicts.lastIndexOf("\n") + 1);
    stages.forEach((name, index) => {
      if (index < stage) return;
      for (const kept of ["rollouts", "records"]) {
        removeFrom(join(this.dir, kept, name), index > stage ? "" : rolloutFile(step));
      }
    });
  }

  /** The last line of each stage in metrics.jsonl, by the stage's name. */
  lastMetrics(): Map<string, { step: number; metrics: Record<string, unknown> }> {
    return new Map(this.metricsLines().map(({ stage, step, ...metrics }) => [stage, { step, metrics }]));
  }

  /** The numbers that each step of a stage has logged, in order. */
  metricsOf(stage: string): Record<string, number>[] {
    const numbers = (line: object) =>
      Object.fromEntries(
        Object.entries(line).flatMap(([name, value]) => (typeof value === "number" ? [[name, value]] : [])),
      );
    return this.metricsLines()
      .filter((line) => line.stage === stage)
      .map(numbers);
  }

  private metricsLines() {
    const lines = readFileSync(join(this.dir, "metrics.jsonl"), "utf8").split("\n");
    return lines.filter((line) => line !== "").map((line) => metricsLine.parse(JSON.parse(line)));
  }

  /** The lines of verdicts.jsonl. */
  verdictLines(): string[] {
    const text = readFileSync(join(this.dir, "verdicts.jsonl"), "utf8");
    return text.split("\n").filter((line) => line !== "");
  }

  /** Closes the files and releases the lock; may be called twice. */
  close(): void {
    if (this.files.size === 0) return;
    for (const fd of this.files.values()) closeSync(fd);
    this.files.clear();
    this.unlock();
  }

  private fd(name: JournalName): number {
    const fd = this.files.get(name);
    if (fd === undefined) throw new Error("the run folder is closed");
    return fd;
  }
}

/** True where a folder holds a run. */
export function isRunFolder(dir: string): boolean {
  return existsSync(join(dir, "run.json")) && existsSync(join(dir, "recipe.toml"));
}

/** Throws a UserError unless `dir` holds a run. */
export function requireRun(dir: string): void {
  if (!isRunFolder(dir)) throw new UserError(`${dir} is not a run folder: it holds no run.json and recipe.toml`);
}

/** What the run of a folder was started with. */
export function readRecord(dir: string): RunRecord {
  try {
    return recordSchema.parse(JSON.parse(readFileSync(join(dir, "run.json"), "utf8")));
  } catch {
    throw new UserError(`${join(dir, "run.json")} is damaged or was written by another version of rifft`);
  }
}

function rolloutFile(step: number): string {
  return `${String(step).padStart(6, "0")}.jsonl`;
}

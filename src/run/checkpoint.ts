import { createHash } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join, relative, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { z } from "zod";
import { diskError, syncDir, syncFile } from "./disk.ts";
import { markKinds } from "./marks.ts";

const count = z.number().int().nonnegative();

/** Tokens by what was done with them. */
export const countsSchema = z.strictObject({ generated: count, prefilled: count, scored: count, trained: count });

/** Everything of a run that is not in the model's own files: where it stands, and what it has counted. */
export const runStateSchema = z.strictObject({
  /** Index of the stage that goes on, from 0; the number of stages when the run is complete. */
  stage: count,
  /** Steps of that stage that are done. */
  step: count,
  /** Steps of the whole run that are done. */
  totalSteps: count,
  /** Of these, the steps that only sampled. */
  samplingSteps: count.default(0),
  /** Training problems that the stage has handed out; once it trains on items of its own, those items. */
  cursor: count,
  /** What its method carries from one step to the next. */
  memory: z.record(z.string(), z.number()).default({}),
  /** Tokens counted since the run began. */
  counts: countsSchema,
  engineSeconds: z.number().nonnegative(),
  /** What had been used when the stage began, to measure its budget. */
  atStageStart: z.strictObject({ generated: count, engineSeconds: z.number().nonnegative() }),
  /** The checkpoints that hold the weights with which stages ended, by the stage's name. */
  stageEnds: z.record(z.string(), z.string()),
  /** Bytes of the JSON-lines files. */
  sizes: z.record(z.string(), count),
  /** Evaluations inside the run, where there were any. */
  evaluated: z
    .strictObject({
      /** How many are written. */
      count,
      last: z.strictObject({ stage: z.string(), step: count, totalSteps: count, accuracy: z.number() }),
      /** The highest accuracy of the stage that goes on, and how many evaluations in a row have not passed it. */
      highest: z.number(),
      without: count,
    })
    .optional(),
  /** By a stage's name: its best checkpoint by `checkpoint.keepBest`. */
  best: z.record(z.string(), z.strictObject({ value: z.number(), step: count, checkpoint: z.string() })).optional(),
  /** The checkpoints that hold the weights at the marks which stages have passed. */
  marks: z
    .array(z.strictObject({ stage: z.string(), mark: z.enum(markKinds), step: count, checkpoint: z.string() }))
    .optional(),
});
export type RunState = z.infer<typeof runStateSchema>;

/** What the checkpoint of a state is called. */
export function checkpointName(state: RunState): string {
  return `step-${String(state.totalSteps).padStart(8, "0")}`;
}

const manifestSchema = z.strictObject({
  files: z.record(z.string(), z.strictObject({ bytes: count, sha256: z.string() })),
});

/** The folder in a checkpoint that `Model.save` wrote. */
export function modelDir(checkpoint: string): string {
  return join(checkpoint, "model");
}

/**
 * Writes a checkpoint whole or not at all: under a temporary name, every file on the disk and checksummed, then renamed.
 * `saveModel` fills the model's folder. Throws a UserError when the disk is full; earlier checkpoints are untouched.
 */
export async function writeCheckpoint(
  dir: string,
  name: string,
  state: RunState,
  saveModel: (dir: string) => Promise<void>,
): Promise<void> {
  const temporary = join(dir, `.writing-${name}`);
  const final = join(dir, name);
  try {
    rmSync(temporary, { recursive: true, force: true });
    mkdirSync(modelDir(temporary), { recursive: true });
    await saveModel(modelDir(temporary));
    writeFileSync(join(temporary, "state.json"), `${JSON.stringify(state, null, 2)}\n`);
    const files: z.infer<typeof manifestSchema>["files"] = {};
    for (const path of filesIn(temporary)) {
      syncFile(path);
      const key = relative(temporary, path).split(sep).join("/");
      files[key] = { bytes: statSync(path).size, sha256: await sha256(path) };
    }
    const manifest = join(temporary, "manifest.json");
    writeFileSync(manifest, `${JSON.stringify({ files }, null, 2)}\n`);
    syncFile(manifest);
    for (const folder of foldersIn(temporary)) syncDir(folder);
    removeCheckpoint(dir, name);
    renameSync(temporary, final);
    syncDir(dir);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    throw diskError(error, `the checkpoint ${final}`);
  }
}

/** The names of complete checkpoints, oldest first. */
export function listCheckpoints(dir: string): string[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir)
    .filter((name) => !name.startsWith(".") && existsSync(join(dir, name, "manifest.json")))
    .sort();
}

/** Reads a checkpoint's state after comparing every file with its checksum; a string says what is wrong with it. */
export async function readCheckpoint(path: string): Promise<RunState | string> {
  let files: z.infer<typeof manifestSchema>["files"];
  try {
    ({ files } = manifestSchema.parse(JSON.parse(readFileSync(join(path, "manifest.json"), "utf8"))));
  } catch {
    return "manifest.json is not readable";
  }
  if (!Object.hasOwn(files, "state.json")) return "manifest.json does not name state.json";
  for (const [name, expected] of Object.entries(files)) {
    const file = join(path, name);
    if (!existsSync(file)) return `${name} is missing`;
    const { size } = statSync(file);
    if (size !== expected.bytes) return `${name} has ${size} bytes where ${expected.bytes} were written`;
    if ((await sha256(file)) !== expected.sha256) return `the checksum of ${name} does not match`;
  }
  const state = runStateSchema.safeParse(JSON.parse(readFileSync(join(path, "state.json"), "utf8")));
  return state.success ? state.data : "state.json was written by another version of rifft";
}

export interface FoundCheckpoint {
  name: string;
  path: string;
  state: RunState;
}

/** The newest checkpoint that is intact; `damaged` is told of each newer one that is not. */
export async function latestCheckpoint(
  dir: string,
  damaged: (name: string, reason: string) => void,
): Promise<FoundCheckpoint | undefined> {
  for (const name of listCheckpoints(dir).reverse()) {
    const path = join(dir, name);
    const state = await readCheckpoint(path);
    if (typeof state !== "string") return { name, path, state };
    damaged(name, state);
  }
  return undefined;
}

/** Keeps the newest `keep` checkpoints and the `needed` ones; removes the rest, and what an interrupted writer left. */
export function pruneCheckpoints(dir: string, keep: number, needed: ReadonlySet<string>): void {
  for (const name of listCheckpoints(dir).slice(0, -keep)) if (!needed.has(name)) removeCheckpoint(dir, name);
  for (const name of readdirSync(dir)) {
    if (name.startsWith(".writing-") || name.startsWith(".removing-")) {
      rmSync(join(dir, name), { recursive: true, force: true });
    }
  }
}

/** Renames a damaged checkpoint, so that it is kept but never read or counted again. */
export function setAside(dir: string, name: string): void {
  const aside = join(dir, `.damaged-${name}`);
  rmSync(aside, { recursive: true, force: true });
  renameSync(join(dir, name), aside);
}

/** Removes a checkpoint, if it is there: by renaming first, so that a half-removed one never looks like a damaged one. */
export function removeCheckpoint(dir: string, name: string): void {
  const path = join(dir, name);
  if (!existsSync(path)) return;
  const aside = join(dir, `.removing-${name}`);
  rmSync(aside, { recursive: true, force: true });
  renameSync(path, aside);
  rmSync(aside, { recursive: true, force: true });
}

function filesIn(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => (entry.isDirectory() ? filesIn(join(dir, entry.name)) : [join(dir, entry.name)]));
}

function foldersIn(dir: string): string[] {
  const inner = readdirSync(dir, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [...inner.flatMap((entry) => foldersIn(join(dir, entry.name))), dir];
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest("hex");
}

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { readSamples } from "../eval/samples.ts";
import { NO_ANSWER } from "../grade/index.ts";
import type { RecordLine, StoredSample } from "../method/stage.ts";
import { diskError, syncDir, syncFile } from "./disk.ts";

/** Writes a file of records whole, one a line, and durably. */
export function writeRecords(folder: string, name: string, records: readonly object[]): void {
  const file = join(folder, `${name}.jsonl`);
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(file, records.map((record) => `${JSON.stringify(record)}\n`).join(""));
    syncFile(file);
    syncDir(folder);
  } catch (error) {
    throw diskError(error, file);
  }
}

/** The lines of a file of records, or of all of a folder's in the order of their names. */
export function readRecords(path: string): RecordLine[] {
  if (!existsSync(path)) {
    throw new UserError(
      `\`records\`: expected the name of an earlier rftt-data stage, such as "1-rftt-data", or a file or folder of records; there is no ${path}`,
    );
  }
  if (statSync(path).isDirectory()) {
    return readdirSync(path)
      .filter((name) => name.endsWith(".jsonl"))
      .sort()
      .flatMap((name) => linesOf(join(path, name)));
  }
  return linesOf(path);
}

function linesOf(file: string): RecordLine[] {
  return readFileSync(file, "utf8")
    .split("\n")
    .flatMap((line, i) => (line.trim() === "" ? [] : [parse(line, `${file}:${i + 1}`)]));
}

function parse(line: string, place: string): RecordLine {
  try {
    return { place, value: JSON.parse(line) };
  } catch {
    throw new UserError(`${place}: expected a record as JSON, found ${line.slice(0, 40)}`);
  }
}

/** Removes the files that a stage wrote from a step on; `from` is the name of that step's file. */
export function removeFrom(folder: string, from: string): void {
  if (!existsSync(folder)) return;
  for (const file of readdirSync(folder)) {
    if (file >= from) rmSync(join(folder, file), { recursive: true, force: true });
  }
}

/** The samples of an evaluation's file, one response each. `note` hears of a last line that was cut off. */
export function readStoredSamples(path: string, note: (text: string) => void): StoredSample[] {
  const { samples, cut } = readSamples(path);
  if (cut) note(`${path}: its last line was cut off and is left out`);
  const other = samples.find(({ rounds, search }) => rounds !== undefined || search !== undefined);
  if (other !== undefined) {
    throw new UserError(
      `${path}: sample ${other.sample} of problem ${other.problem} was answered in several rounds or by a search; expected one response each, of \`rifft eval --n N\` alone`,
    );
  }
  return samples.map(({ problem, text, tokens, solved, strict }) => ({
    problem,
    text,
    tokens: Int32Array.from(tokens),
    solved,
    answered: strict.rule !== NO_ANSWER,
  }));
}

import { readFile } from "node:fs/promises";
import { parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { csvRecords } from "./csv.ts";

/** A record of a data file and where it stands, for messages: "train.jsonl:12" or "train.parquet row 12". */
export interface Row {
  place: string;
  value: Record<string, unknown>;
}

const recordSchema = z.record(z.string(), z.unknown());

/** Formats that `readRows` reads, by the end of a file's name. */
export const DATA_EXTENSIONS = [".jsonl", ".json", ".csv", ".parquet"] as const;

/**
 * The records of a data file: JSON lines, one JSON array, CSV with a line of names, or parquet. Throws a UserError that names file and line where the
 * file cannot be read, is malformed, or holds nothing.
 */
export async function readRows(file: string): Promise<Row[]> {
  const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    throw new UserError(`${file}: cannot read the data file (${error.code ?? error.message})`);
  });
  const rows = file.endsWith(".parquet")
    ? await parquetRows(file, bytes)
    : file.endsWith(".json")
      ? arrayRows(file, bytes.toString("utf8"))
      : file.endsWith(".csv")
        ? csvRecords(file, bytes.toString("utf8"))
        : lineRows(file, bytes.toString("utf8"));
  if (rows.length === 0) throw new UserError(`${file}: the data file is empty; expected at least one record`);
  return rows;
}

function lineRows(file: string, text: string): Row[] {
  const rows: Row[] = [];
  for (const [index, line] of text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .entries()) {
    if (line.trim() === "") continue;
    const place = `${file}:${index + 1}`;
    rows.push({
      place,
      value: record(
        place,
        parseJson(line, () => place),
      ),
    });
  }
  return rows;
}

function arrayRows(file: string, text: string): Row[] {
  text = text.replace(/^\uFEFF/, "");
  if (text.trim() === "") return [];
  const items = parseJson(text, (position) => `${file}:${lineAt(text, position ?? text.length)}`);
  if (!Array.isArray(items)) {
    throw new UserError(
      `${file}: expected a JSON array of records, found ${kind(items)}; name a file of JSON lines .jsonl`,
    );
  }
  const lines = itemLines(text);
  return items.map((item: unknown, index) => {
    const place = `${file}:${lines[index]}`;
    return { place, value: record(place, item) };
  });
}

async function parquetRows(file: string, bytes: Uint8Array): Promise<Row[]> {
  try {
    const copy = new Uint8Array(bytes);
    const objects = await parquetReadObjects({ file: copy.buffer, compressors });
    return objects.map((value, index) => ({ place: `${file} row ${index}`, value }));
  } catch (error) {
    throw new UserError(
      `${file}: not a complete parquet file (${error instanceof Error ? error.message : String(error)})`,
    );
  }
}

function parseJson(text: string, place: (position: number | undefined) => string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const position = /at position (\d+)/.exec(reason)?.[1];
    throw new UserError(`${place(position === undefined ? undefined : Number(position))}: malformed JSON (${reason})`);
  }
}

function record(place: string, value: unknown): Record<string, unknown> {
  const parsed = recordSchema.safeParse(value);
  if (!parsed.success) throw new UserError(`${place}: expected a record with named fields, found ${kind(value)}`);
  return parsed.data;
}

function kind(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `a ${typeof value === "object" ? "record" : typeof value}`;
}

function lineAt(text: string, position: number): number {
  return text.slice(0, position).split("\n").length;
}

/** The line on which each item of a JSON array begins. The text has been parsed, so that it is well formed. */
function itemLines(text: string): number[] {
  const lines: number[] = [];
  let line = 1;
  let depth = 0;
  let expectItem = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "\n") line++;
    if (c === " " || c === "\n" || c === "\r" || c === "\t") continue;
    if (expectItem && c !== "]") {
      lines.push(line);
      expectItem = false;
    }
    if (c === '"') {
      for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++;
    } else if (c === "[" || c === "{") {
      if (++depth === 1) expectItem = true;
    } else if (c === "]" || c === "}") {
      depth--;
    } else if (c === "," && depth === 1) {
      expectItem = true;
    }
  }
  return lines;
}

import {
  appendFileSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { UserError } from "../errors.ts";

/** Turns "no space left" into an error that a person can act on; anything else is returned as it is. */
export function diskError(error: unknown, what: string): unknown {
  if (error instanceof Error && "code" in error) {
    if (error.code === "ENOSPC" || error.code === "EDQUOT") {
      return new UserError(`the disk is full: ${what} could not be written; free some space and resume`);
    }
    if (error.code === "EROFS" || error.code === "EACCES") {
      return new UserError(`${what} could not be written: ${error.message}; make the folder writable and resume`);
    }
  }
  return error;
}

/** Writes all of `data` at the end of an open file. */
export function writeAll(fd: number, data: Uint8Array): void {
  for (let written = 0; written < data.length;) written += writeSync(fd, data, written);
}

/** Appends one JSON line to a file. */
export function appendLine(path: string, line: object): void {
  try {
    appendFileSync(path, `${JSON.stringify(line)}\n`);
  } catch (error) {
    throw diskError(error, path);
  }
}

/** Puts `text` in a file's place, whole or not at all, and makes its folder; `durable`: it is on the disk before it takes the place. */
export function replaceFile(path: string, text: string, { durable = false } = {}): void {
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(`${path}.new`, text);
    if (durable) syncFile(`${path}.new`);
    renameSync(`${path}.new`, path);
  } catch (error) {
    throw diskError(error, path);
  }
}

/** Makes a folder's entries (files made or renamed in it) durable. */
export function syncDir(dir: string): void {
  // Windows cannot open folders, and makes renames durable by itself.
  if (process.platform === "win32") return;
  const fd = openSync(dir, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Makes a file's content durable. */
export function syncFile(path: string): void {
  const fd = openSync(path, "r+");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

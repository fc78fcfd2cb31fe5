import { open, readFile, type FileHandle } from "node:fs/promises";
import type { z } from "zod";
import { UserError } from "../errors.ts";

/** One call may not exceed 2 GiB. */
const chunk = 2 ** 30;

/** A UserError for what the operating system refused, such as a missing file or a full disk. */
export function systemError(action: string, error: unknown): UserError {
  const code = error instanceof Error && "code" in error ? String(error.code) : undefined;
  const reasons: Record<string, string> = {
    ENOENT: "no such file or folder",
    EACCES: "permission denied",
    ENOSPC: "the disk is full; free some space and try again",
    EDQUOT: "your share of the disk is full; free some space and try again",
    EFBIG: "the system allows no file of this size here; choose another disk or raise the limit",
    EISDIR: "it is a folder, not a file",
    ENOTDIR: "a part of the path is not a folder",
  };
  const reason = (code && reasons[code]) ?? (error instanceof Error ? error.message : String(error));
  return new UserError(`${action}: ${reason}`, { cause: error });
}

/** Opens a file for reading, hands it on with its size in bytes, and closes it. */
export async function withFile<T>(path: string, use: (file: FileHandle, size: number) => Promise<T>): Promise<T> {
  let file;
  try {
    file = await open(path, "r");
  } catch (error) {
    throw systemError(`cannot read ${path}`, error);
  }
  try {
    return await use(file, (await file.stat()).size);
  } finally {
    await file.close();
  }
}

/** Reads `length` bytes from `position` into one new buffer. */
export async function readRange(file: FileHandle, position: number, length: number, path: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const { bytesRead } = await file.read(bytes, done, Math.min(chunk, length - done), position + done);
    if (bytesRead === 0) {
      throw new UserError(
        `${path}: expected at least ${position + length} bytes, found ${position + done}: the file is truncated; fetch it again`,
      );
    }
    done += bytesRead;
  }
  return bytes;
}

/** Writes all of the bytes at `position`; one call to the system may write fewer. */
export async function writeRange(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(chunk, bytes.length - done), position + done);
    done += bytesWritten;
  }
}

/** Reads a file that may be absent. */
export async function readOptional(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw systemError(`cannot read ${path}`, error);
  }
}

/** Parses JSON and checks it; a UserError names the file and the place. */
export function parseJson<T>(content: Uint8Array | string, schema: z.ZodType<T>, path: string): T {
  let value: unknown;
  try {
    value = JSON.parse(typeof content === "string" ? content : new TextDecoder().decode(content));
  } catch (error) {
    throw new UserError(`${path}: not valid JSON (${error instanceof Error ? error.message.split("\n")[0] : error})`);
  }
  return check(value, schema, path);
}

/** Checks a value from outside; a UserError names the file and the place of the first thing that is wrong. */
export function check<T>(value: unknown, schema: z.ZodType<T>, path: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const place = issue.path.length > 0 ? `${issue.path.join(".")}: ` : "";
  throw new UserError(`${path}: ${place}${issue.message}`);
}

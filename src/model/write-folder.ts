import { randomUUID } from "node:crypto";
import { link, mkdir, open, readdir, rename, rm, rmdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { UserError } from "../errors.ts";
import { systemError } from "./files.ts";

/**
 * Writes into a temporary folder beside the target and renames it once everything is on the disk.
 * @throws UserError where the folder exists and is not empty, or the system refuses
 */
export async function writeFolder(folder: string, write: (temporary: string) => Promise<void>): Promise<void> {
  const target = resolve(folder);
  const existing = await readdir(target).catch(() => undefined);
  if (existing && existing.length > 0) {
    throw new UserError(`${folder}: the folder exists and is not empty; choose another or remove it`);
  }
  await underTemporaryName(folder, async (temporary) => {
    await mkdir(temporary, { recursive: true });
    await write(temporary);
    // Windows renames no folder onto another, not even onto an empty one.
    if (existing) await rmdir(target);
    await rename(temporary, target);
  });
}

/**
 * Writes a file under a temporary name beside the target and gives it its own once it is on the disk.
 * @throws UserError where the file exists, or the system refuses
 */
export async function writeNewFile(path: string, write: (temporary: string) => Promise<void>): Promise<void> {
  const target = resolve(path);
  if (await stat(target).catch(() => undefined)) throw existsError(path);
  await underTemporaryName(path, async (temporary) => {
    await mkdir(dirname(target), { recursive: true });
    await write(temporary);
    // Unlike a rename, a link never replaces a file that came meanwhile.
    await link(temporary, target).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "EEXIST") throw existsError(path);
      return rename(temporary, target);
    });
    await rm(temporary, { force: true });
  });
}

const existsError = (path: string) => new UserError(`${path} exists; choose another name or remove it`);

async function underTemporaryName(target: string, write: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = join(dirname(resolve(target)), `.${basename(target)}-${randomUUID()}`);
  try {
    await write(temporary);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw error instanceof UserError || !isSystemError(error) ? error : systemError(`cannot write ${target}`, error);
  }
}

function isSystemError(error: unknown): boolean {
  return error instanceof Error && "code" in error;
}

export function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n");
}

export async function writeFileSynced(path: string, content: Uint8Array): Promise<void> {
  const file = await open(path, "w");
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}

import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";

const holderSchema = z.object({ pid: z.number(), host: z.string(), since: z.string() });
type Holder = z.infer<typeof holderSchema>;

/** Another process works in the folder. */
export class InUseError extends UserError {}

/** Folders that this very process has locked: after a restart of the machine an old lock may name our own process id. */
const held = new Set<string>();

/**
 * Locks a folder (or one work in it, by a `name` of its own) against a second process, by a file that names this one. The lock of a process that is gone is taken over.
 * Returns what releases it. Throws an InUseError when the folder is in use.
 */
export function lockFolder(dir: string, name = "lock"): () => void {
  const path = join(dir, name);
  const mine: Holder = { pid: process.pid, host: hostname(), since: new Date().toISOString() };
  for (let attempt = 0; attempt < 5; attempt++) {
    try {
      writeFileSync(path, `${JSON.stringify(mine)}\n`, { flag: "wx" });
      held.add(path);
      return () => {
        held.delete(path);
        rmSync(path, { force: true });
      };
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error;
    }
    const text = readIfThere(path);
    if (text === undefined) continue;
    const holder = parseHolder(text);
    if (holder !== undefined && isAlive(holder, path)) {
      const where = holder.host === mine.host ? "" : ` on ${holder.host}`;
      throw new InUseError(
        `${dir} is in use by process ${holder.pid}${where} since ${holder.since}; stop that run first, or delete ${path} if it is not running`,
      );
    }
    removeStale(path, text);
  }
  throw new UserError(`${dir} cannot be locked: another process keeps taking ${path}`);
}

/** Moves the stale lock away; where another process was faster and the lock is already its own, puts that back. */
function removeStale(path: string, text: string): void {
  const aside = `${path}.${process.pid}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return;
    throw error;
  }
  if (readIfThere(aside) === text) rmSync(aside, { force: true });
  else renameSync(aside, path);
}

function isAlive(holder: Holder, path: string): boolean {
  // Whether a process of another machine lives cannot be known from here.
  if (holder.host !== hostname()) return true;
  if (holder.pid === process.pid) return held.has(path);
  try {
    process.kill(holder.pid, 0);
    return true;
  } catch (error) {
    return hasCode(error, "EPERM");
  }
}

/** Undefined for a torn file: its writer died. */
function parseHolder(text: string): Holder | undefined {
  try {
    return holderSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

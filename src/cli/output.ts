import { closeSync, existsSync, mkdirSync, openSync, readSync, statSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { UserError } from "../errors.ts";
import { diskError } from "../run/disk.ts";

/** Writes a page, and makes its folder. */
export function writePage(path: string, html: string): void {
  try {
    mkdirSync(dirname(resolve(path)), { recursive: true });
    writeFileSync(path, html);
  } catch (error) {
    throw diskError(error, path);
  }
}

/** Refuses to write over anything but a page of this command, which holds `mark`; `option` names another file. */
export function checkFree(path: string, mark: string, command: string, option: string): void {
  if (!existsSync(path)) return;
  if (!statSync(path).isFile()) throw new UserError(`${path} is a folder: name a file with ${option}`);
  const head = Buffer.alloc(2000);
  const file = openSync(path, "r");
  const read = readSync(file, head, 0, head.length, 0);
  closeSync(file);
  if (head.toString("utf8", 0, read).includes(mark)) return;
  throw new UserError(`${path} exists and is not a page of ${command}: name another file with ${option}, or remove it`);
}

/** Prints a result: with `--json` that JSON alone on standard output, otherwise the text. */
export function printResult(json: boolean | undefined, result: object, text: () => string): void {
  process.stdout.write(`${json === true ? JSON.stringify(result, null, 2) : text()}\n`);
}

/** A line on standard error that is written over by the next one; nothing where that is no terminal. */
export class StatusLine {
  private shown = false;

  show(text: string): void {
    if (process.stderr.isTTY !== true) return;
    const width = Math.max(20, (process.stderr.columns ?? 80) - 1);
    process.stderr.write(`\r\x1b[2K${text.slice(0, width)}`);
    this.shown = true;
  }

  clear(): void {
    if (this.shown) process.stderr.write("\r\x1b[2K");
    this.shown = false;
  }
}

import { existsSync, readFileSync } from "node:fs";
import { basename } from "node:path";

/**
 * The values of a file of JSON lines as far as they can be read. `note` gets a line for each thing that is left out: a missing file, a
 * last line that was cut off, a line that is not JSON.
 */
export function readJsonLines(path: string, note: (text: string) => void): unknown[] {
  const name = basename(path);
  if (!existsSync(path)) {
    note(`${name} is missing`);
    return [];
  }
  const text = readFileSync(path, "utf8");
  const lines = text.split("\n");
  const values: unknown[] = [];
  let damaged = 0;
  lines.forEach((line, i) => {
    if (line.trim() === "") return;
    try {
      values.push(JSON.parse(line));
    } catch {
      if (i === lines.length - 1) note(`${name}: its last line was cut off and is left out`);
      else damaged++;
    }
  });
  if (damaged > 0) note(`${name}: ${damaged} line${damaged === 1 ? " is" : "s are"} not JSON and left out`);
  return values;
}

import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { AlarmWatch } from "../run/alarms.ts";
import { readCurve } from "../run/curve.ts";
import { readJsonLines } from "./lines.ts";
import type { ViewHead } from "./types.ts";

const lineSchema = z.looseObject({ stage: z.string(), step: z.int().nonnegative() });

/** Every number of metrics.jsonl as a curve, those of timings.jsonl as `timings/NAME`, and the alarms that the run raised. */
export function readCurves(
  dir: string,
  note: (text: string) => void,
): Pick<ViewHead, "lines" | "metrics" | "alarms" | "points"> & { has(stage: string, step: number): boolean } {
  const lines: ViewHead["lines"] = { stage: [], step: [] };
  const at = new Map<string, number>();
  const metrics = new Map<string, (number | null)[]>();
  const alarms: ViewHead["alarms"] = [];
  const watch = new AlarmWatch();
  const enter = (name: string, line: number, value: number) => {
    const values = metrics.get(name);
    if (values === undefined) metrics.set(name, Object.assign([], { [line]: value }));
    else values[line] = value;
  };
  for (const value of readJsonLines(join(dir, "metrics.jsonl"), note)) {
    const parsed = lineSchema.safeParse(value);
    if (!parsed.success) continue;
    const { stage, step, ...rest } = parsed.data;
    const line = lines.stage.length;
    lines.stage.push(stage);
    lines.step.push(step);
    at.set(keyOf(stage, step), line);
    const numbers = numbersOf(rest);
    for (const [name, x] of Object.entries(numbers)) enter(name, line, x);
    alarms.push(...watch.next(stage, numbers).map((alarm) => ({ line, ...alarm })));
  }
  for (const value of readJsonLines(join(dir, "timings.jsonl"), note)) {
    const parsed = lineSchema.safeParse(value);
    if (!parsed.success) continue;
    const { stage, step, ...rest } = parsed.data;
    const line = at.get(keyOf(stage, step));
    if (line === undefined) continue;
    for (const [name, x] of Object.entries(numbersOf(rest))) enter(`timings/${name}`, line, x);
  }
  const whole = (values: (number | null)[]) => Array.from(lines.stage, (_, line) => values[line] ?? null);
  return {
    lines,
    metrics: [...metrics].map(([name, values]) => ({ name, values: whole(values) })),
    alarms,
    points: readPoints(dir, lines, note),
    has: (stage, step) => at.has(keyOf(stage, step)),
  };
}

/** The evaluations inside the run, each after the steps that it followed. */
function readPoints(dir: string, lines: ViewHead["lines"], note: (text: string) => void): ViewHead["points"] {
  try {
    return readCurve(dir).map(({ stage, step, split, accuracy, low, high, problems, correct }) => {
      const before = lines.stage.findLastIndex((name, i) => name === stage && lines.step[i] < step);
      const at = before >= 0 ? before + 1 : Math.max(0, lines.stage.indexOf(stage));
      return { name: `${split} accuracy`, at, stage, step, value: accuracy, low, high, problems, correct };
    });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    note(`no evaluations inside the run: ${error.message}`);
    return [];
  }
}

const keyOf = (stage: string, step: number): string => `${stage}/${step}`;

const numbersOf = (line: Record<string, unknown>): Record<string, number> =>
  Object.fromEntries(Object.entries(line).flatMap(([name, x]) => (typeof x === "number" ? [[name, x]] : [])));

import type { Grade, Problem } from "./types.ts";

/** Seconds that a reward may take when its task does not say. */
export const DEFAULT_DEADLINE = 10;

export interface Item {
  problem: Problem;
  response: string;
}

/** Grades in the order of the items; one that fails costs only itself. */
export interface Grader {
  grade(items: Item[]): Promise<Grade[]>;
  close(): Promise<void>;
}

/** The grade that a reward stands for; one that is no number, or lacks a part that has a weight, is a failed grade. */
export function gradeOf(item: Item, reward: unknown, weights: Record<string, number> = {}): Grade {
  if (typeof reward === "number") {
    return Number.isFinite(reward) ? { reward, parts: {} } : failedGrade(item, `the reward is ${reward}`);
  }
  if (typeof reward !== "object" || reward === null || Array.isArray(reward)) {
    return failedGrade(item, `expected a number or named numbers, the reward is ${show(reward)}`);
  }
  const parts: Record<string, number> = {};
  let total = 0;
  for (const [name, value] of Object.entries(reward)) {
    if (typeof value !== "number" || !Number.isFinite(value)) {
      return failedGrade(item, `expected a number, the reward's part ${name} is ${show(value)}`);
    }
    parts[name] = value;
    total += value * (weights[name] ?? 1);
  }
  const names = Object.keys(parts);
  if (names.length === 0) return failedGrade(item, "the reward has no parts");
  const missing = Object.keys(weights).find((name) => !names.includes(name));
  if (missing !== undefined) {
    return failedGrade(item, `weights name the part ${missing}, the reward has ${names.join(", ")}`);
  }
  return { reward: total, parts };
}

/** Reward 0, and a line that names the problem, the response's beginning and the reason. */
export function failedGrade({ problem, response }: Item, reason: string): Grade {
  const beginning = JSON.stringify(response.length > 80 ? `${response.slice(0, 80)}...` : response);
  const line = reason.replace(/\s*\n\s*/g, " ").slice(0, 400);
  return { reward: 0, parts: {}, error: `problem ${problem.id}, response ${beginning}: ${line}` };
}

export function pastDeadline(seconds: number): string {
  return `the reward passed its deadline of ${seconds} s (the task's \`deadline\`)`;
}

/** What was thrown, and the place in the task's file where there is one. */
export function describeThrown(error: unknown): string {
  if (!(error instanceof Error)) return `the reward threw ${show(error)}`;
  const place = /\(?((?:file:\/\/|\/|[A-Za-z]:\\)[^()\n]*:\d+:\d+)\)?/.exec(
    error.stack?.split("\n    at ").slice(1)[0] ?? "",
  );
  return `the reward threw ${error.name}: ${error.message}${place ? ` (${place[1]})` : ""}`;
}

function show(value: unknown): string {
  const text = typeof value === "object" && value !== null ? safeJson(value) : String(value);
  return text.slice(0, 80);
}

function safeJson(value: object): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}

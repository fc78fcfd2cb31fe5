import { z } from "zod";
import { nearest, UserError } from "./errors.ts";

/**
 * Checks `value` against a schema of strict objects. A mistake is a UserError of one line: where (`source`), which key, what was
 * expected and found, and for an unknown key the nearest valid one. `base` is the key path of `value` in its file.
 */
export function parseStrict<S extends z.ZodType>(
  schema: S,
  value: unknown,
  source: string,
  base: PropertyKey[] = [],
): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new UserError(`${source}: ${describeIssue(schema, value, mostTelling(result.error.issues), base)}`);
}

/** A slip in a key's name also leaves the right key missing: the slip is what helps. */
function mostTelling(issues: z.core.$ZodIssue[]): z.core.$ZodIssue {
  return issues.find((issue) => issue.code === "unrecognized_keys") ?? issues[0];
}

function describeIssue(schema: z.ZodType, value: unknown, issue: z.core.$ZodIssue, base: PropertyKey[]): string {
  if (issue.code === "unrecognized_keys") {
    const valid = keysAt(schema, issue.path);
    return unknownKey([...base, ...issue.path], issue.keys[0], valid);
  }
  if (issue.code === "invalid_union" && issue.errors.length > 0) {
    // The alternative whose mistake lies deepest is the one that was meant.
    const nested = issue.errors.map(mostTelling).sort((a, b) => b.path.length - a.path.length)[0];
    return describeIssue(schema, value, { ...nested, path: [...issue.path, ...nested.path] }, base);
  }
  const at = keyPath([...base, ...issue.path]);
  const found = valueAt(value, issue.path);
  const message = lowerFirst(issue.message.replace(/^Invalid (input|option): /, "").replace(/, received .*$/, ""));
  if (found === undefined && (issue.code === "invalid_type" || issue.code === "invalid_value")) {
    return `\`${at}\` is missing: ${message}`;
  }
  const shown = found === undefined || typeof found === "object" ? "" : `, found ${JSON.stringify(found)}`;
  return `${at === "" ? "" : `\`${at}\`: `}${message}${shown}`;
}

/** The line for a key that nobody knows. */
export function unknownKey(path: PropertyKey[], key: string, valid: Iterable<string>): string {
  const known = [...valid];
  const near = nearest(key, known);
  const hint = near === undefined ? `valid keys: ${known.join(", ")}` : `did you mean \`${near}\`?`;
  return `unknown key \`${keyPath([...path, key])}\` (${hint})`;
}

/** `["stage", 0, "lr"]` as a person writes it, `stage.1.lr`: positions count from 1. */
export function keyPath(path: PropertyKey[]): string {
  return path.map((part) => (typeof part === "number" ? part + 1 : String(part))).join(".");
}

/** The keys that a schema allows at a path; of a union, those of all its alternatives. */
function keysAt(schema: z.core.$ZodType, path: PropertyKey[]): string[] {
  let level: z.core.$ZodType[] = alternatives(schema);
  for (const part of path) {
    level = level.flatMap((s) => {
      if (s instanceof z.ZodObject) return part in s.shape ? alternatives(s.shape[String(part)]) : [];
      return s instanceof z.ZodArray ? alternatives(s.element) : [];
    });
  }
  return [...new Set(level.flatMap((s) => (s instanceof z.ZodObject ? Object.keys(s.shape) : [])))];
}

function alternatives(schema: z.core.$ZodType): z.core.$ZodType[] {
  if (schema instanceof z.ZodUnion) return schema.options.flatMap(alternatives);
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
    return alternatives(schema.unwrap());
  }
  return [schema];
}

function valueAt(value: unknown, path: PropertyKey[]): unknown {
  let at = value;
  for (const part of path) {
    if (typeof at !== "object" || at === null) return undefined;
    at = Reflect.get(at, part);
  }
  return at;
}

function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}

import { z } from "zod";
import { UserError } from "../errors.ts";
import type { Segment, Tree } from "./types.ts";
import { validateTree } from "./validate.ts";

/** What JSON has no number for (NaN, the infinities, -0) stands as a string. */
const numberSchema = z.union([z.number(), z.enum(["NaN", "Infinity", "-Infinity", "-0"]).transform(Number)]);
const floatsSchema = z.array(numberSchema).transform((values) => Float32Array.from(values));
const idsSchema = z.array(z.int32()).transform((ids) => Int32Array.from(ids));

const segmentSchema = z.object({
  parent: z.int(),
  tokens: idsSchema,
  source: z.enum(["prompt", "data", "env", "policy", "search", "forced"]),
  logprobs: floatsSchema.optional(),
  temperature: z.number().optional(),
  allowed: z.array(idsSchema.nullable()).optional(),
  truncated: z.literal(true).optional(),
  fields: z.record(z.string(), floatsSchema),
  outcome: z.record(z.string(), numberSchema).optional(),
  stop: z.enum(["eos", "stop", "length"]).optional(),
});

const treeSchema = z.object({
  id: z.string(),
  group: z.string().optional(),
  problem: z.string(),
  segments: z.array(segmentSchema),
  cause: z.strictObject({ tree: z.string(), segment: z.int() }).optional(),
});

/**
 * One line of JSON. Every float32 comes back bit for bit (NaN as NaN), written with as few digits as that takes. `textOf`
 * adds each segment's text for human readers; decoding ignores it.
 */
export function encodeTree(tree: Tree, textOf?: (tokens: Int32Array) => string): string {
  const segments = tree.segments.map((segment) => ({ ...plainSegment(segment), text: textOf?.(segment.tokens) }));
  return JSON.stringify({ ...tree, segments });
}

/** The tree of `encodeTree`'s JSON. A UserError says where the text is not one; `where` is its file and line. */
export function decodeTree(json: string, where: string): Tree {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new UserError(`${where}: expected one tree as JSON, found text that is not JSON`);
  }
  const parsed = treeSchema.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new UserError(`${where}: not a tree of tokens: ${issue.path.join(".") || "top level"}: ${issue.message}`);
  }
  validateTree(parsed.data);
  return parsed.data;
}

function plainSegment(segment: Segment) {
  return {
    ...segment,
    tokens: Array.from(segment.tokens),
    logprobs: segment.logprobs && plainFloats(segment.logprobs),
    allowed: segment.allowed?.map((ids) => ids && Array.from(ids)),
    fields: Object.fromEntries(Object.entries(segment.fields).map(([name, values]) => [name, plainFloats(values)])),
    outcome:
      segment.outcome &&
      Object.fromEntries(Object.entries(segment.outcome).map(([name, value]) => [name, plainNumber(value)])),
  };
}

const plainFloats = (values: Float32Array) => Array.from(values, (value) => plainNumber(shortest(value)));

const plainNumber = (value: number) =>
  Number.isFinite(value) && !Object.is(value, -0) ? value : Object.is(value, -0) ? "-0" : String(value);

/** The number with the fewest digits that rounds to this float32. */
function shortest(value: number): number {
  if (value === 0) return value; // keeps the sign of -0
  for (let digits = 6; digits < 9; digits++) {
    const candidate = Number(value.toPrecision(digits));
    if (Math.fround(candidate) === value) return candidate;
  }
  return Number(value.toPrecision(9));
}

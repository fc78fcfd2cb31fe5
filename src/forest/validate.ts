import { UserError } from "../errors.ts";
import type { Forest, Segment, Tree } from "./types.ts";

/**
 * Throws a UserError that names the tree, the segment and what is wrong: ids that repeat, parents that do not come first,
 * per-token arrays of another length than the tokens, tokens outside their allowed ids.
 */
export function validateForest(forest: Forest): void {
  const ids = new Set<string>();
  for (const tree of forest) {
    if (ids.has(tree.id))
      throw new UserError(`forest: two trees have the id ${JSON.stringify(tree.id)}; ids are unique`);
    ids.add(tree.id);
    validateTree(tree);
  }
}

export function validateTree(tree: Tree): void {
  if (tree.segments.length === 0) throw new UserError(`tree ${tree.id}: expected at least one segment, found none`);
  tree.segments.forEach((segment, s) => {
    const problem = faultOf(segment, s);
    if (problem) throw new UserError(`tree ${tree.id}, segment ${s}: ${problem}`);
  });
}

function faultOf(segment: Segment, index: number): string | undefined {
  const { parent, tokens, logprobs, temperature, allowed, fields } = segment;
  if (!Number.isInteger(parent) || parent < -1 || parent >= index) {
    return `expected a parent before it (-1 to ${index - 1}), found ${parent}; parents stand before their children`;
  }
  const negative = tokens.findIndex((id) => id < 0);
  if (negative >= 0) return `expected token ids from 0, found ${tokens[negative]} at token ${negative}`;
  if (temperature !== undefined && !(temperature > 0 && Number.isFinite(temperature))) {
    return `expected a positive temperature, found ${temperature}`;
  }
  if (logprobs) {
    if (logprobs.length !== tokens.length) return lengthFault("logprobs", tokens.length, logprobs.length);
    const bad = logprobs.findIndex((value) => Number.isNaN(value));
    if (bad >= 0) return `logprobs hold NaN at token ${bad}`;
  }
  for (const [name, values] of Object.entries(fields)) {
    if (values.length !== tokens.length) return lengthFault(`field ${name}`, tokens.length, values.length);
  }
  if (allowed) {
    if (allowed.length !== tokens.length) return lengthFault("allowed", tokens.length, allowed.length);
    const outside = allowed.findIndex((ids, i) => ids !== null && !ids.includes(tokens[i]));
    if (outside >= 0) return `token ${outside} has id ${tokens[outside]}, which is not among its allowed ids`;
  }
  return undefined;
}

const lengthFault = (what: string, expected: number, found: number) =>
  `expected ${what} of length ${expected}, one entry a token, found ${found}`;

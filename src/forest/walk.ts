import type { Tree } from "./types.ts";

/** For each segment the number of tokens that stand before it on its path: the position of its first token. */
export function depths(tree: Tree): Int32Array {
  const before = new Int32Array(tree.segments.length);
  tree.segments.forEach(({ parent }, s) => {
    if (parent >= 0) before[s] = before[parent] + tree.segments[parent].tokens.length;
  });
  return before;
}

/** The segments from the root to this one, both included. */
export function pathTo(tree: Tree, segment: number): number[] {
  const path: number[] = [];
  for (let s = segment; s >= 0; s = tree.segments[s].parent) path.push(s);
  return path.reverse();
}

/** The segments without children, depth first: neighbours in this list share the longest prefixes. */
export function leaves(tree: Tree): number[] {
  const children: number[][] = tree.segments.map(() => []);
  const stack: number[] = [];
  tree.segments.forEach(({ parent }, s) => (parent < 0 ? stack : children[parent]).push(s));
  stack.reverse();
  const found: number[] = [];
  for (let s = stack.pop(); s !== undefined; s = stack.pop()) {
    if (children[s].length === 0) found.push(s);
    else stack.push(...children[s].toReversed());
  }
  return found;
}

/** Tokens of the tree, each counted once. */
export function countTokens(tree: Tree): number {
  return tree.segments.reduce((sum, segment) => sum + segment.tokens.length, 0);
}

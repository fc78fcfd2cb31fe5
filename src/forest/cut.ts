import { UserError } from "../errors.ts";
import type { Segment, Tree } from "./types.ts";
import { countTokens, depths, leaves, pathTo } from "./walk.ts";

/** A sub-tree that fits a row budget: whole segments of the original, some of them repeated only as context. */
export interface Piece {
  tree: Tree;
  /** For each segment of the piece, its index in the original tree; token i of the one is token i of the other. */
  segments: number[];
  /** For each segment of the piece, whether scores and gradients of its tokens belong here; every original segment is owned once. */
  owned: boolean[];
}

/**
 * Cuts a tree into pieces of at most `maxRows` tokens, repeating what stands before a piece's own segments. Summed over
 * the pieces, the parameter gradient of the owned tokens' losses is that of the whole tree. Paths are never cut: a path
 * longer than `maxRows` is a UserError.
 */
export function cutTree(tree: Tree, maxRows: number): Piece[] {
  if (countTokens(tree) <= maxRows) {
    return [{ tree, segments: tree.segments.map((_, s) => s), owned: tree.segments.map(() => true) }];
  }
  const before = depths(tree);
  const seen = new Set<number>();
  const pieces: Piece[] = [];
  let members = new Set<number>();
  let rows = 0;
  const close = () => {
    if (members.size > 0) pieces.push(makePiece(tree, members, seen));
    members.forEach((s) => seen.add(s));
    members = new Set();
    rows = 0;
  };
  // Leaves depth first, as many to a piece as fit: a prefix is repeated only where a piece begins.
  for (const leaf of leaves(tree)) {
    const length = before[leaf] + tree.segments[leaf].tokens.length;
    if (length > maxRows) {
      throw new UserError(
        `tree ${tree.id} has a path of ${length} tokens, more than the ${maxRows} rows of one pass: raise the memory budget or shorten the responses`,
      );
    }
    const path = pathTo(tree, leaf);
    const added = () => path.reduce((sum, s) => sum + (members.has(s) ? 0 : tree.segments[s].tokens.length), 0);
    if (rows + added() > maxRows) close();
    rows += added();
    path.forEach((s) => members.add(s));
  }
  close();
  return pieces;
}

function makePiece(tree: Tree, members: Set<number>, seen: Set<number>): Piece {
  const segments = [...members].sort((a, b) => a - b);
  const index = new Map(segments.map((s, i) => [s, i]));
  const owned = segments.map((s) => !seen.has(s));
  const parts = segments.map((s, i): Segment => {
    const segment = tree.segments[s];
    const parent = segment.parent < 0 ? -1 : (index.get(segment.parent) ?? -1);
    return { ...segment, parent, fields: owned[i] ? segment.fields : zeros(segment.fields) };
  });
  return { tree: { ...tree, segments: parts }, segments, owned };
}

const zeros = (fields: Segment["fields"]) =>
  Object.fromEntries(Object.entries(fields).map(([name, values]) => [name, new Float32Array(values.length)]));

/** Puts the pieces' numbers, [piece][segment], together again: [segment] of the whole tree, each from the piece that owns it. */
export function joinPieces(pieces: Piece[], parts: Float32Array[][]): Float32Array[] {
  const whole: Float32Array[] = [];
  pieces.forEach((piece, p) =>
    piece.segments.forEach((s, i) => {
      if (piece.owned[i]) whole[s] = parts[p][i];
    }),
  );
  return whole;
}

/** Hands numbers of the whole tree to the piece that owns their segment; what is only repeated gets zeros. */
export function splitPieces(pieces: Piece[], whole: Float32Array[]): Float32Array[][] {
  return pieces.map((piece) =>
    piece.segments.map((s, i) => (piece.owned[i] ? whole[s] : new Float32Array(whole[s].length))),
  );
}

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { treeArbitrary } from "../../test/trees.ts";
import { cutTree, joinPieces, splitPieces } from "./cut.ts";
import type { Tree } from "./types.ts";
import { validateTree } from "./validate.ts";
import { countTokens, depths, pathTo } from "./walk.ts";

const longestPath = (tree: Tree) => {
  const before = depths(tree);
  return Math.max(...tree.segments.map((segment, s) => before[s] + segment.tokens.length));
};

const pathTokens = (tree: Tree, segment: number) =>
  pathTo(tree, segment).flatMap((s) => Array.from(tree.segments[s].tokens));

/** A number for each token that depends on all that stands before it, as a model's score does. */
const scoresOf = (tree: Tree) =>
  tree.segments.map((segment, s) => {
    const before = pathTokens(tree, s).slice(0, -segment.tokens.length || undefined);
    let state = segment.tokens.length === 0 ? 0 : before.reduce((h, id) => (h * 31 + id + 7) % 65521, 1);
    return Float32Array.from(segment.tokens, (id) => (state = (state * 31 + id + 7) % 65521));
  });

const cutArbitrary = treeArbitrary({ segments: 14, longest: 4 }).chain((tree) =>
  fc.record({ tree: fc.constant(tree), slack: fc.nat(12) }),
);

describe("cutting a tree over the row budget", () => {
  test("pieces fit, keep every path's context, and own every segment once", () => {
    fc.assert(
      fc.property(cutArbitrary, ({ tree, slack }) => {
        const budget = longestPath(tree) + slack;
        const pieces = cutTree(tree, budget);
        const owners = tree.segments.map(() => 0);
        for (const piece of pieces) {
          expect(countTokens(piece.tree)).toBeLessThanOrEqual(budget);
          validateTree(piece.tree);
          piece.segments.forEach((s, i) => {
            expect(pathTokens(piece.tree, i)).toEqual(pathTokens(tree, s));
            if (piece.owned[i]) owners[s]++;
          });
        }
        expect(owners).toEqual(tree.segments.map(() => 1));
      }),
    );
  });

  test("scores of the pieces, put together, are those of the whole tree", () => {
    fc.assert(
      fc.property(cutArbitrary, ({ tree, slack }) => {
        const pieces = cutTree(tree, longestPath(tree) + slack);
        const joined = joinPieces(
          pieces,
          pieces.map((piece) => scoresOf(piece.tree)),
        );
        expect(joined).toEqual(scoresOf(tree));
      }),
    );
  });

  test("gradients are handed out once: the pieces' sum is the whole's, and repeated tokens get none", () => {
    fc.assert(
      fc.property(cutArbitrary, ({ tree, slack }) => {
        const pieces = cutTree(tree, longestPath(tree) + slack);
        const gradient = scoresOf(tree);
        const parts = splitPieces(pieces, gradient);
        const sum = tree.segments.map((segment) => new Float32Array(segment.tokens.length));
        pieces.forEach((piece, p) =>
          piece.segments.forEach((s, i) => {
            if (!piece.owned[i]) expect(parts[p][i].every((value) => value === 0)).toBe(true);
            parts[p][i].forEach((value, t) => (sum[s][t] += value));
          }),
        );
        expect(sum).toEqual(gradient);
      }),
    );
  });

  test("repeated segments keep the names of their fields but no weight", () => {
    const segment = (parent: number, length: number) => ({
      parent,
      tokens: new Int32Array(length),
      source: "policy" as const,
      fields: { weights: new Float32Array(length).fill(1) },
    });
    const tree: Tree = { id: "t", problem: "p", segments: [segment(-1, 3), segment(0, 2), segment(0, 2)] };
    const weights = cutTree(tree, 5).map((piece) => piece.tree.segments.map((s) => Array.from(s.fields.weights)));
    expect(weights).toEqual([
      [
        [1, 1, 1],
        [1, 1],
      ],
      [
        [0, 0, 0],
        [1, 1],
      ],
    ]);
  });

  test("a tree within the budget stays whole", () => {
    fc.assert(
      fc.property(treeArbitrary(), (tree) => {
        const [piece, ...rest] = cutTree(tree, countTokens(tree));
        expect(rest).toEqual([]);
        expect(piece.tree).toBe(tree);
      }),
    );
  });

  test("a path over the budget is refused by name and number", () => {
    const tree: Tree = {
      id: "long",
      problem: "p",
      segments: [{ parent: -1, tokens: new Int32Array(9), source: "data", fields: {} }],
    };
    expect(() => cutTree(tree, 8)).toThrow(/tree long has a path of 9 tokens, more than the 8 rows/);
  });
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { treeArbitrary } from "../../test/trees.ts";
import { countTokens, depths, leaves, pathTo } from "./walk.ts";

describe("walking a tree", () => {
  test("a path runs from a root to its segment, and depth is what lies before it", () => {
    fc.assert(
      fc.property(treeArbitrary(), (tree) => {
        const before = depths(tree);
        tree.segments.forEach((_, s) => {
          const path = pathTo(tree, s);
          expect(tree.segments[path[0]].parent).toBe(-1);
          expect(path.at(-1)).toBe(s);
          path.slice(1).forEach((child, i) => expect(tree.segments[child].parent).toBe(path[i]));
          const length = path.slice(0, -1).reduce((sum, p) => sum + tree.segments[p].tokens.length, 0);
          expect(before[s]).toBe(length);
        });
      }),
    );
  });

  test("leaves are the segments without children, those of one sub-tree beside each other", () => {
    fc.assert(
      fc.property(treeArbitrary(), (tree) => {
        const parents = new Set(tree.segments.map((segment) => segment.parent));
        const found = leaves(tree);
        const expected = tree.segments.map((_, s) => s).filter((s) => !parents.has(s));
        expect(found.toSorted((a, b) => a - b)).toEqual(expected);
        tree.segments.forEach((_, s) => {
          const below = found.flatMap((leaf, i) => (pathTo(tree, leaf).includes(s) ? [i] : []));
          expect(below.at(-1)! - below[0]).toBe(below.length - 1);
        });
      }),
    );
  });

  test("counts each token once", () => {
    fc.assert(
      fc.property(treeArbitrary(), (tree) => {
        expect(countTokens(tree)).toBe(tree.segments.flatMap((segment) => Array.from(segment.tokens)).length);
      }),
    );
  });
});

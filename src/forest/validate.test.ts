import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { treeArbitrary } from "../../test/trees.ts";
import { UserError } from "../errors.ts";
import type { Segment, Tree } from "./types.ts";
import { validateForest, validateTree } from "./validate.ts";

const treeWith = (change: Partial<Segment>): Tree => {
  const root: Segment = { parent: -1, tokens: Int32Array.of(1, 2), source: "prompt", fields: {} };
  const leaf: Segment = { parent: 0, tokens: Int32Array.of(3, 4), source: "policy", fields: {} };
  return { id: "t7", problem: "p", segments: [root, { ...leaf, ...change }] };
};

describe("validating a forest", () => {
  test("sound trees pass", () => {
    fc.assert(
      fc.property(treeArbitrary(), (tree) => {
        expect(() => validateForest([tree])).not.toThrow();
      }),
    );
  });

  test.each<[string, Partial<Segment>, RegExp]>([
    ["a parent after its child", { parent: 1 }, /expected a parent before it \(-1 to 0\), found 1/],
    ["a parent below -1", { parent: -2 }, /found -2/],
    ["a negative id", { tokens: Int32Array.of(3, -4) }, /found -4 at token 1/],
    ["temperature 0", { temperature: 0 }, /expected a positive temperature, found 0/],
    ["short logprobs", { logprobs: new Float32Array(1) }, /expected logprobs of length 2, one entry a token, found 1/],
    ["NaN in logprobs", { logprobs: Float32Array.of(0, NaN) }, /logprobs hold NaN at token 1/],
    ["a long field", { fields: { weights: new Float32Array(3) } }, /expected field weights of length 2.*found 3/],
    ["too few allowed", { allowed: [null] }, /expected allowed of length 2.*found 1/],
    ["a token that is not allowed", { allowed: [null, Int32Array.of(5)] }, /token 1 has id 4, which is not among/],
  ])("%s is named", (_, change, message) => {
    expect(() => validateTree(treeWith(change))).toThrow(UserError);
    expect(() => validateTree(treeWith(change))).toThrow(/^tree t7, segment 1: /);
    expect(() => validateTree(treeWith(change))).toThrow(message);
  });

  test("ids are unique and trees are not empty", () => {
    const tree = treeWith({});
    expect(() => validateForest([tree, tree])).toThrow(/two trees have the id "t7"/);
    expect(() => validateTree({ ...tree, segments: [] })).toThrow(/t7: expected at least one segment/);
  });
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { treeArbitrary } from "../../test/trees.ts";
import { groupTree } from "./build.ts";
import { decodeTree, encodeTree } from "./json.ts";
import type { Tree } from "./types.ts";

describe("trees as JSON", () => {
  test("every float32 comes back bit for bit", () => {
    fc.assert(
      fc.property(fc.float32Array({ maxLength: 20 }), (values) => {
        const segment = { parent: -1, tokens: new Int32Array(values.length), source: "data" as const };
        const tree: Tree = { id: "t", problem: "p", segments: [{ ...segment, fields: { weights: values } }] };
        const back = decodeTree(encodeTree(tree), "here").segments[0].fields.weights;
        expect(Array.from(back, (x) => [x, 1 / x])).toEqual(Array.from(values, (x) => [x, 1 / x]));
      }),
    );
  });

  test("a random tree comes back as it was", () => {
    fc.assert(
      fc.property(treeArbitrary(), (tree) => {
        expect(decodeTree(encodeTree(tree), "here")).toEqual(tree);
      }),
    );
  });

  test("optional parts come back, text is for readers only, numbers stay short", () => {
    const sample = { tokens: Int32Array.of(5, 6), logprobs: Float32Array.of(-0.1, -2.5), stop: "eos" as const };
    const tree = groupTree({ id: "t", problem: "p", group: "g" }, Int32Array.of(1), [sample], {
      temperature: 0.7,
      truncated: true,
    });
    tree.cause = { tree: "u", segment: 2 };
    tree.segments[1].allowed = [null, Int32Array.of(6, 7)];
    tree.segments[1].outcome = { reward: 1, value: -Infinity };
    const line = encodeTree(tree, (ids) => `<${ids.join(" ")}>`);
    expect(line).toContain('"text":"<5 6>"');
    expect(line).toContain('"logprobs":[-0.1,-2.5]');
    expect(line).not.toContain("\n");
    expect(decodeTree(line, "here")).toEqual(tree);
  });

  test("a broken line is named", () => {
    expect(() => decodeTree("{", "rollouts/3.jsonl:2")).toThrow(/^rollouts\/3.jsonl:2: expected one tree as JSON/);
    const wrong = JSON.stringify({ id: "t", problem: "p", segments: [{ parent: "x" }] });
    expect(() => decodeTree(wrong, "f:1")).toThrow(/^f:1: not a tree of tokens: segments.0.parent: /);
    const short = { parent: -1, tokens: [1, 2], source: "data", fields: { weights: [1] } };
    expect(() => decodeTree(JSON.stringify({ id: "t", problem: "p", segments: [short] }), "f:1")).toThrow(/length 2/);
  });
});

import { describe, expect, test } from "vitest";
import { validateForest } from "../forest/validate.ts";
import { countTokens, depths } from "../forest/walk.ts";
import type { Segment, Tree } from "../forest/types.ts";
import type { ModelConfig } from "../model/types.ts";
import { attentionPairs, decodeFlops, forwardFlops, trainingFlops, weightBytes } from "./floors.ts";
import { trustedBandwidth } from "./probes.ts";
import { SMOLLM2_135M } from "./shapes.ts";
import { makeSearchTree, passWork } from "./workloads.ts";

// q 16, k 8, v 8, o 16, gate, up and down 32 each: 144 weights in the only layer; 40 in the head.
const small: ModelConfig = {
  ...SMOLLM2_135M,
  layers: 1,
  hidden: 4,
  heads: 2,
  kvHeads: 1,
  headDim: 2,
  intermediate: 8,
  vocab: 10,
};
const work = { rows: 3, scored: 2, pairs: 9 };

const treeOf = (...segments: [parent: number, length: number, weight?: number][]): Tree => ({
  id: "t",
  problem: "p",
  segments: segments.map(([parent, length, weight]): Segment => ({
    parent,
    tokens: new Int32Array(length),
    source: "data",
    fields: weight === undefined ? {} : { weights: new Float32Array(length).fill(weight) },
  })),
});

describe("floors by hand", () => {
  test("forward: 2 x 3 x 144 of the layers, 2 x 2 x 40 of the head, 4 x 9 x 4 of attention", () => {
    expect(forwardFlops(small, work)).toBe(864 + 160 + 144);
  });

  test("full fine-tuning: forward, input gradients, weight gradients", () => {
    expect(trainingFlops(small, work, "full")).toBe(1168 + (864 + 160 + 288) + (864 + 160));
  });

  test("an adapter of rank 1: in + out are 64 over all linear layers; the first q, k, v hand no gradient on", () => {
    const adapters = 4 * 3 * 64 + 2 * 144;
    expect(trainingFlops(small, work, { lora: { rank: 1, alpha: 1 } })).toBe(1168 + (864 + 160 + 288) - 192 + adapters);
    const onlyDown = 4 * 3 * 12 + 2 * 32;
    expect(trainingFlops(small, work, { lora: { rank: 1, alpha: 1, targets: ["down"] } })).toBe(2480 - 192 + onlyDown);
  });

  test("a decode step of 2 rows over 5 keys", () => {
    expect(decodeFlops(small, 2, 5)).toBe(2 * 2 * 144 + 2 * 2 * 40 + 4 * 10 * 4);
  });

  test("bytes: every weight once, 538 MB for 134,515,008 of them", () => {
    expect(weightBytes(small)).toBe(4 * (144 + 40 + 2 * 4 + 4));
    expect(weightBytes({ ...small, qkvBias: true, qkNorm: true })).toBe(4 * (196 + 8 + 4));
    expect(weightBytes(SMOLLM2_135M)).toBe(4 * 134_515_008);
  });

  test("the training step of 8 x 256 tokens on the 135M shape: about 1.25 TFLOP with an adapter", () => {
    const flops = trainingFlops(
      SMOLLM2_135M,
      { rows: 2048, scored: 2040, pairs: 8 * 256 * 256 },
      { lora: { rank: 16, alpha: 32 } },
    );
    expect(flops / 1e12).toBeCloseTo(1.25, 2);
  });
});

describe("query-key pairs", () => {
  test("a segment attends to what stands above it and to itself", () => {
    expect(attentionPairs([treeOf([-1, 3], [0, 2], [0, 4])])).toBe(3 * 3 + 2 * 5 + 4 * 7);
  });

  test("an only child counts as one with its parent", () => {
    expect(attentionPairs([treeOf([-1, 3], [0, 2]), treeOf([-1, 5])])).toBe(25 + 25);
    expect(attentionPairs([treeOf([-1, 3], [0, 2], [0, 1], [1, 4])])).toBe(9 + 6 * 9 + 1 * 4);
  });

  test("what is scored: weighted tokens, but for a root's first", () => {
    expect(passWork([treeOf([-1, 3, 1], [0, 2, 1], [0, 4, 0])])).toEqual({ rows: 9, scored: 2 + 2, pairs: 47 });
  });
});

test("the search tree has the size that was asked for and no long path", () => {
  const tree = makeSearchTree(SMOLLM2_135M, 4000);
  validateForest([tree]);
  expect(countTokens(tree)).toBe(4000);
  const before = depths(tree);
  const longest = Math.max(...tree.segments.map((segment, s) => before[s] + segment.tokens.length));
  expect(longest).toBeGreaterThan(300);
  expect(longest).toBeLessThan(1000);
});

test("a slow bandwidth probe on two fast cores is replaced, and said to be so", () => {
  expect(trustedBandwidth(25e9, 150e9, 2)).toEqual({ bytes: 32.5e9, assumed: true });
  expect(trustedBandwidth(31e9, 150e9, 2)).toEqual({ bytes: 31e9, assumed: false });
  expect(trustedBandwidth(25e9, 130e9, 2)).toEqual({ bytes: 25e9, assumed: false });
  expect(trustedBandwidth(25e9, 150e9, 8)).toEqual({ bytes: 25e9, assumed: false });
});

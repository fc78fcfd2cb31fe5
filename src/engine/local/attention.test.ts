import { describe, expect, test } from "vitest";
import { randomTokens, segmentOf, smallConfig, treeOf } from "../../../test/local.ts";
import type { Forest } from "../../forest/types.ts";
import { compile, type Numbers, type Port, randomNumbers, relativeError } from "../../tensor/testing.ts";
import { attentionGraphs } from "./blocks.ts";
import { type AttentionGroup, type Pack, packTrees } from "./pack.ts";

// Attention over the groups of a pack, forward and backward in float64, against its definition over ancestors.

const config = smallConfig();
const { heads, kvHeads, headDim } = config;
const WIDE = heads * headDim;
const NARROW = kvHeads * headDim;

const segment = (parent: number, length: number) => segmentOf(parent, randomTokens(`${parent} ${length}`, length));

const forests: Record<string, Forest> = {
  "equal sequences": [0, 1].map((i) => treeOf(`${i}`, segment(-1, 4))),
  "sequences that are padded": [5, 4, 5].map((length, i) => treeOf(`${i}`, segment(-1, length))),
  "a group": [treeOf("g", segment(-1, 3), segment(0, 4), segment(0, 4), segment(0, 1))],
  "a search tree": [
    treeOf(
      "s",
      segment(-1, 2),
      segment(0, 3),
      segment(0, 0),
      segment(2, 2),
      segment(2, 3),
      segment(1, 1),
      segment(1, 1),
    ),
  ],
};

interface Rows {
  q: number[];
  k: number[];
  v: number[];
}

/** The rows that each row sees: those of its path, itself included. */
function visible(pack: Pack): number[][] {
  const seen: number[][] = [];
  pack.trees.forEach(({ segments }, t) => {
    const path: number[][] = [];
    segments.forEach(({ parent, tokens }, s) => {
      path[s] = parent < 0 ? [] : path[parent];
      tokens.forEach((_, i) => (seen[pack.start[t][s] + i] = path[s] = [...path[s], pack.start[t][s] + i]));
    });
  });
  return seen;
}

/** softmax(q k^T / sqrt(headDim)) v over the visible rows, head by head; query heads share key heads in order. */
function slow({ q, k, v }: Rows, seen: number[][]): number[] {
  return seen.flatMap((keys, row) =>
    Array.from({ length: heads }, (_, h) => {
      const kv = Math.floor(h / (heads / kvHeads)) * headDim;
      const scores = keys.map((key) => {
        let dot = 0;
        for (let i = 0; i < headDim; i++) dot += q[row * WIDE + h * headDim + i] * k[key * NARROW + kv + i];
        return Math.exp(dot / Math.sqrt(headDim));
      });
      const whole = scores.reduce((a, b) => a + b, 0);
      return Array.from({ length: headDim }, (_, i) =>
        keys.reduce((sum, key, j) => sum + (scores[j] / whole) * v[key * NARROW + kv + i], 0),
      );
    }).flat(),
  );
}

const port = (name: string, dims: Port["dims"], type: Port["type"] = "float64"): Port => ({ name, dims, type });

function groupFeeds(group: AttentionGroup, { q, k, v }: Rows, rows: number) {
  const { batch, queries, keys, queryRows, keyRows, mask, maskBatch, valid } = group;
  const gathered = queryRows !== null;
  const shape = (length: number, width: number) => (gathered ? [rows, width] : [batch, length, width]);
  const dims = (source: string, length: string, width: number) =>
    gathered ? [source, width] : ["batch", length, width];
  const ports = [
    port("q", dims("rows", "queries", WIDE)),
    port("k", dims("kvRows", "keys", NARROW)),
    port("v", dims("kvRows", "keys", NARROW)),
    port("mask", [maskBatch === 1 ? 1 : "batch", 1, "queries", "keys"]),
  ];
  const feeds: Record<string, Numbers> = {
    q: { data: q, dims: shape(queries, WIDE) },
    k: { data: k, dims: shape(keys, NARROW) },
    v: { data: v, dims: shape(keys, NARROW) },
    mask: { data: Array.from(mask), dims: [maskBatch, 1, queries, keys] },
  };
  if (queryRows && keyRows) {
    ports.push(port("queryRows", ["batch", "queries"], "int32"), port("keyRows", ["batch", "keys"], "int32"));
    feeds.queryRows = { data: Array.from(queryRows), dims: [batch, queries] };
    feeds.keyRows = { data: Array.from(keyRows), dims: [batch, keys] };
  }
  const options = { config, gathered, padded: valid !== null, sharedMask: maskBatch === 1, float: "float64" as const };
  return { ports, feeds, options };
}

describe.each(Object.entries(forests))("%s", (_, forest) => {
  test.each([false, true])("probabilities kept: %s", async (kept) => {
    const pack = packTrees(forest);
    const { rows } = pack;
    const next = randomNumbers(11);
    const normal = (length: number) => Array.from({ length }, next);
    const given: Rows = { q: normal(rows * WIDE), k: normal(rows * NARROW), v: normal(rows * NARROW) };
    const dAttended = normal(rows * WIDE);
    const seen = visible(pack);
    const expected = slow(given, seen);
    const gradients: Rows = { q: Array(rows * WIDE), k: Array(rows * NARROW).fill(0), v: Array(rows * NARROW).fill(0) };
    const found: number[] = Array(rows * WIDE);

    for (const group of pack.groups) {
      const { batch, queries, keys, queryRows, keyRows, valid } = group;
      const { ports, feeds, options } = groupFeeds(group, given, rows);
      const graphs = attentionGraphs({ ...options, kept });
      const sized = [...ports, port("sized", ["batch", "queries", "keys"])];
      const sizes = { sized: { data: [], dims: [batch, queries, keys] } };
      const outputs = [
        port("attended", ["batch", "queries", WIDE]),
        ...(kept ? [port("probs", ["batch", heads, "queries", "keys"])] : []),
      ];
      const forward = await compile(graphs.forward, ports, outputs, sized)({ ...feeds, ...sizes });
      const inputs = [
        ...ports.filter(({ name }) => name !== "mask" || !kept),
        port("attended", ["batch", "queries", WIDE]),
        port("dAttended", options.gathered ? ["rows", WIDE] : ["batch", "queries", WIDE]),
        ...(valid ? [port("valid", ["batch", "queries", 1])] : []),
        ...(kept ? [port("probs", ["batch", heads, "queries", "keys"])] : []),
      ];
      const backward = await compile(
        graphs.backward,
        inputs,
        [
          port("dq", ["batch", "queries", WIDE]),
          port("dk", ["batch", "keys", NARROW]),
          port("dv", ["batch", "keys", NARROW]),
        ],
        [...inputs, sized[sized.length - 1]],
      )({
        ...feeds,
        ...sizes,
        ...forward,
        dAttended: { data: dAttended, dims: options.gathered ? [rows, WIDE] : [batch, queries, WIDE] },
        ...(valid ? { valid: { data: Array.from(valid), dims: [batch, queries, 1] } } : {}),
      });
      for (let b = 0; b < batch; b++) {
        for (let i = 0; i < queries; i++) {
          if (valid && valid[b * queries + i] === 0) continue;
          const at = b * queries + i;
          const row = queryRows ? queryRows[at] : at;
          for (let j = 0; j < WIDE; j++) {
            found[row * WIDE + j] = forward.attended.data[at * WIDE + j];
            gradients.q[row * WIDE + j] = backward.dq.data[at * WIDE + j];
          }
        }
        for (let i = 0; i < keys; i++) {
          const at = b * keys + i;
          const row = keyRows ? keyRows[at] : at;
          for (let j = 0; j < NARROW; j++) {
            // Padding included: its gradient must be zero.
            gradients.k[row * NARROW + j] += backward.dk.data[at * NARROW + j];
            gradients.v[row * NARROW + j] += backward.dv.data[at * NARROW + j];
          }
        }
      }
    }
    expect(relativeError(found, expected)).toBeLessThan(1e-12);

    const loss = () => slow(given, seen).reduce((sum, x, i) => sum + x * dAttended[i], 0);
    for (const name of ["q", "k", "v"] as const) {
      const data = given[name];
      const numeric = data.map((middle, i) => {
        data[i] = middle + 1e-5;
        const above = loss();
        data[i] = middle - 1e-5;
        const below = loss();
        data[i] = middle;
        return (above - below) / 2e-5;
      });
      expect(relativeError(gradients[name], numeric), name).toBeLessThan(1e-6);
    }
  });
});

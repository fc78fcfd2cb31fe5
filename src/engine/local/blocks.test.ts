import { describe, expect, test } from "vitest";
import { smallConfig } from "../../../test/local.ts";
import type { ModelConfig } from "../../model/types.ts";
import { Graph, reshape } from "../../tensor/index.ts";
import { compile, inputPorts, type Numbers, outputPorts, randomNumbers, relativeError } from "../../tensor/testing.ts";
import { afterAttention, attend, beforeAttention, type BlockOptions, type Trained } from "./blocks.ts";
import { linearDims, type LinearName, LINEARS, vectors } from "./layers.ts";

// The whole block as the engine composes it, differentiated in float64 and by central differences.

const ROWS = 6;
const RANK = 2;
/** A tree: rows 0, 1 are a root's, 2, 3 and 4, 5 its two children's. */
const PARENT = [-1, 0, 1, 2, 1, 4];

/** x through norm, q, k, v, attention over a tree, output and MLP in one graph, with every gradient that the split graphs give. */
function wholeBlock(options: BlockOptions): Graph {
  const { heads, kvHeads, headDim, hidden } = options.config;
  const graph = new Graph("float64");
  const sums = {};
  const x = graph.input("x", ["rows", hidden], { grad: true });
  const { q, k, v } = beforeAttention(graph, options, x, sums);
  const batched = (t: typeof q, length: string, width: number) => reshape(t, ["batch", length, width], [1, -1, width]);
  const { attended } = attend(
    options.config,
    batched(q, "queries", heads * headDim),
    batched(k, "keys", kvHeads * headDim),
    batched(v, "keys", kvHeads * headDim),
    graph.input("mask", [1, 1, "queries", "keys"]),
  );
  const flat = reshape(attended, ["rows", heads * headDim], [-1, heads * headDim]);
  const y = afterAttention(graph, options, x, flat, sums);
  graph.output("y", y);
  const inputs = Object.entries<typeof x>({ x, ...sums });
  const gradients = graph.backward(
    [[y, graph.input("dy", ["rows", hidden])]],
    inputs.map(([, tensor]) => tensor),
  );
  inputs.forEach(([name], i) => graph.output(`d.${name}`, gradients[i]));
  return graph;
}

interface BlockCase {
  special: Partial<ModelConfig>;
  trained: Trained;
}

function blockFeeds({ config: c, trained }: BlockOptions, seed: number): Record<string, number[]> {
  const next = randomNumbers(seed);
  const normals = (length: number, scale = 1) => Array.from({ length }, () => scale * next());
  const feeds: Record<string, number[]> = { x: normals(ROWS * c.hidden), dy: normals(ROWS * c.hidden) };
  const depth = PARENT.map((parent, row) => (parent < 0 ? 0 : row < 4 ? row : row - 2));
  const angles = depth.flatMap((d) => [d, d * 0.1]);
  feeds.cos = angles.map(Math.cos);
  feeds.sin = angles.map(Math.sin);
  const visible = PARENT.map((_, row) => {
    const path = new Set<number>();
    for (let at = row; at >= 0; at = PARENT[at]) path.add(at);
    return path;
  });
  feeds.mask = visible.flatMap((path) => PARENT.map((_, key) => (path.has(key) ? 0 : -1e30)));
  for (const linear of LINEARS) {
    const [out, width] = linearDims(c)[linear];
    feeds[linear] = normals(out * width, 0.5);
    if (trained === "full") feeds[`sum.${linear}`] = normals(out * width).fill(0);
    if (typeof trained !== "object" || !trained.targets.has(linear)) continue;
    feeds[`${linear}.a`] = normals(RANK * width, 0.5);
    feeds[`${linear}.b`] = normals(out * RANK, 0.5);
    feeds[`sum.${linear}.a`] = normals(RANK * width).fill(0);
    feeds[`sum.${linear}.b`] = normals(out * RANK).fill(0);
  }
  for (const [name, { length }] of Object.entries(vectors(c, 0))) {
    feeds[name] = normals(length, 0.3).map((value) => value + (name.includes("orm") ? 1 : 0));
  }
  return feeds;
}

/** Weights with their adapters merged, as the engine hands them to the graph. */
function merged(feeds: Record<string, number[]>, { config: c, trained }: BlockOptions): Record<string, number[]> {
  if (typeof trained !== "object") return feeds;
  const result = { ...feeds };
  for (const linear of trained.targets) {
    const [, width] = linearDims(c)[linear];
    const a = feeds[`${linear}.a`];
    const b = feeds[`${linear}.b`];
    result[linear] = feeds[linear].map((w, at) => {
      const [i, j] = [Math.floor(at / width), at % width];
      let product = 0;
      for (let r = 0; r < RANK; r++) product += b[i * RANK + r] * a[r * width + j];
      return w + trained.scale * product;
    });
  }
  return result;
}

const lora = (...targets: LinearName[]): Trained => ({ scale: 0.7, targets: new Set(targets) });

const cases: Record<string, BlockCase> = {
  "llama, full": { special: {}, trained: "full" },
  "qwen2 with biases, full": { special: { qkvBias: true }, trained: "full" },
  "qwen3 with norms on q and k, full": { special: { qkNorm: true }, trained: "full" },
  "llama, LoRA on every linear layer": { special: {}, trained: lora(...LINEARS) },
  "qwen2, LoRA": { special: { qkvBias: true }, trained: lora(...LINEARS) },
  "qwen3, LoRA on some": { special: { qkNorm: true }, trained: lora("q", "v", "down") },
  "every head with keys of its own, nothing trained": { special: { kvHeads: 4 }, trained: "none" },
};

describe("the whole block in float64", () => {
  test.each(Object.entries(cases))("%s", async (_, { special, trained }) => {
    const options: BlockOptions = { config: smallConfig(special), trained, gathered: false, float: "float64" };
    const graph = wholeBlock(options);
    const ports = inputPorts(graph);
    const run = compile(graph.build(), ports, outputPorts(graph));
    const sizes: Record<string, number> = { rows: ROWS, rank: RANK, queries: ROWS, keys: ROWS };
    const shaped = (feeds: Record<string, number[]>): Record<string, Numbers> =>
      Object.fromEntries(
        ports.map(({ name, dims }) => [
          name,
          { data: feeds[name], dims: dims.map((dim) => (typeof dim === "number" ? dim : sizes[dim])) },
        ]),
      );
    const feeds = blockFeeds(options, 3);
    const lossAt = async () => {
      const { y } = await run(shaped(merged(feeds, options)));
      return y.data.reduce((sum, value, i) => sum + value * feeds.dy[i], 0);
    };
    const results = await run(shaped(merged(feeds, options)));
    const trainedNames = Object.keys(results)
      .filter((name) => name.startsWith("d."))
      .map((name) => name.slice(2));
    const expected =
      trained === "full"
        ? [...LINEARS, ...Object.keys(vectors(options.config, 0))]
        : trained === "none"
          ? []
          : [...trained.targets].flatMap((name) => [`${name}.a`, `${name}.b`]);
    expect(trainedNames.sort()).toEqual(["x", ...expected].sort());
    for (const name of trainedNames) {
      const data = feeds[name];
      const numeric: number[] = [];
      for (let i = 0; i < data.length; i++) {
        const middle = data[i];
        data[i] = middle + 1e-5;
        const above = await lossAt();
        data[i] = middle - 1e-5;
        const below = await lossAt();
        data[i] = middle;
        numeric.push((above - below) / 2e-5);
      }
      expect(Math.hypot(...numeric), `the gradient of ${name} must not vanish`).toBeGreaterThan(1e-3);
      expect(relativeError(results[`d.${name}`].data, numeric), name).toBeLessThan(1e-6);
    }
    // A matrix's gradient is added onto what was summed before.
    for (const name of trainedNames.filter((each) => `sum.${each}` in feeds)) {
      feeds[`sum.${name}`] = feeds[`sum.${name}`].map((_, i) => i % 7);
      const again = await run(shaped(merged(feeds, options)));
      const difference = again[`d.${name}`].data.map((value, i) => value - feeds[`sum.${name}`][i]);
      expect(relativeError(difference, results[`d.${name}`].data), name).toBeLessThan(1e-9);
    }
  });
});

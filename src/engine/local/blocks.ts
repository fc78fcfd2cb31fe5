import type { ModelConfig } from "../../model/types.ts";
import {
  add,
  gatherRows,
  Graph,
  matmul,
  mul,
  reshape,
  rmsNorm,
  rope,
  swiglu,
  softmax,
  type SplitGraph,
  splitAtBackward,
  type Tensor,
  transpose,
} from "../../tensor/index.ts";
import { linearDims, type LinearName, vectors } from "./layers.ts";
import { linear, type LoraInputs } from "./linear.ts";

/**
 * The decoder block in three graphs: before attention (norm, q, k, v, rotary), attention over a group of chains, and after it
 * (output projection, norm, MLP). The linear parts see a pass as one matrix of rows; only attention knows about trees.
 */

/** What gets gradients: nothing, everything, or the adapters of some linear layers. */
export type Trained = "none" | "full" | { scale: number; targets: ReadonlySet<LinearName> };

export interface BlockOptions {
  config: ModelConfig;
  trained: Trained;
  /** The attention output is read through an index of rows (several groups, or padding). */
  gathered: boolean;
  float?: "float32" | "float64";
}

type Inputs = Record<string, Tensor>;

/** Declares the inputs of one linear layer and applies it. Its gradients are added onto inputs named `sum.*`. */
function applyLinear(
  graph: Graph,
  o: BlockOptions,
  name: LinearName,
  x: Tensor,
  sums: Inputs,
  residual?: Tensor,
): Tensor {
  const [out, width] = linearDims(o.config)[name];
  const full = o.trained === "full";
  const weight = graph.input(name, [out, width], { grad: full });
  const hasBias = o.config.qkvBias && (name === "q" || name === "k" || name === "v");
  const bias = hasBias ? graph.input(`${name}Bias`, [out], { grad: full }) : undefined;
  let lora: LoraInputs | undefined;
  if (typeof o.trained === "object" && o.trained.targets.has(name)) {
    const a = graph.input(`${name}.a`, ["rank", width], { grad: true });
    const b = graph.input(`${name}.b`, [out, "rank"], { grad: true });
    lora = {
      a,
      b,
      scale: o.trained.scale,
      sumA: graph.input(`sum.${name}.a`, a.dims),
      sumB: graph.input(`sum.${name}.b`, b.dims),
    };
    sums[`${name}.a`] = a;
    sums[`${name}.b`] = b;
  }
  const sum = full ? graph.input(`sum.${name}`, [out, width]) : undefined;
  if (full) sums[name] = weight;
  if (full && bias) sums[`${name}Bias`] = bias;
  return linear(x, weight, { sum, bias, lora, residual });
}

function vectorInput(graph: Graph, o: BlockOptions, name: string, sums: Inputs): Tensor {
  const tensor = graph.input(name, [vectors(o.config, 0)[name].length], { grad: o.trained === "full" });
  if (o.trained === "full") sums[name] = tensor;
  return tensor;
}

/** Names the gradients of a graph: matrices were already added onto their sums by `linear`, vectors are added here. */
function outputGradients(graph: Graph, sums: Inputs, gradients: Tensor[]): void {
  Object.keys(sums).forEach((name, i) => {
    const parameter = sums[name];
    const summed = parameter.rank > 1 ? gradients[i] : add(gradients[i], graph.input(`sum.${name}`, parameter.dims));
    graph.output(`newSum.${name}`, summed);
  });
}

/** x [rows, hidden] -> q [rows, heads * headDim], k, v [rows, kvHeads * headDim], with q and k rotated. */
export function beforeAttention(
  graph: Graph,
  o: BlockOptions,
  x: Tensor,
  sums: Inputs,
): { q: Tensor; k: Tensor; v: Tensor } {
  const { heads, kvHeads, headDim, rmsEps, qkNorm } = o.config;
  const cos = graph.input("cos", ["rows", headDim / 2]);
  const sin = graph.input("sin", ["rows", headDim / 2]);
  const h = rmsNorm(x, vectorInput(graph, o, "norm1", sums), rmsEps);
  const rotated = (name: "q" | "k", count: number): Tensor => {
    let y = reshape(applyLinear(graph, o, name, h, sums), ["rows", count, headDim]);
    if (qkNorm) y = rmsNorm(y, vectorInput(graph, o, `${name}Norm`, sums), rmsEps);
    return reshape(rope(y, cos, sin), ["rows", count * headDim]);
  };
  return { q: rotated("q", heads), k: rotated("k", kvHeads), v: applyLinear(graph, o, "v", h, sums) };
}

/** x [rows, hidden], attended [rows, heads * headDim] -> the block's output [rows, hidden]. */
export function afterAttention(graph: Graph, o: BlockOptions, x: Tensor, attended: Tensor, sums: Inputs): Tensor {
  const middle = applyLinear(graph, o, "o", attended, sums, x);
  const h = rmsNorm(middle, vectorInput(graph, o, "norm2", sums), o.config.rmsEps);
  const gated = swiglu(applyLinear(graph, o, "gate", h, sums), applyLinear(graph, o, "up", h, sums));
  return applyLinear(graph, o, "down", gated, sums, middle);
}

export function beforeGraph(o: BlockOptions): SplitGraph {
  const graph = new Graph(o.float);
  const sums: Inputs = {};
  const { heads, kvHeads, headDim, hidden } = o.config;
  const x = graph.input("x", ["rows", hidden], { grad: true });
  const { q, k, v } = beforeAttention(graph, o, x, sums);
  graph.output("query", q);
  graph.output("key", k);
  graph.output("value", v);
  // The gradient of q comes in the order of the attention groups.
  const width = heads * headDim;
  const dq = o.gathered
    ? gatherRows(graph.input("dq", ["outputs", width]), graph.input("outputRow", ["rows"], { type: "int32" }))
    : graph.input("dq", ["rows", width]);
  const dk = graph.input("dk", ["rows", kvHeads * headDim]);
  const dv = graph.input("dv", ["rows", kvHeads * headDim]);
  // What the block's second half already gave to x.
  const dxAfter = graph.input("dxAfter", ["rows", hidden]);
  const [dx, ...gradients] = graph.backward(
    [
      [q, dq],
      [k, dk],
      [v, dv],
    ],
    [x, ...Object.values(sums)],
  );
  graph.output("dx", add(dx, dxAfter));
  outputGradients(graph, sums, gradients);
  return splitAtBackward(graph);
}

export function afterGraph(o: BlockOptions): SplitGraph {
  const graph = new Graph(o.float);
  const sums: Inputs = {};
  const { heads, headDim, hidden } = o.config;
  const width = heads * headDim;
  const x = graph.input("x", ["rows", hidden], { grad: true });
  const attended = o.gathered
    ? gatherRows(graph.input("attended", ["outputs", width]), graph.input("outputRow", ["rows"], { type: "int32" }))
    : graph.input("attended", ["rows", width]);
  attended.needsGrad = true;
  const y = afterAttention(graph, o, x, attended, sums);
  graph.output("y", y);
  const dy = graph.input("dy", ["rows", hidden]);
  const [dx, dAttended, ...gradients] = graph.backward([[y, dy]], [x, attended, ...Object.values(sums)]);
  graph.output("dx", dx);
  graph.output("dAttended", dAttended);
  outputGradients(graph, sums, gradients);
  return splitAtBackward(graph);
}

export interface AttentionOptions {
  config: ModelConfig;
  /** Rows of q, k, v are picked by index; else they are the group itself, in order. */
  gathered: boolean;
  /** Some queries are padding; their gradients are masked. */
  padded: boolean;
  /** One mask for the whole batch. */
  sharedMask: boolean;
  float?: "float32" | "float64";
}

/**
 * Grouped-query attention of one group: q [batch, queries, heads * headDim], k and v [batch, keys, kvHeads * headDim], mask
 * [batch or 1, 1, queries, keys] -> [batch, queries, heads * headDim]. Query heads that share a key head stand behind one another
 * as rows of one matrix, so keys are never repeated.
 */
export function attend(config: ModelConfig, q: Tensor, k: Tensor, v: Tensor, mask: Tensor): Tensor {
  const { heads, kvHeads, headDim } = config;
  const perKv = heads / kvHeads;
  const split = (t: Tensor, length: string): Tensor =>
    transpose(reshape(t, ["batch", length, kvHeads, headDim], [0, 0, kvHeads, headDim]), [0, 2, 1, 3]);
  const grouped = transpose(
    reshape(q, ["batch", "queries", kvHeads, perKv, headDim], [0, 0, kvHeads, perKv, headDim]),
    [0, 2, 3, 1, 4],
  );
  const rows = `${perKv}*queries`;
  const queries = reshape(grouped, ["batch", kvHeads, rows, headDim], [0, 0, -1, headDim]);
  const scores = matmul(queries, split(k, "keys"), { transB: true, alpha: 1 / Math.sqrt(headDim) });
  // One mask serves the query heads of a group: their axis is opened for the sum and closed again.
  const open = reshape(scores, ["batch", heads, "queries", "keys"], [0, heads, -1, 0]);
  const weights = softmax(add(open, mask));
  const closed = reshape(weights, ["batch", kvHeads, rows, "keys"], [0, kvHeads, -1, 0]);
  const mixed = matmul(closed, split(v, "keys"));
  const perHead = reshape(mixed, ["batch", kvHeads, perKv, "queries", headDim], [0, 0, perKv, -1, headDim]);
  return reshape(transpose(perHead, [0, 3, 1, 2, 4]), ["batch", "queries", heads * headDim], [0, 0, heads * headDim]);
}

/**
 * One group's attention over the rows of a pass. Forward: `attended` [batch * queries, heads * headDim]. Backward: from
 * `dAttended` (rows of the pass) the gradients of the group's queries and keys; scores are computed again from q and k.
 */
export function attentionGraphs(o: AttentionOptions): { forward: Uint8Array; backward: Uint8Array } {
  const { heads, kvHeads, headDim } = o.config;
  const wide = heads * headDim;
  const narrow = kvHeads * headDim;
  const build = (backward: boolean): Uint8Array => {
    const graph = new Graph(o.float);
    const index = (name: string, length: string) => graph.input(name, ["batch", length], { type: "int32" });
    const queryRows = o.gathered ? index("queryRows", "queries") : null;
    const keyRows = o.gathered ? index("keyRows", "keys") : null;
    const read = (name: string, source: string, rows: Tensor | null, length: string, width: number): Tensor =>
      rows ? gatherRows(graph.input(name, [source, width]), rows) : graph.input(name, ["batch", length, width]);
    const q = read("q", "rows", queryRows, "queries", wide);
    const k = read("k", "kvRows", keyRows, "keys", narrow);
    const v = read("v", "kvRows", keyRows, "keys", narrow);
    for (const tensor of [q, k, v]) tensor.needsGrad = backward;
    const mask = graph.input("mask", [o.sharedMask ? 1 : "batch", 1, "queries", "keys"]);
    const attended = attend(o.config, q, k, v, mask);
    if (!backward) {
      graph.output("attended", attended);
      return graph.build();
    }
    let dAttended = read("dAttended", "rows", queryRows, "queries", wide);
    if (o.padded) dAttended = mul(dAttended, graph.input("valid", ["batch", "queries", 1]));
    const [dq, dk, dv] = graph.backward([[attended, dAttended]], [q, k, v]);
    graph.output("dq", dq);
    graph.output("dk", dk);
    graph.output("dv", dv);
    return graph.build();
  };
  return { forward: build(false), backward: build(true) };
}

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
  sub,
  sum,
  type Tensor,
  transpose,
  linear,
  type LoraInputs,
} from "../../tensor/index.ts";
import { linearDims, type LinearName, vectors } from "./layers.ts";

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
  /** The forward gives its probabilities to the backward, which else computes them again. */
  kept: boolean;
  float?: "float32" | "float64";
}

/**
 * Grouped-query attention over one group, head by head: q4 [batch, kvHeads, queries of all query heads that share a key head,
 * headDim], k4 and v4 [batch, kvHeads, keys, headDim]. Keys are never repeated.
 */
class HeadLayout {
  private readonly config: ModelConfig;
  private readonly perKv: number;
  private readonly stacked: string;

  constructor(config: ModelConfig) {
    this.config = config;
    this.perKv = config.heads / config.kvHeads;
    this.stacked = `${this.perKv}*queries`;
  }

  /** [batch, queries, heads * headDim] -> [batch, kvHeads, perKv * queries, headDim] */
  queries(t: Tensor): Tensor {
    const { kvHeads, headDim } = this.config;
    const dims = ["batch", "queries", kvHeads, this.perKv, headDim];
    const turned = transpose(reshape(t, dims, [0, 0, kvHeads, this.perKv, headDim]), [0, 2, 3, 1, 4]);
    return reshape(turned, ["batch", kvHeads, this.stacked, headDim], [0, 0, -1, headDim]);
  }

  /** The way back. */
  fromQueries(t: Tensor): Tensor {
    const { kvHeads, headDim, heads } = this.config;
    const dims = ["batch", kvHeads, this.perKv, "queries", headDim];
    const turned = transpose(reshape(t, dims, [0, 0, this.perKv, -1, headDim]), [0, 3, 1, 2, 4]);
    return reshape(turned, ["batch", "queries", heads * headDim], [0, 0, heads * headDim]);
  }

  /** [batch, keys, kvHeads * headDim] -> [batch, kvHeads, keys, headDim] */
  keys(t: Tensor): Tensor {
    const { kvHeads, headDim } = this.config;
    return transpose(reshape(t, ["batch", "keys", kvHeads, headDim], [0, 0, kvHeads, headDim]), [0, 2, 1, 3]);
  }

  fromKeys(t: Tensor): Tensor {
    const { kvHeads, headDim } = this.config;
    return reshape(transpose(t, [0, 2, 1, 3]), ["batch", "keys", kvHeads * headDim], [0, 0, kvHeads * headDim]);
  }

  /** Scores or probabilities by query head, where one mask serves all heads: [batch, heads, queries, keys] */
  open(t: Tensor): Tensor {
    const { heads } = this.config;
    return reshape(t, ["batch", heads, "queries", "keys"], [0, heads, -1, 0]);
  }

  close(t: Tensor): Tensor {
    const { kvHeads } = this.config;
    return reshape(t, ["batch", kvHeads, this.stacked, "keys"], [0, kvHeads, -1, 0]);
  }

  /** Sums over each head: [batch, queries, heads * headDim] -> [batch, heads, queries, 1] */
  perHeadSum(t: Tensor): Tensor {
    const { heads, headDim } = this.config;
    const sums = sum(reshape(t, ["batch", "queries", heads, headDim], [0, 0, heads, headDim]), [3]);
    return reshape(transpose(sums, [0, 2, 1]), ["batch", heads, "queries", 1], [0, heads, 0, 1]);
  }
}

/** softmax(q k^T / sqrt(headDim) + mask), [batch, heads, queries, keys]. */
function attentionProbs(layout: HeadLayout, config: ModelConfig, q4: Tensor, k4: Tensor, mask: Tensor): Tensor {
  const scores = matmul(q4, k4, { transB: true, alpha: 1 / Math.sqrt(config.headDim) });
  return softmax(add(layout.open(scores), mask));
}

/**
 * Attention of one group: q [batch, queries, heads * headDim], k and v [batch, keys, kvHeads * headDim], mask
 * [batch or 1, 1, queries, keys] -> [batch, queries, heads * headDim].
 */
export function attend(
  config: ModelConfig,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  mask: Tensor,
): { attended: Tensor; probs: Tensor } {
  const layout = new HeadLayout(config);
  const probs = attentionProbs(layout, config, layout.queries(q), layout.keys(k), mask);
  return { attended: layout.fromQueries(matmul(layout.close(probs), layout.keys(v))), probs };
}

/**
 * The backward of `attend`. The softmax's row sums of dP * P are those of dO * O over a head's width (Dao et al. 2022, FlashAttention,
 * B.2), which spares two sweeps over the scores.
 */
function attendBackward(
  config: ModelConfig,
  given: { q: Tensor; k: Tensor; v: Tensor; attended: Tensor; dAttended: Tensor },
  probsOf: (layout: HeadLayout, q4: Tensor, k4: Tensor) => Tensor,
): { dq: Tensor; dk: Tensor; dv: Tensor } {
  const layout = new HeadLayout(config);
  const alpha = 1 / Math.sqrt(config.headDim);
  const [q4, d4] = [layout.queries(given.q), layout.queries(given.dAttended)];
  const [k4, v4] = [layout.keys(given.k), layout.keys(given.v)];
  const probs = probsOf(layout, q4, k4);
  const dProbs = layout.open(matmul(d4, v4, { transB: true }));
  const rowSums = layout.perHeadSum(mul(given.dAttended, given.attended));
  const dScores = layout.close(mul(probs, sub(dProbs, rowSums)));
  return {
    dq: layout.fromQueries(matmul(dScores, k4, { alpha })),
    dk: layout.fromKeys(matmul(dScores, q4, { transA: true, alpha })),
    dv: layout.fromKeys(matmul(layout.close(probs), d4, { transA: true })),
  };
}

/**
 * One group's attention over the rows of a pass. Forward: `attended` [batch, queries, heads * headDim] and `probs`. Backward: from
 * `dAttended` (rows of the pass) the gradients of the group's queries and keys.
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
    const mask = () => graph.input("mask", [o.sharedMask ? 1 : "batch", 1, "queries", "keys"]);
    if (!backward) {
      const { attended, probs } = attend(o.config, q, k, v, mask());
      graph.output("attended", attended);
      if (o.kept) graph.output("probs", probs);
      return graph.build();
    }
    let dAttended = read("dAttended", "rows", queryRows, "queries", wide);
    if (o.padded) dAttended = mul(dAttended, graph.input("valid", ["batch", "queries", 1]));
    const attended = graph.input("attended", ["batch", "queries", wide]);
    const { dq, dk, dv } = attendBackward(o.config, { q, k, v, attended, dAttended }, (layout, q4, k4) =>
      o.kept
        ? graph.input("probs", ["batch", heads, "queries", "keys"])
        : attentionProbs(layout, o.config, q4, k4, mask()),
    );
    graph.output("dq", dq);
    graph.output("dk", dk);
    graph.output("dv", dv);
    return graph.build();
  };
  return { forward: build(false), backward: build(true) };
}

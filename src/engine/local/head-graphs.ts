import type { ModelConfig } from "../../model/types.ts";
import {
  add,
  gatherRows,
  Graph,
  log,
  max,
  mul,
  neg,
  pick,
  reshape,
  rmsNorm,
  softmax,
  type SplitGraph,
  splitAtBackward,
  sub,
  sum,
  type Tensor,
  gemm,
} from "../../tensor/index.ts";

/**
 * From hidden states to log-probs, for a chunk of scored tokens at a time, so that the whole matrix of logits never exists.
 * Hidden states come divided by the temperature, and ids outside a token's allowed set have -1e30 in the mask.
 */
export interface HeadOptions {
  config: ModelConfig;
  masked: boolean;
  entropy: boolean;
  float?: "float32" | "float64";
}

interface Distribution {
  logits: Tensor;
  probs: Tensor;
  /** log of the sum of exponentials, [n, 1]. */
  lse: Tensor;
}

function distribution(graph: Graph, o: HeadOptions, h: Tensor, embedding: Tensor): Distribution {
  const { vocab } = o.config;
  let logits = gemm(["n", vocab], h, embedding, { transB: true });
  if (o.masked) logits = add(logits, graph.input("mask", ["n", vocab]));
  const probs = softmax(logits);
  // The largest probability is 1 / sum(exp(z - max z)): two reads of the matrix give what a second exponential would.
  const lse = sub(max(logits, [1], true), log(max(probs, [1], true)));
  return { logits, probs, lse };
}

const entropyOf = ({ logits, probs, lse }: Distribution): Tensor => sub(lse, sum(mul(probs, logits), [1], true));

function headInputs(graph: Graph, { config }: HeadOptions): { h: Tensor; embedding: Tensor; target: Tensor } {
  return {
    h: graph.input("h", ["n", config.hidden]),
    embedding: graph.input("embedding", [config.vocab, config.hidden]),
    target: graph.input("target", ["n"], { type: "int64" }),
  };
}

/** -> logprob [n], entropy [n] where asked for, probs [n, vocab] (bound only when the backward will read them). */
export function headForward(o: HeadOptions): Uint8Array {
  const graph = new Graph(o.float);
  const { h, embedding, target } = headInputs(graph, o);
  const d = distribution(graph, o, h, embedding);
  graph.output("logprob", sub(pick(d.logits, target), reshape(d.lse, ["n"])));
  if (o.entropy) graph.output("entropy", reshape(entropyOf(d), ["n"]));
  graph.output("probs", d.probs);
  return graph.build();
}

/** Whose gradients the backward gives besides those of the hidden states: all rows of the matrix, or those of some ids. */
export type HeadTrained = "none" | "all" | "rows";

/** Adds columns^T h onto the sums of the trained rows; `columns` is [n, vocab]. */
function addRowSums(graph: Graph, o: HeadOptions, trained: HeadTrained, columns: Tensor, h: Tensor): void {
  const { vocab, hidden } = o.config;
  if (trained === "all") {
    const sumIn = graph.input("sum", [vocab, hidden]);
    graph.output("newSum", gemm([vocab, hidden], columns, h, { transA: true, add: sumIn }));
  } else {
    const ids = graph.input("ids", ["rows"], { type: "int64" });
    const [own] = graph.node("Gather", [columns, ids], [{ dims: ["n", "rows"] }], { axis: 1 });
    const sumIn = graph.input("sum", ["rows", hidden]);
    graph.output("newSum", gemm(["rows", hidden], own, h, { transA: true, add: sumIn }));
  }
}

/** Backward of log-probs alone, from kept probabilities: dz = g (onehot - p), so dh = g (e_target - p E). */
export function headBackwardKept(o: HeadOptions, trained: HeadTrained): Uint8Array {
  const graph = new Graph(o.float);
  const { vocab, hidden } = o.config;
  const { h, embedding, target } = headInputs(graph, o);
  const probs = graph.input("probs", ["n", vocab]);
  const g = graph.input("g", ["n", 1]);
  const mean = gemm(["n", hidden], probs, embedding);
  graph.output("dh", mul(g, sub(gatherRows(embedding, target), mean)));
  if (trained !== "none") {
    // The one-hot part of the embedding's gradient is added by the caller, row by row, from `push`.
    const push = mul(g, h);
    graph.output("push", push);
    addRowSums(graph, o, trained, probs, neg(push));
  }
  return graph.build();
}

/** Backward of log-probs and entropies, from logits made again: dz = g (onehot - p) - gH p (z - lse + H). */
export function headBackwardAgain(o: HeadOptions, trained: HeadTrained): Uint8Array {
  const graph = new Graph(o.float);
  const { hidden } = o.config;
  const { h, embedding, target } = headInputs(graph, o);
  const g = graph.input("g", ["n", 1]);
  const d = distribution(graph, o, h, embedding);
  let spread: Tensor = mul(d.probs, g);
  if (o.entropy) {
    const gEntropy = graph.input("gEntropy", ["n", 1]);
    const deviation = add(sub(d.logits, d.lse), entropyOf(d));
    spread = add(spread, mul(mul(d.probs, deviation), gEntropy));
  }
  const dz = neg(spread);
  graph.output("dh", add(gemm(["n", hidden], dz, embedding), mul(g, gatherRows(embedding, target))));
  if (trained !== "none") {
    graph.output("push", mul(g, h));
    addRowSums(graph, o, trained, dz, h);
  }
  return graph.build();
}

/** The final norm over all rows. */
export function finalNormGraph(config: ModelConfig, full: boolean, float?: "float32" | "float64"): SplitGraph {
  const graph = new Graph(float);
  const x = graph.input("x", ["rows", config.hidden], { grad: true });
  const weight = graph.input("norm", [config.hidden], { grad: full });
  const y = rmsNorm(x, weight, config.rmsEps);
  graph.output("y", y);
  const dy = graph.input("dy", ["rows", config.hidden]);
  const gradients = graph.backward([[y, dy]], full ? [x, weight] : [x]);
  graph.output("dx", gradients[0]);
  if (full) graph.output("newSum.norm", add(gradients[1], graph.input("sum.norm", [config.hidden])));
  return splitAtBackward(graph);
}

/** A scalar (or narrow) head: value [rows, width] = h weight^T + bias, and its backward, which adds onto dh. */
export function valueHeadGraphs(
  config: ModelConfig,
  float?: "float32" | "float64",
): { forward: Uint8Array; backward: Uint8Array } {
  const { hidden } = config;
  const forward = new Graph(float);
  const h = forward.input("h", ["rows", hidden]);
  const weight = forward.input("weight", ["width", hidden]);
  const bias = forward.input("bias", ["width"]);
  forward.output("value", gemm(["rows", "width"], h, weight, { transB: true, add: bias }));

  const backward = new Graph(float);
  const dv = backward.input("dv", ["rows", "width"]);
  const hidden2 = backward.input("h", ["rows", hidden]);
  const weight2 = backward.input("weight", ["width", hidden]);
  const dhIn = backward.input("dhIn", ["rows", hidden]);
  backward.output("dh", gemm(["rows", hidden], dv, weight2, { add: dhIn }));
  backward.output(
    "newSum.weight",
    gemm(["width", hidden], dv, hidden2, { transA: true, add: backward.input("sum.weight", ["width", hidden]) }),
  );
  backward.output("newSum.bias", add(sum(dv, [0]), backward.input("sum.bias", ["width"])));
  return { forward: forward.build(), backward: backward.build() };
}

import { ropeFrequencies } from "../model/rope.ts";
import { tensorShapes } from "../model/shape.ts";
import type { ModelConfig } from "../model/types.ts";
import {
  add,
  cast,
  concat,
  gatherRows,
  gemm,
  Graph,
  lessOrEqual,
  matmul,
  mul,
  reshape,
  rmsNorm,
  rope,
  softmax,
  swiglu,
  type Tensor,
  transpose,
  where,
} from "../tensor/index.ts";

/** Added to the scores of keys that a query may not see; finite, so that a row of padding alone gives numbers too. */
const HIDDEN = -1e30;

const BATCH = "batch_size";
const LENGTH = "sequence_length";
const PAST = "past_sequence_length";
const TOTAL = `${PAST}+${LENGTH}`;
const ROWS = `${BATCH}*${LENGTH}`;

/**
 * The whole decoder as one graph of ONNX's own operators, with the inputs and outputs that transformers.js and Optimum know:
 * input_ids, attention_mask (of past and present), position_ids, past_key_values.N.key and .value
 * [batch, kvHeads, past, headDim] -> logits [batch, length, vocab], present.N.key and .value. It computes in float32 whatever its
 * weights are stored as. Weights have the names and layout of Hugging Face.
 */
export function decoderGraph(config: ModelConfig, stored: "float32" | "float16"): Graph {
  const { hidden, heads, kvHeads, headDim, vocab, rmsEps } = config;
  const graph = new Graph("float32", { portable: true });
  const shapes = tensorShapes(config);
  const ids = graph.input("input_ids", [BATCH, LENGTH], { type: "int64" });
  const attentionMask = graph.input("attention_mask", [BATCH, TOTAL], { type: "int64" });
  const positions = graph.input("position_ids", [BATCH, LENGTH], { type: "int64" });
  const cache = [BATCH, kvHeads, PAST, headDim];
  const past = Array.from({ length: config.layers }, (_, layer) => ({
    key: graph.input(`past_key_values.${layer}.key`, cache),
    value: graph.input(`past_key_values.${layer}.value`, cache),
  }));

  const weights = new Map<string, Tensor>();
  const weight = (name: string): Tensor => {
    const known = weights.get(name);
    if (known) return known;
    const dims = shapes.get(name);
    if (!dims) throw new Error(`this model has no weight ${name}`);
    const made = cast(graph.weight(name, dims, dims.length > 1 ? stored : "float32"), "float32");
    weights.set(name, made);
    return made;
  };
  const linear = (x: Tensor, name: string, bias?: string, residual?: Tensor): Tensor => {
    const matrix = weight(`${name}.weight`);
    return gemm([ROWS, matrix.dims[0]], x, matrix, { transB: true, add: bias ? weight(bias) : residual });
  };

  const lengths = graph.shape(ids);
  /** [rows, ...] with batch and length apart. */
  const apart = (x: Tensor, dims: number[]): Tensor =>
    reshape(x, [BATCH, LENGTH, ...dims], concat([lengths, graph.ints(dims)], 0));
  /** [rows, heads * headDim] -> [batch, kvHeads, heads / kvHeads * length, headDim] */
  const byKeyHead = (x: Tensor, perKv: number): Tensor => {
    const turned = transpose(apart(x, [kvHeads, perKv, headDim]), [0, 2, 3, 1, 4]);
    return reshape(
      turned,
      [BATCH, kvHeads, perKv === 1 ? LENGTH : `${perKv}*${LENGTH}`, headDim],
      [0, kvHeads, -1, headDim],
    );
  };

  const { cos, sin } = rotaryTables(graph, config, positions);
  const mask = attentionBias(graph, ids, attentionMask);
  const perKv = heads / kvHeads;
  let x = reshape(gatherRows(weight("model.embed_tokens.weight"), ids), [ROWS, hidden], [-1, hidden]);
  for (const [layer, before] of past.entries()) {
    const at = (name: string) => `model.layers.${layer}.${name}`;
    const norm = (t: Tensor, name: string) => rmsNorm(t, weight(at(`${name}.weight`)), rmsEps);
    const project = (t: Tensor, name: string) =>
      linear(t, at(`self_attn.${name}`), config.qkvBias ? at(`self_attn.${name}.bias`) : undefined);
    const rotated = (t: Tensor, name: "q" | "k", count: number): Tensor => {
      const perHead = reshape(project(t, `${name}_proj`), [ROWS, count, headDim], [-1, count, headDim]);
      const normed = config.qkNorm ? norm(perHead, `self_attn.${name}_norm`) : perHead;
      return reshape(rope(normed, cos, sin), [ROWS, count * headDim], [-1, count * headDim]);
    };
    const h = norm(x, "input_layernorm");
    const q = mul(byKeyHead(rotated(h, "q", heads), perKv), 1 / Math.sqrt(headDim));
    const k = concat([before.key, byKeyHead(rotated(h, "k", kvHeads), 1)], 2);
    const v = concat([before.value, byKeyHead(project(h, "v_proj"), 1)], 2);
    graph.output(`present.${layer}.key`, k);
    graph.output(`present.${layer}.value`, v);
    const scores = reshape(matmul(q, k, { transB: true }), [BATCH, heads, LENGTH, TOTAL], [0, heads, -1, 0]);
    const probs = reshape(
      softmax(add(scores, mask)),
      [BATCH, kvHeads, `${perKv}*${LENGTH}`, TOTAL],
      [0, kvHeads, -1, 0],
    );
    const mixed = reshape(matmul(probs, v), [BATCH, kvHeads, perKv, LENGTH, headDim], [0, kvHeads, perKv, -1, headDim]);
    const attended = reshape(transpose(mixed, [0, 3, 1, 2, 4]), [ROWS, heads * headDim], [-1, heads * headDim]);
    x = linear(attended, at("self_attn.o_proj"), undefined, x);
    const inner = norm(x, "post_attention_layernorm");
    const gated = swiglu(linear(inner, at("mlp.gate_proj")), linear(inner, at("mlp.up_proj")));
    x = linear(gated, at("mlp.down_proj"), undefined, x);
  }
  const last = rmsNorm(x, weight("model.norm.weight"), rmsEps);
  const head = weight(config.tiedEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  graph.output("logits", apart(gemm([ROWS, vocab], last, head, { transB: true }), [vocab]));
  return graph;
}

/** Cosines and sines of each row's angles, [rows, headDim / 2]. */
function rotaryTables(graph: Graph, config: ModelConfig, positions: Tensor): { cos: Tensor; sin: Tensor } {
  const half = config.headDim / 2;
  const column = reshape(cast(positions, "float32"), [ROWS, 1], [-1, 1]);
  const angles = mul(column, graph.constant(Float32Array.from(ropeFrequencies(config)), [1, half]));
  const table = (op: "Cos" | "Sin") => graph.node(op, [angles], [{ dims: [ROWS, half] }])[0];
  return { cos: table("Cos"), sin: table("Sin") };
}

/** What is added to the scores, [batch, 1, length, total]: 0 where a query sees a key that is no padding and not after it. */
function attentionBias(graph: Graph, ids: Tensor, attentionMask: Tensor): Tensor {
  const size = (t: Tensor, axis: number): Tensor =>
    graph.node("Gather", [graph.shape(t), graph.scalar(axis, "int64")], [{ dims: [], type: "int64" }])[0];
  const range = (from: Tensor, to: Tensor, length: string): Tensor =>
    graph.node("Range", [from, to, graph.scalar(1, "int64")], [{ dims: [length], type: "int64" }])[0];
  const total = size(attentionMask, 1);
  const [done] = graph.node("Sub", [total, size(ids, 1)], [{ dims: [], type: "int64" }]);
  const keys = reshape(range(graph.scalar(0, "int64"), total, TOTAL), [1, TOTAL], [1, -1]);
  const queries = reshape(range(done, total, LENGTH), [1, 1, LENGTH, 1], [1, 1, -1, 1]);
  const seen = lessOrEqual(keys, queries);
  const token = reshape(cast(attentionMask, "bool"), [BATCH, 1, 1, TOTAL], [0, 1, 1, -1]);
  const [allowed] = graph.node("And", [seen, token], [{ dims: [BATCH, 1, LENGTH, TOTAL], type: "bool" }]);
  return where(allowed, 0, HIDDEN);
}

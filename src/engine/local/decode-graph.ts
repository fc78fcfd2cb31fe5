import type { ModelConfig } from "../../model/types.ts";
import {
  add,
  cumsum,
  Graph,
  log,
  max,
  mul,
  reshape,
  rmsNorm,
  rope,
  softmax,
  split,
  sub,
  swiglu,
  sum,
  type Tensor,
  where,
  gemm,
} from "../../tensor/index.ts";
import { FINAL_NORM, headName, linearDims, vectors } from "./layers.ts";

export interface DecodeOptions {
  config: ModelConfig;
  /** Some row may only choose among given ids. */
  masked: boolean;
  /** Some row samples with top-k or top-p. */
  truncated: boolean;
  /** Rank of the adapters that come as inputs; 0 for none. */
  rank: number;
  /** How many rows of the head come as inputs, for they are trained beside an adapter. */
  tokens: number;
}

/** Linear layers that read the same input are one matrix here. */
export const FUSED = { qkv: ["q", "k", "v"], o: ["o"], gateUp: ["gate", "up"], down: ["down"] } as const;
type FusedName = keyof typeof FUSED;

/** The part of a name such as "3.qkv" that tells which matrix it is. */
export function fusedOf(name: string): FusedName {
  const part = name.slice(name.indexOf(".") + 1);
  if (part in FUSED) return part as FusedName;
  throw new Error(`no fused matrix ${name}`);
}

/** Matrices of a decode session by name: fused where they read the same input. */
export function decodeMatrices(config: ModelConfig): { name: string; dims: [number, number] }[] {
  const { q, k, o, gate, down } = linearDims(config);
  const layers = Array.from({ length: config.layers }, (_, l) => [
    { name: `${l}.qkv`, dims: [q[0] + 2 * k[0], q[1]] as [number, number] },
    { name: `${l}.o`, dims: o },
    { name: `${l}.gateUp`, dims: [2 * gate[0], gate[1]] as [number, number] },
    { name: `${l}.down`, dims: down },
  ]);
  return layers.flat();
}

/**
 * Whether attention reads q, k and v from their one product and rotates them itself, position by position of the tables; the operator
 * takes heads of 16, 32, ... numbers, and has no place for a norm between product and rotation.
 */
export const rotatesInside = (config: ModelConfig): boolean => config.headDim % 16 === 0 && !config.qkNorm;

/** The biases of q, k and v as one vector. */
export const biasName = (layer: number): string => `${layer}.qkvBias`;

/**
 * One token for every row of a batch, embedding row in, chosen token out: all layers, attention over the slots' caches (written in
 * place), the head, and the choice itself.
 *
 * The choice is the inverse of the cumulative distribution at the row's uniform number, in order of ids, in two levels: sums of
 * blocks first, then inside the block, which costs two sweeps over the vocabulary and keeps float32 sums short.
 */
export function decodeGraph(o: DecodeOptions): Uint8Array {
  const { config } = o;
  const { hidden, vocab, heads, kvHeads, headDim, intermediate, rmsEps } = config;
  const graph = new Graph();
  const wide = heads * headDim;
  const narrow = kvHeads * headDim;
  const shapes = new Map(decodeMatrices(config).map(({ name, dims }) => [name, dims]));
  const product = (name: string, x: Tensor, added?: Tensor): Tensor => {
    const dims = shapes.get(name);
    if (!dims) throw new Error(`no matrix ${name}`);
    const y = gemm(["b", dims[0]], x, graph.weight(name, dims), { transB: true, add: added });
    if (o.rank === 0) return y;
    const width = o.rank * FUSED[fusedOf(name)].length;
    const down = gemm(["b", width], x, graph.input(`${name}.a`, [width, dims[1]]), { transB: true });
    return gemm(["b", dims[0]], down, graph.input(`${name}.b`, [dims[0], width]), { transB: true, add: y });
  };
  const vector = (name: string, length: number): Tensor => graph.weight(name, [length]);
  const past = graph.input("past", ["b"], { type: "int32" });
  const total = graph.input("total", [1], { type: "int32" });
  const inside = rotatesInside(config);
  const cos = graph.input("cos", [inside ? "positions" : "b", headDim / 2]);
  const sin = graph.input("sin", [inside ? "positions" : "b", headDim / 2]);
  const present: { name: string; tensor: Tensor }[] = [];

  let x = graph.input("x", ["b", hidden]);
  for (let l = 0; l < config.layers; l++) {
    const names = vectors(config, l);
    const norm = (t: Tensor, input: string): Tensor =>
      rmsNorm(t, vector(names[input].name, names[input].length), rmsEps);
    const bias = config.qkvBias ? vector(biasName(l), wide + 2 * narrow) : undefined;
    const qkv = product(`${l}.qkv`, norm(x, "norm1"), bias);
    const cache = ["b", kvHeads, "capacity", headDim];
    const caches = [graph.input(`keys.${l}`, cache), graph.input(`values.${l}`, cache)];
    const attention = (given: (Tensor | null)[], tables: Tensor[]): Tensor[] =>
      graph.node(
        "GroupQueryAttention",
        [...given, ...caches, past, total, ...tables],
        [{ dims: ["b", 1, wide] }, { dims: cache }, { dims: cache }],
        { num_heads: heads, kv_num_heads: kvHeads, do_rotary: Number(inside) },
        { domain: "com.microsoft" },
      );
    const step = (flat: Tensor, width: number): Tensor => reshape(flat, ["b", 1, width], [0, 1, width]);
    const rotated = (flat: Tensor, count: number, input: string): Tensor => {
      const perHead = reshape(flat, ["b", count, headDim], [0, count, headDim]);
      return step(rope(config.qkNorm ? norm(perHead, input) : perHead, cos, sin), count * headDim);
    };
    const outside = (): Tensor[] => {
      const [q, k, v] = split(qkv, 1, [wide, narrow, narrow]);
      return attention([rotated(q, heads, "qNorm"), rotated(k, kvHeads, "kNorm"), step(v, narrow)], []);
    };
    const [attended, keys, values] = inside
      ? attention([step(qkv, wide + 2 * narrow), null, null], [cos, sin])
      : outside();
    present.push({ name: `newKeys.${l}`, tensor: keys }, { name: `newValues.${l}`, tensor: values });
    x = product(`${l}.o`, reshape(attended, ["b", wide], [0, wide]), x);
    const gateUp = product(`${l}.gateUp`, norm(x, "norm2"));
    const [gate, up] = split(gateUp, 1, [intermediate, intermediate]);
    x = product(`${l}.down`, swiglu(gate, up), x);
  }
  for (const { name, tensor } of present) graph.output(name, tensor);

  const h = rmsNorm(x, vector(FINAL_NORM, hidden), rmsEps);
  const head = graph.weight(headName(config), [vocab, hidden]);
  let logits = gemm(["b", vocab], h, head, { transB: true });
  if (o.tokens > 0) {
    const rows = graph.input("tokenRows", [o.tokens, hidden]);
    const ids = graph.input("tokenIds", ["b", o.tokens], { type: "int64" });
    const own = gemm(["b", o.tokens], h, rows, { transB: true });
    [logits] = graph.node("ScatterElements", [logits, ids, own], [{ dims: ["b", vocab] }], { axis: 1 });
  }
  graph.output("logits", logits);
  choose(graph, o, logits);
  return graph.build();
}

/** Adds the choice: `token` [b] int64 and its `logprob` [b] under softmax(logits / temperature) over the allowed ids. */
function choose(graph: Graph, o: DecodeOptions, logits: Tensor): void {
  const { vocab } = o.config;
  const uniform = graph.input("uniform", ["b", 1]);
  const inverseTemperature = graph.input("inverseTemperature", ["b", 1]);
  const greedy = graph.input("greedy", ["b", 1], { type: "bool" });
  let scaled = mul(logits, inverseTemperature);
  if (o.masked) scaled = add(scaled, graph.input("mask", ["b", vocab]));
  const probs = softmax(scaled);
  const lse = sub(max(scaled, [1], true), log(max(probs, [1], true)));
  let sampled = chooseByBlocks(graph, vocab, probs, uniform);
  if (o.truncated) {
    const topK = graph.input("topK", ["b", 1]);
    const topP = graph.input("topP", ["b", 1]);
    // A row with neither draws in order of ids, whatever its neighbours do: its token is a function of its own number.
    const cut = chooseTruncated(graph, vocab, probs, uniform, topK, topP);
    const bool = { dims: ["b", 1], type: "bool" as const };
    const [wholeK] = graph.node("GreaterOrEqual", [topK, graph.scalar(vocab)], [bool]);
    const [wholeP] = graph.node("GreaterOrEqual", [topP, graph.scalar(1)], [bool]);
    const [whole] = graph.node("And", [wholeK, wholeP], [bool]);
    [sampled] = graph.node("Where", [whole, sampled, cut.token], [{ dims: ["b", 1], type: "int64" }]);
    graph.output("cutMass", where(whole, graph.scalar(0), cut.mass));
  }
  const [best] = graph.node("ArgMax", [scaled], [{ dims: ["b", 1], type: "int64" }], {
    axis: 1,
    keepdims: 1,
    select_last_index: 0,
  });
  const [token] = graph.node("Where", [greedy, best, sampled], [{ dims: ["b", 1], type: "int64" }]);
  const [chosen] = graph.node("GatherElements", [scaled, token], [{ dims: ["b", 1] }], { axis: 1 });
  graph.output("token", token);
  graph.output("logprob", sub(chosen, lse));
}

/** Keeps a float just below the end of a cumulative sum, so that rounding never points past it. */
const BELOW_ONE = 1 - 2 ** -23;

function chooseByBlocks(graph: Graph, vocab: number, probs: Tensor, uniform: Tensor): Tensor {
  const size = 128;
  const count = Math.ceil(vocab / size);
  let padded = probs;
  if (count * size !== vocab) {
    padded = graph.node(
      "Pad",
      [probs, graph.ints([0, 0, 0, count * size - vocab])],
      [{ dims: ["b", count * size] }],
    )[0];
  }
  const blocks = reshape(padded, ["b", count, size], [0, count, size]);
  const sums = sum(blocks, [2]);
  const upTo = cumsum(sums);
  const whole = max(upTo, [1], true);
  const aim = minimumOf(graph, mul(uniform, whole), mul(whole, BELOW_ONE));
  const block = countAtMost(graph, upTo, aim);
  const [before] = graph.node("CumSum", [sums, graph.scalar(1, "int64")], [{ dims: ["b", count] }], { exclusive: 1 });
  const [start] = graph.node("GatherElements", [before, block], [{ dims: ["b", 1] }], { axis: 1 });
  const [inside] = graph.node("GatherND", [blocks, block], [{ dims: ["b", size] }], { batch_dims: 1 });
  const insideUpTo = cumsum(inside);
  const rest = minimumOf(graph, sub(aim, start), mul(max(insideUpTo, [1], true), BELOW_ONE));
  const offset = countAtMost(graph, insideUpTo, rest);
  const [first] = graph.node("Mul", [block, graph.scalar(size, "int64")], [{ dims: ["b", 1], type: "int64" }]);
  return graph.node("Add", [first, offset], [{ dims: ["b", 1], type: "int64" }])[0];
}

/**
 * Top-k and top-p (Holtzman et al. 2020): ids by falling probability; one stays while the sum before it is below top-p and its rank
 * is below top-k (the whole vocabulary where a row has none). `mass`: the probability of those that do not stay.
 */
function chooseTruncated(
  graph: Graph,
  vocab: number,
  probs: Tensor,
  uniform: Tensor,
  topK: Tensor,
  topP: Tensor,
): { token: Tensor; mass: Tensor } {
  const [sorted, ids] = graph.node(
    "TopK",
    [probs, graph.ints([vocab])],
    [{ dims: ["b", vocab] }, { dims: ["b", vocab], type: "int64" }],
    { axis: 1 },
  );
  const [before] = graph.node("CumSum", [sorted, graph.scalar(1, "int64")], [{ dims: ["b", vocab] }], { exclusive: 1 });
  const ranks = graph.constant(
    Float32Array.from({ length: vocab }, (_, i) => i),
    [1, vocab],
  );
  const less = (a: Tensor, b: Tensor) => graph.node("Less", [a, b], [{ dims: ["b", vocab], type: "bool" }])[0];
  const [keep] = graph.node("And", [less(before, topP), less(ranks, topK)], [{ dims: ["b", vocab], type: "bool" }]);
  const upTo = cumsum(where(keep, sorted, graph.scalar(0)));
  const whole = max(upTo, [1], true);
  const rank = countAtMost(graph, upTo, minimumOf(graph, mul(uniform, whole), mul(whole, BELOW_ONE)));
  const [token] = graph.node("GatherElements", [ids, rank], [{ dims: ["b", 1], type: "int64" }], { axis: 1 });
  // Summed directly: as 1 less what is kept it would be rounding alone where little is cut.
  return { token, mass: sum(where(keep, graph.scalar(0), sorted), [1], true) };
}

const minimumOf = (graph: Graph, a: Tensor, b: Tensor): Tensor => graph.node("Min", [a, b], [{ dims: a.dims }])[0];

/** How many of a row's numbers are at most the limit, [b, 1] int64: the place of the first that is above it. */
function countAtMost(graph: Graph, row: Tensor, limit: Tensor): Tensor {
  const [below] = graph.node("LessOrEqual", [row, limit], [{ dims: row.dims, type: "bool" }]);
  const [ones] = graph.node("Cast", [below], [{ dims: row.dims, type: "int64" }], { to: 7 });
  return graph.node("ReduceSum", [ones, graph.ints([1])], [{ dims: ["b", 1], type: "int64" }], { keepdims: 1 })[0];
}

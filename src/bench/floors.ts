import type { LoraSettings } from "../engine/types.ts";
import { linearDims, LINEARS } from "../engine/local/layers.ts";
import type { Forest, Tree } from "../forest/types.ts";
import { depths } from "../forest/walk.ts";
import type { ModelConfig } from "../model/types.ts";

/*
 * Floors: what the mathematics needs once, whatever the program does besides. A product of [m, k] and [k, n] counts 2 m k n.
 */

/** The work of a training step or of a forward pass. */
export interface PassWork {
  /** Tokens. */
  rows: number;
  /** Tokens whose log-prob the loss reads. */
  scored: number;
  /** Query-key pairs, a path's whole square: `attentionPairs`. */
  pairs: number;
}

/** FLOPs of a forward pass over all layers and the head. */
export function forwardFlops(config: ModelConfig, { rows, scored, pairs }: PassWork): number {
  const attention = 4 * pairs * config.heads * config.headDim * config.layers;
  return 2 * rows * layerWeights(config) + 2 * scored * headWeights(config) + attention;
}

/**
 * FLOPs of forward, input gradients and the gradients of what is trained; nothing is computed twice. Adapters are counted as
 * merged into their weights (2 r in out, and then only their gradients), which is the least.
 */
export function trainingFlops(config: ModelConfig, work: PassWork, train: "full" | { lora: LoraSettings }): number {
  const { rows, scored, pairs } = work;
  const attention = 8 * pairs * config.heads * config.headDim * config.layers;
  const linear = 2 * rows * layerWeights(config);
  const head = 2 * scored * headWeights(config);
  const common = forwardFlops(config, work) + linear + head + attention;
  if (train === "full") return common + linear + head;
  const dims = linearDims(config);
  const { rank, targets } = train.lora;
  const adapters = LINEARS.filter((name) => targets?.includes(name) ?? true).reduce((sum, name) => {
    const [out, width] = dims[name];
    return sum + 4 * rows * rank * (out + width) + 2 * rank * out * width;
  }, 0);
  // The embedding is frozen: the first layer's q, k and v hand no gradient on.
  const first = 2 * rows * (["q", "k", "v"] as const).reduce((sum, name) => sum + dims[name][0] * dims[name][1], 0);
  return common - first + config.layers * adapters;
}

/** FLOPs of one decode step of `rows` sequences, each of which attends to `keys` tokens. */
export function decodeFlops(config: ModelConfig, rows: number, keys: number): number {
  return forwardFlops(config, { rows, scored: rows, pairs: rows * keys });
}

/** Bytes of all float32 weights that a token needs, each read once; a tied embedding counts once, as the head. */
export function weightBytes(config: ModelConfig): number {
  const { hidden, heads, kvHeads, headDim, layers, qkvBias, qkNorm } = config;
  const vectors = 2 * hidden + (qkvBias ? (heads + 2 * kvHeads) * headDim : 0) + (qkNorm ? 2 * headDim : 0);
  return 4 * (layerWeights(config) + headWeights(config) + layers * vectors + hidden);
}

/** Query-key pairs that trees need: for each segment, length x (tokens above + length). An only child counts as one with its parent. */
export function attentionPairs(forest: Forest): number {
  return forest.reduce((sum, tree) => sum + treePairs(tree), 0);
}

function treePairs(tree: Tree): number {
  const before = depths(tree);
  const children = tree.segments.map(() => 0);
  for (const { parent } of tree.segments) if (parent >= 0) children[parent]++;
  const chainOf: number[] = [];
  const chains: { before: number; length: number }[] = [];
  tree.segments.forEach(({ parent, tokens }, s) => {
    if (parent >= 0 && children[parent] === 1) {
      chainOf[s] = chainOf[parent];
      chains[chainOf[s]].length += tokens.length;
    } else {
      chainOf[s] = chains.push({ before: before[s], length: tokens.length }) - 1;
    }
  });
  return chains.reduce((sum, chain) => sum + chain.length * (chain.before + chain.length), 0);
}

/** Weights of all layers' matrices. */
function layerWeights(config: ModelConfig): number {
  const dims = linearDims(config);
  return config.layers * LINEARS.reduce((sum, name) => sum + dims[name][0] * dims[name][1], 0);
}

const headWeights = ({ vocab, hidden }: ModelConfig): number => vocab * hidden;

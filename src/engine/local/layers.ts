import type { ModelConfig } from "../../model/types.ts";

/** The linear layers of a block, in the order of the pass. */
export const LINEARS = ["q", "k", "v", "o", "gate", "up", "down"] as const;
export type LinearName = (typeof LINEARS)[number];

/** Their place in Hugging Face's names. */
const PLACES: Record<LinearName, string> = {
  q: "self_attn.q_proj",
  k: "self_attn.k_proj",
  v: "self_attn.v_proj",
  o: "self_attn.o_proj",
  gate: "mlp.gate_proj",
  up: "mlp.up_proj",
  down: "mlp.down_proj",
};

export const moduleName = (layer: number, linear: LinearName): string => `model.layers.${layer}.${PLACES[linear]}`;
export const weightName = (layer: number, linear: LinearName): string => `${moduleName(layer, linear)}.weight`;
export const EMBEDDING = "model.embed_tokens.weight";
export const FINAL_NORM = "model.norm.weight";
export const HEAD = "lm_head.weight";

/** Rows of the embedding or the head that are trained while the rest is frozen. */
export const tokenRows = (matrix: string): string => matrix.replace(/weight$/, "tokens");

/** The matrices with a row for each token. */
export const vocabMatrices = (config: ModelConfig): string[] =>
  config.tiedEmbeddings ? [EMBEDDING] : [EMBEDDING, HEAD];

/** The matrix that gives the logits. */
export const headName = (config: ModelConfig): string => (config.tiedEmbeddings ? EMBEDDING : HEAD);

/** [out, in] of each linear layer. */
export function linearDims(config: ModelConfig): Record<LinearName, [number, number]> {
  const { hidden, heads, kvHeads, headDim, intermediate } = config;
  return {
    q: [heads * headDim, hidden],
    k: [kvHeads * headDim, hidden],
    v: [kvHeads * headDim, hidden],
    o: [hidden, heads * headDim],
    gate: [intermediate, hidden],
    up: [intermediate, hidden],
    down: [hidden, intermediate],
  };
}

/** The vectors of a block: graph input name to Hugging Face name and length. */
export function vectors(config: ModelConfig, layer: number): Record<string, { name: string; length: number }> {
  const { hidden, heads, kvHeads, headDim } = config;
  const at = `model.layers.${layer}`;
  const entries: Record<string, { name: string; length: number }> = {
    norm1: { name: `${at}.input_layernorm.weight`, length: hidden },
    norm2: { name: `${at}.post_attention_layernorm.weight`, length: hidden },
  };
  if (config.qkvBias) {
    entries.qBias = { name: `${at}.self_attn.q_proj.bias`, length: heads * headDim };
    entries.kBias = { name: `${at}.self_attn.k_proj.bias`, length: kvHeads * headDim };
    entries.vBias = { name: `${at}.self_attn.v_proj.bias`, length: kvHeads * headDim };
  }
  if (config.qkNorm) {
    entries.qNorm = { name: `${at}.self_attn.q_norm.weight`, length: headDim };
    entries.kNorm = { name: `${at}.self_attn.k_norm.weight`, length: headDim };
  }
  return entries;
}

/**
 * Every tensor of a model in the order in which arenas hold them: matrices first (so that decay takes a prefix), q, k, v and
 * gate, up beside each other (so that decoding sees each as one matrix), then vectors.
 */
export function tensorOrder(config: ModelConfig): { name: string; dims: number[] }[] {
  const dims = linearDims(config);
  const order: { name: string; dims: number[] }[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    for (const linear of LINEARS) order.push({ name: weightName(layer, linear), dims: dims[linear] });
  }
  for (const name of vocabMatrices(config)) order.push({ name, dims: [config.vocab, config.hidden] });
  for (let layer = 0; layer < config.layers; layer++) {
    for (const { name, length } of Object.values(vectors(config, layer))) order.push({ name, dims: [length] });
  }
  order.push({ name: FINAL_NORM, dims: [config.hidden] });
  return order;
}

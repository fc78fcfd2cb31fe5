import { UserError } from "../errors.ts";

/** llama.cpp's table of rotary frequency divisors, where Llama 3's scaling is stored instead of its settings. */
export const ropeTable = "rope_freqs.weight";

const globalNames: Record<string, string> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};
const layerNames: Record<string, string> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};
const ggufNames = new Map(
  [...Object.entries(globalNames), ...Object.entries(layerNames)].map(([gguf, name]) => [name, gguf]),
);

/** The Hugging Face name of a tensor in a GGUF file. Throws a UserError for tensors of other architectures. */
export function huggingFaceName(name: string, path: string): string {
  if (name === ropeTable) return name;
  const match = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(name);
  const [, layer, stem = "", kind] = match ?? [];
  const mapped = layer === undefined ? globalNames[stem] : layerNames[stem];
  if (mapped === undefined)
    throw new UserError(`${path}: tensor ${name} has no place in a llama, qwen2 or qwen3 model`);
  return `${layer === undefined ? "" : `model.layers.${layer}.`}${mapped}.${kind}`;
}

/** The way back. */
export function ggufName(name: string): string {
  const match = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name);
  const [, layer, stem = "", kind] = match ?? [];
  const mapped = ggufNames.get(stem);
  if (mapped === undefined) throw new Error(`tensor ${name} has no name in a GGUF file`);
  return `${layer === undefined ? "" : `blk.${layer}.`}${mapped}.${kind}`;
}

/** The number of heads whose rows the format reorders (q and k of Llama); undefined for every other tensor. */
export function interleavedHeads(
  name: string,
  config: { architecture: string; heads: number; kvHeads: number },
): number | undefined {
  const projection =
    config.architecture === "llama" ? /self_attn\.([qk])_proj\.(weight|bias)$/.exec(name)?.[1] : undefined;
  return projection === undefined ? undefined : projection === "q" ? config.heads : config.kvHeads;
}

/**
 * Where a head's row of the file stands in Hugging Face's order: the file keeps rows 2i and 2i + 1 for the pair that rotates together,
 * Hugging Face i and i + headDim / 2.
 */
export const halfSplitRow = (row: number, headDim: number): number => (row >> 1) + (row & 1) * (headDim / 2);

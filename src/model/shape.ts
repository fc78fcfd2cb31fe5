import { UserError } from "../errors.ts";
import type { ModelConfig } from "./types.ts";

/** Every tensor of a model of this shape, by Hugging Face name, in the order of the forward pass, with its dims. */
export function tensorShapes(config: ModelConfig): Map<string, number[]> {
  const { hidden, heads, kvHeads, headDim, intermediate, vocab } = config;
  const shapes = new Map<string, number[]>([["model.embed_tokens.weight", [vocab, hidden]]]);
  for (let layer = 0; layer < config.layers; layer++) {
    const set = (name: string, ...dims: number[]) => shapes.set(`model.layers.${layer}.${name}`, dims);
    set("input_layernorm.weight", hidden);
    for (const [projection, rows] of [
      ["q_proj", heads * headDim],
      ["k_proj", kvHeads * headDim],
      ["v_proj", kvHeads * headDim],
    ] as const) {
      set(`self_attn.${projection}.weight`, rows, hidden);
      if (config.qkvBias) set(`self_attn.${projection}.bias`, rows);
    }
    if (config.qkNorm) {
      set("self_attn.q_norm.weight", headDim);
      set("self_attn.k_norm.weight", headDim);
    }
    set("self_attn.o_proj.weight", hidden, heads * headDim);
    set("post_attention_layernorm.weight", hidden);
    set("mlp.gate_proj.weight", intermediate, hidden);
    set("mlp.up_proj.weight", intermediate, hidden);
    set("mlp.down_proj.weight", hidden, intermediate);
  }
  shapes.set("model.norm.weight", [hidden]);
  if (!config.tiedEmbeddings) shapes.set("lm_head.weight", [vocab, hidden]);
  return shapes;
}

/**
 * Throws a UserError that names the first tensor which the config asks for and the file lacks, whose dims differ, or which the
 * file holds and the config knows nothing of.
 * @param found dims by Hugging Face name, as the file states them
 * @param source the file or folder, for the message
 */
export function checkShapes(config: ModelConfig, found: ReadonlyMap<string, readonly number[]>, source: string): void {
  if (config.layers > found.size) {
    throw new UserError(
      `${source}: the config asks for ${config.layers} layers, but there are only ${found.size} tensors`,
    );
  }
  const expected = tensorShapes(config);
  for (const [name, dims] of expected) {
    const actual = found.get(name);
    if (!actual) {
      throw new UserError(
        `${source}: tensor ${name} with dims [${dims.join(", ")}] is missing: the config asks for it; fetch the weights again or correct the config`,
      );
    }
    if (actual.join() !== dims.join()) {
      throw new UserError(
        `${source}: tensor ${name}: expected dims [${dims.join(", ")}] from the config, found [${actual.join(", ")}]; weights and config belong to different models`,
      );
    }
  }
  for (const name of found.keys()) {
    if (!expected.has(name) && !isRedundant(name, config)) {
      throw new UserError(
        `${source}: tensor ${name} has no place in a ${config.architecture} model of this config; the weights belong to another architecture or config`,
      );
    }
  }
}

/** Tensors that some files carry and no forward pass needs: rotary tables, and the head of a model whose head is its embedding. */
function isRedundant(name: string, config: ModelConfig): boolean {
  return name.endsWith(".rotary_emb.inv_freq") || (name === "lm_head.weight" && config.tiedEmbeddings);
}

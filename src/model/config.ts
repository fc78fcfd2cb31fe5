import { z } from "zod";
import { UserError } from "../errors.ts";
import { check } from "./files.ts";
import type { Architecture, ModelConfig } from "./types.ts";

const architectures: readonly Architecture[] = ["llama", "qwen2", "qwen3"];
const causalClass: Record<Architecture, string> = {
  llama: "LlamaForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
};

const count = z.int().positive();
const ropeSchema = z.looseObject({
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  rope_theta: z.number().positive().nullish(),
  factor: z.number().positive().nullish(),
  low_freq_factor: z.number().positive().nullish(),
  high_freq_factor: z.number().positive().nullish(),
  original_max_position_embeddings: count.nullish(),
  partial_rotary_factor: z.number().nullish(),
});

/** `eos_token_id` is one id or several. */
export const idsSchema = z
  .union([z.int().nonnegative(), z.array(z.int().nonnegative())])
  .nullish()
  .transform((ids) => (ids === null || ids === undefined ? [] : [ids].flat()));

const configSchema = z.looseObject({
  hidden_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  intermediate_size: count,
  vocab_size: count,
  max_position_embeddings: count,
  rms_norm_eps: z.number().positive().nullish(),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  partial_rotary_factor: z.number().nullish(),
  hidden_act: z.string().nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  use_sliding_window: z.boolean().nullish(),
  sliding_window: count.nullish(),
  quantization_config: z.looseObject({ quant_method: z.string().nullish() }).nullish(),
  eos_token_id: idsSchema,
  bos_token_id: z.int().nonnegative().nullish(),
});

/** Throws a UserError unless rifft knows the architecture by this name (`model_type`, or GGUF's `general.architecture`). */
export function knownArchitecture(name: string, path: string): Architecture {
  const known = architectures.find((architecture) => architecture === name);
  if (!known) {
    throw new UserError(
      `${path}: architecture "${name}" is not supported; expected one of ${architectures.join(", ")}`,
    );
  }
  return known;
}

/** Reads the content of a `config.json`; defaults are those of `transformers` for the architecture. */
export function parseConfig(json: unknown, path: string): ModelConfig {
  const { model_type } = check(json, z.looseObject({ model_type: z.string() }), path);
  const architecture = knownArchitecture(model_type, path);
  const raw = check(json, configSchema, path);
  const rope = { ...raw.rope_scaling, ...raw.rope_parameters };
  const refuse = (what: string, supported: string) => {
    throw new UserError(`${path}: ${what} is not supported; expected ${supported}`);
  };
  if (raw.quantization_config) {
    refuse(
      `quantisation "${raw.quantization_config.quant_method ?? "unnamed"}"`,
      "f32, f16 or bf16 safetensors, or a GGUF file",
    );
  }
  if ((raw.hidden_act ?? "silu") !== "silu") refuse(`hidden_act "${raw.hidden_act}"`, '"silu"');
  // Llama and Qwen3 put this bias on the output projection too.
  if (raw.attention_bias && architecture !== "qwen2") refuse("attention_bias = true", "false");
  if (raw.mlp_bias) refuse("mlp_bias = true", "false");
  const rotaryPart = raw.partial_rotary_factor ?? rope.partial_rotary_factor ?? 1;
  if (rotaryPart !== 1) refuse(`partial_rotary_factor = ${rotaryPart}`, "1");
  if (raw.hidden_size % raw.num_attention_heads !== 0 && !raw.head_dim) {
    refuse(`hidden_size ${raw.hidden_size} with ${raw.num_attention_heads} heads`, "a multiple, or head_dim");
  }
  // Below the window, sliding attention is full attention: the context is what is cut.
  const window = raw.use_sliding_window ? (raw.sliding_window ?? Infinity) : Infinity;
  return validConfig(
    {
      architecture,
      layers: raw.num_hidden_layers,
      hidden: raw.hidden_size,
      heads: raw.num_attention_heads,
      kvHeads: raw.num_key_value_heads ?? raw.num_attention_heads,
      headDim: raw.head_dim ?? (architecture === "qwen3" ? 128 : raw.hidden_size / raw.num_attention_heads),
      intermediate: raw.intermediate_size,
      vocab: raw.vocab_size,
      maxContext: Math.min(raw.max_position_embeddings, window),
      rmsEps: raw.rms_norm_eps ?? 1e-6,
      ropeTheta: rope.rope_theta ?? raw.rope_theta ?? 10000,
      ropeScaling: parseRopeScaling(rope, path),
      tiedEmbeddings: raw.tie_word_embeddings ?? false,
      qkvBias: architecture === "qwen2",
      qkNorm: architecture === "qwen3",
      eosIds: raw.eos_token_id,
      bosId: raw.bos_token_id ?? undefined,
    },
    path,
  );
}

function parseRopeScaling(rope: z.infer<typeof ropeSchema>, path: string): ModelConfig["ropeScaling"] {
  const type = rope.rope_type ?? rope.type ?? "default";
  if (type === "default") return undefined;
  if (type !== "llama3") {
    throw new UserError(`${path}: rope scaling "${type}" is not supported; expected "llama3" or none`);
  }
  const llama3 = z.object({
    factor: z.number(),
    low_freq_factor: z.number(),
    high_freq_factor: z.number(),
    original_max_position_embeddings: z.number(),
  });
  const scaling = check(rope, llama3, `${path}: rope_scaling`);
  return {
    factor: scaling.factor,
    lowFreqFactor: scaling.low_freq_factor,
    highFreqFactor: scaling.high_freq_factor,
    originalMaxContext: scaling.original_max_position_embeddings,
  };
}

/** Checks what every source of a config must obey. */
export function validConfig(config: ModelConfig, path: string): ModelConfig {
  if (config.heads % config.kvHeads !== 0) {
    throw new UserError(`${path}: ${config.heads} heads are not a multiple of ${config.kvHeads} key-value heads`);
  }
  if (config.headDim % 2 !== 0) {
    throw new UserError(`${path}: head_dim ${config.headDim} is odd; rotary embeddings need an even one`);
  }
  const beyond = [...config.eosIds, config.bosId ?? 0].find((id) => id >= config.vocab);
  if (beyond !== undefined) {
    throw new UserError(`${path}: token id ${beyond} lies beyond the vocabulary of ${config.vocab}`);
  }
  return config;
}

/** The `config.json` of a model that did not come with one. */
export function writeConfig(config: ModelConfig): Record<string, unknown> {
  const scaling = config.ropeScaling;
  return {
    architectures: [causalClass[config.architecture]],
    model_type: config.architecture,
    hidden_size: config.hidden,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    intermediate_size: config.intermediate,
    vocab_size: config.vocab,
    max_position_embeddings: config.maxContext,
    rms_norm_eps: config.rmsEps,
    rope_theta: config.ropeTheta,
    rope_scaling: scaling
      ? {
          rope_type: "llama3",
          factor: scaling.factor,
          low_freq_factor: scaling.lowFreqFactor,
          high_freq_factor: scaling.highFreqFactor,
          original_max_position_embeddings: scaling.originalMaxContext,
        }
      : null,
    hidden_act: "silu",
    attention_bias: config.qkvBias,
    tie_word_embeddings: config.tiedEmbeddings,
    bos_token_id: config.bosId ?? null,
    eos_token_id: oneOrMany(config.eosIds),
  };
}

/** The form in which `transformers` writes `eos_token_id`. */
export function oneOrMany(ids: readonly number[]): number | readonly number[] | null {
  return ids.length > 1 ? ids : (ids[0] ?? null);
}

import { UserError } from "../errors.ts";
import { knownArchitecture, validConfig } from "./config.ts";
import { readRange, withFile } from "./files.ts";
import { ggufTokenizerJson, metadataReader, type Metadata } from "./gguf-tokenizer.ts";
import { readGgufHeader, type GgufTensor } from "./gguf.ts";
import { checkTokenizer } from "./huggingface.ts";
import { checkShapes } from "./shape.ts";
import { writeSidecars } from "./sidecars.ts";
import { createTokenizer, type TokenizerJson } from "./tokenizer.ts";
import type { ModelConfig, ModelFiles, StoredTensor, Tokenizer } from "./types.ts";
import { widen } from "./widen.ts";

/** llama.cpp's table of rotary frequency divisors, where Llama 3's scaling is stored instead of its settings. */
const ropeTable = "rope_freqs.weight";

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

/** Ends a turn or a text in the families that rifft reads; files name only one of them as EOS. */
const endTokens = ["<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>"];

/** The tokenizer alone of a GGUF file. */
export async function ggufTokenizer(path: string): Promise<Tokenizer> {
  const metadata = metadataReader((await readGgufHeader(path)).metadata, path);
  return createTokenizer({ json: ggufTokenizerJson(metadata, path), specialTokens: {}, path });
}

/** Reads a GGUF file: weights as stored, tokenizer and chat template as Hugging Face files. */
export async function loadGguf(path: string): Promise<ModelFiles> {
  const { metadata: raw, tensors: described } = await readGgufHeader(path);
  const metadata = metadataReader(raw, path);
  const architecture = knownArchitecture(metadata.string("general.architecture") ?? "unnamed", path);
  if ((metadata.number("split.count") ?? 1) > 1) {
    throw new UserError(
      `${path}: one of ${metadata.number("split.count")} parts; join them with llama-gguf-split --merge first`,
    );
  }
  const json = ggufTokenizerJson(metadata, path);
  const config = readConfig(metadata, architecture, described, path);
  const tokens = tokenTexts(metadata, json, config);
  const chatTemplate = metadata.string("tokenizer.chat_template");
  const tokenizer = createTokenizer({ json, specialTokens: tokens, chatTemplate, path });
  const ends = endTokens.flatMap((token) => tokenizer.idOf(token) ?? []);
  config.eosIds = [...new Set([...config.eosIds, ...ends])];
  checkTokenizer(config, tokenizer, path);

  const named = new Map([...described].map(([name, tensor]) => [huggingFaceName(name, path), tensor]));
  const table = named.get(ropeTable);
  named.delete(ropeTable);
  checkShapes(config, new Map([...named].map(([name, { dims }]) => [name, dims])), path);
  const tensors = await withFile(path, async (file) => {
    const read = async ({ dims, type, start, bytes }: GgufTensor): Promise<StoredTensor> => ({
      dims,
      type,
      bytes: await readRange(file, start, bytes, path),
    });
    if (table) config.ropeScaling = ropeScalingOf(config, await read(table), path);
    const tensors = new Map<string, StoredTensor>();
    for (const [name, description] of named) {
      const tensor = await read(description);
      tensors.set(name, architecture === "llama" ? halfSplit(name, tensor, config) : tensor);
    }
    return tensors;
  });
  return { config, tensors, tokenizer, sidecars: writeSidecars(config, json, tokens, chatTemplate) };
}

function huggingFaceName(name: string, path: string): string {
  if (name === ropeTable) return name;
  const match = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(name);
  const [, layer, stem = "", kind] = match ?? [];
  const mapped = layer === undefined ? globalNames[stem] : layerNames[stem];
  if (mapped === undefined)
    throw new UserError(`${path}: tensor ${name} has no place in a llama, qwen2 or qwen3 model`);
  return `${layer === undefined ? "" : `model.layers.${layer}.`}${mapped}.${kind}`;
}

function readConfig(
  metadata: Metadata,
  architecture: ModelConfig["architecture"],
  tensors: ReadonlyMap<string, GgufTensor>,
  path: string,
): ModelConfig {
  const optional = (key: string) => metadata.number(`${architecture}.${key}`);
  const positive = (key: string, fallback?: number) => {
    const value = optional(key) ?? fallback;
    if (value === undefined || !(value > 0)) {
      throw new UserError(`${path}: ${architecture}.${key}: expected a positive number, found ${value ?? "nothing"}`);
    }
    return value;
  };
  const scaling = metadata.string(`${architecture}.rope.scaling.type`) ?? "none";
  if (scaling !== "none") throw new UserError(`${path}: rope scaling "${scaling}" is not supported; expected none`);
  if (optional("expert_count")) throw new UserError(`${path}: mixture-of-experts models are not supported`);
  const embedding = tensors.get("token_embd.weight");
  if (!embedding) throw new UserError(`${path}: tensor token_embd.weight is missing; expected a whole model`);
  const hidden = positive("embedding_length");
  const heads = positive("attention.head_count");
  const headDim = positive("attention.key_length", hidden / heads);
  const rotary = positive("rope.dimension_count", headDim);
  if (rotary !== headDim || positive("attention.value_length", headDim) !== headDim) {
    throw new UserError(`${path}: rotary and value dims must equal the head's ${headDim}; rotary dims are ${rotary}`);
  }
  const eosId = metadata.number("tokenizer.ggml.eos_token_id");
  const turnEndId = metadata.number("tokenizer.ggml.eot_token_id");
  return validConfig(
    {
      architecture,
      layers: positive("block_count"),
      hidden,
      heads,
      kvHeads: positive("attention.head_count_kv", heads),
      headDim,
      intermediate: positive("feed_forward_length"),
      vocab: embedding.dims[0],
      maxContext: positive("context_length"),
      rmsEps: shortest(positive("attention.layer_norm_rms_epsilon")),
      ropeTheta: shortest(positive("rope.freq_base", 10000)),
      tiedEmbeddings: !tensors.has("output.weight"),
      qkvBias: tensors.has("blk.0.attn_q.bias"),
      qkNorm: architecture === "qwen3",
      eosIds: [eosId, turnEndId].filter((id) => id !== undefined),
      bosId: metadata.number("tokenizer.ggml.bos_token_id"),
    },
    path,
  );
}

/** The shortest decimal that is this float32: 1e-5 rather than 0.000009999999747378752. */
function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}

/**
 * Undoes llama.cpp's reordering of the rows of q and k for interleaved rotary embeddings: row 2i + s of a head goes to row
 * i + s * headDim / 2. Quantised rows are whole blocks, so they move as they are.
 */
function halfSplit(name: string, tensor: StoredTensor, config: ModelConfig): StoredTensor {
  const projection = /self_attn\.([qk])_proj\.(weight|bias)$/.exec(name)?.[1];
  if (!projection) return tensor;
  const { headDim } = config;
  const heads = projection === "q" ? config.heads : config.kvHeads;
  const row = tensor.bytes.length / (heads * headDim);
  const bytes = new Uint8Array(tensor.bytes.length);
  for (let head = 0; head < heads; head++) {
    for (let from = 0; from < headDim; from++) {
      const to = (from >> 1) + (from & 1) * (headDim / 2);
      const source = (head * headDim + from) * row;
      bytes.set(tensor.bytes.subarray(source, source + row), (head * headDim + to) * row);
    }
  }
  return { ...tensor, bytes };
}

/**
 * Llama 3's scaling settings from the table of divisors: the largest is the factor, and the rest must be what the published
 * settings of all Llama 3.x (low 1, high 4, original context 8192) give.
 */
function ropeScalingOf(config: ModelConfig, table: StoredTensor, path: string): ModelConfig["ropeScaling"] {
  const divisors = new Float32Array(table.dims[0]);
  widen(table, divisors);
  const factor = divisors.reduce((a, b) => Math.max(a, b), 1);
  if (factor === 1) return undefined;
  const scaling = { factor, lowFreqFactor: 1, highFreqFactor: 4, originalMaxContext: 8192 };
  const fits = divisors.every((divisor, i) => {
    const wavelength = 2 * Math.PI * config.ropeTheta ** ((2 * i) / config.headDim);
    const turns = scaling.originalMaxContext / wavelength;
    const smooth = (turns - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor);
    const bounded = Math.min(1, Math.max(0, smooth));
    return Math.abs(divisor * ((1 - bounded) / factor + bounded) - 1) < 1e-3;
  });
  if (!fits || divisors.length !== config.headDim / 2) {
    throw new UserError(`${path}: ${ropeTable} is not Llama 3's scaling; only that one is supported`);
  }
  return scaling;
}

function tokenTexts(metadata: Metadata, json: TokenizerJson, config: ModelConfig): Record<string, string> {
  const tokens = metadata.strings("tokenizer.ggml.tokens") ?? [];
  const ids = {
    bos_token: config.bosId,
    eos_token: config.eosIds[0],
    unk_token: metadata.number("tokenizer.ggml.unknown_token_id"),
    pad_token: metadata.number("tokenizer.ggml.padding_token_id"),
  };
  const special = new Set(json.added_tokens.map((token) => token.id));
  const texts: Record<string, string> = {};
  for (const [name, id] of Object.entries(ids)) {
    if (id !== undefined && special.has(id)) texts[name] = tokens[id];
  }
  return texts;
}

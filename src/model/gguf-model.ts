import { UserError } from "../errors.ts";
import { knownArchitecture, validConfig } from "./config.ts";
import { readRange, withFile } from "./files.ts";
import { halfSplitRow, huggingFaceName, interleavedHeads, ropeTable } from "./gguf-names.ts";
import { endTokens, ggufTokenizerJson, metadataReader, type Metadata } from "./gguf-tokenizer.ts";
import { readGgufHeader, type GgufTensor } from "./gguf.ts";
import { ropeDivisors, ropeScalingKeys, type RopeSetting } from "./rope.ts";
import { checkTokenizer } from "./huggingface.ts";
import { checkShapes } from "./shape.ts";
import { writeSidecars } from "./sidecars.ts";
import { createTokenizer, type TokenizerJson, type TokenizerSource } from "./tokenizer.ts";
import type { ModelConfig, ModelFiles, StoredTensor } from "./types.ts";
import { widen } from "./widen.ts";

/** The tokenizer alone of a GGUF file, without its chat template. */
export async function ggufTokenizerSource(path: string): Promise<TokenizerSource> {
  const metadata = metadataReader((await readGgufHeader(path)).metadata, path);
  const { json, added } = ggufTokenizerJson(metadata, path);
  return { json, added, specialTokens: {}, path };
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
  const { json, texts, added } = ggufTokenizerJson(metadata, path);
  const config = readConfig(metadata, architecture, described, path);
  const tokens = tokenTexts(metadata, texts, json, config);
  const chatTemplate = metadata.string("tokenizer.chat_template");
  const tokenizer = createTokenizer({ json, specialTokens: tokens, chatTemplate, added, path });
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
    if (table) config.ropeScaling = ropeScalingOf(config, metadata, await read(table), path);
    const tensors = new Map<string, StoredTensor>();
    for (const [name, description] of named) {
      const tensor = await read(description);
      tensors.set(name, halfSplit(name, tensor, config));
    }
    return tensors;
  });
  return { config, tensors, tokenizer, sidecars: writeSidecars(config, json, tokens, chatTemplate, added) };
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
  const messageEndId = metadata.number("tokenizer.ggml.eom_token_id");
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
      eosIds: [eosId, turnEndId, messageEndId].filter((id) => id !== undefined),
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
 * Undoes llama.cpp's reordering of the rows of q and k for interleaved rotary embeddings. Quantised rows are whole blocks, so they
 * move as they are.
 */
function halfSplit(name: string, tensor: StoredTensor, config: ModelConfig): StoredTensor {
  const heads = interleavedHeads(name, config);
  if (heads === undefined) return tensor;
  const { headDim } = config;
  const row = tensor.bytes.length / (heads * headDim);
  const bytes = new Uint8Array(tensor.bytes.length);
  for (let head = 0; head < heads; head++) {
    for (let from = 0; from < headDim; from++) {
      const source = (head * headDim + from) * row;
      bytes.set(tensor.bytes.subarray(source, source + row), (head * headDim + halfSplitRow(from, headDim)) * row);
    }
  }
  return { ...tensor, bytes };
}

/**
 * Llama 3's scaling settings, where the table of divisors is what they give: those that the file names, else those of all published
 * Llama 3.x (low 1, high 4, original context 8192; the factor is the largest divisor).
 */
function ropeScalingOf(
  config: ModelConfig,
  metadata: Metadata,
  table: StoredTensor,
  path: string,
): ModelConfig["ropeScaling"] {
  const divisors = new Float32Array(table.dims[0]);
  widen(table, divisors);
  const factor = divisors.reduce((a, b) => Math.max(a, b), 1);
  if (factor === 1) return undefined;
  const setting = (key: RopeSetting, otherwise: number) => metadata.number(ropeScalingKeys[key]) ?? otherwise;
  const ropeScaling = {
    factor: setting("factor", factor),
    lowFreqFactor: setting("lowFreqFactor", 1),
    highFreqFactor: setting("highFreqFactor", 4),
    originalMaxContext: setting("originalMaxContext", 8192),
  };
  const expected = ropeDivisors({ ...config, ropeScaling });
  const fits = divisors.every((divisor, i) => Math.abs(divisor / expected[i] - 1) < 1e-3);
  if (!fits || divisors.length !== config.headDim / 2) {
    throw new UserError(`${path}: ${ropeTable} is not Llama 3's scaling; only that one is supported`);
  }
  return ropeScaling;
}

function tokenTexts(
  metadata: Metadata,
  tokens: readonly string[],
  json: TokenizerJson,
  config: ModelConfig,
): Record<string, string> {
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

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { idsSchema, parseConfig, validConfig } from "./config.ts";
import { parseJson, readOptional } from "./files.ts";
import { readSafetensors, readSafetensorsHeader, type TensorEntry } from "./safetensors.ts";
import { checkShapes, tensorShapes } from "./shape.ts";
import { createTokenizer, tokenizerJsonSchema, type TokenizerSource } from "./tokenizer.ts";
import type { ModelConfig, ModelFiles, StoredTensor, Tokenizer } from "./types.ts";

/** Files beside the weights that make a Hugging Face folder whole; an export copies those that are there. */
const sidecarNames = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
];

/** Reads a folder in Hugging Face layout. Headers and shapes are checked before any weight is read. */
export async function loadHuggingFace(folder: string): Promise<ModelFiles> {
  const sidecars = await readSidecars(folder);
  const config = parseConfig(
    parseJson(await need(folder, sidecars, "config.json"), z.unknown(), join(folder, "config.json")),
    join(folder, "config.json"),
  );
  await need(folder, sidecars, "tokenizer.json");
  const { tokenizer, eosIds } = readTokenizer(folder, sidecars);
  config.eosIds = [...new Set([...generationEosIds(folder, sidecars), ...config.eosIds, ...eosIds])];
  validConfig(config, folder);
  checkTokenizer(config, tokenizer, folder);
  const shards = await readHeaders(folder);
  checkShapes(config, dimsOf(shards), folder);
  return { config, tensors: await readWeights(config, shards), tokenizer, sidecars };
}

/** The tokenizer alone of a folder in Hugging Face layout. */
export async function huggingFaceTokenizerSource(folder: string): Promise<TokenizerSource> {
  const sidecars = await readSidecars(folder);
  await need(folder, sidecars, "tokenizer.json");
  return tokenizerSource(sidecars, folder);
}

async function readSidecars(folder: string): Promise<Map<string, Uint8Array>> {
  const sidecars = new Map<string, Uint8Array>();
  for (const name of sidecarNames) {
    const content = await readOptional(join(folder, name));
    if (content) sidecars.set(name, content);
  }
  return sidecars;
}

/** Throws a UserError where the tokenizer has ids that the embedding has no rows for. */
export function checkTokenizer(config: ModelConfig, tokenizer: Tokenizer, path: string): void {
  if (tokenizer.vocabSize > config.vocab) {
    throw new UserError(
      `${path}: the tokenizer has ${tokenizer.vocabSize} ids, but the embedding only ${config.vocab} rows; tokenizer and weights belong to different models`,
    );
  }
}

async function need(folder: string, sidecars: Map<string, Uint8Array>, name: string): Promise<Uint8Array> {
  const content = sidecars.get(name);
  if (content) return content;
  const gguf = (await readdir(folder)).find((file) => file.endsWith(".gguf"));
  const hint = gguf ? `; name the file ${join(folder, gguf)} to load it` : "";
  throw new UserError(`${folder}: no ${name}; expected a model folder in Hugging Face layout${hint}`);
}

const tokenTextSchema = z
  .union([z.string(), z.looseObject({ content: z.string() })])
  .nullish()
  .transform((token) => (typeof token === "object" ? token?.content : token));
const tokenizerConfigSchema = z.looseObject({
  bos_token: tokenTextSchema,
  eos_token: tokenTextSchema,
  unk_token: tokenTextSchema,
  pad_token: tokenTextSchema,
  chat_template: z.union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))]).nullish(),
  rifft_added_tokens: z.array(z.string()).optional(),
});

/** What the files beside the weights say of the tokenizer. */
export function tokenizerSource(sidecars: ReadonlyMap<string, Uint8Array>, folder: string): TokenizerSource {
  const raw = sidecars.get("tokenizer_config.json") ?? "{}";
  const config = parseJson(raw, tokenizerConfigSchema, join(folder, "tokenizer_config.json"));
  const path = join(folder, "tokenizer.json");
  const specialTokens: Record<string, string> = {};
  for (const name of ["bos_token", "eos_token", "unk_token", "pad_token"] as const) {
    const token = config[name];
    if (token) specialTokens[name] = token;
  }
  const named = config.chat_template ?? undefined;
  const jinja = sidecars.get("chat_template.jinja");
  const chatTemplate = jinja
    ? new TextDecoder().decode(jinja)
    : Array.isArray(named)
      ? named.find((entry) => entry.name === "default")?.template
      : named;
  const json = parseJson(sidecars.get("tokenizer.json") ?? "", tokenizerJsonSchema, path);
  return { json, specialTokens, chatTemplate, added: config.rifft_added_tokens, path };
}

function readTokenizer(folder: string, sidecars: Map<string, Uint8Array>) {
  const source = tokenizerSource(sidecars, folder);
  const tokenizer = createTokenizer(source);
  const { eos_token: eos } = source.specialTokens;
  const eosId = eos === undefined ? undefined : tokenizer.idOf(eos);
  return { tokenizer, eosIds: eosId === undefined ? [] : [eosId] };
}

function generationEosIds(folder: string, sidecars: Map<string, Uint8Array>): number[] {
  const content = sidecars.get("generation_config.json");
  if (!content) return [];
  const schema = z.looseObject({ eos_token_id: idsSchema });
  return parseJson(content, schema, join(folder, "generation_config.json")).eos_token_id;
}

type Shards = Map<string, Map<string, TensorEntry>>;

/** The headers of the weight files, by path; each tensor stands in one only. */
async function readHeaders(folder: string): Promise<Shards> {
  const names = await readdir(folder);
  const single = "model.safetensors";
  if (names.includes(single)) {
    return new Map([[join(folder, single), await readSafetensorsHeader(join(folder, single))]]);
  }
  const indexPath = join(folder, "model.safetensors.index.json");
  const index = await readOptional(indexPath);
  if (!index) {
    const other = names.find((name) => /\.(bin|pth?|ckpt|msgpack|h5)$/.test(name));
    throw new UserError(
      `${folder}: expected model.safetensors or model.safetensors.index.json, found ${other ? `${other}; convert it to safetensors` : "neither"}`,
    );
  }
  const { weight_map } = parseJson(index, z.looseObject({ weight_map: z.record(z.string(), z.string()) }), indexPath);
  const shards: Shards = new Map();
  for (const name of new Set(Object.values(weight_map))) {
    if (!names.includes(name)) {
      throw new UserError(`${folder}: shard ${name} is missing; ${indexPath} names it; fetch the model again`);
    }
    shards.set(join(folder, name), await readSafetensorsHeader(join(folder, name)));
  }
  for (const [tensor, shard] of Object.entries(weight_map)) {
    if (!shards.get(join(folder, shard))?.has(tensor)) {
      throw new UserError(
        `${join(folder, shard)}: tensor ${tensor} is missing, though ${indexPath} says that it is here`,
      );
    }
  }
  return shards;
}

function dimsOf(shards: Shards): Map<string, number[]> {
  return new Map([...shards.values()].flatMap((entries) => [...entries].map(([name, { dims }]) => [name, dims])));
}

async function readWeights(config: ModelConfig, shards: Shards): Promise<Map<string, StoredTensor>> {
  const wanted = tensorShapes(config);
  const tensors = new Map<string, StoredTensor>();
  for (const [path, entries] of shards) {
    const needed = new Map([...entries].filter(([name]) => wanted.has(name)));
    for (const [name, tensor] of await readSafetensors(path, needed)) tensors.set(name, tensor);
  }
  return tensors;
}

import { z } from "zod";
import { UserError } from "../errors.ts";
import {
  addedTokensKey,
  endTokens,
  escapeToken,
  ggufTokenizerJson,
  metadataReader,
  preTokenizers,
  tokenType,
} from "./gguf-tokenizer.ts";
import { type GgufField, plainValue } from "./gguf-write.ts";
import { createTokenizer, type TokenizerJson, type TokenizerSource } from "./tokenizer.ts";
import type { ModelConfig, Tokenizer } from "./types.ts";
import { wordTokenizerJson } from "./word-tokenizer.ts";

const vocabSchema = z.record(z.string(), z.int().nonnegative());
const modelSchema = z.looseObject({
  type: z.string().optional(),
  vocab: vocabSchema,
  merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])).default([]),
  byte_fallback: z.boolean().nullish(),
  continuing_subword_prefix: z.string().nullish(),
  end_of_word_suffix: z.string().nullish(),
});

/** The names that other programs know; the reader takes more. */
const canonicalNames = ["gpt-2", "llama-bpe", "qwen2", "smollm"];

/**
 * The metadata that stands for a tokenizer in a GGUF file: ids, merges, kinds of tokens, special ids and the chat template.
 * @throws UserError for a tokenizer that the format cannot hold, or that readers of the file would not give the same ids with
 */
export function tokenizerMetadata(source: TokenizerSource, config: ModelConfig): Map<string, GgufField> {
  const { json, path, specialTokens, chatTemplate } = source;
  const refuse = (what: string): never => {
    throw new UserError(`${path}: a GGUF file cannot hold ${what}; export with --format hf or onnx instead`);
  };
  const parsed = modelSchema.safeParse(json.model);
  if (!parsed.success) return refuse(`a tokenizer of type ${String(json.model.type ?? "unknown")}`);
  const model = parsed.data;
  const tokens = textsById(json, model.vocab, config.vocab);
  const special = new Map(json.added_tokens.map((token) => [token.id, token.special ?? false]));
  const types = tokens.map((token, id) =>
    token === undefined
      ? tokenType.unused
      : special.get(id) === true
        ? tokenType.control
        : special.has(id)
          ? tokenType.userDefined
          : tokenType.normal,
  );
  const metadata = new Map<string, GgufField>();
  if (isLongestMatch(json, tokens)) {
    metadata.set("tokenizer.ggml.model", "rwkv");
    metadata.set(
      "tokenizer.ggml.tokens",
      tokens.map((token, id) => escapeToken(token ?? `[PAD${id}]`)),
    );
  } else {
    if (model.type !== "BPE")
      refuse(`a tokenizer of type ${model.type ?? "unknown"} that does not take the longest word`);
    if (model.byte_fallback || model.continuing_subword_prefix || model.end_of_word_suffix) {
      refuse("a BPE tokenizer that is not byte-level");
    }
    const pre = canonicalNames.find((name) => sameParts(preTokenizers.get(name)?.preTokenizer, json.pre_tokenizer));
    if (pre === undefined) {
      refuse(`this pre-tokenizer (known are those of ${canonicalNames.join(", ")})`);
    } else metadata.set("tokenizer.ggml.pre", pre);
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set(
      "tokenizer.ggml.tokens",
      tokens.map((token, id) => token ?? `[PAD${id}]`),
    );
    metadata.set(
      "tokenizer.ggml.merges",
      model.merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" "))),
    );
  }
  metadata.set("tokenizer.ggml.token_type", { i32s: types });
  if (source.added) metadata.set(addedTokensKey, [...source.added]);
  const idOf = (token: string | undefined) => (token === undefined ? -1 : tokens.indexOf(token));
  const setId = (name: string, id: number | undefined) => {
    if (id !== undefined && id >= 0) metadata.set(`tokenizer.ggml.${name}_token_id`, { u32: id });
  };
  setId("bos", config.bosId);
  const [eos, ...otherEnds] = config.eosIds;
  setId("eos", eos);
  // Readers find the well-known ends of a turn by their text.
  const unknown = otherEnds.filter((id) => !endTokens.includes(tokens[id] ?? ""));
  const [turn, message, ...more] = [...unknown, ...otherEnds.filter((id) => !unknown.includes(id))];
  setId("eot", turn);
  setId("eom", message);
  if (more.some((id) => unknown.includes(id))) refuse(`${config.eosIds.length} tokens that end a text`);
  setId("unknown", idOf(specialTokens.unk_token));
  setId("padding", idOf(specialTokens.pad_token));
  const { first, last } = templateTokens(json);
  if (last !== undefined && last !== eos) refuse(`a tokenizer that ends a text with token ${last}`);
  if (first !== undefined && first !== config.bosId) refuse(`a tokenizer that begins a text with token ${first}`);
  metadata.set("tokenizer.ggml.add_bos_token", first !== undefined);
  metadata.set("tokenizer.ggml.add_eos_token", last !== undefined);
  if (chatTemplate !== undefined) metadata.set("tokenizer.chat_template", chatTemplate);
  requireSameIds(source, metadata, refuse);
  return metadata;
}

/** Every id's text; undefined where an embedding row has no token. */
function textsById(json: TokenizerJson, vocab: Record<string, number>, rows: number): (string | undefined)[] {
  const texts = Array.from({ length: rows }, (): string | undefined => undefined);
  for (const [token, id] of Object.entries(vocab)) texts[id] = token;
  for (const { id, content } of json.added_tokens) texts[id] = content;
  return texts;
}

/** Whether the tokenizer is the word-level one that takes the longest word at each place. */
function isLongestMatch(json: TokenizerJson, tokens: readonly (string | undefined)[]): boolean {
  const words = tokens.filter((token) => token !== undefined);
  if (json.model.type !== "WordLevel" || words.length < tokens.length) return false;
  const whole = (kind: boolean) => json.added_tokens.flatMap(({ id, special = false }) => (special === kind ? id : []));
  const expected = wordTokenizerJson(words, whole(true), whole(false));
  return JSON.stringify(expected.pre_tokenizer) === JSON.stringify(json.pre_tokenizer) && !json.normalizer;
}

const partSchema = z.looseObject({ type: z.string() });
const sequenceSchema = z.looseObject({ pretokenizers: z.array(z.unknown()) });

/** Whether two pre-tokenizers cut alike: the same parts, whatever their order of keys and their offsets. */
function sameParts(a: unknown, b: unknown): boolean {
  return JSON.stringify(partsOf(a)) === JSON.stringify(partsOf(b));
}

function partsOf(config: unknown): unknown[] {
  const part = partSchema.safeParse(config).data;
  if (!part) return [];
  if (part.type === "Sequence") return sequenceSchema.parse(part).pretokenizers.flatMap(partsOf);
  const { type, trim_offsets: _, ...settings } = part;
  const defaults = type === "ByteLevel" ? { add_prefix_space: true, use_regex: true } : {};
  return [[type, Object.entries({ ...defaults, ...settings }).sort(([x], [y]) => (x < y ? -1 : 1))]];
}

const processorSchema = z.looseObject({
  type: z.string(),
  processors: z.array(z.unknown()).optional(),
  single: z.array(z.looseObject({ SpecialToken: z.looseObject({ id: z.string() }).optional() })).optional(),
  special_tokens: z.record(z.string(), z.looseObject({ ids: z.array(z.int()) })).optional(),
});

/** The ids that the tokenizer puts before and after a text. */
function templateTokens(json: TokenizerJson): { first?: number; last?: number } {
  const find = (processor: unknown): { first?: number; last?: number } => {
    const parsed = processorSchema.safeParse(processor).data;
    if (!parsed) return {};
    if (parsed.type === "Sequence") return Object.assign({}, ...(parsed.processors ?? []).map(find));
    const id = (at: number) => parsed.special_tokens?.[parsed.single?.at(at)?.SpecialToken?.id ?? ""]?.ids[0];
    return { first: id(0), last: id(-1) };
  };
  return find(json.post_processor);
}

/** Where tokenizers part ways: blanks, digits, contractions, scripts, what normalisers change. */
const probes = [
  "Tom has 12 apples, and  3.50 more;\n\n\tthey're at 7:45  am.  ",
  "x^2 + 3x - 4 = 0 -> (x+4)(x-1) #### 1,234.5\r\n",
  "na\u00efve cafe\u0301 \u4f60\u597d \u0416\u0443\u043a \u00bd \u0663 \ud83d\ude42\ud83c\udffd \u200d end",
];

/** Reads the tokenizer back and compares ids for the text of every token and for the probes. */
function requireSameIds(
  source: TokenizerSource,
  metadata: ReadonlyMap<string, GgufField>,
  refuse: (what: string) => never,
): void {
  const before = createTokenizer(source);
  const plain = new Map([...metadata].map(([key, value]) => [key, plainValue(value)]));
  const { json, texts } = ggufTokenizerJson(metadataReader(plain, source.path), source.path);
  const after = createTokenizer({ ...source, json });
  for (const text of [...texts.map((_, id) => before.decode([id])), ...probes]) {
    if (idsOf(before, text) !== idsOf(after, text)) {
      refuse(`this tokenizer: readers of the file would cut ${JSON.stringify(text)} into other tokens`);
    }
  }
}

/** The ids as a text; the same text for whatever the vocabulary lacks. */
function idsOf(tokenizer: Tokenizer, text: string): string {
  try {
    return tokenizer.encode(text).join();
  } catch (error) {
    if (error instanceof UserError) return "none";
    throw error;
  }
}

import { UserError } from "../errors.ts";
import type { GgufValue } from "./gguf.ts";
import { tokenizerJsonSchema, type TokenizerJson } from "./tokenizer.ts";
import { wordTokenizerJson } from "./word-tokenizer.ts";

/** `tokenizer.ggml.token_type`. */
export const tokenType = { normal: 1, control: 3, userDefined: 4, unused: 5 } as const;

/** The key under which a file names the tokens of `Tokenizer.added`; other programs pass it by. */
export const addedTokensKey = "rifft.added_tokens";

/** Ends a turn or a text in the families that rifft reads; files name only some of them. */
export const endTokens = ["<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>"];

/** Reads a GGUF file's metadata by key, with the type that is expected. */
export interface Metadata {
  string(key: string): string | undefined;
  number(key: string): number | undefined;
  boolean(key: string): boolean | undefined;
  strings(key: string): string[] | undefined;
  numbers(key: string): number[] | undefined;
}

/** Typed access to metadata; a value of another type is a UserError. */
export function metadataReader(metadata: ReadonlyMap<string, GgufValue>, path: string): Metadata {
  const read = <T>(key: string, what: string, is: (value: GgufValue) => value is GgufValue & T): T | undefined => {
    const value = metadata.get(key);
    if (value === undefined) return undefined;
    if (!is(value)) throw new UserError(`${path}: ${key}: expected ${what}`);
    return value;
  };
  return {
    string: (key) => read(key, "a string", (value) => typeof value === "string"),
    number: (key) => read(key, "a number", (value) => typeof value === "number"),
    boolean: (key) => read(key, "true or false", (value) => typeof value === "boolean"),
    strings: (key) => read(key, "a list of strings", (value): value is string[] => isListOf(value, "string")),
    numbers: (key) => read(key, "a list of numbers", (value): value is number[] => isListOf(value, "number")),
  };
}

function isListOf(value: GgufValue, type: "string" | "number"): boolean {
  return Array.isArray(value) && value.every((element) => typeof element === type);
}

const byteLevel = (useRegex: boolean) => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});

/** GPT-4's pattern as Llama 3 and Qwen 2 write it; they differ in how many digits stand together. */
const split = (digits: string) => ({
  type: "Split",
  pattern: {
    Regex: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
  },
  behavior: "Isolated",
  invert: false,
});

const sequence = (...pretokenizers: unknown[]) => ({ type: "Sequence", pretokenizers });

export interface PreTokenizer {
  preTokenizer: unknown;
  normalizer?: unknown;
  /** Whole words of the vocabulary are taken before any merge. */
  ignoreMerges?: boolean;
  /** Whether `encode` of other programs puts the BOS token first where the file does not say. */
  addBos?: boolean;
}
const gpt2: PreTokenizer = { preTokenizer: byteLevel(true) };
const llama3: PreTokenizer = {
  preTokenizer: sequence(split("\\p{N}{1,3}"), byteLevel(false)),
  ignoreMerges: true,
  addBos: true,
};
const qwen2: PreTokenizer = { preTokenizer: sequence(split("\\p{N}"), byteLevel(false)), normalizer: { type: "NFC" } };
const smollm: PreTokenizer = { preTokenizer: sequence({ type: "Digits", individual_digits: true }, byteLevel(true)) };

/** By `tokenizer.ggml.pre`. */
export const preTokenizers = new Map<string, PreTokenizer>([
  ["default", gpt2],
  ["gpt-2", gpt2],
  ["llama3", llama3],
  ["llama-v3", llama3],
  ["llama-bpe", llama3],
  ["qwen2", qwen2],
  ["deepseek-r1-qwen", qwen2],
  ["smollm", smollm],
]);

/**
 * The `tokenizer.json` that stands for the tokenizer in a GGUF file, each id's text in it, and which tokens were added by
 * `ModelSpec.addTokens`. Throws a UserError for types other than byte-level BPE and longest match ("rwkv").
 */
export function ggufTokenizerJson(
  metadata: Metadata,
  path: string,
): { json: TokenizerJson; texts: string[]; added?: string[] } {
  const added = metadata.strings(addedTokensKey);
  return { ...tokenizerJson(metadata, path), added };
}

function tokenizerJson(metadata: Metadata, path: string): { json: TokenizerJson; texts: string[] } {
  const model = metadata.string("tokenizer.ggml.model");
  const tokens = metadata.strings("tokenizer.ggml.tokens");
  if (model === "rwkv" && tokens) return longestMatchJson(tokens, metadata, path);
  if (model !== "gpt2") {
    throw new UserError(
      `${path}: tokenizer type "${model ?? "none"}" is not supported; expected "gpt2" (byte-level BPE) or "rwkv" (longest match)`,
    );
  }
  const preType = metadata.string("tokenizer.ggml.pre") ?? "default";
  const pre = preTokenizers.get(preType);
  if (!pre) {
    const known = [...preTokenizers.keys()].join(", ");
    throw new UserError(`${path}: pre-tokenizer "${preType}" is not supported; expected one of ${known}`);
  }
  const merges = metadata.strings("tokenizer.ggml.merges");
  if (!tokens || !merges) throw new UserError(`${path}: the tokenizer has no tokens or no merges; fetch another file`);
  const types = metadata.numbers("tokenizer.ggml.token_type") ?? [];
  const added = tokens.flatMap((content, id) =>
    types[id] === tokenType.control || types[id] === tokenType.userDefined
      ? [
          {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: types[id] === tokenType.control,
          },
        ]
      : [],
  );
  const bosId = metadata.number("tokenizer.ggml.bos_token_id");
  const addBos = (metadata.boolean("tokenizer.ggml.add_bos_token") ?? pre.addBos ?? false) && bosId !== undefined;
  const used = tokens.flatMap((token, id) => (types[id] === tokenType.unused ? [] : [[token, id] as const]));
  const json = tokenizerJsonSchema.parse({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: pre.normalizer ?? null,
    pre_tokenizer: pre.preTokenizer,
    post_processor: addBos ? bosTemplate(tokens[bosId], bosId) : byteLevel(true),
    decoder: byteLevel(true),
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges ?? false,
      vocab: Object.fromEntries(used),
      merges,
    },
  });
  return { json, texts: tokens };
}

/** RWKV's tokenizer takes, from left to right, the longest token that fits. */
function longestMatchJson(
  tokens: readonly string[],
  metadata: Metadata,
  path: string,
): { json: TokenizerJson; texts: string[] } {
  const texts = tokens.map((token) => {
    const text = unescapeToken(token);
    if (text === undefined) {
      throw new UserError(
        `${path}: token ${JSON.stringify(token)} is a part of a character; a longest-match tokenizer is supported where each token is whole characters`,
      );
    }
    return text;
  });
  const types = metadata.numbers("tokenizer.ggml.token_type") ?? [];
  const idsOf = (type: number) => tokens.flatMap((_, id) => (types[id] === type ? [id] : []));
  const json = wordTokenizerJson(texts, idsOf(tokenType.control), idsOf(tokenType.userDefined));
  return { json, texts };
}

/** A token of a longest-match vocabulary as the file spells it: \\, \n, \r, \t and \xNN are escapes. */
export function escapeToken(text: string): string {
  const named: Record<string, string> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };
  return text.replace(/[\\\n\r\t]/g, (character) => named[character]);
}

/** The way back; undefined where the bytes are no whole text. */
function unescapeToken(token: string): string | undefined {
  const bytes: number[] = [];
  for (const [, hex, escaped, plain] of token.matchAll(/\\x([0-9a-f]{2})|\\([^])|([^\\]+)/g)) {
    if (hex !== undefined) bytes.push(parseInt(hex, 16));
    else if (escaped !== undefined) {
      bytes.push(...Buffer.from({ n: "\n", r: "\r", t: "\t" }[escaped] ?? escaped));
    } else bytes.push(...Buffer.from(plain));
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes));
  } catch {
    return undefined;
  }
}

/** Lets other programs that read the exported tokenizer put the BOS token first, as the file's author meant. */
function bosTemplate(token: string, id: number): unknown {
  const bos = { SpecialToken: { id: token, type_id: 0 } };
  const text = (name: string, type: number) => ({ Sequence: { id: name, type_id: type } });
  return {
    type: "TemplateProcessing",
    single: [bos, text("A", 0)],
    pair: [bos, text("A", 0), text("B", 1)],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}

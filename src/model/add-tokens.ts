import { z } from "zod";
import { UserError } from "../errors.ts";
import { parseJson } from "./files.ts";
import { tokenizerSource } from "./huggingface.ts";
import { createTokenizer, type TokenizerSource } from "./tokenizer.ts";
import type { ModelFiles, StoredTensor, Tokenizer } from "./types.ts";
import { widen } from "./widen.ts";
import { json } from "./write-folder.ts";

/** Open and close of one tag have the same words: this part of the rows' standard deviation tells them apart. */
const NOISE = 0.01;
/** Rows of a matrix that are measured. */
const MEASURED = 256;

export interface AddOptions {
  /** Standard normal numbers. */
  normal: () => number;
  /** Every new row is random with the spread of the matrix: for models whose own rows mean nothing yet. */
  fresh?: boolean;
}

/**
 * A model with these tokens in its vocabulary: `Tokenizer.added` of its tokenizer, which exports hold too. New ids follow the tokenizer's
 * own: rows that the matrices leave unused are taken first, and only then do they grow. A new row is the mean of the rows of the words
 * that its token spells, plus noise of 1 % of their standard deviation; random with that of the matrix where the tokenizer cannot
 * spell the words. A token that the tokenizer knows keeps its id and row.
 * @throws UserError for an empty token or one that is named twice
 */
export function addTokens(files: ModelFiles, tokens: readonly string[], options: AddOptions): ModelFiles {
  const before = files.tokenizer;
  const source = withAddedTokens(tokenizerSource(files.sidecars, "the model"), before, tokens);
  const tokenizer = createTokenizer(source);
  const config = { ...files.config, vocab: Math.max(files.config.vocab, tokenizer.vocabSize) };
  const idsOf = (list: readonly string[]) => Int32Array.from(list, (token) => tokenizer.added.get(token) ?? -1);
  const fresh = tokens.filter((token) => before.idOf(token) === undefined);
  const pieces = fresh.map((token) => (options.fresh ? [] : spelled(before, token)));
  const rows = new Map<string, Float32Array>();
  for (const name of ["model.embed_tokens.weight", "lm_head.weight"]) {
    const matrix = files.tensors.get(name);
    if (matrix) rows.set(name, newRows(matrix, before.vocabSize, pieces, options.normal));
  }
  return {
    config,
    tensors: files.tensors,
    tokenizer,
    sidecars: sidecarsWith(files.sidecars, source, config.vocab),
    added: { ids: idsOf(tokens), newIds: idsOf(fresh), rows },
  };
}

/** The tokenizer's files with these tokens. */
export function withAddedTokens(source: TokenizerSource, own: Tokenizer, tokens: readonly string[]): TokenizerSource {
  const twice = tokens.find((token, i) => token === "" || tokens.indexOf(token) < i);
  if (twice !== undefined) {
    throw new UserError(
      `addTokens: expected strings that differ, found ${JSON.stringify(twice)}; name each token once`,
    );
  }
  const known = new Set(source.json.added_tokens.map(({ content }) => content));
  let next = own.vocabSize;
  const entries = tokens
    .filter((token) => !known.has(token))
    .map((content) => ({
      id: own.idOf(content) ?? next++,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      // Special ones would be left out of decoded text.
      special: false,
    }));
  const added_tokens = [...source.json.added_tokens, ...entries].sort((a, b) => a.id - b.id);
  return {
    ...source,
    json: { ...source.json, added_tokens },
    added: [...new Set([...(source.added ?? []), ...tokens])],
  };
}

/** Ids of the words of a token such as `<next_step>`; none where it has no words or the tokenizer lacks them. */
function spelled(tokenizer: Tokenizer, token: string): number[] {
  const words = token.replace(/[^\p{L}\p{N}]+/gu, " ").trim();
  if (words === "") return [];
  try {
    // With a blank before it a word is one token in most vocabularies.
    return Array.from(tokenizer.encode(` ${words}`));
  } catch (error) {
    if (error instanceof UserError) return [];
    throw error;
  }
}

/** [tokens, hidden] row-major. */
function newRows(matrix: StoredTensor, used: number, pieces: number[][], normal: () => number): Float32Array {
  const [total, width] = matrix.dims;
  const row = (id: number): Float32Array => {
    const values = new Float32Array(width);
    widen(matrix, values, id, id + 1);
    return values;
  };
  const deviationOf = (ids: number[]): number => {
    const values = ids.flatMap((id) => Array.from(row(id)));
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
  };
  const count = Math.min(used, total);
  const some = Math.min(count, MEASURED);
  const every = deviationOf(Array.from({ length: some }, (_, i) => Math.floor((i * count) / some)));
  const words = pieces.flat();
  const noise = NOISE * (words.length > 0 ? deviationOf(words) : 0);
  const rows = new Float32Array(pieces.length * width);
  pieces.forEach((ids, token) => {
    const own = rows.subarray(token * width, (token + 1) * width);
    for (const id of ids) row(id).forEach((value, i) => (own[i] += value / ids.length));
    const spread = ids.length > 0 ? noise : every;
    for (let i = 0; i < width; i++) own[i] += spread * normal();
  });
  return rows;
}

const object = z.record(z.string(), z.unknown());

function sidecarsWith(
  sidecars: ReadonlyMap<string, Uint8Array>,
  source: TokenizerSource,
  vocab: number,
): Map<string, Uint8Array> {
  const changed = new Map(sidecars);
  const read = (name: string) => parseJson(sidecars.get(name) ?? "{}", object, name);
  changed.set("tokenizer.json", json(source.json));
  changed.set("config.json", json({ ...read("config.json"), vocab_size: vocab }));
  const settings = read("tokenizer_config.json");
  const { added_tokens_decoder: listed } = z.looseObject({ added_tokens_decoder: object.optional() }).parse(settings);
  const entries = source.json.added_tokens.map(({ id, ...token }) => [id, token] as const);
  changed.set(
    "tokenizer_config.json",
    json({
      ...settings,
      ...(listed ? { added_tokens_decoder: { ...Object.fromEntries(entries), ...listed } } : {}),
      // Read by `tokenizerSource`; other programs pass it by.
      rifft_added_tokens: source.added,
    }),
  );
  return changed;
}

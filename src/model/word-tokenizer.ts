import { longestFirst, tokenizerJsonSchema, type TokenizerJson } from "./tokenizer.ts";

/**
 * A word-level `tokenizer.json` whose pre-tokenizer cuts the text at the words themselves: from left to right the longest that fits.
 * @param words by id
 * @param special ids of special tokens
 * @param added ids of other tokens that are no words of a text
 */
export function wordTokenizerJson(
  words: readonly string[],
  special: readonly number[],
  added: readonly number[] = [],
): TokenizerJson {
  const whole = [...special, ...added].sort((a, b) => a - b);
  return tokenizerJsonSchema.parse({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: whole.map((id) => ({
      id,
      content: words[id],
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: special.includes(id),
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Split",
      pattern: { Regex: longestFirst(words.filter((_, id) => !whole.includes(id))) },
      behavior: "Isolated",
      invert: false,
    },
    post_processor: null,
    decoder: { type: "Fuse" },
    model: {
      type: "WordLevel",
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
      // Not in the vocabulary on purpose: what is unknown is an error, never a token.
      unk_token: "<unk>",
    },
  });
}

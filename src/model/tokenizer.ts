import { Template } from "@huggingface/jinja";
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { UserError } from "../errors.ts";
import type { EncodeOptions, Message, Tokenizer } from "./types.ts";

const addedTokenSchema = z.looseObject({
  id: z.int().nonnegative(),
  content: z.string().min(1),
  lstrip: z.boolean().optional(),
  rstrip: z.boolean().optional(),
  special: z.boolean().optional(),
});

/** The parts of a `tokenizer.json` that rifft itself reads; the rest goes to the library as it is. */
export const tokenizerJsonSchema = z.looseObject({
  added_tokens: z.array(addedTokenSchema).default([]),
  pre_tokenizer: z.unknown().optional(),
  model: z.looseObject({ vocab: z.unknown() }),
});
export type TokenizerJson = z.infer<typeof tokenizerJsonSchema>;
type AddedToken = z.infer<typeof addedTokenSchema>;

export interface TokenizerSource {
  json: TokenizerJson;
  /** bos_token, eos_token, ...: what the chat template may name. */
  specialTokens: Record<string, string>;
  chatTemplate?: string;
  /** Which of the added tokens stand for their text in trusted text alone: `Tokenizer.added`. */
  added?: readonly string[];
  /** The file, for messages. */
  path: string;
}

/**
 * Some templates print today's date unless they are given one; a prompt must not depend on the day on which it is rendered.
 * This is the date that Llama 3's templates fall back to.
 */
const templateDate = "26 Jul 2024";

/** A tokenizer from the content of a `tokenizer.json`. Throws a UserError where the file is not one that can be used. */
export function createTokenizer(source: TokenizerSource): Tokenizer {
  return new JsonTokenizer(source);
}

class JsonTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly added: ReadonlyMap<string, number>;
  readonly hasChatTemplate: boolean;
  private readonly library: LibraryTokenizer;
  /** Tokens that are found by their text, before the library sees it. */
  private readonly whole: Map<string, AddedToken>;
  private readonly wholeById: Map<number, AddedToken>;
  private readonly patterns = new Map<string, RegExp | undefined>();
  private readonly template?: Template;
  private readonly source: TokenizerSource;

  constructor(source: TokenizerSource) {
    this.source = source;
    const { json, chatTemplate, path } = source;
    this.whole = new Map(json.added_tokens.map((token) => [token.content, token]));
    this.wholeById = new Map(json.added_tokens.map((token) => [token.id, token]));
    this.added = new Map((source.added ?? []).map((text) => [text, this.idOfAdded(text)]));
    try {
      // Added tokens are split off here, because the library would find special ones in any text.
      const model = { ...json.model, vocab: this.withoutHidden(json) };
      const parts = { normalizer: null, decoder: null, ...json, post_processor: null, added_tokens: [], model };
      this.library = new LibraryTokenizer({ ...parts, pre_tokenizer: exactPreTokenizer(json.pre_tokenizer) }, {});
    } catch (error) {
      throw new UserError(`${path}: not a usable tokenizer.json (${firstLine(error)})`);
    }
    const ids = json.added_tokens.map((token) => token.id + 1);
    this.vocabSize = ids.reduce((a, b) => Math.max(a, b), this.library.model?.vocab.length ?? 0);
    this.hasChatTemplate = chatTemplate !== undefined;
    if (chatTemplate !== undefined) {
      try {
        this.template = new Template(chatTemplate);
      } catch (error) {
        throw new UserError(`${path}: the chat template cannot be parsed (${firstLine(error)})`);
      }
    }
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const ids: number[] = [];
    const pattern = this.pattern(options);
    let done = 0;
    let trimNext = false;
    const plain = (piece: string) => {
      if (trimNext) piece = piece.trimStart();
      for (const id of this.encodePlain(piece)) ids.push(id);
    };
    for (const match of pattern ? text.matchAll(pattern) : []) {
      const token = this.whole.get(match[0]);
      if (!token) continue;
      const before = text.slice(done, match.index);
      plain(token.lstrip ? before.trimEnd() : before);
      ids.push(token.id);
      done = match.index + match[0].length;
      trimNext = token.rstrip ?? false;
    }
    plain(text.slice(done));
    return Int32Array.from(ids);
  }

  private encodePlain(text: string): number[] {
    if (text === "") return [];
    const { ids, tokens } = this.library.encode(text, { add_special_tokens: false });
    // The library gives undefined, against its type, for what the vocabulary lacks.
    const unknown = ids.findIndex((id: number | undefined) => id === undefined || id === null);
    if (unknown >= 0) {
      throw new UserError(
        `${this.source.path}: the vocabulary has no token for ${JSON.stringify(tokens[unknown])} in ${JSON.stringify(excerpt(text, tokens[unknown]))}; add it to the vocabulary or change the text`,
      );
    }
    return ids;
  }

  decode(ids: Int32Array | number[], options?: { special: boolean }): string {
    let text = "";
    let run: number[] = [];
    const flush = () => {
      if (run.length > 0) text += this.library.decode(run, { clean_up_tokenization_spaces: false });
      run = [];
    };
    for (const id of ids) {
      const token = this.wholeById.get(id);
      if (token) {
        flush();
        if (!token.special || options?.special || this.added.has(token.content)) text += token.content;
      } else if (this.library.id_to_token(id) !== undefined) {
        run.push(id);
      }
    }
    flush();
    return text;
  }

  idOf(token: string): number | undefined {
    return this.whole.get(token)?.id ?? this.library.token_to_id(token);
  }

  private idOfAdded(text: string): number {
    const token = this.whole.get(text);
    if (token) return token.id;
    throw new UserError(
      `${this.source.path}: ${JSON.stringify(text)} is named as an added token, and there is no such token; fetch or export the tokenizer again`,
    );
  }

  /** Matches the text of any token that a text of this kind may stand for. */
  private pattern({ special = false, added = false }: EncodeOptions): RegExp | undefined {
    const key = `${special} ${added}`;
    if (!this.patterns.has(key)) {
      const found = [...this.whole.values()].filter((token) =>
        this.added.has(token.content) ? added : special || !token.special,
      );
      this.patterns.set(key, alternation(found));
    }
    return this.patterns.get(key);
  }

  /** The model's vocabulary without the tokens that not every text may stand for, so that no piece of a text can be one of them. */
  private withoutHidden({ model: { vocab }, added_tokens }: TokenizerJson): unknown {
    if (typeof vocab !== "object" || vocab === null || Array.isArray(vocab)) return vocab;
    const special = added_tokens.flatMap(({ content, special }) => (special ? content : []));
    const hidden = new Set([...special, ...this.added.keys()]);
    return Object.fromEntries(Object.entries(vocab).filter(([token]) => !hidden.has(token)));
  }

  renderChat(messages: Message[]): string {
    if (!this.template) {
      throw new UserError(
        `${this.source.path}: this model has no chat template; give the task's prompt as text, or add a chat_template to tokenizer_config.json`,
      );
    }
    try {
      return this.template.render({
        ...this.source.specialTokens,
        messages,
        tools: null,
        documents: null,
        add_generation_prompt: true,
        date_string: templateDate,
      });
    } catch (error) {
      throw new UserError(`${this.source.path}: the chat template refused the messages: ${firstLine(error)}`);
    }
  }
}

/** Matches any of the tokens, the longest where several begin at one place. */
function alternation(tokens: readonly AddedToken[]): RegExp | undefined {
  return tokens.length > 0 ? new RegExp(longestFirst(tokens.map((token) => token.content)), "gu") : undefined;
}

/** The source of a regular expression that matches the longest of these strings. */
export function longestFirst(words: readonly string[]): string {
  return [...words]
    .sort((a, b) => b.length - a.length || (a < b ? -1 : 1))
    .map((word) => word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"))
    .join("|");
}

const preTokenizerSchema = z.looseObject({ type: z.string() });
const sequenceSchema = z.looseObject({ pretokenizers: z.array(z.unknown()) });
const digitsSchema = z.looseObject({ individual_digits: z.boolean().default(false) });
const splitSchema = z.looseObject({ behavior: z.string() });

/**
 * The same pre-tokenizer in parts whose JavaScript reading equals that of the `tokenizers` library: its Digits knows every
 * Unicode number, the JavaScript one only 0 to 9, and splits that merge with a neighbour do not exist in JavaScript.
 */
function exactPreTokenizer(config: unknown): unknown {
  if (config === null || config === undefined) return null;
  const { type } = preTokenizerSchema.parse(config);
  if (type === "Sequence") {
    const sequence = sequenceSchema.parse(config);
    return { ...sequence, pretokenizers: sequence.pretokenizers.map(exactPreTokenizer) };
  }
  if (type === "Digits") {
    const pattern = { Regex: digitsSchema.parse(config).individual_digits ? "\\p{N}" : "\\p{N}+" };
    return { type: "Split", pattern, behavior: "Isolated", invert: false };
  }
  if (type === "Split") {
    const { behavior } = splitSchema.parse(config);
    if (behavior !== "Isolated" && behavior !== "Removed") throw new Error(`Split with behavior ${behavior}`);
  }
  return config;
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0];
}

/** A few characters around a word, for a message. */
function excerpt(text: string, word: string): string {
  const at = Math.max(0, text.indexOf(word));
  return text.slice(Math.max(0, at - 20), at + word.length + 20);
}

import type { Model, Sample, SampleRequest } from "../src/engine/types.ts";
import type { Tokenizer } from "../src/model/types.ts";
import { TAG_TOKENS } from "../src/tags/index.ts";

/** One id a character; the tags, where they are added, from 70,000 on. */
export function characterTokenizer(added: readonly string[] = TAG_TOKENS): Tokenizer {
  const ids = new Map(added.map((tag, i) => [tag, 70_000 + i]));
  const texts = new Map([...ids].map(([tag, id]) => [id, tag]));
  const pattern = new RegExp(`(${added.join("|")})`);
  return {
    vocabSize: 70_000 + added.length,
    added: ids,
    encode: (text, options) => {
      const pieces = options?.added === true && added.length > 0 ? text.split(pattern) : [text];
      return Int32Array.from(
        pieces.flatMap((piece) => ids.get(piece) ?? Array.from(piece, (letter) => letter.codePointAt(0) ?? 0)),
      );
    },
    decode: (tokens) => Array.from(tokens, (id) => texts.get(id) ?? String.fromCodePoint(id)).join(""),
    idOf: (token) => ids.get(token),
    renderChat: (messages) => messages.map(({ content }) => content).join("\n"),
    hasChatTemplate: true,
  };
}

/** What a script says to a prompt; sample `index` of a request. `stop` is "eos" when absent. */
export type Script = (
  prompt: string,
  index: number,
  request: SampleRequest,
) => string | { text: string; stop: "length" };

/** A model that samples what a script says and can do nothing else. `requests`: what it was asked, in order. */
export function scriptedModel(script: Script, maxContext = 100_000): { model: Model; requests: SampleRequest[] } {
  const requests: SampleRequest[] = [];
  const tokenizer = characterTokenizer();
  const refuse = () => Promise.reject(new Error("a scripted model samples, and nothing else"));
  const model: Model = {
    info: {
      vocabSize: tokenizer.vocabSize,
      maxContext,
      eosIds: [1],
      newHeads: [],
      trainable: 0,
      parameters: 0,
      plan: "scripted",
    },
    tokenizer,
    counts: { generated: 0, prefilled: 0, scored: 0, trained: 0 },
    sample: (asked) => {
      requests.push(...asked);
      const samples = asked.flatMap((request) =>
        Array.from({ length: request.n }, (_, i): Sample => {
          const said = script(tokenizer.decode(request.prefix), i, request);
          const { text, stop } = typeof said === "string" ? { text: said, stop: "eos" as const } : said;
          const tokens = tokenizer.encode(text);
          return { tokens, logprobs: new Float32Array(tokens.length), stop, text };
        }),
      );
      return Promise.resolve(samples);
    },
    forward: refuse,
    forwardBackward: refuse,
    discard: () => Promise.resolve(),
    optimStep: refuse,
    snapshot: (name) => Promise.resolve(name),
    release: () => Promise.resolve(),
    save: refuse,
    reset: () => Promise.resolve(),
    load: refuse,
    close: () => Promise.resolve(),
  };
  return { model, requests };
}

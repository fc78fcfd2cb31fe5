import type { Tokenizer } from "../model/types.ts";
import type { Problem } from "./types.ts";

/**
 * Token ids of a problem's prompt with its prefill: what a sample continues.
 *
 * `text` is encoded as it is, without special tokens. `messages` are rendered by the model's chat template, in which the texts of
 * special tokens stand for them; in a message's content and in the prefill they stay text: content that says `<|im_end|>` ends no
 * turn. Tokens that were added to the model's vocabulary stay text in both, but for the prefill: the task wrote that, and their texts
 * there stand for them. Throws a UserError where the model has no template.
 */
export function encodePrompt(tokenizer: Tokenizer, problem: Problem): Int32Array {
  const { prompt } = problem;
  const whole = prompt.prefill ?? "";
  const cut = firstAdded(tokenizer, whole);
  const prefill = whole.slice(0, cut);
  const rest = encodeResponse(tokenizer, whole.slice(cut));
  if ("text" in prompt) return joined(tokenizer.encode(prompt.text + prefill), rest);
  const guard = new Guard(tokenizer, [...prompt.messages.map(({ content }) => content), prefill]);
  const messages = prompt.messages.map(({ role, content }) => ({ role, content: guard.protect(content) }));
  return joined(guard.encode(tokenizer.renderChat(messages) + guard.protect(prefill)), rest);
}

/**
 * Token ids of a response, or of a demonstration as SFT's target: no special tokens, no EOS; the texts of added tokens stand for
 * them. It is joined to its prompt's ids.
 */
export function encodeResponse(tokenizer: Tokenizer, text: string): Int32Array {
  return tokenizer.encode(text, { added: true });
}

/** Where the first added token of a text begins; its end where there is none. */
function firstAdded({ added }: Tokenizer, text: string): number {
  const places = [...added.keys()].map((token) => text.indexOf(token)).filter((place) => place >= 0);
  return Math.min(text.length, ...places);
}

const joined = (a: Int32Array, b: Int32Array): Int32Array => (b.length > 0 ? Int32Array.of(...a, ...b) : a);

/**
 * Puts a placeholder where a content holds the text of a special token, before the template sees it, and the text back after the
 * template's own special tokens have been found. Content without such texts is rendered and encoded in one piece, as published.
 */
class Guard {
  private readonly tokenizer: Tokenizer;
  private readonly marker: string;
  private readonly texts: string[] = [];

  constructor(tokenizer: Tokenizer, contents: string[]) {
    this.tokenizer = tokenizer;
    let marker = "\uE000";
    while (contents.some((content) => content.includes(marker))) marker += "\uE000";
    this.marker = marker;
  }

  protect(content: string): string {
    const special = this.firstSpecial(content);
    if (special === undefined) return content;
    // A token that matches a text other than its own: the whole content becomes text.
    if (!content.includes(special)) return this.placeholder(content);
    const pieces = content.split(special).map((piece) => this.protect(piece));
    return pieces.reduce((text, piece) => text + this.placeholder(special) + piece);
  }

  encode(rendered: string): Int32Array {
    const ids: number[] = [];
    for (const [i, piece] of rendered.split(new RegExp(`${this.marker}(\\d+);`)).entries()) {
      // Odd pieces are the numbers of placeholders.
      const part = i % 2 === 1 ? this.tokenizer.encode(this.texts[Number(piece)]) : this.encodeTemplate(piece);
      for (const id of part) ids.push(id);
    }
    return Int32Array.from(ids);
  }

  private encodeTemplate(piece: string): Int32Array {
    return piece === "" ? new Int32Array(0) : this.tokenizer.encode(piece, { special: true });
  }

  private placeholder(text: string): string {
    this.texts.push(text);
    return `${this.marker}${this.texts.length - 1};`;
  }

  /** The text of the first token in `content` that only `special` encoding finds, if there is one. */
  private firstSpecial(content: string): string | undefined {
    const ids = this.tokenizer.encode(content, { special: true });
    const plain = this.tokenizer.encode(content);
    const first = ids.findIndex((id, i) => id !== plain[i]);
    for (const id of first < 0 ? [] : ids.subarray(first)) {
      const text = this.tokenizer.decode([id], { special: true });
      const asText = this.tokenizer.encode(text);
      if (asText.length !== 1 || asText[0] !== id) {
        if (this.tokenizer.encode(text, { special: true })[0] === id) return text;
      }
    }
    return undefined;
  }
}

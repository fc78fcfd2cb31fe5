import type { Tokenizer } from "../model/types.ts";

/** The text of each token, so that a page can show a text token by token. */
export class Pieces {
  private readonly tokenizer: Tokenizer | undefined;
  private readonly texts = new Map<number, string>();
  /** Segments whose tokens do not make up their text: another tokenizer wrote them. */
  foreign = 0;

  constructor(tokenizer: Tokenizer | undefined) {
    this.tokenizer = tokenizer;
  }

  /** The table's ids and texts. */
  table(): [number[], string[]] {
    return [[...this.texts.keys()], [...this.texts.values()]];
  }

  /**
   * Undefined where the table's texts of these tokens make up `text`; else the text of each token: empty where the next one completes
   * a character, and everything with the first where the tokens cannot be told apart.
   */
  of(tokens: ArrayLike<number>, text: string): string[] | undefined {
    const whole = () => Array.from(tokens, (_, t) => (t === 0 ? text : ""));
    const { tokenizer } = this;
    if (tokenizer === undefined) return whole();
    let joined = "";
    for (let t = 0; t < tokens.length; t++) joined += this.textOf(tokenizer, tokens[t]);
    if (joined === text) return undefined;
    const pieces = incremental(tokenizer, tokens);
    if (pieces.join("") === text) return pieces;
    this.foreign++;
    return whole();
  }

  private textOf(tokenizer: Tokenizer, id: number): string {
    const known = this.texts.get(id);
    if (known !== undefined) return known;
    const text = tokenizer.decode([id], { special: true });
    this.texts.set(id, text);
    return text;
  }
}

/** What each token adds to the text before it. A window of the last tokens is enough to tell, for characters are short. */
function incremental(tokenizer: Tokenizer, tokens: ArrayLike<number>): string[] {
  const ids = Array.from(tokens);
  const decode = (from: number, to: number) => tokenizer.decode(ids.slice(from, to), { special: true });
  const pieces: string[] = [];
  let [from, read] = [0, 0];
  for (let t = 0; t < ids.length; t++) {
    const before = decode(from, read);
    const now = decode(from, t + 1);
    // A character that is not complete yet is shown as the replacement character; it goes to the token that completes it.
    const open = now.endsWith("\ufffd") && t - read < 4 && t + 1 < ids.length;
    pieces.push(open ? "" : now.slice(before.length));
    if (!open) [from, read] = [read, t + 1];
  }
  return pieces;
}

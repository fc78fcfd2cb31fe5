import { type Budget, GiveUp, MAX_DEPTH } from "./budget.ts";
import type { Reading, Token } from "./lexer.ts";
import type { Node } from "./node.ts";

/** Thrown where the tokens are no mathematics that the parser knows. */
export class Unreadable extends Error {
  override name = "Unreadable";
}

const END: Token = { kind: "end", text: "", spaced: false, quoted: false };

/** The parsers that call each other, handed around so that their files need not import in a circle. */
export interface Grammar {
  /** Items separated by commas or words; one item is itself. */
  list(reader: Reader): Node;
  /** A chain of relations. */
  item(reader: Reader): Node;
  sum(reader: Reader): Node;
  primary(reader: Reader): Node;
}

/** A position in a list of tokens. */
export class Reader {
  private at = 0;
  private depth = 0;
  /** How many absolute values are open: a bar then closes one. */
  bars = 0;
  /** Whether a bar behind an expression introduces a condition. */
  inBraces = false;
  /** Whether the bars do not pair up: then a bar is "divides", not an absolute value. */
  readonly unpairedBar: boolean;

  private readonly tokens: Token[];
  readonly grammar: Grammar;
  readonly reading: Reading;
  readonly budget: Budget;

  constructor(tokens: Token[], grammar: Grammar, reading: Reading, budget: Budget) {
    this.tokens = tokens;
    this.grammar = grammar;
    this.reading = reading;
    this.budget = budget;
    this.unpairedBar =
      tokens.reduce((count, { kind, text }) => count + (kind === "mark" && text === "|" ? 1 : 0), 0) % 2 === 1;
  }

  peek(ahead = 0): Token {
    return this.tokens[this.at + ahead] ?? END;
  }

  next(): Token {
    this.budget.spend(4);
    return this.tokens[this.at++] ?? END;
  }

  /** Takes one digit of the number at hand: `\frac12` has two arguments in one token. */
  digit(): string {
    const token = this.tokens[this.at];
    const [first, rest] = [token.text[0], token.text.slice(1)];
    if (!/^\d*$/.test(token.text)) return this.fail("expected a digit");
    if (rest !== "") {
      this.budget.spend(this.tokens.length >> 5);
      this.tokens.splice(this.at, 1, { ...token, text: first }, { ...token, text: rest, spaced: false });
    }
    this.next();
    return first;
  }

  /** Whether the token at hand is a given mark. */
  isMark(...texts: readonly string[]): boolean {
    const token = this.peek();
    return token.kind === "mark" && texts.includes(token.text);
  }

  isCommand(text: string): boolean {
    const token = this.peek();
    return token.kind === "command" && token.text === text;
  }

  /** Passes over a mark if it is at hand. */
  take(...texts: readonly string[]): Token | undefined {
    return this.isMark(...texts) ? this.next() : undefined;
  }

  expect(...texts: readonly string[]): Token {
    return this.take(...texts) ?? this.fail(`expected ${texts.join(" or ")}`);
  }

  fail(expected: string): never {
    const { kind, text } = this.peek();
    throw new Unreadable(`${expected}, found ${kind === "end" ? "the end" : JSON.stringify(text)}`);
  }

  get done(): boolean {
    return this.at >= this.tokens.length;
  }

  /** Position to come back to. */
  get mark(): number {
    return this.at;
  }

  back(mark: number): void {
    this.at = mark;
  }

  /** Runs a parser one level deeper. */
  nested<T>(parse: () => T): T {
    this.budget.spend(8);
    if (++this.depth > MAX_DEPTH) throw new GiveUp(`brackets are nested more than ${MAX_DEPTH} deep`);
    try {
      return parse();
    } finally {
      this.depth--;
    }
  }

  /** Runs a parser inside brackets of its own: bars outside do not count. */
  enclosed<T>(parse: () => T, braces = false): T {
    const { bars, inBraces } = this;
    this.bars = 0;
    this.inBraces = braces;
    try {
      return this.nested(parse);
    } finally {
      this.bars = bars;
      this.inBraces = inBraces;
    }
  }
}

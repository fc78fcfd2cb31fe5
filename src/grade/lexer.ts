import { type Budget, GiveUp } from "./budget.ts";
import {
  CHARACTERS,
  COMMAND_MARKS,
  CONSTANTS,
  FUNCTIONS,
  GREEK,
  IGNORED_COMMANDS,
  LOWERED_CHARACTERS,
  NUMBER_WORDS,
  RAISED_CHARACTERS,
  SHORT_WORDS,
  TEXT_COMMANDS,
} from "./names.ts";

export interface Token {
  /** `number`: digits in plain form. `word`: letters. `command`: a LaTeX command without its backslash. `mark`: an operator or bracket. */
  kind: "number" | "word" | "command" | "mark" | "end";
  text: string;
  /** White space stands before it. */
  spaced: boolean;
  /** It stood in `\text{...}` or the like. */
  quoted: boolean;
  /** The repeating digits of a decimal. */
  repeat?: string;
}

/** Ways of reading what is ambiguous. */
export interface Reading {
  /** `1,234` is one number rather than two (outside brackets always tried first). */
  grouping?: boolean;
  /** `3,5` is a decimal. */
  decimalComma?: boolean;
  /** Unknown words are products of letters. */
  split?: boolean;
  /** A single letter behind a number is a unit. */
  letterUnits?: boolean;
}

export interface Lexed {
  tokens: Token[];
  /** A comma stands between digits such that another reading is possible. */
  ambiguous: boolean;
}

/** Digits of a literal beyond which a number is not read: reading is quadratic. */
const MAX_DIGITS = 1200;

/** Longer runs of letters are no product. */
const MAX_RUN = 20;

const SPACE = /(?:\s|\\[,;:!> ]|~|\u200b|\u00a0|\u202f|\u2009)+/y;
const MAY_BE_SPACE = /[\s\\~\u200b]/;
const GROUP_EXPLICIT = /(?:\{,\}|\{\\,\}|,\\!\s*|\\!,\s*|\\[,;: ]|,\\,|[ ~\u00a0\u202f\u2009])(\d{3})(?![\d/]|\s*\/)/y;
const BRACED_COLON = /\{:\}/y;
const BRACED_COMMA = /\{,\}(?=\d)/y;
const GROUP_COMMA = /,(\d{3})(?!\d)/y;
const DOT_GROUPS = /\d{1,3}(?:\.\d{3})+(?:,(\d+)|(?=\.?\s*$))(?!\d)/y;
const DECIMAL_COMMA = /\d+,(\d+)(?![\d,])/y;
const REPEAT =
  /(?:\\overline|\\bar|\\dot|\\overset\{\.\})\s*(?:\{(\d+)\}|(\d))|\{(?:\\overline|\\bar)\s*\{(\d+)\}\}|\((\d+)\)/y;
const DOTS = /\s*(?:\.\.\.|…|\\ldots|\\dots|\\cdots|\\dotsc)/y;
const ORDINAL = /(?:(?<=1)st|(?<=2)nd|(?<=3)rd|th)\b(?!\()/y;
const EXPONENT = /[eE]([-+−]?\d{1,5})(?!\w|\.\d)/y;
const DIGITS = String.raw`(?:\d[0-9A-F]{0,15}|[A-F][0-9A-F]{1,15})`;
const LARGE_BASE = String.raw`(?:1[1-9]|2\d|3[0-6]|eleven|twelve|sixteen)\b`;
/** Digits that go beyond 9, known by the base behind them: `1A_{16}`, `(1A)_{16}`, `1A base 16`. */
const HEX = new RegExp(
  String.raw`${DIGITS}(?=(?:\\right)?[)}]?\s{0,2}_[\s{(]{0,4}(?:\\(?:text|mathrm)\{)?(?:\s?base\s)?${LARGE_BASE}|[\s\\({]{0,4}(?:text\{)?[\s(]{0,3}base[\s}{(]{1,4}${LARGE_BASE})`,
  "y",
);
const LETTERS = /[A-Za-z]+/y;
const COMMAND = /[A-Za-z]+|[^A-Za-z]/y;
const TWO = new Set(["<=", ">=", "!=", "==", "**", "->", "=>", "&&", "||"]);
const SAME: Record<string, string> = { "==": "=", "**": "^", "->": "→", "=>": "⇒", "&&": "and", "||": "|" };

class Lexer {
  readonly tokens: Token[] = [];
  ambiguous = false;
  private at = 0;
  private spaced = false;
  private quoted = false;
  private round = 0;
  private environments = 0;
  private nesting = 0;

  private text: string;
  private readonly reading: Reading;
  private readonly budget: Budget;

  constructor(text: string, reading: Reading, budget: Budget) {
    this.text = text;
    this.reading = reading;
    this.budget = budget;
  }

  run(): void {
    while (this.at < this.text.length) {
      this.budget.spend(12);
      this.step();
    }
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }

  private push(kind: Token["kind"], text: string, repeat?: string): void {
    const token: Token = { kind, text, spaced: this.spaced, quoted: this.quoted };
    if (repeat !== undefined) token.repeat = repeat;
    this.tokens.push(token);
    this.spaced = false;
  }

  private step(): void {
    const c = this.text[this.at];
    if (c === "{" && this.match(BRACED_COLON)) return this.push("mark", ":");
    if (MAY_BE_SPACE.test(c) && this.match(SPACE)) {
      this.spaced = true;
      return;
    }
    const digit = c >= "0" && c <= "9";
    const hex = digit || (c >= "A" && c <= "F") ? this.match(HEX) : null;
    if (hex) return this.push("number", hex[0]);
    if (digit || (c === "." && /\d/.test(this.text[this.at + 1] ?? ""))) return this.number();
    const letters = this.match(LETTERS);
    if (letters) return this.word(letters[0]);
    if (c === "\\") return this.command();
    const raised = RAISED_CHARACTERS.get(c);
    if (raised !== undefined) return this.script("^", RAISED_CHARACTERS);
    if (LOWERED_CHARACTERS.has(c)) return this.script("_", LOWERED_CHARACTERS);
    const plain = CHARACTERS.get(c);
    if (plain !== undefined) {
      this.replace(plain);
      return;
    }
    this.mark(c);
  }

  /** Reads a replacement in place of the character at hand. */
  private replace(plain: string): void {
    const inner = new Lexer(plain, this.reading, this.budget);
    inner.spaced = this.spaced;
    inner.run();
    for (const token of inner.tokens) this.tokens.push(token);
    this.spaced = inner.spaced;
    this.at++;
  }

  /** A run of raised or lowered characters as `^{...}` or `_{...}`. */
  private script(mark: "^" | "_", characters: ReadonlyMap<string, string>): void {
    let plain = "";
    for (;;) {
      const next = characters.get(this.text[this.at] ?? "");
      if (next === undefined) break;
      plain += next;
      this.at++;
    }
    this.at--;
    this.replace(`${mark}{${plain}}`);
  }

  private mark(c: string): void {
    const two = this.text.slice(this.at, this.at + 2);
    if (TWO.has(two)) {
      this.at += 2;
      return this.push("mark", SAME[two] ?? two);
    }
    this.at++;
    if (c === "(" || c === "[") this.round++;
    else if (c === ")" || c === "]") this.round--;
    if (c === "$") return this.dollar();
    if (c === "." && this.text.startsWith("..", this.at)) {
      this.at += 2;
      return this.push("mark", "…");
    }
    this.push("mark", c);
  }

  /** A bare dollar sign: a currency sign where it stands alone, else a bracket of mathematics, which is passed over. */
  private dollar(): void {
    if (this.dollars === 1) this.push("mark", "\\$");
    else this.spaced = true;
  }

  private counted: number | undefined;
  private get dollars(): number {
    this.counted ??= (this.text.match(/(?<!\\)\$/g) ?? []).length;
    return this.counted;
  }

  private number(): void {
    const start = this.at;
    const continental = this.match(DOT_GROUPS);
    if (continental && (continental[1] !== undefined || continental[0].split(".").length > 2)) {
      const digits = continental[0].replace(/,.*/, "").replaceAll(".", "");
      return this.push("number", continental[1] === undefined ? digits : `${digits}.${continental[1]}`);
    }
    this.at = start;
    if (this.reading.decimalComma === true) {
      const comma = this.match(DECIMAL_COMMA);
      if (comma) return this.push("number", comma[0].replace(",", "."));
    }
    // In "log_2 100" the blank separates no thousands.
    const scripted = this.tokens.length > 1 && /^[_^]$/.test(this.tokens[this.tokens.length - 1].text);
    let digits = this.digits();
    if (digits.length > 0 && digits.length <= 3 && (digits === "0" || !digits.startsWith("0"))) {
      for (;;) {
        const explicit = digits === "0" || scripted ? null : this.match(GROUP_EXPLICIT);
        if (explicit) {
          digits += explicit[1];
          continue;
        }
        const before = this.at;
        const bare = this.match(GROUP_COMMA);
        if (!bare) break;
        this.ambiguous = true;
        const group = digits === "0" ? false : (this.reading.grouping ?? (this.round <= 0 || bare[1] === "000"));
        if (!group) {
          this.at = before;
          break;
        }
        digits += bare[1];
      }
    }
    if (this.text[this.at] === "," && /\d/.test(this.text[this.at + 1] ?? "")) this.ambiguous = true;
    if (this.text[this.at] === "." && this.text[this.at + 1] !== ".") this.decimals(digits, 1);
    else if (this.match(BRACED_COMMA)) this.decimals(digits, 0);
    else {
      this.match(ORDINAL);
      this.push("number", digits + this.exponent());
    }
  }

  private digits(): string {
    const start = this.at;
    while (this.at < this.text.length && this.text[this.at] >= "0" && this.text[this.at] <= "9") this.at++;
    if (this.at - start > MAX_DIGITS) throw new GiveUp(`a number has more than ${MAX_DIGITS} digits`);
    return this.text.slice(start, this.at);
  }

  /** What follows a decimal sign, which is `skip` characters ahead. */
  private decimals(whole: string, skip: number): void {
    this.at += skip;
    const decimals = this.digits();
    const repeat = this.match(REPEAT);
    if (repeat)
      return this.push(
        "number",
        `${whole || "0"}.${decimals}`,
        repeat.slice(1).find((part) => part !== undefined),
      );
    if (decimals === "") {
      if (whole === "") throw new GiveUp("a decimal point without digits");
      return this.push("number", whole);
    }
    const before = this.at;
    if (this.match(DOTS)) {
      const period = repeatingEnd(decimals);
      if (period > 0) return this.push("number", `${whole || "0"}.${decimals}`, decimals.slice(-period));
      this.at = before;
      this.match(DOTS);
    }
    this.push("number", `${whole || "0"}.${decimals}${this.exponent()}`);
  }

  private exponent(): string {
    const found = this.match(EXPONENT);
    return found ? `e${found[1].replace("−", "-")}` : "";
  }

  private word(word: string): void {
    if (this.quoted || word.length === 1 || word.length > MAX_RUN || isWord(word, this.reading.split === true))
      return this.push("word", word);
    for (const part of splitWord(word)) this.push("word", part);
  }

  private command(): void {
    this.at++;
    const name = this.match(COMMAND)?.[0] ?? "";
    if (name.length === 1 && !/[A-Za-z]/.test(name)) return this.escape(name);
    if (name === "begin" || name === "end") {
      const environment = this.match(/\s*\{\s*([A-Za-z]+)\*?\s*\}/y)?.[1] ?? "";
      if (/^(equation|align|aligned|gather|math|displaymath|center)$/.test(environment)) return;
      this.environments += name === "begin" ? 1 : -1;
      if (environment === "array" && name === "begin") this.match(/\s*\{[^{}]*\}/y);
      return this.push("command", `${name}:${environment}`);
    }
    if (TEXT_COMMANDS.has(name)) return this.quote(name);
    if (name === "left" || name === "right") this.match(/\s*\.(?!\d)/y);
    if (name === "color" || name === "hspace" || name === "vspace" || name === "phantom") this.match(/\s*\{[^{}]*\}/y);
    if (name === "hspace" || name === "vspace" || IGNORED_COMMANDS.has(name)) return;
    const mark = COMMAND_MARKS.get(name);
    if (mark !== undefined) return this.push("mark", mark);
    this.push("command", name);
  }

  private escape(c: string): void {
    if (c === "\\") {
      if (this.environments > 0) return this.push("mark", "\\\\");
      // A doubled backslash before a command is an escaped one.
      if (/[A-Za-z]/.test(this.text[this.at] ?? "")) this.at--;
      else this.spaced = true;
      return;
    }
    if (c === "(" || c === ")" || c === "[" || c === "]") {
      this.spaced = true;
      return;
    }
    if (c === "{" || c === "}") {
      this.round += c === "{" ? 1 : -1;
      return this.push("mark", `\\${c}`);
    }
    if (c === "|") return this.push("mark", "|");
    if (c === "%") return this.push("mark", "%");
    if (c === "$") return this.push("mark", "\\$");
    if (c === "_" || c === "&" || c === "#" || c === "-" || c === "/" || c === '"' || c === "'") {
      this.spaced = true;
      return;
    }
    throw new GiveUp(`the command \\${c} is not known`);
  }

  /** What stands in `\text{...}`: its words, marked as quoted. */
  private quote(name: string): void {
    this.match(/\s*\*?\s*/y);
    if (this.text[this.at] !== "{") {
      const one = this.match(/[A-Za-z0-9]/y);
      if (one && name === "mathbf" && /[ijk]/.test(one[0])) this.push("command", `bold-${one[0]}`);
      else if (one && name.startsWith("math")) this.push("word", one[0]);
      return;
    }
    const open = this.at;
    let depth = 0;
    for (; this.at < this.text.length; this.at++) {
      this.budget.spend(1);
      const c = this.text[this.at];
      if (c === "\\") this.at++;
      else if (c === "{") depth++;
      else if (c === "}" && --depth === 0) break;
    }
    const content = this.text.slice(open + 1, this.at);
    this.at = Math.min(this.at + 1, this.text.length);
    if (/^(mathbf|boldsymbol|bf|pmb|bold)$/.test(name) && /^[ijk]$/.test(content.trim())) {
      this.push("command", `bold-${content.trim()}`);
      return;
    }
    const inner = new Lexer(content, this.reading, this.budget);
    inner.quoted = true;
    inner.spaced = this.spaced;
    inner.nesting = this.nesting + 1;
    if (inner.nesting > 20) throw new GiveUp("text is nested too deeply");
    inner.run();
    for (const token of inner.tokens) this.tokens.push(token);
    this.spaced = /\s$/.test(content);
    this.ambiguous ||= inner.ambiguous;
  }
}

/** Whether a run of letters is a word or a name rather than a product of variables. */
function isWord(word: string, split: boolean): boolean {
  if (FUNCTIONS.has(word) || CONSTANTS.has(word) || GREEK.has(word)) return true;
  if (split) return false;
  if (word.length >= 4 || SHORT_WORDS.has(word) || NUMBER_WORDS.has(word)) return true;
  return SHORT_WORDS.has(word.toLowerCase()) || NUMBER_WORDS.has(word.toLowerCase()) || /^[A-Z][a-z]{2}/.test(word);
}

/** The letters of a run, names of functions and constants at its end kept: `xsin` is x sin. */
function splitWord(word: string): string[] {
  for (let i = 1; i < word.length - 1; i++) {
    const rest = word.slice(i);
    if (FUNCTIONS.has(rest) || rest === "pi") return [...word.slice(0, i), rest];
  }
  return [...word];
}

/** Length of the shortest block that the digits before "..." repeat at their end, or 0: at least thrice for one digit, twice for more. */
function repeatingEnd(digits: string): number {
  for (let period = 1; period * 2 <= digits.length && period <= 12; period++) {
    const block = digits.slice(-period);
    const times = period === 1 ? 3 : 2;
    if (digits.length >= times * period && digits.endsWith(block.repeat(times))) return period;
  }
  return 0;
}

/** Splits a text, LaTeX or plain, into tokens. Throws GiveUp. */
export function lex(text: string, reading: Reading, budget: Budget): Lexed {
  const lexer = new Lexer(text, reading, budget);
  lexer.run();
  return { tokens: lexer.tokens, ambiguous: lexer.ambiguous };
}

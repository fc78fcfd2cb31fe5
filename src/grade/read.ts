import { type Budget, GiveUp } from "./budget.ts";
import { parseSum } from "./expression.ts";
import { lex, type Reading, type Token } from "./lexer.ts";
import type { Node } from "./node.ts";
import { parsePrimary } from "./primary.ts";
import { type Grammar, Reader, Unreadable } from "./reader.ts";
import { parseItem, parseList } from "./structure.ts";
import { isText, textOf, readDate, readTime } from "./words.ts";

const GRAMMAR: Grammar = { list: parseList, item: parseItem, sum: parseSum, primary: parsePrimary };

/** An answer longer than this is not read. */
const MAX_LENGTH = 50_000;

export interface Read {
  node: Node;
  /** Another reading of a comma between digits is possible. */
  ambiguous: boolean;
}

/**
 * Reads one answer, LaTeX or plain. What is words becomes text; what looks like mathematics and cannot be read becomes text with the
 * reason. Throws GiveUp where the budget ends.
 */
export function read(text: string, budget: Budget, reading: Reading = {}): Read {
  if (text.length > MAX_LENGTH) throw new GiveUp(`an answer of more than ${MAX_LENGTH} characters`);
  const { tokens, ambiguous } = lex(text, reading, budget);
  trim(tokens);
  const asText = (unread?: string): Node => ({ kind: "text", text: textOf(tokens), unread });
  if (tokens.length === 0) return { node: asText(text.trim() === "" ? "nothing to read" : undefined), ambiguous };
  const inside = wrapped(tokens, true) ? tokens.slice(1, -1) : tokens;
  const special = readTime(inside) ?? readDate(inside) ?? (isText(inside) ? asText() : undefined);
  if (special !== undefined) return { node: special, ambiguous };
  try {
    return { node: parse(tokens, reading, budget), ambiguous };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    if (
      reading.split !== true &&
      tokens.some(({ kind, text: word, quoted }) => kind === "word" && word.length > 1 && !quoted)
    ) {
      const split = lex(text, { ...reading, split: true }, budget).tokens;
      trim(split);
      try {
        return { node: parse(split, { ...reading, split: true }, budget), ambiguous };
      } catch (again) {
        if (!(again instanceof Unreadable)) throw again;
      }
    }
    return { node: asText(error.message), ambiguous };
  }
}

function parse(tokens: Token[], reading: Reading, budget: Budget): Node {
  const reader = new Reader([...tokens], GRAMMAR, reading, budget);
  const node = parseList(reader);
  if (!reader.done) reader.fail("expected the end");
  return node;
}

const LEADING = new Set(["about", "approximately", "approx", "roughly", "exactly", "only", "is", "are"]);

/** Takes off decorations: markdown stars and quotes around, full stops and commas behind, "about" before. */
function trim(tokens: Token[]): void {
  trimEnds(tokens);
  trimLabel(tokens);
  trimParts(tokens);
  while (tokens.length > 2 && wrapped(tokens)) {
    tokens.pop();
    tokens.shift();
    trimEnds(tokens);
  }
}

/** Takes off words before an equals sign or colon: "area = 12", "Answer: 5". */
function trimLabel(tokens: Token[]): void {
  const at = tokens.findIndex(({ kind }) => kind !== "word");
  if (at < 1 || at + 1 >= tokens.length || !/^[=:≈]$/.test(tokens[at].text)) return;
  const label = tokens.slice(0, at);
  if (isText(label)) tokens.splice(0, at + 1);
}

/** Makes a tuple of the parts of an answer, "(a) 3 (b) 4". */
function trimParts(tokens: Token[]): void {
  const isLabel = (at: number, letter: string): boolean =>
    tokens[at]?.text === "(" &&
    tokens[at + 1]?.text === letter &&
    tokens[at + 2]?.text === ")" &&
    at + 3 < tokens.length;
  const starts = [0];
  if (!isLabel(0, "a")) return;
  for (let at = 4; at < tokens.length; at++) {
    const separated = tokens[at].spaced || /^[,;]$/.test(tokens[at - 1].text);
    if (separated && isLabel(at, String.fromCharCode(97 + starts.length))) starts.push(at);
  }
  if (starts.length < 2) return;
  const mark = (text: string): Token => ({ kind: "mark", text, spaced: false, quoted: false });
  for (const at of starts.reverse())
    tokens.splice(at, 3, ...(at === 0 ? [mark("(")] : /^[,;]$/.test(tokens[at - 1].text) ? [] : [mark(",")]));
  tokens.push(mark(")"));
}

/** Whether TeX braces go around everything. */
function wrapped(tokens: readonly Token[], commas = false): boolean {
  if (tokens[0].text !== "{" || tokens[tokens.length - 1].text !== "}") return false;
  let depth = 0;
  for (const [i, { text }] of tokens.entries()) {
    if (text === "{") depth++;
    else if (text === "}" && --depth === 0) return i === tokens.length - 1;
    // A comma at the top: a set.
    else if (depth === 1 && ((text === "," && !commas) || text === "over" || text === "choose")) return false;
  }
  return false;
}

function trimEnds(tokens: Token[]): void {
  const junk = (token: Token | undefined): boolean =>
    token?.kind === "mark" &&
    (token.text === '"' || token.text === "`" || token.text === "*" || token.text === "^" || token.text === "…");
  let from = 0;
  while (
    from < tokens.length &&
    (junk(tokens[from]) ||
      (tokens[from].kind === "word" && LEADING.has(tokens[from].text.toLowerCase()) && from + 1 < tokens.length))
  )
    from++;
  if (from > 0 && from < tokens.length) tokens.splice(0, from);
  for (let last = tokens.at(-1); last !== undefined; last = tokens.at(-1)) {
    const stop =
      last.kind === "mark" &&
      (last.text === "." || last.text === "," || last.text === ";" || last.text === ":" || last.text === "?");
    if ((!stop && !junk(last)) || tokens.length === 1) break;
    // "3, ..." and "3, ?" go on.
    if ((last.text === "…" || last.text === "?") && /^[,;]$/.test(tokens.at(-2)?.text ?? "")) break;
    tokens.pop();
  }
}

import { parsePower, parseScript } from "./expression.ts";
import { CONSTANTS, FRACTION_WORDS, FUNCTIONS, GREEK, INVERSE, NUMBER_WORDS } from "./names.ts";
import { call, fraction, type Node, number, power, product, reciprocal, sum, symbol } from "./node.ts";
import { basedInBrackets, numberInWords, numeral, quotient } from "./numerals.ts";
import { divide, rational } from "./rational.ts";
import type { Reader } from "./reader.ts";
import { parseBraces, parseBrackets, parseMatrix } from "./structure.ts";
import { CURRENCY } from "./units.ts";

/** One operand: a number, a symbol, a function with its arguments, something in brackets. */
export function parsePrimary(reader: Reader): Node {
  return reader.nested(() => primary(reader));
}

function primary(reader: Reader): Node {
  const token = reader.peek();
  if (token.kind === "number") return numeral(reader);
  if (token.kind === "word") return word(reader);
  if (token.kind === "command") return command(reader);
  switch (token.text) {
    case "(":
      if (reader.peek(1).kind === "number" && reader.peek(2).text === ")" && reader.peek(3).text === "_")
        return basedInBrackets(reader);
      return parseBrackets(reader);
    case "[":
    case "⟨":
    case "]":
      return parseBrackets(reader);
    case "\\{":
      return parseBraces(reader);
    case "{":
      if (reader.peek(1).kind === "number" && reader.peek(2).text === "}" && reader.peek(3).text === "_")
        return basedInBrackets(reader);
      return braceGroup(reader);
    case "_":
    case "^":
      return choices(reader);
    case "|":
      return bars(reader);
    case "⌊":
    case "⌈":
      return rounded(reader);
    case "√":
      reader.next();
      return squareRoot(reader);
    case "\\$":
    case "€":
    case "£":
    case "¥":
    case "₹":
      return currency(reader);
    default:
      return reader.fail("expected an operand");
  }
}

function currency(reader: Reader): Node {
  const unit = CURRENCY.get(reader.next().text);
  const minus = reader.take("-") !== undefined;
  const value = parsePower(reader);
  if (unit === undefined) return reader.fail("expected a currency");
  return { kind: "quantity", value: minus ? product([number(-1), value]) : value, unit };
}

// Words

function word(reader: Reader): Node {
  const token = reader.peek();
  const { text } = token;
  const name = FUNCTIONS.get(text);
  if (name !== undefined && text.length > 1) {
    reader.next();
    return applied(reader, name);
  }
  const constant = CONSTANTS.get(text);
  if (constant !== undefined) {
    reader.next();
    return { kind: "constant", name: constant };
  }
  if (text.length === 1) {
    reader.next();
    return letter(reader, text);
  }
  if (NUMBER_WORDS.has(text.toLowerCase()) || FRACTION_WORDS.has(text.toLowerCase())) return numberInWords(reader);
  if (GREEK.has(text)) {
    reader.next();
    return letter(reader, text);
  }
  return reader.fail("expected mathematics");
}

/** Letters that are read as functions where parentheses follow at once. */
const FUNCTION_LETTERS = /^[fghFGH]$/;

/** A variable with its subscript; f(x) is an application, and so is P(x) or P(x, y); C(n, k) is a binomial coefficient. */
function letter(reader: Reader, text: string): Node {
  const indexed = subscript(reader);
  if (indexed === "" && (text === "e" || text === "i")) return { kind: "constant", name: text };
  let name = text + indexed;
  while (reader.take("'")) name += "'";
  const next = reader.peek();
  if (next.kind !== "mark" || next.text !== "(" || next.spaced) return symbol(name);
  // "T(n) = ..." defines a function.
  const defined = reader.peek(1).kind === "word" && reader.peek(2).text === ")" && reader.peek(3).text === "=";
  const applies =
    FUNCTION_LETTERS.test(text) ||
    defined ||
    (text === "P" && /^(word|number)$/.test(reader.peek(1).kind) && reader.peek(2).text === ")");
  if (!applies && !/^[A-Z]$/.test(text)) return symbol(name);
  const inside = parseBrackets(reader);
  const args = inside.kind === "group" ? inside.items : [inside];
  if (name === "C" && args.length === 2) return call("binomial", ...args);
  if (applies || inside.kind === "group") return { kind: "call", name: `${name}()`, args };
  return product([symbol(name), inside]);
}

/** `_1`, `_{n+1}` as written without braces and spaces, or "". */
function subscript(reader: Reader): string {
  if (!reader.isMark("_")) return "";
  reader.next();
  if (!reader.take("{")) return `_${reader.next().text}`;
  let text = "_";
  for (let depth = 1; ;) {
    const token = reader.next();
    if (token.kind === "end") return reader.fail("expected }");
    if (token.text === "{") depth++;
    if (token.text === "}" && --depth === 0) return text;
    text += token.text;
  }
}

// Functions

/** A function's exponent, base and argument: `\sin^2 x`, `\log_2 8`, `max(1, 2)`, `sin 2x`. */
function applied(reader: Reader, name: string): Node {
  if (name === "sqrt") return squareRoot(reader);
  let base: Node | undefined;
  let exponent: Node | undefined;
  let inverse = false;
  while (reader.isMark("^", "_")) {
    if (reader.next().text === "_") base = reader.grammar.primary(reader);
    else {
      exponent = parseScript(reader);
      inverse = exponent.kind === "number" && exponent.value.n === -1n && INVERSE.has(name);
    }
  }
  const args = argumentsOf(reader);
  const [least, most] = MANY.has(name)
    ? [1, 50]
    : name === "binomial"
      ? [2, 2]
      : name === "log" && base === undefined
        ? [1, 2]
        : [1, 1];
  if (args.length < least || args.length > most) return reader.fail(`expected other arguments of ${name}`);
  let node = callOf(inverse ? (INVERSE.get(name) ?? name) : name, base === undefined ? args : [...args, base]);
  if (exponent !== undefined && !inverse) node = power(node, exponent);
  return node;
}

/** Functions of any number of arguments. */
const MANY = new Set(["gcd", "lcm", "max", "min"]);

function callOf(name: string, args: Node[]): Node {
  if (name === "exp") return power({ kind: "constant", name: "e" }, args[0]);
  if (name === "cis")
    return power({ kind: "constant", name: "e" }, product([{ kind: "constant", name: "i" }, args[0]]));
  if (name === "cbrt") return power(args[0], fraction(rational(1n, 3n)));
  return { kind: "call", name, args };
}

/** In brackets, or the factors up to the next sign or function. */
function argumentsOf(reader: Reader): Node[] {
  if (reader.isMark("(", "[")) {
    const inside = parseBrackets(reader);
    return inside.kind === "group" ? [...inside.items] : [inside];
  }
  if (reader.isMark("-")) {
    reader.next();
    return [product([number(-1), ...reader.nested(() => argumentsOf(reader))])];
  }
  const factors = [parsePower(reader)];
  for (;;) {
    const token = reader.peek();
    const starts =
      token.kind === "number"
        ? reader.peek(-1).kind !== "number"
        : token.kind === "word"
          ? (token.text.length === 1 && !token.quoted) || token.text === "pi" || GREEK.has(token.text)
          : token.kind === "command"
            ? !FUNCTIONS.has(token.text) && !/^end:|^[pb]?mod$|^choose$|^over$/.test(token.text)
            : token.kind === "mark" && token.text === "{";
    if (!starts) break;
    factors.push(parsePower(reader));
  }
  // sin x/2 is read as sin(x)/2
  return [product(factors)];
}

function squareRoot(reader: Reader): Node {
  let degree: Node = number(2);
  if (reader.isMark("[")) {
    reader.next();
    degree = reader.enclosed(() => reader.grammar.sum(reader));
    reader.expect("]");
  }
  const minus = !reader.isMark("{", "(") && reader.take("-") !== undefined;
  const inside = reader.grammar.primary(reader);
  const args = inside.kind === "group" ? inside.items : [inside];
  if (args.length !== 1) return reader.fail("expected one argument of a root");
  const radicand = minus ? product([number(-1), args[0]]) : args[0];
  const half =
    degree.kind === "number" && degree.value.n !== 0n
      ? fraction(divide(number(1).value, degree.value))
      : reciprocal(degree);
  return power(radicand, half);
}

// Brackets

/** TeX's braces group and are not seen; with a comma inside they were meant as a set's. */
function braceGroup(reader: Reader): Node {
  if (reader.peek(1).text === "}") {
    reader.next();
    reader.next();
    return reader.grammar.primary(reader);
  }
  const start = reader.mark;
  reader.next();
  const inside = reader.enclosed(() => reader.grammar.list(reader), false);
  if (reader.take("}"))
    return inside.kind === "list" && inside.joined === undefined ? { kind: "set", items: inside.items } : inside;
  reader.back(start);
  return parseBraces(reader);
}

function bars(reader: Reader): Node {
  if (reader.unpairedBar) return reader.fail("expected an operand");
  reader.next();
  const { inBraces } = reader;
  reader.bars++;
  reader.inBraces = false;
  const inside = reader.grammar.sum(reader);
  reader.expect("|");
  reader.bars--;
  reader.inBraces = inBraces;
  return call("abs", inside);
}

function rounded(reader: Reader): Node {
  const open = reader.next().text;
  const inside = reader.enclosed(() => reader.grammar.sum(reader));
  reader.expect(open === "⌊" ? "⌋" : "⌉");
  return call(open === "⌊" ? "floor" : "ceiling", inside);
}

// Commands

function command(reader: Reader): Node {
  const { text } = reader.peek();
  if (text.startsWith("begin:")) return parseMatrix(reader);
  reader.next();
  if (/^[dtc]?frac$/.test(text)) {
    const name = derivative(reader);
    if (name !== undefined) return name;
    const numerator = argument(reader);
    return quotient(numerator, argument(reader));
  }
  if (/^[dt]?binom$/.test(text)) {
    const upper = argument(reader);
    return call("binomial", upper, argument(reader));
  }
  if (text === "sqrt") return squareRoot(reader);
  const name = FUNCTIONS.get(text);
  if (name !== undefined) return applied(reader, name);
  const constant = CONSTANTS.get(text);
  if (constant !== undefined) return { kind: "constant", name: constant };
  if (/^(overline|bar|vec|hat|tilde|widehat|overrightarrow|dot|mathbb|mathcal|Bbb|mathscr|mathfrak)$/.test(text))
    return decorated(reader, text);
  if (/^(sum|prod|int|iint|oint|lim|limsup|liminf|atop|stackrel|substack|end)\b/.test(text) || text.startsWith("end:"))
    return reader.fail(`\\${text} is not read`);
  return letter(reader, text);
}

/** `_nC_k`, `^nC_k`, `_nP_k`: the number of choices, without or with order. */
function choices(reader: Reader): Node {
  reader.next();
  const n = argument(reader);
  const letter = reader.next().text;
  if ((letter !== "C" && letter !== "P") || !reader.take("_")) return reader.fail("expected C or P with a subscript");
  const k = argument(reader);
  if (letter === "C") return call("binomial", n, k);
  return product([call("factorial", n), reciprocal(call("factorial", sum([n, product([number(-1), k])])))]);
}

/** `{dy}{dx}` and `{d^2y}{dx^2}` as one symbol: the derivative's d is no factor. Undefined, and nothing is taken, elsewhere. */
function derivative(reader: Reader): Node | undefined {
  let text = "";
  for (let i = 0, braces = 0; i < 20 && braces < 2; i++) {
    const token = reader.peek(i);
    text += token.text;
    if (token.text === "}" && /[A-Za-z}\d]$/.test(text.slice(0, -1)) && !/\^\{\d\}$/.test(text)) braces++;
  }
  const found = /^\{d(?:\^\{?(\d)\}?)?([A-Za-z])\}\{d([A-Za-z])(?:\^\{?(\d)\}?)?\}$/.exec(text);
  if (found === null || found[1] !== found[4]) return undefined;
  let open = 0;
  for (let groups = 0; groups < 2;) {
    const { text: mark } = reader.next();
    if (mark === "{") open++;
    else if (mark === "}" && --open === 0) groups++;
  }
  return symbol(`d${found[1] ?? ""}${found[2]}/d${found[3]}`);
}

/** A command's argument: braces, one digit of a number, or one operand. */
function argument(reader: Reader): Node {
  const token = reader.peek();
  if (token.kind === "number" && !token.quoted) return number(BigInt(reader.digit()));
  if (reader.isMark("-")) {
    reader.next();
    return product([number(-1), reader.nested(() => argument(reader))]);
  }
  return reader.grammar.primary(reader);
}

/** A letter or word under a bar, hat or arrow, or in a script alphabet: a symbol of its own. */
function decorated(reader: Reader, decoration: string): Node {
  if (!reader.isMark("{")) return symbol(`${decoration} ${reader.next().text}`);
  reader.next();
  let name = decoration;
  while (!reader.isMark("}")) {
    const token = reader.next();
    if (token.kind === "end") return reader.fail("expected }");
    name += ` ${token.text}`;
  }
  reader.next();
  return symbol(name + subscript(reader));
}

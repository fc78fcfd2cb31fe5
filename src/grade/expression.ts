import {
  call,
  fraction,
  type Node,
  negative,
  power,
  product,
  type QuantityNode,
  reciprocal,
  sum,
  symbol,
} from "./node.ts";
import type { Reader } from "./reader.ts";
import { GiveUp, MAX_DEPTH } from "./budget.ts";
import { add, isWhole } from "./rational.ts";
import { CONSTANTS, FUNCTIONS, GREEK } from "./names.ts";
import { CURRENCY, DEGREE, isUnit, PERCENT } from "./units.ts";

// Sums, products, powers: the part of the grammar between lists and single operands.

/** [sign] term (+ term | - term | ± term)* */
export function parseSum(reader: Reader): Node {
  const terms: Node[] = [];
  let sign = reader.take("+", "-", "±", "∓")?.text;
  for (;;) {
    const term = parseProduct(reader);
    if (sign === "-") terms.push(negative(term));
    else if (sign === "±" || sign === "∓") terms.push({ kind: "either", sign: sign === "±" ? 1 : -1, node: term });
    else terms.push(term);
    sign = reader.take("+", "-", "±", "∓")?.text;
    if (sign === undefined) break;
    // "+/-" is ±; in "a + -b" both signs count.
    if (sign === "+" && reader.isMark("/") && reader.peek(1).text === "-") {
      reader.next();
      reader.next();
      sign = "±";
    } else if ((sign === "+" || sign === "-") && reader.isMark("-")) {
      reader.next();
      sign = sign === "+" ? "-" : "+";
    }
  }
  return sum(terms);
}

/** factor ((* | / | nothing) factor)*; juxtaposition binds as tightly as a written sign. */
function parseProduct(reader: Reader): Node {
  const factors = [parseFactor(reader)];
  for (;;) {
    const token = reader.peek();
    // "5x10^3": the letter is a times sign.
    if (
      token.text === "x" &&
      reader.peek(-1).kind === "number" &&
      reader.peek(1).text === "10" &&
      reader.peek(2).text === "^"
    ) {
      reader.next();
      factors.push(parseFactor(reader));
    } else if (reader.isMark("*", "/")) {
      // "5 m/s": the slash is the unit's.
      if (reader.peek(1).kind === "word" && !startsOperand(reader, 1)) break;
      reader.next();
      const factor = parseFactor(reader);
      factors.push(token.text === "/" ? reciprocal(factor) : factor);
    } else if ((token.kind === "word" && token.text === "mod") || reader.isCommand("bmod")) {
      reader.next();
      return call(
        "mod",
        product(factors),
        reader.nested(() => parseProduct(reader)),
      );
    } else if (startsOperand(reader, 0)) factors.push(parsePower(reader));
    else break;
  }
  return product(factors);
}

/** A power, with signs before it: what may follow `*` and `/`. */
function parseFactor(reader: Reader): Node {
  if (reader.take("-")) return negative(reader.nested(() => parseFactor(reader)));
  if (reader.take("+")) return reader.nested(() => parseFactor(reader));
  return parsePower(reader);
}

/** Whether the token `ahead` can begin an operand that multiplies what stands before it. */
function startsOperand(reader: Reader, ahead: number): boolean {
  const token = reader.peek(ahead);
  switch (token.kind) {
    case "number":
      return ahead > 0 || reader.peek(-1).kind !== "number";
    case "command":
      return (
        !token.text.startsWith("end:") &&
        !["pmod", "bmod", "mod", "choose", "over", "hline", "emptyset", "varnothing"].includes(token.text)
      );
    case "word":
      // "15 min" is no minimum, "15 sec" no secant.
      if ((token.text === "min" || token.text === "sec") && !/^([(^]|[a-z])$/.test(reader.peek(ahead + 1).text))
        return false;
      if (token.text.length > 1) return FUNCTIONS.has(token.text) || CONSTANTS.has(token.text) || GREEK.has(token.text);
      if (reader.reading.letterUnits === true && isUnit(token.text)) return false;
      if (token.text === "U" && token.spaced && /^[([]$|^\\\{$/.test(reader.peek(ahead + 1).text)) return false;
      return !(token.quoted && isUnit(token.text) && !/^[eil]$/.test(token.text));
    case "mark":
      if (token.text === "|") return reader.bars === 0 && !reader.inBraces && !reader.unpairedBar;
      if (token.text === "[")
        return /^(number|word|command)$/.test(reader.peek(ahead + 1).kind) || reader.peek(ahead + 1).text === "-";
      // "5 (units)"
      if (token.text === "(" && token.quoted && reader.peek(ahead + 1).text.length > 1) return false;
      return token.text === "(" || token.text === "{" || token.text === "⌊" || token.text === "⌈" || token.text === "√";
    default:
      return false;
  }
}

/** An operand with what is written behind it: exponents, `!`, `%`, a degree sign. */
export function parsePower(reader: Reader): Node {
  let node = reader.grammar.primary(reader);
  for (let behind = 0; ; behind++) {
    if (behind > MAX_DEPTH) throw new GiveUp("too many signs behind one operand");
    if (reader.isMark("^")) {
      reader.next();
      if (reader.isMark("{") && reader.peek(1).text === "°" && reader.peek(2).text === "}") {
        reader.next();
        reader.next();
        node = { kind: "quantity", value: node, unit: DEGREE };
        reader.next();
        continue;
      }
      if (reader.isMark("°")) continue;
      // 5^{th}
      if (reader.isMark("{") && /^(st|nd|rd|th)$/.test(reader.peek(1).text) && reader.peek(2).text === "}") {
        for (let i = 0; i < 3; i++) reader.next();
        continue;
      }
      if (reader.isMark("'") || (reader.isMark("{") && reader.peek(1).text === "'")) {
        const braced = reader.take("{");
        while (reader.take("'"));
        if (braced) reader.expect("}");
        node = primed(node);
        continue;
      }
      node = power(node, parseScript(reader));
    } else if (reader.isMark("°")) {
      reader.next();
      const scale = reader.peek();
      if (scale.kind === "word" && /^[CF]$/.test(scale.text)) {
        reader.next();
        node = { kind: "quantity", value: node, unit: { name: `°${scale.text}` } };
      } else node = { kind: "quantity", value: node, unit: DEGREE };
    } else if (reader.isMark("!")) {
      reader.next();
      node = call(reader.take("!") ? "doubleFactorial" : "factorial", node);
    } else if (reader.isMark("%")) {
      reader.next();
      node = { kind: "quantity", value: node, unit: PERCENT } satisfies QuantityNode;
    } else if (reader.isMark("'") && node.kind === "symbol") {
      reader.next();
      node = primed(node);
    } else if (reader.isMark("\\$", "€", "£", "¥", "₹") && node.kind === "number") {
      const unit = CURRENCY.get(reader.next().text);
      if (unit !== undefined) node = { kind: "quantity", value: node, unit };
    } else return node;
  }
}

const primed = (node: Node): Node =>
  node.kind === "symbol" ? symbol(`${node.name}'`) : { kind: "call", name: "derivative", args: [node] };

/** An exponent: braces, or one operand with its sign; towers lean to the right. */
export function parseScript(reader: Reader): Node {
  if (reader.isMark("-", "+")) {
    const minus = reader.next().text === "-";
    const node = reader.nested(() => parseScript(reader));
    return minus ? negative(node) : node;
  }
  const braced = reader.isMark("{");
  const node = reader.grammar.primary(reader);
  if (!braced && reader.isMark("^") && reader.peek(1).text !== "°") {
    reader.next();
    return power(
      node,
      reader.nested(() => parseScript(reader)),
    );
  }
  return node;
}

/** A whole number and the proper fraction behind it: `2\frac{1}{3}` is 2 + 1/3. Undefined where they are something else. */
export function mixedNumber(integer: Node, part: Node): Node | undefined {
  if (integer.kind !== "number" || part.kind !== "number" || integer.places !== undefined) return undefined;
  const { n, d } = part.value;
  if (!isWhole(integer.value) || d === 1n || n <= 0n || n >= d) return undefined;
  return fraction(add(integer.value, part.value));
}

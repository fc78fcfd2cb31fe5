import { GiveUp } from "./budget.ts";
import { mixedNumber } from "./expression.ts";
import type { Token } from "./lexer.ts";
import { FRACTION_WORDS, NUMBER_WORDS } from "./names.ts";
import { fraction, type Node, number, type NumberNode, product, reciprocal } from "./node.ts";
import { add, divide, rational, tenTo } from "./rational.ts";
import type { Reader } from "./reader.ts";

/** A number with what belongs to it: its base, the fraction of a mixed number. */
export function numeral(reader: Reader): Node {
  const token = reader.next();
  if (reader.isMark("_")) return basedNumber(reader, token);
  if (reader.peek().text === "base" || (reader.isMark("(") && reader.peek(1).text === "base"))
    return baseInWords(reader, token);
  const node = readNumber(token);
  if (node.places !== undefined) return node;
  const next = reader.peek();
  // 2\frac{1}{3}
  if (next.kind === "command" && /^[dtc]?frac$/.test(next.text)) {
    const part = reader.grammar.primary(reader);
    return mixedNumber(node, part) ?? product([node, part]);
  }
  // 2 1/3, and 2-1/3 is no such thing
  if (next.kind === "number" && next.spaced && reader.peek(1).text === "/" && reader.peek(2).kind === "number") {
    const start = reader.mark;
    const n = readNumber(reader.next());
    reader.next();
    const mixed = mixedNumber(node, quotient(n, readNumber(reader.next())));
    if (mixed !== undefined) return mixed;
    reader.back(start);
  }
  return node;
}

/** The exact value of a number token, with its stated precision. */
function readNumber({ text, repeat }: Token): NumberNode {
  const [mantissa, exponent = "0"] = text.split("e");
  const [whole, decimals = ""] = mantissa.split(".");
  if (repeat !== undefined) {
    const scale = tenTo(decimals.length);
    const block = rational(BigInt(repeat), (tenTo(repeat.length) - 1n) * scale);
    return fraction(add(rational(BigInt(whole + decimals), scale), block));
  }
  if (!text.includes(".") && exponent === "0") return { kind: "number", value: { n: BigInt(text), d: 1n } };
  const shift = Number(exponent) - decimals.length;
  const digits = BigInt(whole + decimals);
  const value = shift >= 0 ? rational(digits * tenTo(shift)) : rational(digits, tenTo(-shift));
  if (decimals === "" && shift >= 0) return { kind: "number", value };
  return { kind: "number", value, places: -shift, significant: (whole + decimals).replace(/^0+/, "").length };
}

/** `(52)_8`, `{52}_8` */
export function basedInBrackets(reader: Reader): Node {
  reader.next();
  const digits = reader.next();
  reader.next();
  return basedNumber(reader, digits);
}

/** Digits with a base behind them: `52_8`, `1A_{16}`, `101_{two}`, `52_{(8)}`, `52_{\text{base 8}}`. The `_` is at hand. */
function basedNumber(reader: Reader, digits: Token): Node {
  reader.next();
  const closing: string[] = [];
  for (let open = reader.take("{", "("); open !== undefined; open = reader.take("{", "("))
    closing.unshift(open.text === "{" ? "}" : ")");
  if (reader.peek().text === "base") reader.next();
  const token = reader.next();
  const base = token.kind === "number" ? Number(token.text) : NUMBER_WORDS.get(token.text.toLowerCase());
  for (const bracket of closing) reader.expect(bracket);
  if (base === undefined || !(base >= 2 && base <= 36)) return reader.fail("expected a base from 2 to 36");
  return baseValue(digits.text, base);
}

/** `52 base 8`, `52 (base 8)` */
function baseInWords(reader: Reader, digits: Token): Node {
  const bracket = reader.take("(");
  reader.next();
  const token = reader.next();
  if (bracket !== undefined) reader.expect(")");
  const base = token.kind === "number" ? Number(token.text) : NUMBER_WORDS.get(token.text.toLowerCase());
  if (base === undefined || !(base >= 2 && base <= 36)) return reader.fail("expected a base from 2 to 36");
  return baseValue(digits.text, base);
}

/** The number that digits stand for in a base. Throws GiveUp for a digit that the base has not. */
function baseValue(digits: string, base: number): Node {
  let value = 0n;
  if (digits.length > 200) throw new GiveUp("a number is too long");
  for (const c of digits.toLowerCase()) {
    const digit = Number.parseInt(c, 36);
    if (!(digit < base)) throw new GiveUp(`${digits} is no number in base ${base}`);
    value = value * BigInt(base) + BigInt(digit);
  }
  return number(value);
}

/** a / b, folded where both are whole literals. */
export function quotient(a: Node, b: Node): Node {
  const whole = (node: Node): node is NumberNode => node.kind === "number" && node.places === undefined;
  if (whole(a) && whole(b) && b.value.n !== 0n) return fraction(divide(a.value, b.value));
  return product([a, reciprocal(b)]);
}

/** `five`, `twenty-five`, `one half`, `two-thirds`, `half`. */
export function numberInWords(reader: Reader): Node {
  const take = (words: ReadonlyMap<string, number>, fits: (value: number) => boolean): number | undefined => {
    const ahead = reader.isMark("-") ? 1 : 0;
    const value = words.get(reader.peek(ahead).text.toLowerCase());
    if (value === undefined || !fits(value)) return undefined;
    for (let i = 0; i <= ahead; i++) reader.next();
    return value;
  };
  const lone = take(FRACTION_WORDS, () => true);
  if (lone !== undefined) return fraction(rational(1n, BigInt(lone)));
  let value = take(NUMBER_WORDS, () => true) ?? 0;
  if (value >= 20) value += take(NUMBER_WORDS, (ones) => ones > 0 && ones < 10) ?? 0;
  const parts = take(FRACTION_WORDS, () => true);
  return parts === undefined ? number(value) : fraction(rational(BigInt(value), BigInt(parts)));
}

import type { Unit } from "./node.ts";
import { divide, multiply, ONE, power, type Rational, rational } from "./rational.ts";
import type { Reader } from "./reader.ts";

type Entry = readonly [names: string, dimension: string, n: number, d?: number];

/** Names of one unit (the first is canonical), its dimension, its size in that dimension's base unit. */
const TABLE: readonly Entry[] = [
  ["m meter metre", "m", 1],
  ["cm centimeter centimetre", "m", 1, 100],
  ["mm millimeter millimetre", "m", 1, 1000],
  ["km kilometer kilometre", "m", 1000],
  ["in inch inche", "m", 254, 10000],
  ["ft foot feet", "m", 3048, 10000],
  ["yd yard", "m", 9144, 10000],
  ["mi mile", "m", 1609344, 1000],
  ["g gram gramme", "g", 1],
  ["mg milligram", "g", 1, 1000],
  ["kg kilogram", "g", 1000],
  ["lb lbs", "g", 45359237, 100000],
  ["pound", "g", 45359237, 100000],
  ["oz ounce", "g", 45359237, 1600000],
  ["s sec second", "s", 1],
  ["ms millisecond", "s", 1, 1000],
  ["min minute", "s", 60],
  ["h hr hour", "s", 3600],
  ["day", "s", 86400],
  ["week", "s", 604800],
  ["month", "month", 1],
  ["year yr", "month", 12],
  ["L l liter litre", "m^3", 1, 1000],
  ["mL ml milliliter millilitre", "m^3", 1, 1000000],
  ["cc", "m^3", 1, 1000000],
  ["gal gallon", "gallon", 1],
  ["qt quart", "gallon", 1, 4],
  ["pt pint", "gallon", 1, 8],
  ["cup", "gallon", 1, 16],
  ["$ dollar buck usd USD", "$", 1],
  ["¢ cent penny pennies", "$", 1, 100],
  ["€ euro", "€", 1],
  ["£", "£", 1],
  ["¥ yen", "¥", 1],
  ["₹ rupee rs Rs", "₹", 1],
  ["° degree deg", "°", 1],
  ["rad radian", "rad", 1],
  ["% percent", "%", 1],
  ["mph", "m s^-1", 1609344, 3600000],
  ["kph kmh", "m s^-1", 1000, 3600],
  ["N newton", "N", 1],
  ["J joule", "J", 1],
  ["W watt", "W", 1],
  ["V volt", "V", 1],
  ["A ampere amp", "A", 1],
  ["K kelvin", "K", 1],
  ["C celsius", "C", 1],
  ["F fahrenheit", "F", 1],
  ["Hz hertz", "Hz", 1],
  ["Pa pascal", "Pa", 1],
  ["mol mole", "mol", 1],
  ["kW kilowatt", "W", 1000],
  ["unit", "unit", 1],
];

const known = new Map<string, { name: string; dimension: string; factor: Rational }>();
for (const [names, dimension, n, d] of TABLE) {
  const all = names.split(" ");
  for (const name of all) known.set(name, { name: all[0], dimension, factor: rational(BigInt(n), BigInt(d ?? 1)) });
}

/** The known unit of a word, plural or not. */
function lookUp(word: string): { name: string; dimension: string; factor: Rational } | undefined {
  const found = known.get(word) ?? (word.length > 3 ? known.get(word.toLowerCase()) : undefined);
  if (found !== undefined || word.length < 3) return found;
  const lower = word.toLowerCase();
  if (lower.endsWith("s") && lower.length > 3) return known.get(lower.slice(0, -1));
  return lower === "hrs" ? known.get("h") : undefined;
}

/** Whether a word is a unit of measure. */
export const isUnit = (word: string): boolean => lookUp(word) !== undefined;

/** Words that end a phrase of units. */
const STOP = new Set([
  "to",
  "and",
  "or",
  "if",
  "for",
  "where",
  "when",
  "with",
  "is",
  "are",
  "mod",
  "base",
  "union",
  "in",
]);
/** Words that change a number's value or say something about it: no units. */
const NO_UNITS = new Set(
  "more less fewer squared cubed factorial times plus minus over out not wrong than from mod percentage points".split(
    " ",
  ),
);
/** Words without weight in a phrase of units. */
const FILLERS = new Set(["of", "the", "a", "an", "per", "each", "total", "in", "all", "about", "and"]);

export const CURRENCY: ReadonlyMap<string, Unit> = new Map(
  ["$", "€", "£", "¥", "₹"].map((sign): [string, Unit] => [
    sign === "$" ? "\\$" : sign,
    { name: sign, dimension: sign, factor: ONE },
  ]),
);
export const DEGREE: Unit = { name: "°", dimension: "°", factor: ONE };
export const PERCENT: Unit = { name: "%", dimension: "%", factor: ONE };

/**
 * The unit at hand: unit words with exponents, `/`, `per`, `square`, `cubic`; or any other words as a noun. Undefined, and nothing is
 * consumed, where there is none. Plain single letters are variables unless the reading says otherwise.
 */
export function readUnit(reader: Reader): Unit | undefined {
  const start = reader.mark;
  const bases = new Map<string, number>();
  const names: string[] = [];
  let factor = ONE;
  const nouns: string[] = [];
  let sign = 1;
  let prefix = 1;
  const include = (word: string, exponent: number): void => {
    const unit = lookUp(word);
    if (unit === undefined) return;
    for (const base of unit.dimension.split(" ")) {
      const [name, to = "1"] = base.split("^");
      bases.set(name, (bases.get(name) ?? 0) + Number(to) * exponent);
    }
    factor = multiply(factor, power(unit.factor, BigInt(exponent)));
    names.push(exponent === 1 ? unit.name : `${unit.name}^${exponent}`);
  };
  for (;;) {
    const token = reader.peek();
    if (token.kind === "mark" && (token.text === "/" || token.text === "*") && names.length + nouns.length > 0) {
      const after = reader.peek(1);
      if (after.kind !== "word" || !(after.quoted || isUnit(after.text))) break;
      reader.next();
      if (token.text === "/") sign = -1;
      continue;
    }
    if (token.kind === "mark" && token.quoted && (token.text === "(" || token.text === ")")) {
      reader.next();
      continue;
    }
    if (
      token.kind === "mark" &&
      (token.text === "." || token.text === "-") &&
      (names.length + nouns.length > 0 || prefix > 1)
    ) {
      reader.next();
      continue;
    }
    if (token.kind !== "word" || STOP.has(token.text)) {
      // "in" is a unit right behind a number and a word elsewhere.
      if (token.text !== "in" || token.kind !== "word" || names.length + nouns.length > 0) break;
    }
    const word = token.text;
    if (word.length === 1 && !token.quoted && reader.reading.letterUnits !== true) break;
    const lower = word.toLowerCase();
    reader.next();
    if (lower === "per") sign = -1;
    else if (lower === "square" || lower === "sq") prefix = 2;
    else if (lower === "cubic" || lower === "cu") prefix = 3;
    else if (isUnit(word)) {
      include(word, sign * prefix * exponent(reader));
      prefix = 1;
    } else if (!FILLERS.has(lower)) nouns.push(singular(lower));
  }
  if ((names.length === 0 && nouns.length === 0) || nouns.some((noun) => NO_UNITS.has(noun))) {
    reader.back(start);
    return undefined;
  }
  if (nouns.length > 0) {
    const phrase = [...names, ...nouns].join(" ");
    return { name: prefix === 2 ? `square ${phrase}` : prefix === 3 ? `cubic ${phrase}` : phrase };
  }
  const dimension = [...bases]
    .filter(([, to]) => to !== 0)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, to]) => (to === 1 ? name : `${name}^${to}`))
    .join(" ");
  return { name: names.join(" "), dimension, factor };
}

/** An exponent behind a unit, 1 where there is none. */
function exponent(reader: Reader): number {
  const raised = reader.peek();
  if (raised.kind === "word" && (raised.text === "squared" || raised.text === "cubed")) {
    reader.next();
    return raised.text === "squared" ? 2 : 3;
  }
  if (!reader.isMark("^")) return 1;
  const start = reader.mark;
  reader.next();
  const braced = reader.take("{") !== undefined;
  const minus = reader.take("-") !== undefined;
  const digit = reader.next();
  if (digit.kind !== "number" || !/^[1-9]$/.test(digit.text) || (braced && reader.take("}") === undefined)) {
    reader.back(start);
    return 1;
  }
  return minus ? -Number(digit.text) : Number(digit.text);
}

/** An English noun's singular, near enough for comparison. */
export function singular(noun: string): string {
  if (/(ss|us|is)$/.test(noun) || noun.length < 4) return noun;
  if (noun.endsWith("ies")) return `${noun.slice(0, -3)}y`;
  if (/(ches|shes|xes|sses)$/.test(noun)) return noun.slice(0, -2);
  return noun.endsWith("s") ? noun.slice(0, -1) : noun;
}

/** How one unit's values become another's: the factor, 1 where one has no dimension or both are the same, undefined where they differ. */
export function conversion(from: Unit, to: Unit): Rational | undefined {
  if (from.name === to.name) return ONE;
  // "5 pounds" may be money.
  if ((from.name === "£" && to.name === "pound") || (from.name === "pound" && to.name === "£")) return ONE;
  if (from.dimension !== undefined && from.dimension === to.dimension && from.factor && to.factor)
    return divide(from.factor, to.factor);
  // "12 duck eggs" and "12 eggs": one phrase holds the other's words.
  if (from.dimension === undefined && to.dimension === undefined) {
    const [a, b] = [from.name.split(" "), to.name.split(" ")];
    if (a.every((word) => b.includes(word)) || b.every((word) => a.includes(word))) return ONE;
  }
  return undefined;
}

import { Budget, GiveUp } from "./budget.ts";
import { Canonical, type LogBase } from "./canonical.ts";
import { fraction, type Node, type NumberNode, product, some, sum, type Unit } from "./node.ts";
import { Ring } from "./polynomial.ts";
import { absolute, compare, equal, multiply, type Rational, rational, subtract, tenTo, toNumber } from "./rational.ts";
import { compareBySampling, realValue } from "./sample.ts";
import { conversion } from "./units.ts";
import { type Comparison, differentBy, equalBy, unsureBy } from "./verdict.ts";

/** How far apart two numbers may be. Both bounds are inclusive; meeting one is enough. */
export interface Tolerance {
  /** |gold - answer| */
  absolute?: number;
  /** |gold - answer| / |gold| */
  relative?: number;
}

export interface ValueOptions {
  tolerance?: Tolerance;
  /** How a percent sign counts against a number without one: as a unit (10% is 10), as a hundredth (10% is 0.1), or both (default). */
  percent?: "unit" | "value" | "either";
}

/** Compares two expressions with values, units included. */
export function compareValues(gold: Node, answer: Node, options: ValueOptions, budget: Budget): Comparison {
  const [left, right] = [withUnit(gold), withUnit(answer)];
  if (left.unit === undefined && right.unit === undefined) return compareNumbers(gold, answer, options, budget);
  if (left.unit !== undefined && right.unit !== undefined) {
    const factor = conversion(left.unit, right.unit);
    if (factor === undefined) return differentBy("unit", `the units differ: ${left.unit.name} and ${right.unit.name}`);
    const converted = factor.n === factor.d ? left.value : product([fraction(factor), left.value]);
    return compareNumbers(converted, right.value, options, budget);
  }
  const unit = left.unit ?? right.unit;
  // "0.5 %" for 0.5 would be wrong by a factor of 100: only from 1 on is the sign a unit that the gold left out.
  if (right.unit?.name === "%" && options.percent === undefined && isProper(right.value))
    return compareNumbers(left.value, product([fraction(rational(1n, 100n)), right.value]), options, budget);
  const bare = compareNumbers(left.value, right.value, options, budget);
  if (unit?.name === "%" && options.percent !== "unit") {
    const hundredth = (side: { value: Node; unit?: Unit }): Node =>
      side.unit === undefined ? side.value : product([fraction(rational(1n, 100n)), side.value]);
    const share = compareNumbers(hundredth(left), hundredth(right), options, budget);
    if (options.percent === "value" || share.verdict === "equal") return share;
  }
  if (unit?.name === "°" && bare.verdict !== "equal") {
    const radians = (side: { value: Node; unit?: Unit }): Node =>
      side.unit === undefined
        ? side.value
        : product([fraction(rational(1n, 180n)), { kind: "constant", name: "pi" }, side.value]);
    const other = left.unit === undefined ? left.value : right.value;
    if (some(other, (node) => node.kind === "constant" && node.name === "pi"))
      return compareNumbers(radians(left), radians(right), options, budget);
  }
  return bare;
}

const isProper = (node: Node): boolean =>
  node.kind === "number" && node.value.n !== 0n && compare(absolute(node.value), rational(1n, 1n)) < 0;

/** Whether infinity stands in an expression other than alone or behind a factor. */
function usesInfinity(node: Node): boolean {
  const isInfinite = (part: Node): boolean => part.kind === "constant" && part.name === "infinity";
  if (isInfinite(node)) return false;
  if (node.kind === "product" && node.factors.filter(isInfinite).length === 1)
    return node.factors.some((factor) => !isInfinite(factor) && some(factor, isInfinite));
  return some(node, isInfinite);
}

/** A value and the unit around all of it, if there is one. */
export function withUnit(node: Node): { value: Node; unit?: Unit } {
  if (node.kind === "quantity") {
    const inner = withUnit(node.value);
    return inner.unit === undefined ? { value: node.value, unit: node.unit } : inner;
  }
  if (node.kind === "product") {
    const at = node.factors.findIndex((factor) => factor.kind === "quantity");
    if (at < 0 || node.factors.slice(at + 1).some((factor) => factor.kind === "quantity")) return { value: node };
    const inner = withUnit(node.factors[at]);
    return { value: product(node.factors.map((factor, i) => (i === at ? inner.value : factor))), unit: inner.unit };
  }
  if (node.kind === "sum") {
    const parts = node.terms.map(withUnit);
    const unit = parts.find((part) => part.unit !== undefined)?.unit;
    if (unit === undefined || unit.name === "%") return { value: node };
    // "5 feet 6 inches" and "2 cm + 3 cm" add up in the first unit.
    const terms: Node[] = [];
    for (const part of parts) {
      const factor = part.unit === undefined ? undefined : conversion(part.unit, unit);
      if (factor === undefined) return { value: node };
      terms.push(factor.n === factor.d ? part.value : product([fraction(factor), part.value]));
    }
    return { value: sum(terms), unit };
  }
  return { value: node };
}

function compareNumbers(gold: Node, answer: Node, options: ValueOptions, budget: Budget): Comparison {
  if (gold.kind === "number" && answer.kind === "number") return compareLiterals(gold, answer, options);
  if (usesInfinity(gold) || usesInfinity(answer)) return unsureBy("number", "infinity is no operand");
  const exact = compareExpressions(gold, answer, budget);
  if (exact.verdict === "equal") return exact;
  const rounded = compareRounded(gold, answer, options, budget);
  return rounded ?? exact;
}

/** Two literals: exact, then the rules for rounded decimals. */
function compareLiterals(gold: NumberNode, answer: NumberNode, options: ValueOptions): Comparison {
  if (equal(gold.value, answer.value)) return equalBy("number", "the same number exactly");
  if (withinTolerance(toNumber(gold.value), toNumber(answer.value), options.tolerance))
    return equalBy("tolerance", "the numbers are within the tolerance");
  if (isRounding(gold, answer.value, answer) || isRounding(answer, gold.value, gold))
    return equalBy("precision", "one number is the other, rounded to the digits it states");
  return differentBy("number", "different numbers");
}

export function withinTolerance(gold: number, answer: number, tolerance: Tolerance | undefined): boolean {
  if (tolerance === undefined) return false;
  const distance = Math.abs(gold - answer);
  // A last-place allowance: 0.1 + 0.2 is within 0.3 - 0.3.
  const slack = 1e-12 * Math.max(Math.abs(gold), Math.abs(answer));
  return distance <= Math.max(tolerance.absolute ?? 0, (tolerance.relative ?? 0) * Math.abs(gold)) + slack;
}

/** Significant digits from which a decimal may be the rounded result of a calculation. */
const ROUNDED_DIGITS = 6;
/** Significant digits of a decimal that nobody would state: the result of a calculation in floating point. */
const CALCULATED_DIGITS = 10;

/**
 * Whether a decimal is an exact value rounded (or cut off) at its last place. It must show at least six significant digits; against
 * another decimal that other one must show at least ten and more places, since short decimals are exact. A decimal with 15 digits or more is a double: it
 * may also miss the value by a relative 1e-12.
 */
function isRounding(decimal: NumberNode, value: Rational, other: NumberNode | undefined): boolean {
  const { places, significant = 0 } = decimal;
  if (places === undefined || places > 400 || significant < ROUNDED_DIGITS) return false;
  const distance = absolute(subtract(decimal.value, value));
  if (significant >= 15 && compare(distance, multiply(absolute(value), rational(1n, tenTo(12)))) <= 0) return true;
  if (other?.places !== undefined && ((other.significant ?? 0) < CALCULATED_DIGITS || other.places <= places))
    return false;
  // A whole number or a decimal is no rounded result where the decimal could have shown it exactly.
  if (other !== undefined && other.places === undefined && other.value.d === 1n) return false;
  return compare(distance, places >= 0 ? rational(1n, tenTo(places)) : rational(tenTo(-places))) < 0;
}

/** A decimal literal against an expression with a value: tolerance, then rounding. */
function compareRounded(gold: Node, answer: Node, options: ValueOptions, budget: Budget): Comparison | undefined {
  const literal = gold.kind === "number" ? gold : answer.kind === "number" ? answer : undefined;
  if (options.tolerance === undefined && (literal?.places === undefined || (literal.significant ?? 0) < ROUNDED_DIGITS))
    return undefined;
  const [a, b] = [realValue(gold, budget), realValue(answer, budget)];
  if (a === undefined || b === undefined || !Number.isFinite(a) || !Number.isFinite(b)) return undefined;
  if (withinTolerance(a, b, options.tolerance)) return equalBy("tolerance", "the numbers are within the tolerance");
  if (literal?.places === undefined || (literal.significant ?? 0) < ROUNDED_DIGITS) return undefined;
  const distance = Math.abs(a - b);
  const step = Math.max(10 ** -literal.places, 1e-12 * Math.abs(a));
  return distance < step ? equalBy("precision", "one number is the other, rounded to the digits it states") : undefined;
}

/** Exact forms first, random evaluations last. */
export function compareExpressions(gold: Node, answer: Node, budget: Budget): Comparison {
  const first = compareReading(gold, answer, "ten", budget);
  if (first.verdict === "equal") return first;
  // "log" without a base is the natural one where the other side writes ln.
  const [left, right] = [usesLog(gold), usesLog(answer)];
  if ((left.plain && right.natural) || (right.plain && left.natural)) {
    const second = compareReading(gold, answer, "natural", budget);
    if (second.verdict === "equal") return second;
  }
  return first;
}

function usesLog(node: Node): { plain: boolean; natural: boolean } {
  return {
    plain: some(node, (part) => part.kind === "call" && part.name === "log" && part.args.length === 1),
    natural: some(node, (part) => part.kind === "call" && part.name === "ln"),
  };
}

function compareReading(gold: Node, answer: Node, log: LogBase, budget: Budget): Comparison {
  // Most of the budget goes to exact forms; what they leave is for sampling.
  const share = new Budget(Math.floor(budget.left * 0.6));
  const before = share.left;
  try {
    const canonical = new Canonical(new Ring(share), log);
    const [a, b] = [canonical.of(gold), canonical.of(answer)];
    const difference = canonical.difference(a, b);
    const numbers = canonical.constantValue(a) !== undefined && canonical.constantValue(b) !== undefined;
    const rule = numbers ? "number" : "algebra";
    if (difference.size === 0) return equalBy(rule, numbers ? "the same number exactly" : "the same canonical form");
    if (canonical.ring.conclusive(difference))
      return differentBy(rule, numbers ? "different numbers" : "different canonical forms");
  } catch (error) {
    if (!(error instanceof GiveUp)) throw error;
  } finally {
    budget.spend(Math.max(0, before - Math.max(0, share.left)));
  }
  try {
    return compareBySampling(gold, answer, budget, log);
  } catch (error) {
    if (!(error instanceof GiveUp) || budget.left < 0) throw error;
    return unsureBy("sampled", error.message);
  }
}

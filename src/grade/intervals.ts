import type { Budget } from "./budget.ts";
import { Canonical } from "./canonical.ts";
import { complex } from "./complex.ts";
import { Evaluator } from "./evaluate.ts";
import { fraction, type Node, number, power, product, type Relation, reciprocal, sum, symbols } from "./node.ts";
import { Ring } from "./polynomial.ts";
import { realValue } from "./sample.ts";

/** An end of an interval; infinite ends are open. */
export interface End {
  readonly at: number;
  readonly node: Node;
  readonly closed: boolean;
}

export interface Interval {
  readonly low: End;
  readonly high: End;
}

/** Intervals in order, which neither overlap nor touch. A point is an interval with both ends closed there. */
export type RealSet = readonly Interval[];

const INFINITY: Node = { kind: "constant", name: "infinity" };
const LOWEST: End = { at: -Infinity, node: product([number(-1), INFINITY]), closed: false };
const HIGHEST: End = { at: Infinity, node: INFINITY, closed: false };
const ALL: RealSet = [{ low: LOWEST, high: HIGHEST }];

/**
 * The set of real numbers that an interval, a union, a set of points, inequalities in one variable or `{x | ...}` describe; undefined
 * where it is none of these or an end is no known number.
 */
export function realSet(node: Node, budget: Budget): RealSet | undefined {
  budget.spend(60);
  const of = (part: Node): RealSet | undefined => realSet(part, budget);
  switch (node.kind) {
    case "group": {
      if (node.items.length !== 2 || node.open === "<") return undefined;
      const [low, high] = node.items.map((item, i) =>
        end(item, i === 0 ? node.open === "[" : node.close === "]", budget),
      );
      return low === undefined || high === undefined || low.at > high.at ? undefined : [{ low, high }];
    }
    case "set": {
      const points = node.items.map((item) => end(item, true, budget));
      const known = points.filter((point) => point !== undefined);
      return known.length < points.length ? undefined : merge(known.map((point) => ({ low: point, high: point })));
    }
    case "union": {
      const parts = node.parts.map(of);
      const known = parts.filter((part) => part !== undefined);
      return known.length < parts.length ? undefined : merge(known.flat());
    }
    case "intersection":
    case "difference": {
      const parts = node.parts.map(of);
      let result = parts[0];
      for (const part of parts.slice(1)) {
        if (result === undefined || part === undefined) return undefined;
        result = intersect(result, node.kind === "difference" ? complement(part) : part);
      }
      return result;
    }
    case "symbol":
      return node.name === "mathbb R" || node.name === "Bbb R" ? ALL : undefined;
    case "builder":
      return of(node.condition);
    case "relation":
      return fromRelation(node.operands, node.operators, budget);
    case "list": {
      const parts = node.items.map(of);
      const known = parts.filter((part) => part !== undefined);
      if (known.length < parts.length || !node.items.every((item) => item.kind === "relation")) return undefined;
      const both = known.reduce(intersect);
      // "x < 2, x > 3" can only mean either; "x > 2, x < 3" means both.
      return node.joined === "or" || (node.joined === undefined && both.length === 0) ? merge(known.flat()) : both;
    }
    default:
      return undefined;
  }
}

function end(node: Node, closed: boolean, budget: Budget): End | undefined {
  if (symbols(node).size > 0) return undefined;
  const at = realValue(node, budget);
  return at === undefined ? undefined : { at, node, closed: closed && Number.isFinite(at) };
}

/** A chain such as 2 < x <= 5 in one variable. */
function fromRelation(operands: readonly Node[], operators: readonly Relation[], budget: Budget): RealSet | undefined {
  const names = new Set<string>();
  for (const operand of operands) symbols(operand, names);
  if (operators.length === 1 && operators[0] === "in")
    return operands[0].kind === "symbol" ? realSet(operands[1], budget) : undefined;
  if (names.size !== 1) return undefined;
  let result: RealSet = ALL;
  for (const [i, operator] of operators.entries()) {
    const link = solve(operands[i], operator, operands[i + 1], [...names][0], budget);
    if (link === undefined) return undefined;
    result = intersect(result, link);
  }
  return result;
}

/** Where left - right stands in a relation to 0: its zeros divide the line, and one value between each two of them shows its sign. */
function solve(left: Node, operator: Relation, right: Node, name: string, budget: Budget): RealSet | undefined {
  if (!(operator in HOLDS)) return undefined;
  const difference = sum([left, product([number(-1), right])]);
  const nodes = zeros(left, right, name, budget);
  if (nodes === undefined) return undefined;
  const points: { at: number; node: Node }[] = [];
  for (const node of nodes) {
    const at = realValue(node, budget);
    if (at === undefined || !Number.isFinite(at)) return undefined;
    if (!points.some((point) => level(point.at, at))) points.push({ at, node });
  }
  points.sort((a, b) => a.at - b.at);
  const holds = (x: number): boolean => {
    const value = new Evaluator(new Map([[name, complex(x)]]), budget).of(difference);
    return HOLDS[operator]?.(value.re) === true;
  };
  const parts: Interval[] = [];
  for (let i = 0; i <= points.length; i++) {
    const [before, after] = [points[i - 1], points[i]];
    const low: End = before === undefined ? LOWEST : { ...before, closed: false };
    const high: End = after === undefined ? HIGHEST : { ...after, closed: false };
    const inside =
      before === undefined ? (after?.at ?? 1) - 1 : after === undefined ? before.at + 1 : (before.at + after.at) / 2;
    if (holds(inside)) parts.push({ low, high });
    if (after !== undefined && HOLDS[operator]?.(0) === true) {
      const point: End = { ...after, closed: true };
      parts.push({ low: point, high: point });
    }
  }
  return merge(parts);
}

const HOLDS: Readonly<Partial<Record<Relation, (difference: number) => boolean>>> = {
  "<": (x) => x < 0,
  "<=": (x) => x <= 0,
  ">": (x) => x > 0,
  ">=": (x) => x >= 0,
  "=": (x) => x === 0,
  "!=": (x) => x !== 0,
};

/** The zeros of left - right where it is a polynomial of degree 1 or 2, or |a x + b| - c. */
function zeros(left: Node, right: Node, name: string, budget: Budget): Node[] | undefined {
  const alone = (node: Node): boolean => node.kind === "symbol" && node.name === name;
  const fixed = (node: Node): boolean => symbols(node).size === 0;
  if (alone(left) && fixed(right)) return [right];
  if (alone(right) && fixed(left)) return [left];
  const [bars, bound] = left.kind === "call" ? [left, right] : [right, left];
  if (bars.kind === "call" && bars.name === "abs" && fixed(bound)) {
    const limit = realValue(bound, budget);
    if (limit === undefined) return undefined;
    if (limit < 0) return [];
    const [above, below] = [
      zeros(bars.args[0], bound, name, budget),
      zeros(bars.args[0], product([number(-1), bound]), name, budget),
    ];
    return above === undefined || below === undefined ? undefined : [...above, ...below];
  }
  const coefficients = polynomialIn(sum([left, product([number(-1), right])]), name, budget);
  if (coefficients === undefined) return undefined;
  const [c, b, a] = coefficients;
  if (a === undefined) return [product([number(-1), c, reciprocal(b)])];
  const root = power(sum([power(b, number(2)), product([number(-4), a, c])]), fraction({ n: 1n, d: 2n }));
  const discriminant = realValue(sum([power(b, number(2)), product([number(-4), a, c])]), budget);
  if (discriminant === undefined) return undefined;
  if (discriminant < 0) return [];
  return [root, product([number(-1), root])].map((term) =>
    product([sum([product([number(-1), b]), term]), reciprocal(product([number(2), a]))]),
  );
}

/** The coefficients of a polynomial of degree 1 or 2 in one variable, constant first; undefined for anything else. */
function polynomialIn(node: Node, name: string, budget: Budget): Node[] | undefined {
  const ring = new Ring(budget);
  const canonical = new Canonical(ring, "ten");
  const { n, d } = canonical.of(node);
  if (d.size !== 1) return undefined;
  const [one] = canonical.of({ kind: "symbol", name }).n.values();
  const variable = one.m[0][0];
  const parts: Node[][] = [[], [], []];
  for (const { c, m } of n.values()) {
    let degree = 0;
    const factors: Node[] = [fraction(c)];
    for (const [atom, to] of m) {
      const found = ring.atoms[atom];
      const exponent = fraction({ n: BigInt(to.n), d: BigInt(to.d) });
      if (atom === variable && to.d === 1 && (to.n === 1 || to.n === 2)) degree = to.n;
      else if (found.kind === "prime") factors.push(power(number(found.value), exponent));
      else return undefined;
    }
    parts[degree].push(product(factors));
  }
  const [c, b, a] = parts.map((terms) => (terms.length === 0 ? number(0) : sum(terms)));
  if (parts[2].length > 0) return [c, b, a];
  return parts[1].length > 0 ? [c, b] : undefined;
}

/** Whether two ends lie at one place as far as doubles tell. */
const level = (a: number, b: number): boolean =>
  a === b || (Number.isFinite(a - b) && Math.abs(a - b) <= 1e-12 * Math.max(Math.abs(a), Math.abs(b)));

function merge(intervals: readonly Interval[]): RealSet {
  const sorted = [...intervals].sort((a, b) =>
    level(a.low.at, b.low.at) ? Number(b.low.closed) - Number(a.low.closed) : a.low.at - b.low.at,
  );
  const merged: Interval[] = [];
  for (const next of sorted) {
    const last = merged.at(-1);
    const touches =
      last !== undefined &&
      (level(next.low.at, last.high.at) ? next.low.closed || last.high.closed : next.low.at < last.high.at);
    if (last === undefined || !touches) merged.push(next);
    else merged[merged.length - 1] = { low: last.low, high: higher(last.high, next.high) };
  }
  return merged;
}

const higher = (a: End, b: End): End => (level(a.at, b.at) ? (a.closed ? a : b) : a.at > b.at ? a : b);
const inner = (a: End, b: End, low: boolean): End =>
  level(a.at, b.at) ? (a.closed ? b : a) : a.at > b.at === low ? a : b;

function intersect(a: RealSet, b: RealSet): RealSet {
  const parts: Interval[] = [];
  for (const x of a)
    for (const y of b) {
      const low = inner(x.low, y.low, true);
      const high = inner(x.high, y.high, false);
      if (level(low.at, high.at) ? low.closed && high.closed : low.at < high.at) parts.push({ low, high });
    }
  return merge(parts);
}

function complement(a: RealSet): RealSet {
  const flip = (side: End): End => ({ ...side, closed: !side.closed && Number.isFinite(side.at) });
  const parts: Interval[] = [];
  let low = LOWEST;
  for (const interval of a) {
    const high = flip(interval.low);
    if (level(low.at, high.at) ? low.closed && high.closed : low.at < high.at) parts.push({ low, high });
    low = flip(interval.high);
  }
  if (low.at < Infinity) parts.push({ low, high: HIGHEST });
  return parts;
}

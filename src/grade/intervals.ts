import type { Budget } from "./budget.ts";
import { Canonical } from "./canonical.ts";
import { fraction, type Node, number, product, type Relation, reciprocal, symbols, sum } from "./node.ts";
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

/** A chain such as 2 < x <= 5 in one variable, each link linear. */
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

/** Where left - right = a x + b stands in a relation to 0. */
function solve(left: Node, operator: Relation, right: Node, name: string, budget: Budget): RealSet | undefined {
  const canonical = new Canonical(new Ring(budget), "ten");
  const { n, d } = canonical.of(sum([left, product([number(-1), right])]));
  if (d.size !== 1) return undefined;
  const variable: Node = { kind: "symbol", name };
  const [one] = canonical.of(variable).n.values();
  const atom = one.m[0][0];
  const slope: Node[] = [];
  for (const { m } of n.values())
    for (const [number_, e] of m) if (number_ === atom && (e.n !== 1 || e.d !== 1 || m.length > 1)) return undefined;
  for (const { c, m } of n.values()) if (m.length === 1 && m[0][0] === atom) slope.push(fraction(c));
  if (slope.length !== 1) return undefined;
  const a = slope[0];
  const at = solution(left, right, variable, a);
  const node = simplified(left, right, variable) ?? at;
  const x = realValue(node, budget);
  const positive = a.kind === "number" && a.value.n > 0n;
  if (x === undefined || !Number.isFinite(x)) return undefined;
  const open: End = { at: x, node, closed: false };
  const closed: End = { at: x, node, closed: true };
  const below = (high: End): RealSet => [{ low: LOWEST, high }];
  const above = (low: End): RealSet => [{ low, high: HIGHEST }];
  switch (operator) {
    case "<":
      return positive ? below(open) : above(open);
    case "<=":
      return positive ? below(closed) : above(closed);
    case ">":
      return positive ? above(open) : below(open);
    case ">=":
      return positive ? above(closed) : below(closed);
    case "=":
      return [{ low: closed, high: closed }];
    case "!=":
      return [
        { low: LOWEST, high: open },
        { low: open, high: HIGHEST },
      ];
    default:
      return undefined;
  }
}

/** The other side, where one side is the variable alone. */
function simplified(left: Node, right: Node, variable: Node): Node | undefined {
  const alone = (node: Node): boolean =>
    node.kind === "symbol" && variable.kind === "symbol" && node.name === variable.name;
  return alone(left) ? right : alone(right) ? left : undefined;
}

/** x = -(left - right at x = 0) / a */
function solution(left: Node, right: Node, variable: Node, a: Node): Node {
  const at0 = (node: Node): Node => substitute(node, variable);
  return product([number(-1), sum([at0(left), product([number(-1), at0(right)])]), reciprocal(a)]);
}

function substitute(node: Node, variable: Node): Node {
  if (node.kind === "symbol") return variable.kind === "symbol" && node.name === variable.name ? number(0) : node;
  if (node.kind === "sum") return sum(node.terms.map((term) => substitute(term, variable)));
  if (node.kind === "product") return product(node.factors.map((factor) => substitute(factor, variable)));
  if (node.kind === "power")
    return { ...node, base: substitute(node.base, variable), exponent: substitute(node.exponent, variable) };
  return node;
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

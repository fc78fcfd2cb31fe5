import type { Budget } from "./budget.ts";
import { type Node, product, type RelationNode, some, sum, symbols } from "./node.ts";
import { realValue } from "./sample.ts";

// What an answer says is brought into few shapes before two are compared.

/** Signs of "±" beyond this in one expression are not multiplied out. */
const MAX_SIGNS = 4;

/** The variants of a node in which each ± is + or -; with a ∓ in it all signs change together. */
function variants(node: Node): readonly Node[] {
  let plus = 0;
  let minus = 0;
  some(node, (part) => {
    if (part.kind === "either" && part.sign === 1) plus++;
    else if (part.kind === "either") minus++;
    return false;
  });
  if (plus + minus === 0 || plus + minus > MAX_SIGNS) return [node];
  const together = minus > 0;
  const count = together ? 1 : plus;
  return Array.from({ length: 2 ** count }, (_, choice) => {
    let seen = 0;
    const choose = (sign: 1 | -1): 1 | -1 => {
      const bit = together ? choice & 1 : (choice >> seen++) & 1;
      return bit === 0 ? sign : sign === 1 ? -1 : 1;
    };
    return replace(node, choose);
  });
}

function replace(node: Node, choose: (sign: 1 | -1) => 1 | -1): Node {
  const inside = (part: Node): Node => replace(part, choose);
  switch (node.kind) {
    case "either":
      return choose(node.sign) === 1
        ? inside(node.node)
        : product([{ kind: "number", value: { n: -1n, d: 1n } }, inside(node.node)]);
    case "sum":
      return sum(node.terms.map(inside));
    case "product":
      return product(node.factors.map(inside));
    case "power":
      return { ...node, base: inside(node.base), exponent: inside(node.exponent) };
    case "call":
      return { ...node, args: node.args.map(inside) };
    case "quantity":
      return { ...node, value: inside(node.value) };
    case "group":
      return { ...node, items: node.items.map(inside) };
    case "relation":
      return { ...node, operands: node.operands.map(inside) };
    case "matrix":
      return { ...node, rows: node.rows.map((row) => row.map(inside)) };
    default:
      return node;
  }
}

/** Signs chosen, lists in lists flat, assignments of one variable to several values a set of values, scalars moved into matrices. */
export function settle(node: Node, budget: Budget): Node {
  const spread = (item: Node): readonly Node[] => spreadOut(item, budget);
  switch (node.kind) {
    case "set":
      return { kind: "set", items: node.items.flatMap(spread) };
    case "list":
      return solutions({ kind: "list", items: withoutDomains(node.items).flatMap(spread), joined: node.joined });
    case "union":
    case "intersection":
    case "difference":
      return { kind: node.kind, parts: node.parts.map((part) => settle(part, budget)) };
    case "group":
      // [[1, 2], [3, 4]] is a matrix.
      if (
        node.items.length > 0 &&
        node.open === "[" &&
        node.items.every((item) => item.kind === "group" && item.open === "[")
      )
        return { kind: "matrix", rows: node.items.map((item) => (item.kind === "group" ? item.items : [])) };
      break;
    case "relation":
      return settleRelation(node, budget);
    case "sum":
    case "product": {
      const matrix = matrixOf(node, budget);
      if (matrix !== undefined) return matrix;
      break;
    }
  }
  const items = variants(node);
  if (items.length > 1) return solutions({ kind: "list", items, joined: "or" });
  return node;
}

/** Signs chosen, and "= exact value ≈ decimal" without its decimal. */
function settleRelation(node: RelationNode, budget: Budget): Node {
  const items = variants(node);
  if (items.length > 1)
    return solutions({ kind: "list", items: items.flatMap((item) => spreadOut(item, budget)), joined: "or" });
  const [before, after] = node.operands.slice(-2);
  if (node.operators.at(-1) !== "approx" || before.kind === "symbol" || !isNear(before, after, budget)) return node;
  if (node.operators.length === 1) return nameOf(before) === undefined ? before : node;
  return { kind: "relation", operands: node.operands.slice(0, -1), operators: node.operators.slice(0, -1) };
}

/** "π ≈ 3" may be said, "3 ≈ 4" names two values. Values that are not known are taken for near. */
function isNear(exact: Node, rounded: Node, budget: Budget): boolean {
  const [a, b] = [realValue(exact, budget), realValue(rounded, budget)];
  return a === undefined || b === undefined || Math.abs(a - b) <= 0.06 * Math.max(Math.abs(a), Math.abs(b));
}

function spreadOut(item: Node, budget: Budget): readonly Node[] {
  const settled = settle(item, budget);
  return settled.kind === "list" ? settled.items : [settled];
}

/** Items without those that only say that a parameter of another item is whole: "k\\pi, k \\in Z". */
function withoutDomains(items: readonly Node[]): readonly Node[] {
  const isDomain = (item: Node): boolean =>
    item.kind === "relation" &&
    item.operators.length === 1 &&
    item.operators[0] === "in" &&
    item.operands[0].kind === "symbol" &&
    item.operands[1].kind === "symbol" &&
    /^(mathbb|Bbb) Z$/.test(item.operands[1].name);
  const last = items[items.length - 1];
  if (items.length < 2 || last.kind !== "relation" || !isDomain(last)) return items;
  const [parameter] = symbols(last.operands[0]);
  return items.slice(0, -1).every((item) => symbols(item).has(parameter)) ? items.slice(0, -1) : items;
}

/** `x = 1, x = 2` (of one variable) as the list 1, 2. */
function solutions(list: Node & { kind: "list" }): Node {
  // "5 hours and 30 minutes" is one quantity.
  const units = list.items.map((item) => (item.kind === "quantity" ? item.unit : undefined));
  if (
    list.joined === "and" &&
    units.every((unit) => unit?.dimension !== undefined && unit.dimension === units[0]?.dimension)
  )
    if (new Set(units.map((unit) => unit?.name)).size === units.length) return sum(list.items);
  const assigned = list.items.map(assignment);
  const name = assigned[0]?.name;
  if (name === undefined) return list;
  // "x = 1, 2" and "x = 1 or 2" name the variable once.
  const rest = list.items.slice(1);
  if (rest.every((item) => item.kind !== "relation"))
    return { ...list, items: [assigned[0]?.value ?? list.items[0], ...rest] };
  if (!assigned.every((one) => one?.name === name)) return list;
  return { ...list, items: assigned.flatMap((one) => (one === undefined ? [] : [one.value])) };
}

export interface Assignment {
  /** What is assigned, printed: `x`, `f(x)`. */
  name: string;
  /** A variable; otherwise an application or a name of several letters. */
  plain: boolean;
  value: Node;
}

/** `x = 5`, `f(x) = 2x`, `x = 10/2 = 5`, `x \in S`: what the name on the left is. The value must not contain the name. */
export function assignment(node: Node): Assignment | undefined {
  if (node.kind !== "relation") return undefined;
  const { operands, operators } = node;
  const [left] = operands;
  const value = operands.at(-1);
  if (value === undefined) return undefined;
  const memberships = operators.length === 1 && operators[0] === "in";
  if (!memberships && !operators.every((operator) => operator === "=" || operator === "approx")) return undefined;
  if (operands.slice(1, -1).some((middle) => middle.kind === "symbol")) return undefined;
  const name = nameOf(left);
  if (name === undefined) return undefined;
  if (left.kind === "symbol" && some(value, (part) => part.kind === "symbol" && part.name === left.name))
    return undefined;
  return { name, plain: left.kind === "symbol", value };
}

/** The components that a list gives: values in their order, but `y = 1, x = 2`, of letters that follow each other in the alphabet, in its order. */
export function components(items: readonly Node[]): Node[] {
  const assigned = items.flatMap((item) => assignment(item) ?? []);
  const letters = assigned.map(({ name }) => name).sort();
  const inRow =
    assigned.length === items.length &&
    letters.every((name, i) => /^[A-Za-z]$/.test(name) && name.charCodeAt(0) === letters[0].charCodeAt(0) + i);
  if (inRow) return letters.flatMap((name) => assigned.find((one) => one.name === name)?.value ?? []);
  return items.map((item) => assignment(item)?.value ?? item);
}

/** Whether an equation says what its variable is: `x = 2`, or the normal form `x - 2 = 0`. */
export function isSolved({ operands, operators }: RelationNode): boolean {
  if (operators.some((operator) => operator !== "=")) return true;
  const [left, right] = operands;
  if (operands.some(({ kind }) => kind === "symbol") || operands.length > 2) return true;
  const zero = (node: Node): boolean => node.kind === "number" && node.value.n === 0n;
  const side = zero(right) ? left : zero(left) ? right : undefined;
  return (
    side?.kind === "sum" &&
    side.terms.length === 2 &&
    side.terms.some(({ kind }) => kind === "symbol") &&
    side.terms.some((term) => symbols(term).size === 0)
  );
}

/** Text of a left side that is a name: a variable, f(x), a product of capital letters such as AB, |AB|, an angle. */
function nameOf(node: Node): string | undefined {
  if (node.kind === "symbol") return node.name;
  if (node.kind === "matrix" && node.rows.flat().every((entry) => entry.kind === "symbol")) return "a vector of names";
  if (node.kind === "call" && node.name.endsWith("()")) return `${node.name}${node.args.length}`;
  if (node.kind === "group" && node.items.every((item) => item.kind === "symbol"))
    return `(${node.items.map((item) => (item.kind === "symbol" ? item.name : "")).join(",")})`;
  if (node.kind === "call" && node.name === "abs") return nameOf(node.args[0]);
  if (node.kind !== "product") return undefined;
  const [first, second] = node.factors;
  // f^{-1}(x)
  if (node.factors.length === 2 && first.kind === "power" && first.base.kind === "symbol" && second.kind === "symbol")
    return /^[fgh]$/.test(first.base.name) && first.exponent.kind === "number" ? `${first.base.name}^-1` : undefined;
  const names = node.factors.map((factor) => (factor.kind === "symbol" ? factor.name : ""));
  const label = names.some((name) => name === "angle")
    ? /^(m|angle|[A-Z](_.*)?)$/
    : /^([A-Z](_.*)?|triangle|overline.*|Delta)$/;
  if (names.every((name) => label.test(name))) return names.join("");
  return undefined;
}

/** A product of a scalar and one matrix, or a sum of matrices of one shape, as one matrix. */
function matrixOf(node: Node, budget: Budget): Node | undefined {
  if (node.kind === "product") {
    const matrices = node.factors.filter((factor) => factor.kind === "matrix");
    const [matrix] = matrices;
    if (matrices.length !== 1 || matrix.kind !== "matrix") return undefined;
    const scalars = node.factors.filter((factor) => factor !== matrix);
    return { kind: "matrix", rows: matrix.rows.map((row) => row.map((entry) => product([...scalars, entry]))) };
  }
  if (node.kind === "sum") {
    const terms = node.terms.map((term) => settle(term, budget));
    const [first] = terms;
    if (first.kind !== "matrix") return undefined;
    for (const term of terms) {
      if (term.kind !== "matrix" || term.rows.length !== first.rows.length) return undefined;
      if (term.rows.some((row, r) => row.length !== first.rows[r].length)) return undefined;
    }
    const at = (term: Node, r: number, c: number): Node[] => (term.kind === "matrix" ? [term.rows[r][c]] : []);
    return {
      kind: "matrix",
      rows: first.rows.map((row, r) => row.map((_, c) => sum(terms.flatMap((term) => at(term, r, c))))),
    };
  }
  return undefined;
}

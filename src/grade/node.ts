import { type Rational, whole } from "./rational.ts";

/** What an answer was read as: an expression, or a structure of expressions. */
export type Node =
  | NumberNode
  | { readonly kind: "symbol"; readonly name: string }
  | { readonly kind: "constant"; readonly name: "pi" | "e" | "i" | "infinity" }
  | { readonly kind: "sum"; readonly terms: readonly Node[] }
  | { readonly kind: "product"; readonly factors: readonly Node[] }
  | { readonly kind: "power"; readonly base: Node; readonly exponent: Node }
  /** A named function of its arguments: `sin`, `ln`, `abs`, `factorial`, `binomial`, `f`. */
  | { readonly kind: "call"; readonly name: string; readonly args: readonly Node[] }
  /** Either sign: `±` (1) or `∓` (-1) before a term. */
  | { readonly kind: "either"; readonly sign: 1 | -1; readonly node: Node }
  | QuantityNode
  | GroupNode
  /** In braces, without order. */
  | { readonly kind: "set"; readonly items: readonly Node[] }
  /** Separated by commas or words and in no brackets: several solutions. `joined` by "and" where every separator says so. */
  | { readonly kind: "list"; readonly items: readonly Node[]; readonly joined?: "and" | "or" }
  /** {x : condition} */
  | { readonly kind: "builder"; readonly variable: Node; readonly condition: Node }
  | { readonly kind: "union" | "intersection" | "difference"; readonly parts: readonly Node[] }
  | RelationNode
  | MatrixNode
  /** a : b : c */
  | { readonly kind: "ratio"; readonly items: readonly Node[] }
  | { readonly kind: "time"; readonly minutes: number; readonly seconds?: number; readonly half?: "am" | "pm" }
  | { readonly kind: "date"; readonly day?: number; readonly month: number; readonly year?: number }
  /** Words. `unread` says why it was not read as mathematics, where it looks like that. */
  | { readonly kind: "text"; readonly text: string; readonly unread?: string };

export interface NumberNode {
  readonly kind: "number";
  readonly value: Rational;
  /** Digits behind the decimal point as written; absent for whole numbers and repeating decimals. */
  readonly places?: number;
  /** Significant digits as written, where `places` is given. */
  readonly significant?: number;
}

/** A value with a unit; `unit` as units.ts reads it. */
export interface QuantityNode {
  readonly kind: "quantity";
  readonly value: Node;
  readonly unit: Unit;
}

/** A unit: a known dimension with its factor to that dimension's base, or a noun. */
export interface Unit {
  /** Canonical name, such as `cm^2` or `apple`. */
  readonly name: string;
  /** Product of base units, such as `m^2`; absent for nouns, whose values cannot be converted. */
  readonly dimension?: string;
  /** This unit in base units. */
  readonly factor?: Rational;
}

/** A tuple, point or interval: two brackets with items between, in order. */
export interface GroupNode {
  readonly kind: "group";
  readonly open: "(" | "[" | "<";
  readonly close: ")" | "]" | ">";
  readonly items: readonly Node[];
}

export type Relation =
  "=" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "approx" | "divides" | "congruent" | "to" | "other";

/** A chain: operands[0] operators[0] operands[1] ... */
export interface RelationNode {
  readonly kind: "relation";
  readonly operands: readonly Node[];
  readonly operators: readonly Relation[];
}

export interface MatrixNode {
  readonly kind: "matrix";
  readonly rows: readonly (readonly Node[])[];
}

export const number = (value: number | bigint): NumberNode => ({ kind: "number", value: whole(value) });
export const fraction = (value: Rational): NumberNode => ({ kind: "number", value });
export const symbol = (name: string): Node => ({ kind: "symbol", name });
export const call = (name: string, ...args: Node[]): Node => ({ kind: "call", name, args });
export const power = (base: Node, exponent: Node): Node => ({ kind: "power", base, exponent });
export const PI: Node = { kind: "constant", name: "pi" };

/** The sum, flat; a single term is itself. */
export function sum(terms: readonly Node[]): Node {
  return terms.length === 1 ? terms[0] : { kind: "sum", terms };
}

/** The product, flat; a single factor is itself. */
export function product(factors: readonly Node[]): Node {
  if (factors.length === 1) return factors[0];
  if (!factors.some((factor) => factor.kind === "product")) return { kind: "product", factors };
  return {
    kind: "product",
    factors: factors.flatMap((factor) => (factor.kind === "product" ? factor.factors : [factor])),
  };
}

/** -node; the sign of a literal is part of it. */
export function negative(node: Node): Node {
  if (node.kind === "number") return { ...node, value: { n: -node.value.n, d: node.value.d } };
  return product([number(-1), node]);
}

export const reciprocal = (node: Node): Node => power(node, number(-1));

/** The nodes directly inside. */
export function children(node: Node): readonly Node[] {
  switch (node.kind) {
    case "sum":
      return node.terms;
    case "product":
      return node.factors;
    case "power":
      return [node.base, node.exponent];
    case "call":
      return node.args;
    case "either":
      return [node.node];
    case "quantity":
      return [node.value];
    case "group":
    case "set":
    case "list":
    case "ratio":
      return node.items;
    case "builder":
      return [node.variable, node.condition];
    case "union":
    case "intersection":
    case "difference":
      return node.parts;
    case "relation":
      return node.operands;
    case "matrix":
      return node.rows.flat();
    default:
      return [];
  }
}

/** Whether a node or one inside it passes a test. */
export function some(node: Node, test: (node: Node) => boolean): boolean {
  return test(node) || children(node).some((child) => some(child, test));
}

/** The names of the symbols in a node. */
export function symbols(node: Node, into = new Set<string>()): Set<string> {
  if (node.kind === "symbol") into.add(node.name);
  for (const child of children(node)) symbols(child, into);
  return into;
}

/** Whether a node is an expression with a value, rather than a structure or words. */
export function isValue(node: Node): boolean {
  switch (node.kind) {
    case "number":
    case "symbol":
    case "constant":
      return true;
    case "sum":
    case "product":
    case "power":
    case "call":
    case "quantity":
      return children(node).every(isValue);
    default:
      return false;
  }
}

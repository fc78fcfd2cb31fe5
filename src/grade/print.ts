import type { Node } from "./node.ts";
import { print as printRational } from "./rational.ts";

/** A node as text, fully bracketed where it matters: what `--explain` shows. */
export function printNode(node: Node): string {
  const list = (items: readonly Node[]): string => items.map(printNode).join(", ");
  switch (node.kind) {
    case "number":
      return printRational(node.value);
    case "symbol":
    case "constant":
      return node.name;
    case "sum":
      return node.terms.map(printNode).join(" + ");
    case "product":
      return node.factors.map(inProduct).join("*");
    case "power":
      return `${inProduct(node.base)}^${inProduct(node.exponent)}`;
    case "call":
      return `${node.name.replace("()", "")}(${list(node.args)})`;
    case "either":
      return `${node.sign === 1 ? "±" : "∓"}${inProduct(node.node)}`;
    case "quantity":
      return `${inProduct(node.value)} [${node.unit.name}]`;
    case "group":
      return `${node.open}${list(node.items)}${node.close}`;
    case "set":
      return `{${list(node.items)}}`;
    case "list":
      return node.items.map(printNode).join(node.joined === undefined ? ", " : ` ${node.joined} `);
    case "builder":
      return `{${printNode(node.variable)} | ${printNode(node.condition)}}`;
    case "union":
    case "intersection":
    case "difference":
      return node.parts.map(printNode).join(` ${node.kind} `);
    case "relation":
      return node.operands
        .map((operand, i) => (i === 0 ? printNode(operand) : `${node.operators[i - 1]} ${printNode(operand)}`))
        .join(" ");
    case "matrix":
      return `[${node.rows.map((row) => `[${list(row)}]`).join(", ")}]`;
    case "ratio":
      return node.items.map(printNode).join(" : ");
    case "time":
      return `${Math.floor(node.minutes / 60)}:${String(node.minutes % 60).padStart(2, "0")}${node.half === undefined ? "" : ` ${node.half}`}`;
    case "date":
      return [node.year, node.month, node.day].filter((part) => part !== undefined).join("-");
    case "text":
      return JSON.stringify(node.text);
  }
}

const inProduct = (node: Node): string =>
  node.kind === "sum" ||
  node.kind === "product" ||
  (node.kind === "number" && (node.value.d !== 1n || node.value.n < 0n))
    ? `(${printNode(node)})`
    : printNode(node);

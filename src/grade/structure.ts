import { SCALE_WORDS } from "./names.ts";
import { call, type Node, number, product, type QuantityNode, reciprocal, type Relation } from "./node.ts";
import type { Reader } from "./reader.ts";
import { readUnit } from "./units.ts";

// Lists, relations, unions: what stands above a sum.

const RELATIONS: ReadonlyMap<string, Relation> = new Map([
  ["=", "="],
  ["!=", "!="],
  ["<", "<"],
  ["<=", "<="],
  [">", ">"],
  [">=", ">="],
  ["∈", "in"],
  ["≈", "approx"],
  ["mid", "divides"],
  ["≡", "congruent"],
  ["→", "to"],
  ["⇒", "other"],
  ["⇔", "other"],
]);

/** Items separated by commas, semicolons, "and", "or"; a single item is itself. */
export function parseList(reader: Reader): Node {
  const items = [reader.grammar.item(reader)];
  const words = new Set<string>();
  for (;;) {
    let separator = reader.take(",", ";", "and", "or", "\\\\")?.text ?? conjunction(reader);
    if (separator === undefined) break;
    const more = reader.take("and", "or")?.text ?? conjunction(reader);
    if (more !== undefined) separator = more;
    // A comma at the very end says nothing.
    if (reader.done && items.length > 0) break;
    words.add(separator === "and" || separator === "or" ? separator : ",");
    items.push(reader.grammar.item(reader));
  }
  if (items.length === 1) return items[0];
  // "1, 2, and 3": the word before the last item speaks for all.
  const joined = words.has("or") ? "or" : words.has("and") ? "and" : undefined;
  return { kind: "list", items, joined: joined === "and" && words.has(",") ? undefined : joined };
}

function conjunction(reader: Reader): string | undefined {
  const token = reader.peek();
  if (token.kind !== "word") return undefined;
  if (token.text === "and" || token.text === "or" || token.text === "but") {
    reader.next();
    return token.text === "but" ? "and" : token.text;
  }
  return undefined;
}

/** A chain of relations between sets or sums; without a relation, that one operand. */
export function parseItem(reader: Reader): Node {
  // "= 5" and "≈ 5": what stands before is the question's.
  reader.take("=", "≈");
  const operands = [parseUnion(reader)];
  if (reader.isCommand("over") || reader.isCommand("choose")) {
    const { text } = reader.next();
    const lower = parseUnion(reader);
    return text === "over" ? product([operands[0], reciprocal(lower)]) : call("binomial", operands[0], lower);
  }
  const operators: Relation[] = [];
  for (;;) {
    const token = reader.peek();
    let relation = token.kind === "mark" ? RELATIONS.get(token.text) : undefined;
    if (token.text === "|" && reader.unpairedBar && !reader.inBraces) relation = "divides";
    if (relation === undefined) break;
    reader.next();
    if (relation === "=" && reader.take("<", ">")) relation = token.text === "<" ? "<=" : ">=";
    operators.push(relation);
    operands.push(parseUnion(reader));
  }
  if (operators.includes("congruent")) takeModulus(reader, operands);
  return operators.length === 0 ? operands[0] : { kind: "relation", operands, operators };
}

/** `\pmod{n}` or `(mod n)` behind a congruence, as one more operand. */
function takeModulus(reader: Reader, operands: Node[]): void {
  if (reader.isCommand("pmod") || reader.isCommand("mod")) {
    reader.next();
    operands.push(reader.grammar.primary(reader));
  } else if (reader.isMark("(") && reader.peek(1).text.endsWith("mod")) {
    reader.next();
    reader.next();
    operands.push(reader.grammar.sum(reader));
    reader.expect(")");
  }
}

/** Sums joined by set operators, or a ratio a : b : c. */
function parseUnion(reader: Reader): Node {
  const first = parseQuantity(reader);
  const colon = (): boolean =>
    (reader.isMark(":") && !reader.inBraces) || (reader.peek().kind === "word" && reader.peek().text === "to");
  if (colon()) {
    const items = [first];
    while (colon()) {
      reader.next();
      items.push(parseQuantity(reader));
    }
    return { kind: "ratio", items };
  }
  const parts = [first];
  let kind: "union" | "intersection" | "difference" | undefined;
  for (;;) {
    const token = reader.peek();
    const word = token.kind === "word" ? token.text : token.kind === "mark" ? token.text : "";
    const found =
      word === "∪" || word === "union" || word === "U"
        ? "union"
        : word === "∩"
          ? "intersection"
          : word === "∖"
            ? "difference"
            : undefined;
    if (found === undefined || (kind !== undefined && found !== kind)) break;
    kind = found;
    reader.next();
    parts.push(parseQuantity(reader));
  }
  return kind === undefined ? first : { kind, parts };
}

/** A sum with the unit behind it, if there is one. */
function parseQuantity(reader: Reader): Node {
  if (reader.isCommand("emptyset") || reader.isCommand("varnothing")) {
    reader.next();
    return { kind: "set", items: [] };
  }
  const plain = reader.grammar.sum(reader);
  const scale = reader.peek().kind === "word" ? SCALE_WORDS.get(reader.peek().text.toLowerCase()) : undefined;
  if (scale !== undefined) reader.next();
  const value = scale === undefined ? plain : product([plain, number(scale)]);
  const unit = readUnit(reader);
  if (unit !== undefined) {
    const first: QuantityNode = { kind: "quantity", value, unit };
    return reader.peek().kind === "number" ? compound(reader, first) : first;
  }
  if (reader.inBraces && reader.isMark("|", ":", "mid")) {
    reader.next();
    return { kind: "builder", variable: value, condition: reader.grammar.list(reader) };
  }
  return value;
}

/** `5 feet 6 inches`: a number with another unit of the same dimension right behind adds to the first. */
function compound(reader: Reader, first: QuantityNode): Node {
  const start = reader.mark;
  const value = reader.grammar.primary(reader);
  const unit = readUnit(reader);
  if (unit?.dimension !== undefined && unit.dimension === first.unit.dimension && unit.name !== first.unit.name)
    return { kind: "sum", terms: [first, { kind: "quantity", value, unit }] };
  reader.back(start);
  return first;
}

/** What stands between two brackets: a group, or the expression itself in plain parentheses. */
export function parseBrackets(reader: Reader): Node {
  const opening = reader.next().text;
  const open = opening === "⟨" ? "<" : opening === "[" || opening === "(" ? opening : "[";
  return reader.enclosed((): Node => {
    if (opening === "(" && reader.take(")")) return { kind: "group", open: "(", close: ")", items: [] };
    const inside = reader.grammar.list(reader);
    const closing = reader.expect(")", "]", "⟩", "[").text;
    const close = closing === "⟩" ? ">" : closing === ")" ? ")" : "]";
    if (inside.kind === "list" && inside.joined === undefined) {
      // ]a, b[ is the open interval.
      if (opening === "]" || closing === "[")
        return {
          kind: "group",
          open: opening === "]" ? "(" : open,
          close: closing === "[" ? ")" : close,
          items: inside.items,
        };
      return { kind: "group", open, close, items: inside.items };
    }
    if (opening === "[" && closing === "]" && inside.kind === "group") return { kind: "matrix", rows: [inside.items] };
    return inside;
  });
}

/** Braces of a set: `\{1, 2\}`, `\{x \mid x > 2\}`. The opening one is at hand. */
export function parseBraces(reader: Reader): Node {
  const opening = reader.next().text;
  const closing = opening === "{" ? "}" : "\\}";
  return reader.enclosed((): Node => {
    if (reader.take(closing)) return { kind: "set", items: [] };
    const inside = reader.grammar.list(reader);
    if (closing === "\\}" && reader.take("}"))
      return { kind: "set", items: inside.kind === "list" ? inside.items : [inside] };
    reader.expect(closing);
    if (inside.kind === "builder") return inside;
    // {x in R | x > 2}
    if (inside.kind === "relation" && inside.operands.at(-1)?.kind === "builder") {
      const last = inside.operands.at(-1);
      if (last?.kind === "builder") return { kind: "builder", variable: inside.operands[0], condition: last.condition };
    }
    if (opening === "{" && inside.kind !== "list") return inside;
    return { kind: "set", items: inside.kind === "list" ? inside.items : [inside] };
  }, true);
}

/** `\begin{pmatrix} ... \end{pmatrix}`; the command that begins it is at hand. */
export function parseMatrix(reader: Reader): Node {
  const name = reader.next().text.slice("begin:".length);
  return reader.enclosed((): Node => {
    const rows: Node[][] = [];
    let row: Node[] = [];
    const ends = (): boolean => reader.isCommand(`end:${name}`);
    while (!ends()) {
      if (reader.done) reader.fail(`expected \\end{${name}}`);
      if (reader.isCommand("hline")) {
        reader.next();
        continue;
      }
      if (!reader.isMark("&", "\\\\")) row.push(reader.grammar.item(reader));
      if (reader.take("&")) continue;
      if (reader.take("\\\\")) {
        rows.push(row);
        row = [];
      } else if (!ends()) reader.fail("expected & or \\\\");
    }
    reader.next();
    if (row.length > 0) rows.push(row);
    if (name === "vmatrix") return { kind: "call", name: "det", args: [{ kind: "matrix", rows }] };
    if (name === "cases")
      return {
        kind: "list",
        items: rows.map((items): Node =>
          items.length === 1 ? items[0] : { kind: "group", open: "(", close: ")", items },
        ),
      };
    return { kind: "matrix", rows };
  });
}

import { nearest, UserError } from "../errors.ts";

/** Whether a problem with this solve rate (0 to 1) is trained on. */
export type Condition = (solved: number) => boolean;

const OPERATORS: Record<string, (a: number, b: number) => boolean> = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
};

interface Token {
  text: string;
  /** From 1. */
  column: number;
}

/**
 * A condition on the share of a problem's samples that were right: comparisons by `<`, `<=`, `>`, `>=` between `solved` and numbers from 0 to
 * 1, chained or joined by `and`, such as `0.1 < solved < 0.9`. Throws a UserError that names the column, from 1.
 */
export function parseWhere(text: string): Condition {
  const tokens = tokenize(text);
  const end: Token = { text: "", column: text.trimEnd().length + 1 };
  const conditions: Condition[] = [];
  let at = 0;
  const next = () => tokens[at++] ?? end;
  for (let more = true; more;) {
    let left = operand(next(), text);
    let operator = next();
    do {
      const compare = Object.hasOwn(OPERATORS, operator.text) ? OPERATORS[operator.text] : undefined;
      if (compare === undefined) throw mistake(text, operator, `expected <, <=, > or >=${hint(operator)}`);
      const place = next();
      const right = operand(place, text);
      if ((left === "solved") === (right === "solved")) {
        throw mistake(text, place, "expected a comparison between `solved` and a number");
      }
      conditions.push(comparison(left, compare, right));
      left = right;
      operator = next();
    } while (operator.text !== "and" && operator !== end);
    more = operator.text === "and";
  }
  return (solved) => conditions.every((condition) => condition(solved));
}

type Operand = number | "solved";

function comparison(left: Operand, compare: (a: number, b: number) => boolean, right: Operand): Condition {
  const value = (side: Operand, solved: number) => (side === "solved" ? solved : side);
  return (solved) => compare(value(left, solved), value(right, solved));
}

function operand(token: Token, text: string): Operand {
  if (token.text === "solved") return "solved";
  if (/^(\d+\.?\d*|\.\d+)$/.test(token.text)) {
    const value = Number(token.text);
    if (value <= 1) return value;
    throw mistake(text, token, "expected a share from 0 to 1");
  }
  throw mistake(text, token, `expected \`solved\` or a number from 0 to 1${hint(token)}`);
}

/** Blanks separate; signs of comparison in a row are one token, and so are letters, digits and points in a row. */
function tokenize(text: string): Token[] {
  return [...text.matchAll(/[<>=!&|]+|[\p{L}\p{N}_.]+|\S/gu)].map((match) => ({
    text: match[0],
    column: match.index + 1,
  }));
}

const SLIPS: Record<string, string> = { "=<": "<=", "=>": ">=", "&&": "and", "&": "and", AND: "and" };

function hint({ text }: Token): string {
  if (text === "||" || text === "|" || text === "or") return "; alternatives cannot be named";
  if (/^[=!]=*$/.test(text)) return "; a rate is compared with two bounds";
  const near = SLIPS[text] ?? nearest(text, ["solved", "and"]);
  return near === undefined ? "" : ` (did you mean \`${near}\`?)`;
}

function mistake(text: string, { text: found, column }: Token, expected: string): UserError {
  const what = found === "" ? "the end" : `\`${found}\``;
  return new UserError(`${JSON.stringify(text)}, column ${column}: ${expected}, found ${what}`);
}

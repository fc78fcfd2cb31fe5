import { findNumbers } from "./number.ts";

/** What a rule took from a response. */
export interface Extraction {
  /** As the response wrote it. */
  text: string;
  /** The rule's name. */
  rule: string;
}

/** A rule: undefined where its marker does not occur, "" where it does but no answer follows. */
type Rule = (response: string) => string | undefined;

/** After the last `####`, GSM8K's marker: the rest of the line, or of the next line that has something. */
const hashes: Rule = (response) => after(response, "####");

/** What stands in the last `\boxed{...}` whose braces balance. */
const boxed: Rule = (response) => {
  const start = response.lastIndexOf("\\boxed");
  if (start < 0) return undefined;
  const open = start + "\\boxed".length;
  if (response[open] !== "{") return "";
  let depth = 0;
  for (let i = open; i < response.length; i++) {
    if (response[i] === "\\") i++;
    else if (response[i] === "{") depth++;
    else if (response[i] === "}" && --depth === 0) return response.slice(open + 1, i).trim();
  }
  return "";
};

/** After the last answer trigger of ReFT's data, `Therefore, the answer is: 5` or `Therefore, the answer is <5>.` */
const trigger: Rule = (response) => after(response, "Therefore, the answer is")?.replace(/^:/, "").trim();

/** The whole response. */
const whole: Rule = (response) => response.trim();

const rules = { hashes, boxed, trigger, whole } satisfies Record<string, Rule>;

export type RuleName = keyof typeof rules;

/** The order in which answers are looked for when a task does not say otherwise. */
export const DEFAULT_RULES: readonly RuleName[] = ["hashes", "boxed", "trigger", "whole"];

/**
 * The answer by the first rule whose marker occurs in the response. That rule decides: a marker with nothing after it
 * (a response that was cut off) gives undefined, not the next rule's answer.
 */
export function extractText(response: string, order: readonly RuleName[] = DEFAULT_RULES): Extraction | undefined {
  for (const rule of order) {
    const text = rules[rule](response);
    if (text !== undefined) return text === "" ? undefined : { text, rule };
  }
  return undefined;
}

/**
 * The number by the first rule whose marker occurs: after `####` and after the trigger the first number, in a box the only
 * number (of what follows the last `=`), in the whole response the last number (rule "last").
 */
export function extractNumber(response: string, order: readonly RuleName[] = DEFAULT_RULES): Extraction | undefined {
  const found = extractText(response, order);
  if (found === undefined) return undefined;
  if (found.rule === "whole") {
    const last = findNumbers(found.text).at(-1);
    return last === undefined ? undefined : { text: last, rule: "last" };
  }
  const numbers = found.rule === "boxed" ? findNumbers(plainNumbers(found.text)) : findNumbers(found.text);
  if (numbers.length === 0 || (found.rule === "boxed" && numbers.length > 1)) return undefined;
  return { text: numbers[0], rule: found.rule };
}

/** LaTeX's ways of spacing a number taken out: `1{,}000`, `1\,000`, `\$5`. */
function plainNumbers(latex: string): string {
  const right = latex.slice(latex.lastIndexOf("=") + 1);
  return right
    .replaceAll("{,}", ",")
    .replace(/(?<=\d)\\[,!;: ](?=\d{3})/g, ",")
    .replaceAll("\\$", "$")
    .replace(/\\[,!;: ]/g, "");
}

/** The line after the last marker; where nothing follows on the marker's own line, the next line that has something. */
function after(response: string, marker: string): string | undefined {
  const start = response.lastIndexOf(marker);
  if (start < 0) return undefined;
  return response
    .slice(start + marker.length)
    .trimStart()
    .split("\n", 1)[0]
    .trim();
}

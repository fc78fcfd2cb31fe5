import { findNumbers } from "./number.ts";
import { cleanAnswer, type Found, phraseAnswer, sentence } from "./phrase.ts";

/** The names of the ways to find an answer in a response; `auto` tries the others in its documented order. */
export type Strategy = "boxed" | "hashes" | "reft" | "tag" | "phrase" | "last-number" | "letter" | "whole" | "auto";

/** What a strategy took from a response. */
export interface Extraction {
  /** As the response wrote it, without what surrounds an answer (blanks, markdown, a sentence's period). */
  text: string;
  strategy: Exclude<Strategy, "auto">;
}

/** Undefined where the marker does not occur. Each takes time linear in the response. */
type Rule = (response: string) => Found | undefined;

/**
 * What stands in the last `\boxed{...}` or `\fbox{...}`; of nested ones the innermost. Braces balance, escaped ones (`\{`) count for
 * nothing. Boxes joined by a comma, "and" or "or" are one list. `\boxed 5`, which TeX allows, holds the characters up to a blank or `$`, unless they are a word
 * ("mark it by \boxed in the end").
 */
const boxed: Rule = (response) => {
  const start = Math.max(response.lastIndexOf("\\boxed"), response.lastIndexOf("\\fbox"));
  if (start < 0) return undefined;
  const open = boxOpening(response, start);
  if (response[open] !== "{") {
    const token = /^(?:[^\s$\\]|\\(?![)\]]))+/.exec(response.slice(open, open + 100))?.[0] ?? "";
    if (/^[A-Za-z]{2}/.test(token)) return { text: "", start, end: open };
    return { text: cleanAnswer(token), start, end: open + token.length };
  }
  const close = closingBrace(response, open);
  if (close < 0) return { text: "", start, end: lineEnd(response, open) };
  return withJoined(response, { text: response.slice(open + 1, close).trim(), start, end: close + 1 });
};

/** What joins two boxes, read backwards from the second: `}$ and $`, `},`, `} \text{ or } `. */
const JOINT =
  /\}[\s$]{0,9}(?:\\[()][\s]{0,3})?(?:,|,?\s{0,3}(?:\\text\{\s{0,3})?(and|or)(?:\s{0,3}\})?)[\s$]{0,9}(?:\\\(\s{0,3})?$/;
const MAX_JOINED = 20;

/** The last box, with those that are joined to it before it as a list. */
function withJoined(response: string, last: Found): Found {
  const texts = [last.text];
  let { start } = last;
  let word = ",";
  while (last.text !== "" && texts.length < MAX_JOINED) {
    const joint = JOINT.exec(response.slice(Math.max(0, start - 60), start));
    if (joint === null) break;
    const end = start - joint[0].length;
    const before = Math.max(response.lastIndexOf("\\boxed{", end), response.lastIndexOf("\\fbox{", end));
    const open = before < 0 ? -1 : response.indexOf("{", before);
    if (open < 0 || closingBrace(response.slice(0, end + 1), open) !== end) break;
    texts.unshift(response.slice(open + 1, end).trim());
    if (joint[1] === "or") word = " or ";
    start = before;
  }
  const text = new Set(texts).size === 1 ? last.text : texts.join(word === "," ? ", " : word);
  return { text, start, end: last.end };
}

/** After the last `####`, GSM8K's marker: the rest of the line, or of the next line that has something. */
const hashes: Rule = (response) => lineAfter(response, "####");

/** After the last answer trigger of ReFT's data: `Therefore, the answer is: 5` or `Therefore, the answer is <5>.` */
const reft: Rule = (response) => {
  const found = lineAfter(response, "Therefore, the answer is");
  if (found === undefined) return undefined;
  const text = found.text.replace(/^:\s*/, "");
  return { ...found, text: /^<([^<>]*)>/.exec(text)?.[1].trim() ?? text };
};

/** Between the last `<answer>` and its `</answer>`; where a box stands in it, what the box holds. */
const tag: Rule = (response) => {
  const start = response.lastIndexOf("<answer>");
  if (start < 0) return undefined;
  const end = response.indexOf("</answer>", start);
  if (end < 0) return { text: "", start, end: lineEnd(response, start) };
  const inside = response.slice(start + "<answer>".length, end);
  return { text: boxed(inside)?.text || cleanAnswer(inside), start, end: end + "</answer>".length };
};

/**
 * After the last "the answer is", "Answer:" or the like (where there is none, after the last "the solution is", "the result is"): the rest
 * of that sentence, without a reason that follows ("because ..."). A period inside `$...$` or braces ends no sentence.
 */
const phrase: Rule = (response) => {
  const found = phraseAnswer(response);
  if (found === undefined) return undefined;
  return { ...found, text: boxed(found.text)?.text || found.text };
};

/** The last number, as `findNumbers` reads numbers, LaTeX's separators (`10{,}080`, `10,\!080`) included. */
const lastNumber: Rule = (response) => {
  const text = findNumbers(plainNumbers(response)).at(-1);
  return text === undefined ? undefined : { text, start: 0, end: response.length };
};

const LETTER =
  /^[\s*_$([{"']{0,9}(?:\\(?:text|textbf|textit|mathrm|mathbf)\s?\{)?[\s*(]{0,4}(?:([A-J])(?:[*)}\]$"'.:,;]|$|\s(?!\s*[a-z])|(?<![AI])\s)|([a-j])\s?(?:\)|[.}$*]{0,4}\s*$))/;
const OPTION = /\(([A-J])\)|\b(?:[Oo]ption|[Cc]hoice)[\s:*(]{1,4}([A-J])(?!\w)/g;

/**
 * The letter (A to J) of a multiple-choice option, from the first of these that gives one: the last box; the last answer phrase; the last
 * line, where it begins with a letter as options do ("C", "(C)", "C. Paris") and names no second one; the last "(C)" or "option C".
 */
const letter: Rule = (response) => {
  const lines = response.trimEnd();
  const lastLine = lines.slice(lines.lastIndexOf("\n") + 1);
  const candidates = [boxed(response)?.text, phraseAnswer(response)?.text];
  if ((lastLine.match(OPTION) ?? []).length < 2) candidates.push(lastLine);
  for (const candidate of candidates) {
    const found = LETTER.exec(candidate ?? "");
    if (found !== null) return { text: found[1] ?? found[2], start: 0, end: response.length };
  }
  const option = [...response.matchAll(OPTION)].at(-1);
  if (option === undefined) return undefined;
  return { text: option[1] ?? option[2], start: option.index, end: option.index + option[0].length };
};

/** The whole response without surrounding blanks. */
const whole: Rule = (response) => ({ text: response.trim(), start: 0, end: response.length });

const rules = { boxed, hashes, reft, tag, phrase, "last-number": lastNumber, letter, whole };

/** All strategies, for a message that lists them. */
export const STRATEGIES = [...(Object.keys(rules) as (keyof typeof rules)[]), "auto"] satisfies Strategy[];

/** Where a strategy finds an answer, `text` being "" where nothing complete follows its marker; undefined where it has no marker. */
export const locate = (response: string, strategy: Extraction["strategy"]): Found | undefined =>
  rules[strategy](response);

/** The order in which `auto` looks. */
const AUTO = ["tag", "boxed", "hashes", "reft", "phrase", "whole", "last-number"] as const;

/**
 * The answer that a strategy finds, or undefined. Of several strategies the first whose marker occurs decides: a marker with nothing
 * complete after it (`\boxed{12`, `<answer>` without its end, a last line `####`) is a response that was cut off and has no answer.
 *
 * `auto`, the default, is lenient. It looks in the order tag, boxed, hashes, reft, phrase; then takes the whole response where that is no
 * prose (one line of at most two words beside mathematics), else the last number, else again the whole response. It passes over a marker
 * with nothing complete after it, together with what follows that marker, and a `####` that begins a heading ("#### Step 2").
 */
export function extract(response: string, strategy: Strategy | readonly Strategy[] = "auto"): Extraction | undefined {
  for (const name of typeof strategy === "string" ? [strategy] : strategy) {
    if (name === "auto") return automatic(response);
    const found = rules[name](response);
    if (found !== undefined) return found.text === "" ? undefined : { text: found.text, strategy: name };
  }
  return undefined;
}

function automatic(response: string): Extraction | undefined {
  let rest = response;
  for (const strategy of AUTO) {
    if (strategy === "whole" && !isBare(rest)) continue;
    const found = strategy === "boxed" ? completeBox(rest) : rules[strategy](rest);
    if (found === undefined || (strategy === "hashes" && isHeading(rest, found.start))) continue;
    if (found.text !== "") return { text: found.text, strategy };
    rest = rest.slice(0, found.start);
  }
  const text = rest.trim();
  return text === "" ? undefined : { text, strategy: "whole" };
}

/** The number strategies of tasks whose answers are numbers. */
const NUMBER_STRATEGIES: readonly Strategy[] = ["hashes", "boxed", "reft", "last-number"];

/**
 * `extract`, then the number in what it found: of a box the only number (after the last `=`), of the whole response the last number, of
 * anything else the first. Undefined where there is none, or more than one in a box.
 */
export function extractNumber(
  response: string,
  strategy: Strategy | readonly Strategy[] = NUMBER_STRATEGIES,
): Extraction | undefined {
  const found = extract(response, strategy);
  if (found === undefined) return undefined;
  if (found.strategy === "boxed") {
    const numbers = findNumbers(plainNumbers(found.text.slice(found.text.lastIndexOf("=") + 1)));
    return numbers.length === 1 ? { ...found, text: numbers[0] } : undefined;
  }
  const text = findNumbers(found.text).at(found.strategy === "whole" ? -1 : 0);
  return text === undefined ? undefined : { ...found, text };
}

/** LaTeX's ways of spacing a number taken out: `1{,}000`, `1\,000`, `\$5`. */
function plainNumbers(latex: string): string {
  return latex
    .replaceAll("{,}", ",")
    .replace(/(?<=\d)\\[,!;: ](?=\d{3})/g, ",")
    .replaceAll("\\$", "$")
    .replace(/\\[,!;: ]/g, "");
}

/** The line after the last marker; where nothing follows on the marker's own line, the next line that has something. */
function lineAfter(response: string, marker: string): Found | undefined {
  const start = response.lastIndexOf(marker);
  if (start < 0) return undefined;
  const rest = response.slice(start + marker.length).trimStart();
  const line = withoutClosingTag(rest.split("\n", 1)[0]);
  return { text: cleanAnswer(line), start, end: response.length - rest.length + line.length };
}

function lineEnd(text: string, from: number): number {
  const end = text.indexOf("\n", from);
  return end < 0 ? text.length : end;
}

/** A line without a closing tag at its end: `5</output>` states 5. */
function withoutClosingTag(line: string): string {
  const at = line.lastIndexOf("</");
  return at >= 0 && /^<\/[a-z_]{1,30}>\s*$/.test(line.slice(at)) ? line.slice(0, at) : line;
}

/** Where the content of the box command at `start` begins, blanks skipped. */
function boxOpening(response: string, start: number): number {
  let at = start + (response.startsWith("\\fbox", start) ? "\\fbox".length : "\\boxed".length);
  while (/\s/.test(response[at] ?? "")) at++;
  return at;
}

/** The index of the brace that closes the one at `open`, or -1. */
function closingBrace(text: string, open: number): number {
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === "{") depth++;
    else if (text[i] === "}" && --depth === 0) return i;
  }
  return -1;
}

/** The last box that is complete, in one pass over all braces; where no box is, the place of the first one that was begun. */
function completeBox(response: string): Found | undefined {
  const last = boxed(response);
  if (last === undefined || last.text !== "") return last;
  const opened: { at: number; start: number }[] = [];
  let best: Found | undefined;
  let start = -1;
  for (let i = 0; i < response.length; i++) {
    const char = response[i];
    if (char === "\\") {
      start = response.startsWith("\\boxed", i) || response.startsWith("\\fbox", i) ? i : -1;
      i = start < 0 ? i + 1 : boxOpening(response, i) - 1;
    } else {
      if (char === "{") opened.push({ at: i, start });
      else if (char === "}") {
        const open = opened.pop();
        const text = open === undefined || open.start < 0 ? "" : response.slice(open.at + 1, i).trim();
        if (open !== undefined && text !== "" && open.start > (best?.start ?? -1)) {
          best = { text, start: open.start, end: i + 1 };
        }
      }
      start = -1;
    }
  }
  return best ?? { ...last, start: opened.find((open) => open.start >= 0)?.start ?? last.start };
}

/** Whether the `####` at `start` is a heading of a text that goes on: a word right after it, and further lines. */
export function isHeading(response: string, start: number): boolean {
  return /^####[ \t*_]*[A-Za-z]{2,}[^\n]*\n\s*\S/.test(response.slice(start));
}

/** Whether a text is one line and no prose: at most two words beside LaTeX's commands and what stands in `\text{}`. */
function isBare(text: string): boolean {
  const line = text.trim();
  if (line.length > 300 || line.includes("\n") || sentence(line).length < line.length - 1) return false;
  const words = line.replace(/\\(?:text|mbox|mathrm|textbf)\s?\{[^{}]*\}|\\[A-Za-z]+/g, " ").match(/[A-Za-z]{2,}/g);
  return (words?.length ?? 0) <= 2;
}

import type { Token } from "./lexer.ts";
import { CONSTANTS, FRACTION_WORDS, FUNCTIONS, GREEK, NUMBER_WORDS, SCALE_WORDS } from "./names.ts";
import type { Node } from "./node.ts";

// Answers in words: text, times of day, dates.

const MONTHS = "january february march april may june july august september october november december".split(" ");

/** The month of a name or its abbreviation of at least three letters, 1 to 12. */
function monthOf(word: string): number | undefined {
  const lower = word.toLowerCase();
  if (lower.length < 3) return undefined;
  const index = MONTHS.findIndex((month) => month === lower || (lower.length <= 4 && month.startsWith(lower)));
  return index < 0 ? undefined : index + 1;
}

const isMark = (token: Token | undefined, text: string): boolean => token?.kind === "mark" && token.text === text;
const asNumber = (token: Token | undefined, digits: RegExp): number | undefined =>
  token?.kind === "number" && digits.test(token.text) ? Number(token.text) : undefined;

/** `6:30 p.m.`, `18:05`, `7 am`: minutes since midnight as far as they are said. */
export function readTime(tokens: readonly Token[]): Node | undefined {
  const hour = asNumber(tokens[0], /^\d{1,2}$/);
  if (hour === undefined || hour > 24) return undefined;
  let at = 1;
  let minute = 0;
  let seconds: number | undefined;
  const clock = isMark(tokens[1], ":");
  if (clock) {
    const read = asNumber(tokens[2], /^[0-5]\d$/);
    if (read === undefined) return undefined;
    minute = read;
    at = 3;
    if (isMark(tokens[3], ":")) {
      seconds = asNumber(tokens[4], /^[0-5]\d$/);
      if (seconds === undefined) return undefined;
      at = 5;
    }
  }
  const rest = tokens
    .slice(at)
    .map(({ text }) => text)
    .join("")
    .toLowerCase()
    .replaceAll(".", "");
  const half = rest === "am" || rest === "pm" ? rest : undefined;
  if (rest !== "" && half === undefined && rest !== "o'clock" && rest !== "oclock") return undefined;
  if (!clock && rest === "") return undefined;
  if (half !== undefined && (hour < 1 || hour > 12)) return undefined;
  const base = half === undefined ? hour : (hour % 12) + (half === "pm" ? 12 : 0);
  return { kind: "time", minutes: base * 60 + minute, seconds, half };
}

/** `1957-12-22`, `12/22/1957` (month first where that can be). */
function readNumericDate(tokens: readonly Token[]): Node | undefined {
  const [first, , second, , third] = tokens;
  const sign = tokens[1]?.text;
  if (tokens.length !== 5 || tokens[3].text !== sign || (sign !== "-" && sign !== "/")) return undefined;
  const year = asNumber(sign === "-" ? first : third, /^\d{4}$/);
  const a = asNumber(sign === "-" ? second : first, sign === "-" ? /^\d\d$/ : /^\d{1,2}$/);
  const b = asNumber(sign === "-" ? third : second, sign === "-" ? /^\d\d$/ : /^\d{1,2}$/);
  if (year === undefined || a === undefined || b === undefined) return undefined;
  const [month, day] = a > 12 && sign === "/" ? [b, a] : [a, b];
  return month >= 1 && month <= 12 && day >= 1 && day <= 31 ? { kind: "date", day, month, year } : undefined;
}

/** `May 5, 2020`, `5 May`, `the 5th of May`, `1957-12-22`. A month alone is a word. */
export function readDate(tokens: readonly Token[]): Node | undefined {
  if (tokens.length > 8) return undefined;
  const numeric = readNumericDate(tokens);
  if (numeric !== undefined) return numeric;
  let month: number | undefined;
  let day: number | undefined;
  let year: number | undefined;
  for (const token of tokens) {
    if (token.kind === "word") {
      const found = monthOf(token.text);
      if (found !== undefined && month === undefined) month = found;
      else if (!/^(the|of|st|nd|rd|th|s|t|n|d|r|h)$/.test(token.text)) return undefined;
    } else if (token.kind === "number") {
      if (/^\d{1,2}$/.test(token.text) && day === undefined && Number(token.text) >= 1 && Number(token.text) <= 31)
        day = Number(token.text);
      else if (/^\d{4}$/.test(token.text) && year === undefined) year = Number(token.text);
      else return undefined;
    } else if (token.text !== "," && token.text !== ".") return undefined;
  }
  if (month === undefined || (day === undefined && year === undefined)) return undefined;
  return { kind: "date", day, month, year };
}

const PUNCTUATION = new Set([",", ".", "'", "-", "(", ")", '"', ";", ":", "?", "and", "or"]);

/** Whether tokens are words only, at least one of which is no mathematics: "east", "no solution". */
export function isText(tokens: readonly Token[]): boolean {
  let words = false;
  for (const { kind, text } of tokens) {
    if (kind === "word") {
      const known =
        FUNCTIONS.has(text) ||
        CONSTANTS.has(text) ||
        GREEK.has(text) ||
        NUMBER_WORDS.has(text.toLowerCase()) ||
        FRACTION_WORDS.has(text.toLowerCase()) ||
        SCALE_WORDS.has(text.toLowerCase());
      if (!known && text.length > 1 && text !== "and" && text !== "or") words = true;
    } else if (kind !== "mark" || !PUNCTUATION.has(text)) return false;
  }
  return words;
}

/** A text for comparison: words, digits and signs in lower case, single spaces, without articles and punctuation. */
export function textOf(tokens: readonly Token[]): string {
  let text = "";
  for (const token of tokens) {
    const part = token.text.toLowerCase();
    if (
      /^([.,;:!?"'`*{}()-]|\\\\|the|an?)$/.test(part) &&
      (token.kind !== "word" || part.length > 1 || token.quoted || tokens.length > 1)
    ) {
      text += " ";
      continue;
    }
    text += token.spaced ? ` ${part}` : part;
  }
  return text.replace(/\s+/g, " ").trim();
}

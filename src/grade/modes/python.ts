// Python's text primitives where JavaScript's differ: a verdict that is to be the reference's own depends on them.

/** What `float` passes over. */
const BLANKS = "\\t-\\r\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const BLANK = new RegExp(`[${BLANKS}]`);
/** What `str.strip` takes off: U+001C to U+001F as well. U+FEFF, which JavaScript's `trim` takes off, is not among them. */
const WHITE = new RegExp(`[${BLANKS}\\x1c-\\x1f]`);

/** `str.strip()`. */
export const strip = (text: string): string => without(WHITE, text);

function without(white: RegExp, text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && white.test(text[start])) start++;
  while (end > start && white.test(text[end - 1])) end--;
  return text.slice(start, end);
}

/** Digits with underscores between them, as PEP 515 allows. */
const DIGITS = "\\d+(?:_\\d+)*";
const FLOAT = new RegExp(
  `^[+-]?(?:(?:${DIGITS}(?:\\.(?:${DIGITS})?)?|\\.${DIGITS})(?:e[+-]?${DIGITS})?|inf(?:inity)?|nan)$`,
  "i",
);

/**
 * `float(text)`, with null for its ValueError: blanks around it, a sign, an exponent, underscores between digits, `inf`, `infinity` and `nan`
 * in any case, and the decimal digits of every script are accepted; separators, currency, units and the empty text are not.
 */
export function float(text: string): number | null {
  const ascii = without(BLANK, text).replace(/\p{Nd}/gu, (digit) => String(digitValue(digit.codePointAt(0) ?? 0)));
  if (!FLOAT.test(ascii)) return null;
  const word = /[in]/i.exec(ascii);
  if (word === null) return Number(ascii.replaceAll("_", ""));
  if (/nan/i.test(ascii)) return Number.NaN;
  return ascii.startsWith("-") ? -Infinity : Infinity;
}

/** Decimal digits stand in runs of ten from zero to nine, some of them one after another. */
function digitValue(code: number): number {
  let start = code;
  while (/\p{Nd}/u.test(String.fromCodePoint(start - 1))) start--;
  return (code - start) % 10;
}

/** A decimal number as it was written, in normal form: no sign on zero, no leading or trailing zeros. */
export interface Decimal {
  negative: boolean;
  /** Digits before the point; "0" when there are none. */
  integer: string;
  /** Digits after the point; "" for an integer. */
  fraction: string;
  /** False when it was written with an exponent or more than six decimals: the rounded result of a calculation. */
  exact: boolean;
  value: number;
}

/** An optional sign (before or after a currency sign), digits with or without thousands separators, decimals, exponent. */
const NUMBER =
  /(?<![\d.])(?:(?<![\w)\]])[-+−])?[$€£]?(?:(?<=[$€£])[-+−])?(?:(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,4}(?!\w))?/g;

/** Longer runs of digits are no answer to anything; they are passed over. */
const MAX_LENGTH = 300;

/** All numbers in a text, in order, as written ("$1,234.50", "-7"). A hyphen between digits or after a word is not a sign. */
export function findNumbers(text: string): string[] {
  return (text.match(NUMBER) ?? []).filter((number) => number.length <= MAX_LENGTH);
}

/** Reads one number written as in `findNumbers` (surrounding blanks allowed), or undefined. */
export function parseDecimal(text: string): Decimal | undefined {
  const trimmed = text.trim();
  if (trimmed.length > MAX_LENGTH) return undefined;
  const found = trimmed.match(NUMBER);
  if (found?.length !== 1 || found[0] !== trimmed) return undefined;
  const [mantissa, exponent] = trimmed
    .replace(/[$€£,]/g, "")
    .toLowerCase()
    .split("e");
  const digits = mantissa.replace(/^[-+−]+/, "");
  const [whole, decimals = ""] = digits.split(".");
  const integer = whole.replace(/^0+(?=\d)/, "") || "0";
  const fraction = decimals.replace(/0+$/, "");
  const zero = integer === "0" && fraction === "";
  const negative = /^[-−]/.test(mantissa) && !zero;
  const value = Number(`${negative ? "-" : ""}${integer}.${fraction || "0"}e${exponent ?? 0}`);
  if (!Number.isFinite(value)) return undefined;
  return { negative, integer, fraction, exact: exponent === undefined && fraction.length <= 6, value };
}

/**
 * Whether two numbers are equal. Two exact decimals (no exponent, at most six decimals) are compared digit by digit, however long;
 * otherwise, where one is the rounded result of a calculation such as 0.6666666666666666, |a - b| <= 1e-6 max(|a|, |b|).
 */
export function equalDecimals(a: Decimal, b: Decimal): boolean {
  if (a.exact && b.exact) return a.negative === b.negative && a.integer === b.integer && a.fraction === b.fraction;
  if (a.value === b.value) return true;
  return Math.abs(a.value - b.value) <= 1e-6 * Math.max(Math.abs(a.value), Math.abs(b.value));
}

/** Whether two texts are each one number and these are equal (`equalDecimals`). */
export function equalNumbers(a: string, b: string): boolean {
  const left = parseDecimal(a);
  const right = parseDecimal(b);
  return left !== undefined && right !== undefined && equalDecimals(left, right);
}

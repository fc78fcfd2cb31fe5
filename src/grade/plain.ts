/**
 * Whether two texts are each one plain decimal, such as `18`, `-2,125.50` or `$7`, and the same number exactly. False says nothing: it
 * is the quick way for the commonest answers.
 */
export function equalPlain(a: string, b: string): boolean {
  if (a.length > 24 || b.length > 24) return false;
  const left = normal(a);
  return left !== undefined && (a === b || left === normal(b));
}

const PLAIN = /^\s*(-?)\$?(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d+))?\.?\s*$/;
const INTEGER = /^[1-9]\d*$/;

/** Sign, digits without leading zeros, decimals without trailing zeros. */
function normal(text: string): string | undefined {
  if (INTEGER.test(text)) return text;
  const found = PLAIN.exec(text);
  if (found === null) return undefined;
  const whole = found[2].replaceAll(",", "").replace(/^0+(?=\d)/, "");
  const decimals = (found[3] ?? "").replace(/0+$/, "");
  const digits = decimals === "" ? whole : `${whole}.${decimals}`;
  return digits === "0" ? digits : found[1] + digits;
}

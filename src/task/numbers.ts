import { parseDecimal } from "../grade/number.ts";
import { UserError } from "../errors.ts";

/** A gold answer without thousands separators and trailing zeros ("1,000.0" -> "1000"). Throws a UserError that names the place. */
export function goldNumber(text: string, place: string): string {
  const number = parseDecimal(text);
  if (number === undefined) {
    throw new UserError(`${place}: expected the answer to be one number, found ${JSON.stringify(text.slice(0, 80))}`);
  }
  if (/e/i.test(text)) return text.trim();
  return `${number.negative ? "-" : ""}${number.integer}${number.fraction === "" ? "" : `.${number.fraction}`}`;
}

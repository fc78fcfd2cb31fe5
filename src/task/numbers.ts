import { extractNumber, type Strategy } from "../grade/extract.ts";
import { equalNumbers, parseDecimal } from "../grade/number.ts";
import { UserError } from "../errors.ts";
import type { Problem } from "./types.ts";

/** What a chat prompt asks of an answer, so that `numberReward` finds it. */
export const NUMBER_INSTRUCTION =
  "Reason step by step. End with a line that holds #### and the answer as a number, nothing else.";

/** 1 where the number that the response gives equals the problem's `answer`, else 0. */
export function numberReward(problem: Problem, response: string, strategy?: Strategy | readonly Strategy[]): number {
  const found = extractNumber(response, strategy);
  return found !== undefined && problem.answer !== undefined && equalNumbers(found.text, problem.answer) ? 1 : 0;
}

/** A gold answer without thousands separators and trailing zeros ("1,000.0" -> "1000"). Throws a UserError that names the place. */
export function goldNumber(text: string, place: string): string {
  const number = parseDecimal(text);
  if (number === undefined) {
    throw new UserError(`${place}: expected the answer to be one number, found ${JSON.stringify(text.slice(0, 80))}`);
  }
  if (/e/i.test(text)) return text.trim();
  return `${number.negative ? "-" : ""}${number.integer}${number.fraction === "" ? "" : `.${number.fraction}`}`;
}

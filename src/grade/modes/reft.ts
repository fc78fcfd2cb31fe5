import type { Mode } from "./mode.ts";
import { float, strip } from "./python.ts";

/**
 * ReFT's grading of chains of thought in natural language (Luong et al. 2024, released code), one mode for each of its data sets. Its commas
 * are taken out of gold answers only: a predicted `1,234` is no number.
 */

const REASONING = "\nAnswer reasoning:\n";
const ANSWER = "\nTherefore, the answer is: ";

/** What follows the last answer trigger; the whole response where that never occurs, also when it ends right after the trigger. */
function afterTrigger(response: string): string {
  // The reference decodes prompt and response together and cuts by splitting, so that occurrences do not overlap.
  const whole = strip(`Question:${REASONING}${response}`);
  const reasoning = strip(whole.split(REASONING).at(-1) ?? "");
  return strip(reasoning.split(ANSWER).at(-1) ?? "");
}

/** An option letter as ReFT compares it: lower case, without quotes. Whatever text there is counts as an answer. */
const letter = (text: string): string => strip(text.toLowerCase().replace(/["']/g, ""));

/** |answer - gold| <= 0.01 in float64; what is no number, NaN and the infinities are wrong. */
function close(gold: number | null, answer: string | undefined): boolean {
  const value = answer === undefined ? null : float(answer);
  return gold !== null && value !== null && Math.abs(value - gold) <= 0.01;
}

const number = (response: string): string | undefined => {
  const text = afterTrigger(response);
  return float(text) === null ? undefined : text;
};

export const reftNumber: Mode = {
  extract: number,
  equal: (gold, answer) => close(float(gold.replaceAll(",", "")), answer),
};

/** Gold answers of MathQA's numeric form are read as they stand. */
export const reftNumberAsIs: Mode = { extract: number, equal: (gold, answer) => close(float(gold), answer) };

export const reftLetter: Mode = {
  extract: (response) => letter(afterTrigger(response)),
  equal: (gold, answer) => answer === letter(gold),
};

/** As the sampling program judges: a text that is not one character long is no answer. */
export const reftSampledLetter: Mode = {
  extract: (response) => {
    const text = letter(afterTrigger(response));
    return [...text].length === 1 ? text : undefined;
  },
  equal: (gold, answer) => answer === letter(gold),
};

import type { Mode } from "./mode.ts";
import { strip } from "./python.ts";

/**
 * MOTIF's graders (Mitra and Ulukus 2025, released code). They look for the gold answer as a string, so `\boxed{5.0}` is wrong for 5 and, of AIME,
 * 1104 is right for 104.
 */

const boxedIn = (gold: string, text: string | undefined): boolean => text?.includes(`\\boxed{${gold}}`) === true;

/** Its evaluation on MATH-500, and the accuracy reward of its GRPO baseline: the literal `\boxed{gold}` anywhere. */
export const motifBoxed: Mode = { extract: (response) => response, equal: boxedIn };

/** The full reward of its training: the literal `\boxed{gold}` in what stands between the last `<answer>` and the next `</answer>`. */
export const motifAnswer: Mode = {
  extract: (response) => strip((response.split("<answer>").at(-1) ?? "").split("</answer>")[0]),
  equal: boxedIn,
};

/** Its evaluation on AIME: the gold answer anywhere in the response. */
export const motifAnywhere: Mode = {
  extract: (response) => response,
  equal: (gold, answer) => answer?.includes(gold) === true,
};

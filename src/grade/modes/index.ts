import { nearest, UserError } from "../../errors.ts";
import type { Mode } from "./mode.ts";
import { motifAnswer, motifAnywhere, motifBoxed } from "./motif.ts";
import { reference } from "./reference.ts";
import { reftLetter, reftNumber, reftNumberAsIs, reftSampledLetter } from "./reft.ts";

/** Published graders by name, each with the verdicts of its released code. */
export const modes = {
  /** RFTT: the last box, compared after string patches. */
  reference,
  /** ReFT on GSM8K: the float after its trigger within 0.01 of the gold, whose commas are taken out. */
  "reft-gsm8k": reftNumber,
  /** ReFT on SVAMP: as on GSM8K. */
  "reft-svamp": reftNumber,
  /** ReFT on MathQA without options: as on GSM8K, commas of the gold not taken out. */
  "reft-mathqa-numeric": reftNumberAsIs,
  /** ReFT on MathQA with options: the text after its trigger in lower case. */
  "reft-mathqa": reftLetter,
  /** The same as its sampling program judges: only a text of one character is an answer. */
  "reft-mathqa-sampling": reftSampledLetter,
  /** MOTIF on MATH-500, and the reward of its GRPO baseline: `\boxed{gold}` anywhere. */
  "motif-math": motifBoxed,
  /** MOTIF on AIME: the gold anywhere. */
  "motif-aime": motifAnywhere,
  /** MOTIF's training reward in full: `\boxed{gold}` inside the answer tags. */
  "motif-answer": motifAnswer,
} as const satisfies Record<string, Mode>;

export type ModeName = keyof typeof modes;
export const MODES = Object.keys(modes) as ModeName[];

export const isMode = (name: string): name is ModeName => Object.hasOwn(modes, name);

/** The mode of that name. Throws a UserError that lists the modes and names the nearest one. */
export function modeNamed(name: string): Mode {
  if (isMode(name)) return modes[name];
  const near = nearest(name, MODES);
  const hint = near === undefined ? "" : `; did you mean ${near}?`;
  throw new UserError(`expected a grading mode (${MODES.join(", ")}), found ${JSON.stringify(name)}${hint}`);
}

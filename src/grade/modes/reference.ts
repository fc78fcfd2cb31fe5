import type { Mode } from "./mode.ts";

/**
 * Answer equivalence as the released code of RFTT computes it (Hendrycks et al. 2021's normalisation of MATH answers): string patches,
 * mistakes included, so that published accuracies can be reproduced.
 */

/** The last `\boxed` (or else `\fbox`) with what follows up to the brace that balances; undefined where none does. */
export function lastBoxed(text: string): string | undefined {
  let start = text.lastIndexOf("\\boxed");
  if (start < 0) start = text.lastIndexOf("\\fbox");
  if (start < 0) return undefined;
  let depth = 0;
  for (let i = start; i < text.length; i++) {
    if (text[i] === "{") depth++;
    else if (text[i] === "}" && --depth === 0) return text.slice(start, i + 1);
  }
  return undefined;
}

/** What `\boxed{...}` holds; undefined for anything else, `\fbox{...}` included. */
export function removeBoxed(text: string | undefined): string | undefined {
  return text?.startsWith("\\boxed{") && text.endsWith("}") ? text.slice("\\boxed{".length, -1) : undefined;
}

/** Where the reference's code stops with an exception. */
class Stop extends Error {}

/** The reference's normal form of an answer. Throws where its code would. */
export function normaliseReference(answer: string): string {
  let s = answer.replaceAll("\n", "").replaceAll("\\!", "").replaceAll("\\\\", "\\");
  s = s.replaceAll("tfrac", "frac").replaceAll("dfrac", "frac").replaceAll("\\left", "").replaceAll("\\right", "");
  s = s.replaceAll("^{\\circ}", "").replaceAll("^\\circ", "").replaceAll("\\$", "");
  const units = s.split("\\text{ ");
  if (units.length > 2) throw new Stop("more than one unit");
  s = units[0].replaceAll("\\%", "").replaceAll(" .", " 0.").replaceAll("{.", "{0.");
  if (s === "") return s;
  if (s.startsWith(".")) s = `0${s}`;
  const sides = s.split("=");
  if (sides.length === 2 && [...sides[0]].length <= 2) s = sides[1];
  s = braceFractions(braceRoots(s).replaceAll(" ", ""));
  if (s === "0.5") s = "\\frac{1}{2}";
  return slashToFraction(s);
}

/** `\sqrt3` becomes `\sqrt{3}`: one character, whatever it is. */
function braceRoots(text: string): string {
  const [head, ...rest] = text.split("\\sqrt");
  return rest.reduce((out, part) => {
    const [first] = part;
    if (first === undefined) throw new Stop("nothing under a root");
    return `${out}\\sqrt${first === "{" ? part : `{${first}}${part.slice(first.length)}`}`;
  }, head);
}

/** `\frac12` becomes `\frac{1}{2}` and `\frac1{2}` likewise, character by character. */
function braceFractions(text: string): string {
  const [head, ...rest] = text.split("\\frac");
  let out = head;
  for (const part of rest) {
    const [a, b] = part;
    if (a === undefined) throw new Stop("nothing after \\frac");
    if (a === "{") out += `\\frac${part}`;
    else if (b === undefined) return text;
    else out += `\\frac{${a}}${b === "{" ? b : `{${b}}`}${part.slice(a.length + b.length)}`;
  }
  return out;
}

/** An integer as Python prints it; its `int` refuses more than 4,300 digits. */
const CANONICAL = /^(?:0|-?[1-9]\d{0,4299})$/;

function slashToFraction(text: string): string {
  const parts = text.split("/");
  return parts.length === 2 && parts.every((part) => CANONICAL.test(part)) ? `\\frac{${parts[0]}}{${parts[1]}}` : text;
}

/** The reference's verdict on two answers, undefined meaning that none was found; two that are missing count as equal. */
export function equivalentReference(a: string | undefined, b: string | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  try {
    return normaliseReference(a) === normaliseReference(b);
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    return a === b;
  }
}

/** The gold is the answer itself, not a solution that holds it in a box. */
export const reference: Mode = {
  extract: (response) => removeBoxed(lastBoxed(response)),
  equal: equivalentReference,
};

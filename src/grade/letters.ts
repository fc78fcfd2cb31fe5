const LETTER =
  /^(?:[\s$*}]|\\[[( ,;:!]|\\displaystyle|(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+is)?:?\s|\\(?:text|textbf|mathrm|mathbf|textit|boxed|fbox)\s*\{|\{)*([([]?)\s*([A-Ja-j])(\s*[)\].:}])*(?:\}|\s|\$|\\[,;:!)\]]|\*|\.|\\quad)*/i;

/** Another option named behind the first: "(A) or (B)", "D. E.", "A) no, B". */
const SECOND = /^\W{0,9}(?:and|or)\b|\([A-Ja-j]\)|(?<![\w\\])[A-J](?=\s?[)\].:,;]|\s*\W{0,4}$|[\s,]+(?:and|or)\b)/;

/** What an answer to a multiple-choice question says: its letter, and whether that is marked as a letter rather than a variable. */
export interface OptionLetter {
  letter: string;
  marked: boolean;
}

/**
 * The option letter of an answer: `C`, `(C)`, `\text{(C)}`, `C.`, `option C`, and with its text behind it `C) 12`, `\textbf{(C)} 12`.
 * Undefined where it is none.
 */
export function optionLetter(answer: string): OptionLetter | undefined {
  const head = answer.slice(0, 300).trim();
  const found = LETTER.exec(head);
  if (found === null) return undefined;
  if (SECOND.test(head.slice(found[0].length))) return undefined;
  const [whole, bracket, letter, closing] = found;
  const marked = bracket !== "" || /[)\].:]/.test(closing ?? "") || /(?:answer|option|choice)/i.test(whole);
  if (whole.length < head.length && !((bracket !== "" || /[)\].:]/.test(closing ?? "")) && closing !== undefined))
    return undefined;
  return { letter: letter.toUpperCase(), marked };
}

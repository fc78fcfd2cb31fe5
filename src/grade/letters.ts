/** The option letter of an answer to a multiple-choice question: `C`, `(C)`, `\text{(C)}`, `C.`, `C) 12`. Undefined where it is none. */
export function optionLetter(answer: string): string | undefined {
  const found =
    /^[\s$*]*(?:\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{)*\s*[([]?\s*([A-Ja-j])\s*(?:[)\].:](?:\s.*)?|\s*\})*[\s$*.}]*$/s.exec(
      answer.slice(0, 300),
    );
  return found?.[1].toUpperCase();
}

import { Budget, DEFAULT_STEPS, GiveUp } from "./budget.ts";
import { Comparer, type CompareOptions } from "./compare.ts";
import type { Reading } from "./lexer.ts";
import { optionLetter } from "./letters.ts";
import { type Node, some } from "./node.ts";
import { equalPlain } from "./plain.ts";
import { printNode } from "./print.ts";
import { read } from "./read.ts";
import { type Comparison, differentBy, equalBy, unsureBy } from "./verdict.ts";

export interface EquivalenceOptions extends CompareOptions {
  /** Texts of a multiple-choice question's options, in order: a letter then equals the text that it stands for. */
  options?: readonly string[];
  /** Adds both parsed forms to the result. */
  explain?: boolean;
}

/**
 * Whether an answer is the gold answer, both LaTeX or plain text. With several golds, one of them is enough. The work is bounded by a
 * budget of steps, so a verdict never depends on the clock; where the budget ends the verdict is `unsure`.
 */
export function equivalent(
  gold: string | readonly string[],
  answer: string,
  options: EquivalenceOptions = {},
): Comparison {
  if (typeof gold === "string") return equivalentToOne(gold, answer, options);
  let best: Comparison = differentBy("gold", "there is no gold answer");
  for (const one of gold) {
    const found = equivalentToOne(one, answer, options);
    if (found.verdict === "equal") return found;
    if (best.rule === "gold" || (best.verdict === "different" && found.verdict === "unsure")) best = found;
  }
  return best;
}

function equivalentToOne(gold: string, answer: string, options: EquivalenceOptions): Comparison {
  if (options.explain !== true && equalPlain(gold, answer)) return SAME_NUMBER;
  const choice = options.options === undefined ? undefined : compareChoice(gold, answer, options.options, options);
  if (choice !== undefined) return choice;
  const budget = new Budget(DEFAULT_STEPS);
  let forms: { gold: string; answer: string } | undefined;
  let found: Comparison;
  try {
    const [left, right] = [read(gold, budget), read(answer, budget)];
    if (options.explain === true) forms = { gold: printNode(left.node), answer: printNode(right.node) };
    const comparer = new Comparer(options, budget);
    found = comparer.compare(left.node, right.node);
    if (found.verdict !== "equal") {
      for (const [other, reading] of otherReadings(gold, left, answer, right)) {
        const again = comparer.compare(
          other === "gold" ? read(gold, budget, reading).node : left.node,
          other === "answer" ? read(answer, budget, reading).node : right.node,
        );
        if (again.verdict !== "equal") continue;
        found = again;
        break;
      }
    }
  } catch (error) {
    if (!(error instanceof GiveUp)) throw error;
    found = unsureBy("budget", `gave up: ${error.message}`);
  }
  if (found.verdict !== "equal") found = compareAsWritten(gold, answer) ?? found;
  return forms === undefined ? found : { ...found, forms };
}

const SAME_NUMBER = equalBy("number", "the same number exactly");

interface ReadAnswer {
  node: Node;
  ambiguous: boolean;
}

/** Readings of what is ambiguous that could still make the two equal. The gold decides what kind of answer is meant. */
function* otherReadings(
  gold: string,
  left: ReadAnswer,
  answer: string,
  right: ReadAnswer,
): Generator<["gold" | "answer", Reading]> {
  if (left.ambiguous) yield ["gold", { grouping: right.node.kind === "number" }];
  if (right.ambiguous) {
    yield ["answer", { grouping: left.node.kind === "number" }];
    // "3,5" for 3.5: a list where one number is expected makes no sense.
    if (left.node.kind === "number" && left.node.places !== undefined && right.node.kind === "list")
      yield ["answer", { decimalComma: true }];
  }
  // "12 m" and "12": the letter is a unit where the other side has no variables.
  const letters = (node: Node): boolean => some(node, ({ kind }) => kind === "symbol");
  if (letters(right.node) && !letters(left.node) && LETTER_UNIT.test(answer)) yield ["answer", { letterUnits: true }];
  if (letters(left.node) && !letters(right.node) && LETTER_UNIT.test(gold)) yield ["gold", { letterUnits: true }];
}

const LETTER_UNIT = /\d\s*(?:\$\s*)?[A-Za-z]{1,2}(?![A-Za-z])/;

/** The last word where nothing else makes them equal: texts written the same up to spacing and text commands, the same words or letters in any order. */
function compareAsWritten(gold: string, answer: string): Comparison | undefined {
  if (gold.length > 20_000 || answer.length > 20_000)
    return gold === answer ? equalBy("text", "written the same") : undefined;
  const [a, b] = [unspaced(gold), unspaced(answer)];
  if (a !== "" && a === b) return equalBy("text", "written the same");
  // "\\text{Bob}" is a word, so "bob" is one too and no product of variables.
  if (/\\(?:text|mbox)/.test(gold + answer) && /^[A-Za-z]{3,}$/.test(a) && a.toLowerCase() === b.toLowerCase())
    return equalBy("text", "the same word");
  const [left, right] = [optionLetter(gold), optionLetter(answer)];
  if (left !== undefined && left.letter === right?.letter && (left.marked || right.marked))
    return equalBy("letter", "the same option letter");
  const [some, others] = [enumerated(gold), enumerated(answer)];
  return some !== undefined && some === others ? equalBy("list", "the same words in any order") : undefined;
}

/** Without spacing commands, `\text{}` around plain content, and white space, except between letters and digits: "1 2" is not "12". */
const unspaced = (text: string): string =>
  text
    .replace(/\\(?:text|mathrm|mbox|textbf|textrm|operatorname)\s*\{([^{}\\]*)\}/g, "$1")
    .replace(/\\[,;:! ]|\\(?:left|right|quad)(?![A-Za-z])|[\s~$]/g, " ")
    .replace(/(\\[A-Za-z]+) */g, "$1 ")
    .replace(/ +/g, " ")
    .replace(/(?<![A-Za-z0-9.]) | (?![A-Za-z0-9.])/g, "")
    .replace(/\.$/, "");

/** Words, or capital option letters run together, that a list names, sorted: "Monday and Tuesday", "ABD". */
function enumerated(text: string): string | undefined {
  if (text.length > 1000) return undefined;
  const plain = text.replace(/\\(?:text|mathrm|textbf)\s*\{([^{}\\]*)\}/g, "$1").trim();
  const parts = /^[A-J]{2,10}$/.test(plain)
    ? [...plain]
    : plain.split(/\s*(?:[,;]|\band\b)\s*/).filter((part) => part !== "");
  if (parts.length < 2 || !parts.every((part) => /^(?:[A-J]|[A-Za-z]{2,}(?: [A-Za-z]+)*)$/.test(part)))
    return undefined;
  return parts
    .map((part) => part.toLowerCase())
    .sort()
    .join(",");
}

/** A letter against the text of the option it stands for. Undefined where neither side is one of the options. */
function compareChoice(
  gold: string,
  answer: string,
  texts: readonly string[],
  options: EquivalenceOptions,
): Comparison | undefined {
  const choice = (text: string): number | undefined => {
    const index = (optionLetter(text)?.letter.charCodeAt(0) ?? 0) - 65;
    if (index >= 0 && index < texts.length) return index;
    const equals = texts.flatMap((option, i) =>
      equivalent(option, text, { ...options, options: undefined, explain: false }).verdict === "equal" ? [i] : [],
    );
    return equals.length === 1 ? equals[0] : undefined;
  };
  const left = choice(gold);
  if (left === undefined) return undefined;
  const right = choice(answer);
  if (right === undefined) return undefined;
  return left === right ? equalBy("choice", "the same option") : differentBy("choice", "different options");
}

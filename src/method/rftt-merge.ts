import type { Pair } from "./rftt-select.ts";
import type { Solution } from "../rollout/prompt-search.ts";
import { G2, type Step, validate } from "../tags/index.ts";
import { withoutAnswers } from "../task/grading.ts";

/** A step of a record; without `learned` it is context and out of the loss. */
export interface RecordStep extends Step {
  learned: boolean;
}

const learned = (step: Step): RecordStep => ({ ...step, learned: true });

/**
 * A solution as grammar G2 has it: a direct answer at the beginning, which G2 has not, is a `next_step`.
 */
function asG2(steps: readonly Step[]): Step[] {
  return steps.map((step, i) => (i === 0 && step.fn === "direct_answer" ? { ...step, fn: "next_step" } : step));
}

/** A right path and its short last block; `verify` affirms it, where there is one. */
export function plainSteps(solution: Solution, output: string, verify?: string): RecordStep[] {
  const check: Step[] = verify === undefined ? [] : [{ fn: "verify", text: verify }];
  return [...asG2(solution.steps), ...check, { fn: "output" as const, text: output }].map(learned);
}

/**
 * Branch merging (RFTT, arXiv 2502.13389): the shared beginning, the wrong path's own steps, what is wrong with them, then the right path's own
 * steps, of which the first becomes `refine`, and an `output`. The wrong steps, tags and all, are out of the loss.
 */
export function mergedSteps({ right, wrong, shared }: Pair, verify: string, output: string): RecordStep[] {
  const faulty = asG2(wrong.steps);
  const [first, ...rest] = right.steps.slice(shared);
  return [
    ...faulty.map((step, i) => ({ ...step, learned: i < shared })),
    learned({ fn: "verify", text: verify }),
    learned({ fn: "refine", text: first.text }),
    ...rest.map(learned),
    learned({ fn: "output", text: output }),
  ];
}

/** Whether the right path's first own step says what a wrong step said. */
export function repeatsFault({ right, wrong, shared }: Pair): boolean {
  const plain = (text: string) => text.toLowerCase().replace(/\s+/g, " ").trim();
  const refined = plain(right.steps[shared].text);
  return wrong.steps.slice(shared).some(({ text }) => plain(text) === refined);
}

/** What is asked of the model that compares two branches. Answers are taken out of both: what it writes is to find a fault, not a result. */
export function verifyPrompt(question: string, { right, wrong, shared }: Pair): string {
  const shown = (steps: readonly Step[]) => steps.map(({ text }) => withoutAnswers(text)).join("\n") || "None";
  const before = shared === 0 ? "" : `\n\nSteps that are right:\n${shown(wrong.steps.slice(0, shared))}`;
  return `Below is a question and steps of a solution that hold a mistake, then steps that do it right. Compare them. In one or two sentences say what the mistake is and where it is made. Speak of the mistaken steps alone, do not mention the other ones, and state no final answer. Begin with "The mistake".

Question: ${question}${before}

Mistaken steps:
${shown(wrong.steps.slice(shared))}

Steps that do it right:
${shown(right.steps.slice(shared))}`;
}

/** What is asked of the model that confirms a right path. */
export function affirmPrompt(question: string, { steps }: Solution): string {
  return `Below is a question and a right solution of it. In one sentence say what was checked and that it holds. State no final answer. Begin with "Checking".

Question: ${question}

Solution:
${steps.map(({ text }) => withoutAnswers(text)).join("\n")}`;
}

export type VerifyFault =
  "empty verify" | "verify states the answer" | "verify speaks of the other branch" | "verify affirms";

/** Why a text that was to name a fault is refused; undefined where it is not. `statesAnswer` says whether a text states the right answer. */
export function verifyFault(text: string, statesAnswer: (text: string) => boolean): VerifyFault | undefined {
  if (text === "") return "empty verify";
  if (statesAnswer(text)) return "verify states the answer";
  if (
    /\b(?:do|does|did) it right\b|\bother (?:steps|solution)\b|\b(?:right|correct|second) (?:steps|solution)\b/i.test(
      text,
    )
  ) {
    return "verify speaks of the other branch";
  }
  // "The mistake: there is no mistake" begins as it was asked to.
  const said = text.replace(/^\W*the mistakes?\b/i, "");
  return affirms(text) || (says(NO_FAULT, said) && affirms(said)) ? "verify affirms" : undefined;
}

export type AffirmFault = "empty affirmation" | "affirmation states the answer" | "affirmation does not affirm";

/** Why a text that was to affirm is refused; undefined where it is not. */
export function affirmFault(text: string, statesAnswer: (text: string) => boolean): AffirmFault | undefined {
  if (text === "") return "empty affirmation";
  if (statesAnswer(text)) return "affirmation states the answer";
  return affirms(text) ? undefined : "affirmation does not affirm";
}

const NO_FAULT =
  /\b(?:no|without(?: any| an?)?)\s+(?:mistakes?|errors?)\b|(?:\bnot|n't)\s+(?:(?:\w+\s+)?(?:any|an?)\s+(?:mistakes?|errors?)|wrong|incorrect)\b/gi;
const FAULT = /\b(?:mistak\w*|errors?|wrong\w*|incorrect\w*|inaccura\w*|fault\w*|flaw\w*|fail\w*|not|cannot)\b|n't\b/gi;
const WELL =
  /\b(?:is|are|was|were) (?:all |both |indeed )?(?:correct|right)\b|\b(?:it|that|this|everything) (?:all )?holds\b/gi;

const says = (what: RegExp, text: string): boolean => text.search(what) >= 0;

/** Whether a text says that all is well, and names no fault beside it. */
export const affirms = (text: string): boolean =>
  (says(NO_FAULT, text) || says(WELL, text)) && !says(FAULT, text.replace(NO_FAULT, ""));

/** Why the steps are no record: the grammar's reason; undefined where they are a whole path of G2 with the right answer in `output` at its end. */
export function recordFault(steps: readonly RecordStep[], rightOutput: (text: string) => boolean): string | undefined {
  const violation = validate(steps, G2);
  if (violation !== undefined) return violation.reason;
  return rightOutput(steps[steps.length - 1].text) ? undefined : "the output is not right";
}

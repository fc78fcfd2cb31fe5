import { type Fn, type Step } from "../tags/index.ts";

/** The functions that the prompt-driven search writes: those of grammar G1. */
export const ACTIONS = ["clarify", "analysis", "next_step", "direct_answer", "subquestion"] as const satisfies Fn[];
export type Action = (typeof ACTIONS)[number];

export const isAction = (fn: Fn): fn is Action => ACTIONS.some((action) => action === fn);

/** What an action is asked with. */
export interface ActionContext {
  question: string;
  /** The steps so far, in order. */
  steps: readonly Step[];
  /** How the answer is to be stated, with `...` in its place. */
  answerForm: string;
}

/** Two restated questions: what "clearly" means needs to be shown. */
const CLARIFIED = [
  [
    "Ann had 12 plums and gave 5 away. How many now?",
    "Ann had 12 plums. She gave 5 of them away. How many plums does Ann have now?",
  ],
  [
    "If a tram holds 40 and 3 trams come, how many can ride?",
    "One tram holds 40 people. 3 trams come. How many people can ride in the 3 trams together?",
  ],
];

/**
 * The prompt of an action: the question, the steps so far without tags or numbers, and what is asked. In this order all actions of a node begin
 * alike, so that the beginning is computed once.
 */
export function actionPrompt(action: Action, { question, steps, answerForm }: ActionContext): string {
  if (action === "clarify") {
    const shown = CLARIFIED.map(([from, to]) => `Original question: ${from}\nClarified question: ${to}\n\n`).join("");
    return `Say the question again in clear, complete sentences. Keep every number and every fact, and do not solve it.\n\n${shown}Original question: ${question}\nClarified question:`;
  }
  const last = steps.at(-1);
  const open = last?.fn === "subquestion" ? last.text : undefined;
  const done = open === undefined ? steps : steps.slice(0, -1);
  const soFar = done.length === 0 ? "None" : done.map(({ text }) => text).join("\n");
  const now = open === undefined ? "" : `\n\nTo be solved now: ${open}`;
  return `Question: ${question}\n\nExisting steps:\n${soFar}${now}\n\n${INSTRUCTIONS[action](answerForm, done.length === 0)}`;
}

const INSTRUCTIONS: Record<Exclude<Action, "clarify">, (form: string, first: boolean) => string> = {
  analysis: () =>
    'In one or two sentences, say which way to solve the question above. Give no calculation and no result. Begin with "Analysis:".',
  subquestion: () =>
    'Name one smaller problem that can be solved right now, that helps with the question above, and that the existing steps have not solved. Write one sentence of the form "Let\'s ... now". Do not solve it.',
  next_step: (form, first) =>
    `${first ? "Write the first step of the solution of the question above" : "Write the one step that comes next after the existing steps, without repeating them"}. Write that single step only, in one or two sentences that begin with "Next step:". If this step gives the final answer, begin with "Final step:" and end with a line of its own: ${form}`,
  direct_answer: (form) =>
    `Finish the solution of the question above from where the existing steps end, without repeating them. Be brief, and end with a line of its own: ${form}`,
};

/** What a weak model goes on with: the prompt from its beginning. */
const ECHOES = ["\nQuestion:", "\nExisting steps"];

/** Strings that end an action's text. */
export const ACTION_STOPS: Record<Action, string[]> = {
  clarify: ["\nOriginal question"],
  analysis: ["\n\n"],
  subquestion: ["\n"],
  next_step: ["\nNext step", "\nnext step", ...ECHOES],
  direct_answer: ECHOES,
};

/** Whether a text, with its label still on it, says of itself that it is the last step. */
export const saysFinal = (text: string): boolean => /final step|so the answer is/i.test(text);

/**
 * What is kept of an action's text: without its label, blanks at its ends, and, where it was cut off at the token limit, an unfinished
 * last sentence. "" where nothing is left.
 */
export function actionText(action: Action, text: string, cut: boolean): string {
  const kept = finishedText(withoutLabel(action, text.trim()), cut);
  return action === "clarify" ? sentences(kept).slice(0, 3).join(" ") : kept;
}

/** A text without blanks at its ends and, where it was cut off at the token limit, without an unfinished last sentence. */
export const finishedText = (text: string, cut: boolean): string => (cut ? wholeSentences(text) : text.trim());

const LABELS: Record<Action, string> = {
  clarify: "clarified question",
  analysis: "(?:brief )?analy(?:sis|se)",
  subquestion: "sub-?question",
  next_step: "(?:next|final|first) step",
  direct_answer: "(?:solution|answer)",
};

function withoutLabel(action: Action, text: string): string {
  const found = new RegExp(`^(\\**)${LABELS[action]}(\\**)\\s*:\\s*(\\**)\\s*`, "i").exec(text);
  if (found === null) return text;
  const [label, ...marks] = found;
  const bold = marks.filter((mark) => mark !== "");
  // Bold marks come in pairs: an odd one belongs to what follows.
  return (bold.length % 2 === 0 ? "" : bold[bold.length - 1]) + text.slice(label.length);
}

/** Sentences, an abbreviation's or a decimal's period aside; a line's end alone ends none. */
export function sentences(text: string): string[] {
  return text
    .split(/(?<=[.!?])\s+(?=[A-Z"'$\\(#])|\n\s*\n/)
    .map((sentence) => sentence.trim())
    .filter((sentence) => sentence !== "");
}

/** How long a direct answer is: its sentences or its paragraphs, whichever are more. */
export function answerLength(text: string): number {
  return Math.max(sentences(text).length, text.split(/\n\s*\n/).filter((part) => part.trim() !== "").length);
}

/** Up to the end of the last sentence or line that was finished. */
function wholeSentences(text: string): string {
  const end = [...text.matchAll(/[.!?](?=\s|$)|\n/g)].at(-1);
  return end === undefined ? "" : text.slice(0, end.index + 1).trim();
}

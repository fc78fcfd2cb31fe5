import { z } from "zod";
import {
  equivalent,
  extract,
  grade,
  type Graded,
  type GradedAnswer,
  type GradeOptions,
  isHeading,
  locate,
  MODES,
  NO_ANSWER,
  STRATEGIES,
  type Strategy,
} from "../grade/index.ts";
import { nearest, UserError } from "../errors.ts";
import type { Grading, GradingMode, Problem, ProgramResult } from "./types.ts";

export const GRADING_MODES = ["math", "exact", ...MODES] satisfies readonly GradingMode[];

/** What kind of answer a question has; the prompt's instruction and the strict strategy follow from it. */
export type AnswerForm = "number" | "math" | "choice" | "exact";

interface FormRule {
  /** What the prompt asks. */
  instruction: string;
  /** Where the strict verdict therefore looks. */
  strict: readonly Strategy[];
  flexible?: readonly Strategy[];
  mode?: GradingMode;
}

export const FORMS: Record<AnswerForm, FormRule> = {
  number: {
    instruction: "Reason step by step. End with a line that holds #### and the answer as a number, nothing else.",
    strict: ["hashes"],
  },
  math: { instruction: "Reason step by step. Put the final answer in \\boxed{}.", strict: ["boxed"] },
  choice: {
    instruction:
      'Reason step by step. End with the line "The answer is (X)", where X is the letter of the right option.',
    strict: ["phrase"],
    // A letter wherever it stands, else the text of an option.
    flexible: ["letter", "auto"],
  },
  exact: { instruction: "", strict: ["hashes", "boxed", "whole"], mode: "exact" },
};

/** How answers of a form are graded; a prompt may ask for the answer elsewhere, or nowhere in particular. */
export function gradingOf(form: AnswerForm, prompt: string, chosen: Partial<Grading>): Grading {
  const { strict, flexible, mode } = FORMS[form];
  const asked =
    prompt === "reft" ? (["reft"] as const) : prompt === "text" && form !== "exact" ? (["auto"] as const) : strict;
  return {
    mode: chosen.mode ?? mode ?? "math",
    strict: chosen.strict ?? [...asked],
    flexible: chosen.flexible ?? [...(flexible ?? (["auto"] as const))],
  };
}

/** An answer as a response in a strategy's format states it. */
export function stateAnswer(strategy: Strategy, answer: string): string {
  switch (strategy) {
    case "boxed":
      return `\\boxed{${answer}}`;
    case "hashes":
      return `#### ${answer}`;
    case "reft":
      return `Therefore, the answer is: ${answer}`;
    case "tag":
      return `<answer>${answer}</answer>`;
    case "phrase":
      return /^[A-Z]$/.test(answer) ? `The answer is (${answer}).` : `The answer is ${answer}.`;
    default:
      return answer;
  }
}

/** Strategies that look for a marker, so that a text without it states no answer. */
const MARKED = ["boxed", "hashes", "reft", "tag", "phrase"] as const satisfies Strategy[];
type Marked = (typeof MARKED)[number];

export const isMarked = (strategy: Strategy): strategy is Marked => MARKED.some((marked) => marked === strategy);

/** The marker with which a task's answers are stated; a box where it asks for none. */
export const markedStrategy = ({ strict }: Pick<Grading, "strict">): Marked => strict.find(isMarked) ?? "boxed";

/** The answers that a text states behind any marker, those of the task's own first; none where it has no marker. */
export function statedAnswers(text: string, { strict }: Pick<Grading, "strict">): string[] {
  const order = new Set<Marked>([...strict.filter(isMarked), ...MARKED]);
  return [...order].flatMap((strategy) => {
    const found = locate(text, strategy);
    return found === undefined || headsStep(text, strategy, found.start) ? [] : found.text || [];
  });
}

/** The answer that a text states by the task's own marker; of a sentence only one that says "answer": a result may be a step's. */
export function ownAnswer(text: string, grading: Pick<Grading, "strict">): string | undefined {
  const strategy = markedStrategy(grading);
  const found = locate(text, strategy);
  if (found === undefined || headsStep(text, strategy, found.start)) return undefined;
  const weak = strategy === "phrase" && !/^\W*(?:(?:final|the)\s+)*answer/i.test(text.slice(found.start));
  return weak ? undefined : found.text || undefined;
}

/** Whether `####` begins a heading, such as "#### Step 2: add". */
const headsStep = (text: string, strategy: Marked, start: number): boolean =>
  strategy === "hashes" && (isHeading(text, start) || /^####[ \t*_]*step\b/i.test(text.slice(start)));

/** A text with `...` in place of each statement that a marker's strategy reads as an answer, finished or not. */
export function withoutAnswers(text: string): string {
  return MARKED.reduce((left, strategy) => replaceEach(left, strategy, () => "..."), text);
}

/** A text whose boxes are taken off, what they hold left in its place. */
export const withoutBoxes = (text: string): string => replaceEach(text, "boxed", (inside) => inside);

/** From the last marker to the first, for one may stand inside of another. */
function replaceEach(text: string, strategy: Marked, by: (answer: string) => string): string {
  let left = text;
  for (;;) {
    const found = locate(left, strategy);
    if (found === undefined) return left.trim();
    left = left.slice(0, found.start) + by(found.text) + left.slice(found.end);
  }
}

/** A last sentence that states an answer as the task asks. */
export function outputText(grading: Grading, answer: string): string {
  const strategy = markedStrategy(grading);
  const stated = stateAnswer(strategy, answer);
  return strategy === "boxed" ? `The answer is ${stated}.` : stated;
}

const strategies = z
  .union([z.enum(STRATEGIES), z.array(z.enum(STRATEGIES)).min(1)])
  .transform((names) => [names].flat());

/** Options of a task that choose another comparison or extraction than its own. */
export const gradingOptions = {
  mode: z.enum(GRADING_MODES).optional(),
  strict: strategies.optional(),
  flexible: strategies.optional(),
};

export const gradingSchema: z.ZodType<Grading> = z.strictObject({
  mode: z.enum(GRADING_MODES).optional(),
  strict: z.array(z.enum(STRATEGIES)).min(1),
  flexible: z.array(z.enum(STRATEGIES)).min(1).optional(),
});

/** The first of these strategies' names and modes that nobody knows is a UserError that names the nearest. */
export function parseGrading(names: { mode?: string; strict?: string[]; flexible?: string[] }): Partial<Grading> {
  const known = <T extends string>(what: string, name: string, all: readonly T[]): T => {
    const found = all.find((candidate) => candidate === name);
    if (found !== undefined) return found;
    const near = nearest(name, all);
    const hint = near === undefined ? `expected one of ${all.join(", ")}` : `did you mean ${near}?`;
    throw new UserError(`unknown ${what} ${JSON.stringify(name)} (${hint})`);
  };
  const listed = (list: string[]) => list.map((name) => known("strategy", name, STRATEGIES));
  return {
    ...(names.mode === undefined ? {} : { mode: known("mode", names.mode, GRADING_MODES) }),
    ...(names.strict === undefined ? {} : { strict: listed(names.strict) }),
    ...(names.flexible === undefined ? {} : { flexible: listed(names.flexible) }),
  };
}

/** What of a problem its grade depends on. */
export type GradedProblem = Pick<Problem, "id" | "answer" | "options" | "tolerance">;

/** The strict and the flexible verdict on a response. A problem without a gold is a UserError. */
export function gradeResponse(problem: GradedProblem, response: string, grading: Grading): Graded {
  const { mode, strict, flexible } = grading;
  if (mode === "exact") return gradeExactly(goldOf(problem), response, grading);
  return grade(goldOf(problem), response, { mode, strict, flexible, ...comparisonOf(problem) });
}

/** The verdict on what the program of a response came to; strict and flexible are the same. */
export function gradeProgram(problem: GradedProblem, { answer, failure }: ProgramResult, grading: Grading): Graded {
  if (answer !== undefined) {
    const { strict } = gradeResponse(problem, answer, { ...grading, strict: ["whole"], flexible: ["whole"] });
    return { strict, flexible: strict };
  }
  const none: GradedAnswer = {
    verdict: "different",
    equal: false,
    rule: NO_ANSWER,
    reason: `the program gives no answer: ${failure ?? "it was not run"}`,
  };
  return { strict: none, flexible: none };
}

function gradeExactly(gold: string, response: string, { strict, flexible = ["auto"] }: Grading): Graded {
  const graded = (strategies: Strategy[]): GradedAnswer => {
    const extracted = extract(response, strategies);
    if (extracted === undefined) {
      return {
        verdict: "different",
        equal: false,
        rule: NO_ANSWER,
        reason: "the response has no answer in this format",
      };
    }
    const equal = plainBlanks(extracted.text) === plainBlanks(gold);
    const [verdict, reason] = equal ? (["equal", "the same text"] as const) : (["different", "another text"] as const);
    return { verdict, equal, rule: "exact", reason, extracted };
  };
  return { strict: graded(strict), flexible: graded(flexible) };
}

const plainBlanks = (text: string): string => text.trim().replace(/\s+/g, " ");

/**
 * How the gold compares with itself, stated as the prompt asks: what `equal` rests on, or why no response can be right. A published
 * grader's mode says nothing about whether a gold can be read, so that `math` stands for it.
 */
export function gradeGold(problem: GradedProblem, grading: Grading): GradedAnswer {
  const mode = grading.mode === "exact" ? "exact" : "math";
  return gradeResponse(problem, stateAnswer(grading.strict[0], goldOf(problem)), { ...grading, mode }).strict;
}

/** Whether two answers to a problem are the same, as votes are counted: by mathematics whatever the mode, except `exact`. */
export function sameAnswer(problem: GradedProblem, first: string, second: string, mode: GradingMode): boolean {
  if (mode === "exact") return plainBlanks(first) === plainBlanks(second);
  return equivalent(first, second, comparisonOf(problem)).verdict === "equal";
}

function comparisonOf({ options, tolerance }: GradedProblem): Pick<GradeOptions, "options" | "tolerance"> {
  return {
    ...(options === undefined ? {} : { options }),
    ...(tolerance === undefined ? {} : { tolerance: { absolute: tolerance } }),
  };
}

function goldOf({ id, answer }: GradedProblem): string {
  if (answer !== undefined) return answer;
  throw new UserError(`problem ${id} has no \`answer\` that a response could be compared with`);
}

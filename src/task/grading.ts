import { z } from "zod";
import { grade, type Graded, type Mode, MODES, STRATEGIES, type Strategy } from "../grade/index.ts";
import { nearest, UserError } from "../errors.ts";
import type { Grading, Problem } from "./types.ts";

/** What kind of answer a question has; the prompt's instruction and the strict strategy follow from it. */
export type AnswerForm = "number" | "math" | "choice" | "exact";

/** What a prompt asks of an answer, and where the strict verdict therefore looks. */
export const FORMS: Record<AnswerForm, { instruction: string; strict: readonly Strategy[]; mode?: Mode }> = {
  number: {
    instruction: "Reason step by step. End with a line that holds #### and the answer as a number, nothing else.",
    strict: ["hashes"],
  },
  math: { instruction: "Reason step by step. Put the final answer in \\boxed{}.", strict: ["boxed"] },
  choice: {
    instruction:
      'Reason step by step. End with the line "The answer is (X)", where X is the letter of the right option.',
    strict: ["phrase"],
  },
  exact: { instruction: "", strict: ["hashes", "boxed", "whole"], mode: "exact" },
};

/** The strict strategies of a prompt: those of its form, unless it asks for the answer otherwise or not at all. */
export function strictOf(form: AnswerForm, prompt: string): Strategy[] {
  if (prompt === "reft") return ["reft"];
  return prompt === "text" && form !== "exact" ? ["auto"] : [...FORMS[form].strict];
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

const strategies = z.union([z.enum(STRATEGIES), z.array(z.enum(STRATEGIES)).min(1)]).transform((names) => [names].flat());

/** Options of a task that choose another comparison or extraction than its own. */
export const gradingOptions = {
  mode: z.enum(MODES).optional(),
  strict: strategies.optional(),
  flexible: strategies.optional(),
};

export const gradingSchema: z.ZodType<Grading> = z.strictObject({
  mode: z.enum(MODES).optional(),
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
    ...(names.mode === undefined ? {} : { mode: known("mode", names.mode, MODES) }),
    ...(names.strict === undefined ? {} : { strict: listed(names.strict) }),
    ...(names.flexible === undefined ? {} : { flexible: listed(names.flexible) }),
  };
}

/** What of a problem its grade depends on. */
export type GradedProblem = Pick<Problem, "answer" | "options" | "tolerance">;

/** The strict and the flexible verdict on a response. A problem without a gold is a UserError. */
export function gradeResponse(problem: GradedProblem & { id: string }, response: string, grading: Grading): Graded {
  if (problem.answer === undefined) {
    throw new UserError(`problem ${problem.id} has no \`answer\` that a response could be compared with`);
  }
  return grade(problem.answer, response, {
    ...grading,
    ...(problem.options === undefined ? {} : { options: problem.options }),
    ...(problem.tolerance === undefined ? {} : { tolerance: problem.tolerance }),
  });
}

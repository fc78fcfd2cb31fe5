import { z } from "zod";
import type { GradedAnswer } from "../grade/index.ts";
import { UserError } from "../errors.ts";
import { parseStrict } from "../strict.ts";
import { type GradedProblem, gradeProgram, gradeResponse } from "../task/grading.ts";
import { solved } from "../task/solved.ts";
import type { Grade, Grading, Problem, ProgramResult, Task } from "../task/types.ts";
import { type AnswerGrade, type EvaluatedSample, rateSchema } from "./samples.ts";

type Graded = Pick<
  EvaluatedSample,
  "strict" | "flexible" | "reward" | "parts" | "solved" | "error" | "program" | "rates"
>;

/** A response's verdicts and reward. */
export async function gradeSample(task: Task, problem: Problem, response: string): Promise<Graded> {
  const [{ answered: _, ...grade }] = await task.grade([{ problem, response }]);
  const rates = ratesOf(task, problem, response);
  if (task.grading === undefined) return { strict: byReward(grade), ...grade, solved: isSolved(grade), ...rates };
  const verdicts = verdictsOf(problem, response, task.grading, grade.program);
  return { ...verdicts, ...grade, solved: verdicts.strict.verdict === "equal", ...rates };
}

function ratesOf(task: Task, problem: Problem, response: string): Pick<EvaluatedSample, "rates"> {
  const given = task.rates?.(problem, response);
  if (given === undefined) return {};
  const rates = parseStrict(
    z.record(z.string(), rateSchema),
    given,
    `task ${task.name}: rates of problem ${problem.id}`,
  );
  return Object.keys(rates).length === 0 ? {} : { rates };
}

/** The strict and the flexible verdict on a response, as a samples file holds them; where it is a program, on what that came to. */
export function verdictsOf(
  problem: GradedProblem,
  response: string,
  grading: Grading,
  program?: ProgramResult,
): Required<Pick<EvaluatedSample, "strict" | "flexible">> {
  const { strict, flexible } =
    program === undefined ? gradeResponse(problem, response, grading) : gradeProgram(problem, program, grading);
  return { strict: answerGrade(strict, response), flexible: answerGrade(flexible, response) };
}

/**
 * Grades a sample again, from its line alone. A reward that was the strict verdict follows it; another one stays. Throws a UserError
 * that names the sample where there is no gold.
 */
export function regradeSample(sample: EvaluatedSample, grading: Grading): EvaluatedSample {
  if (sample.gold === undefined) {
    throw new UserError(
      `sample ${sample.sample} of problem ${sample.problem} has no gold (its task has a reward of its own): it cannot be graded again`,
    );
  }
  // A program is not run again: its answer is in the line.
  const verdicts = verdictsOf(problemOf(sample), sample.text, grading, sample.program);
  const right = verdicts.strict.verdict === "equal";
  const own =
    Object.keys(sample.parts).length > 0 || sample.reward !== Number(sample.solved) || sample.error !== undefined;
  return {
    ...sample,
    ...(sample.rounds && {
      rounds: sample.rounds.map((round) => ({ ...round, ...verdictsOf(problemOf(sample), round.text, grading) })),
    }),
    ...verdicts,
    reward: own ? sample.reward : Number(right),
    solved: right,
  };
}

/** The problem as far as its grade depends on it. */
export function problemOf({ problem, gold, options, tolerance }: EvaluatedSample): GradedProblem {
  return { id: problem, answer: gold, options, tolerance };
}

/** What a sample's line repeats of its problem. */
export function problemFields(
  problem: Problem,
): Pick<EvaluatedSample, "question" | "gold" | "options" | "tolerance" | "tags"> {
  const { prompt, answer, options, tolerance, tags } = problem;
  const asked = "text" in prompt ? prompt.text : (prompt.messages.at(-1)?.content ?? "");
  return {
    question: problem.question ?? asked,
    ...(answer === undefined ? {} : { gold: answer }),
    ...(options === undefined ? {} : { options }),
    ...(tolerance === undefined ? {} : { tolerance }),
    ...(tags === undefined ? {} : { tags }),
  };
}

function answerGrade({ extracted, verdict, rule, reason }: GradedAnswer, response: string): AnswerGrade {
  // What stands for a whole response that was searched, or taken for an option's letter, is nothing to show or to vote on.
  const whole = extracted?.text === response;
  const none = extracted === undefined || (whole && isSearch(extracted.strategy, extracted.text));
  return {
    ...(none ? {} : { answer: extracted.text, strategy: extracted.strategy }),
    verdict,
    rule,
    reason,
  };
}

const isSearch = (strategy: string, text: string): boolean =>
  strategy === "motif-math" || strategy === "motif-aime" || (strategy === "reft-mathqa" && text.length > 1);

function byReward(grade: Grade): AnswerGrade {
  const reason = grade.error === undefined ? `the reward is ${grade.reward}` : "grading failed";
  return { verdict: isSolved(grade) ? "equal" : "different", rule: "reward", reason };
}

const isSolved = (grade: Grade): boolean => grade.error === undefined && solved(grade);

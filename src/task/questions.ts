import { basename } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { extract, MODES, type Strategy } from "../grade/index.ts";
import { heldOut, questionKey } from "./dataset.ts";
import { type Example, readExamples } from "./examples.ts";
import { type AnswerForm, FORMS, gradingOf, gradingOptions, isMarked, stateAnswer } from "./grading.ts";
import { programBody, programHead } from "./program.ts";
import type { Grading, Problem, ProgramSettings, Prompt, TaskDefinition } from "./types.ts";

/** A question with its gold, from whatever file. */
export interface Question {
  id: string;
  question: string;
  /** Of a multiple-choice question the letter. */
  answer: string;
  /** As the file writes it, where that differs; ReFT's target repeats it so. */
  writtenAnswer?: string;
  /** With its options as the file writes them, where these were taken out; ReFT's prompt repeats it so. */
  writtenQuestion?: string;
  /** The chain of thought, without the statement of the answer. */
  reasoning?: string;
  /** The chain of thought as the file writes it, where that differs. */
  writtenReasoning?: string;
  /** A demonstration that is a program. */
  program?: string;
  /** A whole response, in place of `reasoning`. */
  demonstration?: string;
  options?: string[];
  tolerance?: number;
  tags?: Record<string, string>;
}

/** What every set of questions lets its user choose. */
export const questionOptions = {
  /** What is held out of the training questions: a share of them, or how many. */
  dev: z
    .number()
    .min(0)
    .refine(
      (dev) => dev <= 0.5 || (dev >= 1 && Number.isInteger(dev)),
      "expected a share up to 0.5, or a whole number of questions",
    )
    .default(0.1),
  /** A file of worked examples that stand before the question, and how many of them; all when absent. */
  examples: z.string().min(1).optional(),
  shots: z.int().positive().optional(),
  ...gradingOptions,
};

type PromptName = "chat" | "completion" | "reft" | "text";

type QuestionOptions = z.infer<z.ZodObject<typeof questionOptions>> & { prompt: PromptName };

/** Where a set's questions come from, each split read when it is asked for. */
export interface QuestionSet {
  name: string;
  form: AnswerForm;
  /** Responses are programs. */
  program?: Program;
  train?(): Promise<Question[]>;
  test?(): Promise<Question[]>;
}

interface Program {
  /** The prompt gives the program's first lines. */
  prefill: boolean;
  limits: Omit<ProgramSettings, "answer" | "style">;
}

/** ReFT's fixed strings (arXiv 2401.08967, the authors' published prompts). */
const REFT = {
  instruction: "Question:\n",
  cotTrigger: "\nAnswer reasoning:\n",
  answerTrigger: "\nTherefore, the answer is: ",
};

/** What prompts other than ReFT's ask of a program. */
const PROGRAM_INSTRUCTIONS = {
  number:
    "Write a Python function solution() that takes nothing and returns the answer as a number. Give its code only.",
  text: "Write a Python function solution() that takes nothing and returns the letter of the right option. Give its code only.",
};

/**
 * A task over a set of questions. `train` is its training data without `dev`, the questions whose hash is lowest, the same for every seed. Reward: 1 where the strict verdict is equal.
 */
export async function questionTask(
  set: QuestionSet,
  options: QuestionOptions,
  baseDir: string,
): Promise<TaskDefinition> {
  const examples =
    options.examples === undefined ? [] : await readExamples(options.examples, baseDir, set, options.shots);
  const { train, test, program } = set;
  const toProblem = (question: Question) => problemOf(question, set, options, examples);
  let training: Promise<Question[]> | undefined;
  let held: Set<string> | undefined;
  const trainOrDev = (dev: boolean, read: () => Promise<Question[]>) => async () => {
    const questions = await (training ??= read());
    held ??= heldOut(
      questions.map(({ question }) => question),
      options.dev,
    );
    const chosen = questions.filter(({ question }) => held?.has(questionKey(question)) === dev);
    if (chosen.length === 0 && questions.length > 0) {
      throw new UserError(
        `task ${set.name}: \`dev\` = ${options.dev} of ${questions.length} training questions leaves none for the split ${dev ? "dev" : "train"}; choose another share, or a number of questions`,
      );
    }
    return chosen.map(toProblem);
  };
  const shots = examples.length === 0 ? "" : `, ${examples.length} shots from ${basename(options.examples ?? "")}`;
  return {
    name: set.name,
    splits: {
      ...(train === undefined ? {} : { train: trainOrDev(false, train) }),
      ...(train === undefined || options.dev === 0 ? {} : { dev: trainOrDev(true, train) }),
      ...(test === undefined ? {} : { test: async () => (await test()).map(toProblem) }),
    },
    prompt:
      options.prompt + (program === undefined ? "" : program.prefill ? ", prefilled program" : ", program") + shots,
    ...(program === undefined
      ? { grading: gradingOf(set.form, options.prompt, options) }
      : programTask(set, options, program)),
    // A model without a chat's turns goes on with a question of its own.
    ...(options.prompt === "completion" ? { stop: ["\nQuestion:"] } : {}),
  };
}

/** How programs are run, and their results compared: as ReFT compares them, unless a mode is chosen. */
function programTask(
  { name, form }: QuestionSet,
  { prompt, mode }: QuestionOptions,
  { limits }: Program,
): { grading: Grading; programs: ProgramSettings } {
  return {
    grading: {
      mode: mode ?? MODES.find((known) => known === `reft-${name}`) ?? "math",
      strict: ["whole"],
      flexible: ["whole"],
    },
    programs: { ...limits, answer: form === "number" ? "number" : "text", style: prompt === "reft" ? "reft" : "plain" },
  };
}

function problemOf(item: Question, set: QuestionSet, chosen: QuestionOptions, examples: Example[]): Problem {
  const { id, answer, options, tolerance, tags } = item;
  const { form, program } = set;
  const { prompt } = chosen;
  const demonstration =
    program === undefined
      ? demonstrationOf(item, set, chosen)
      : program.prefill && item.program !== undefined
        ? programBody(item.program)
        : item.program;
  const rule =
    program === undefined ? FORMS[form].instruction : PROGRAM_INSTRUCTIONS[form === "choice" ? "text" : "number"];
  const asked: Prompt = {
    ...promptOf(item, rule, prompt, examples),
    ...(program?.prefill === true ? { prefill: programHead(item.writtenQuestion ?? item.question) } : {}),
  };
  const question = item.question.trim();
  const written = item.writtenAnswer?.trim();
  return {
    id,
    prompt: asked,
    ...(demonstration === undefined ? {} : { demonstrations: [demonstration] }),
    answer,
    ...("text" in asked && asked.text === question ? {} : { question }),
    ...(options === undefined ? {} : { options }),
    ...(tolerance === undefined ? {} : { tolerance }),
    ...(tags === undefined ? {} : { tags }),
    // Graders that compare texts want the answer as the data set writes it.
    ...(written === undefined || written === answer ? {} : { data: { writtenAnswer: written } }),
  };
}

function promptOf(item: Question, instruction: string, prompt: PromptName, examples: Example[]): Prompt {
  const ask = (question: string) => [question, instruction].filter(Boolean).join("\n\n");
  switch (prompt) {
    case "reft":
      return { text: REFT.instruction + (item.writtenQuestion ?? item.question).trim() + REFT.cotTrigger };
    case "text":
      return { text: withOptions(item) };
    case "completion": {
      const shown = examples.map((example) => `Question: ${withOptions(example)}\nAnswer: ${example.response}\n\n`);
      const head = instruction === "" ? "" : `${instruction}\n\n`;
      return { text: `${head}${shown.join("")}Question: ${withOptions(item).trim()}\nAnswer:` };
    }
    case "chat":
      return {
        messages: [
          ...examples.flatMap((example) => [
            { role: "user" as const, content: ask(withOptions(example)) },
            { role: "assistant" as const, content: example.response },
          ]),
          { role: "user", content: ask(withOptions(item).trim()) },
        ],
      };
  }
}

/** A question with its options below it, a letter each. */
function withOptions({ question, options }: Pick<Question, "question" | "options">): string {
  if (options === undefined) return question;
  return `${question.trim()}\n\n${options.map((text, i) => `${letterOf(i)}. ${text}`).join("\n")}`;
}

/** A, B, C, ... */
export function letterOf(index: number): string {
  return String.fromCharCode("A".charCodeAt(0) + index);
}

function demonstrationOf(
  item: Question,
  { name, form }: QuestionSet,
  { prompt, strict }: QuestionOptions,
): string | undefined {
  if (item.demonstration !== undefined) return item.demonstration;
  const reft = prompt === "reft";
  const reasoning = (reft ? (item.writtenReasoning ?? item.reasoning) : item.reasoning)?.trim();
  if (!reasoning) return undefined;
  const strategy = reft ? "reft" : (strict?.find(isMarked) ?? FORMS[form].strict[0]);
  if (strict !== undefined && !finds(strict, strategy, form)) {
    throw new UserError(
      `task ${name}: expected demonstrations whose answers \`strict\` finds, and ${strict.join(", ")} does not find ${JSON.stringify(stateAnswer(strategy, "..."))}; set it to ${FORMS[form].strict[0]}, boxed or another that has a marker, or leave it out`,
    );
  }
  if (reft) return reasoning + REFT.answerTrigger + (item.writtenAnswer ?? item.answer).trim();
  return `${reasoning}\n${stateAnswer(strategy, item.answer)}`;
}

/** Whether a strict verdict finds the answer of a demonstration that states it so. */
function finds(strict: Strategy[], strategy: Strategy, form: AnswerForm): boolean {
  const answer = form === "choice" ? "A" : "7";
  return extract(`So it is.\n${stateAnswer(strategy, answer)}`, strict)?.text === answer;
}

/** A problem's question by itself; the prompt's last message, or its text, where the task does not say. */
export function questionText({ question, prompt }: Problem): string {
  return question ?? ("text" in prompt ? prompt.text : (prompt.messages.at(-1)?.content ?? ""));
}

/** A question by itself, with its options where it has some. */
export function questionWithOptions(problem: Problem): string {
  const options = (problem.options ?? []).map((text, i) => `\n${letterOf(i)}. ${text}`).join("");
  return questionText(problem).trim() + (options === "" ? "" : `\n${options}`);
}

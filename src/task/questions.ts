import { z } from "zod";
import { findDataset, heldOut, noSplit, splitFiles, type DatasetPlace } from "./dataset.ts";
import { NUMBER_INSTRUCTION, numberReward } from "./numbers.ts";
import { readRows, type Row } from "./read.ts";
import type { Problem, TaskDefinition } from "./types.ts";

/** A question with a number for an answer, from whatever file. */
export interface Question {
  id: string;
  question: string;
  /** Normal form: no separators, no trailing zeros. */
  answer: string;
  /** As the file writes it; ReFT's target repeats it so. */
  writtenAnswer: string;
  /** The chain of thought, without the statement of the answer. */
  reasoning?: string;
  /** The chain of thought as the file writes it, where that differs. */
  writtenReasoning?: string;
}

export const questionOptions = z.strictObject({
  name: z.string(),
  path: z.string().min(1).optional(),
  prompt: z.enum(["chat", "reft"]).default("chat"),
  dev: z.number().min(0).max(0.5).default(0.1),
});

export type QuestionOptions = z.infer<typeof questionOptions>;

/** ReFT's fixed strings (arXiv 2401.08967, the authors' published prompts). */
const REFT = {
  instruction: "Question:\n",
  cotTrigger: "\nAnswer reasoning:\n",
  answerTrigger: "\nTherefore, the answer is: ",
};

/**
 * A task over a published set of questions. `train` is the training file without `dev`, the share of it whose questions' hash is
 * lowest, the same for every seed; `test` is the test file. Reward: 1 where the number is right.
 */
export function questionTask(
  place: DatasetPlace,
  options: QuestionOptions,
  baseDir: string,
  parse: (row: Row, index: number, split: "train" | "test") => Question,
): TaskDefinition {
  const at = findDataset(place, options.path, baseDir);
  const read = async (split: "train" | "test"): Promise<Question[]> => {
    const files = splitFiles(place, at, split);
    if (files === undefined) throw noSplit(at, split);
    const rows: Row[] = [];
    for (const file of files) rows.push(...(await readRows(file)));
    return rows.map((row, index) => parse(row, index, split));
  };
  const toProblem = (question: Question) => problemOf(question, options.prompt);
  let training: Promise<Question[]> | undefined;
  const trainOrDev = (dev: boolean) => async () => {
    const questions = await (training ??= read("train"));
    return questions.filter(({ question }) => heldOut(question, options.dev) === dev).map(toProblem);
  };
  return {
    name: place.name,
    splits: {
      train: trainOrDev(false),
      ...(options.dev > 0 ? { dev: trainOrDev(true) } : {}),
      test: async () => (await read("test")).map(toProblem),
    },
    reward: (problem, response) => numberReward(problem, response),
  };
}

function problemOf(item: Question, prompt: QuestionOptions["prompt"]): Problem {
  const question = item.question.trim();
  if (prompt === "reft") {
    const reasoning = (item.writtenReasoning ?? item.reasoning)?.trim();
    return {
      id: item.id,
      prompt: { text: REFT.instruction + question + REFT.cotTrigger },
      ...(reasoning ? { demonstrations: [reasoning + REFT.answerTrigger + item.writtenAnswer.trim()] } : {}),
      answer: item.answer,
    };
  }
  return {
    id: item.id,
    prompt: { messages: [{ role: "user", content: `${question}\n\n${NUMBER_INSTRUCTION}` }] },
    ...(item.reasoning ? { demonstrations: [`${item.reasoning.trim()}\n#### ${item.answer}`] } : {}),
    answer: item.answer,
  };
}

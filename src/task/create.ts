import { z } from "zod";
import { UserError } from "../errors.ts";
import { parseStrict } from "../strict.ts";
import { localGrader } from "./local.ts";
import { programGrader, programSettings } from "./program.ts";
import type { Grader } from "./reward.ts";
import type { Problem, ProblemSource, Split, Task, TaskDefinition } from "./types.ts";

const prefill = z.string().optional();
const messageSchema = z.strictObject({ role: z.enum(["system", "user", "assistant"]), content: z.string() });
const askedQuestion = {
  prompt: z.union([
    z.strictObject({ messages: z.array(messageSchema).min(1), prefill }),
    z.strictObject({ text: z.string().min(1), prefill }),
  ]),
  demonstrations: z.array(z.string().min(1)).optional(),
  masks: z
    .array(
      z
        .array(z.tuple([z.int().min(0), z.int().positive()]))
        .refine(
          (spans) => spans.every(([start, end], i) => start < end && (i === 0 || spans[i - 1][1] <= start)),
          "expected spans [start, end) in their order, none empty and none in another",
        ),
    )
    .optional(),
};
const problemSchema: z.ZodType<Problem> = z.strictObject({
  id: z.string().min(1),
  ...askedQuestion,
  formats: z.record(z.string(), z.strictObject(askedQuestion)).optional(),
  answer: z.string().optional(),
  question: z.string().optional(),
  options: z.array(z.string()).min(2).optional(),
  tolerance: z.number().positive().optional(),
  tags: z.record(z.string(), z.string()).optional(),
  data: z.record(z.string(), z.unknown()).optional(),
});

const SPLITS: readonly Split[] = ["train", "dev", "test"];

/**
 * Makes a task ready for use. Without a `grader` the reward runs in this thread, where a synchronous endless loop cannot be ended;
 * `loadTask` gives task files one that can.
 */
export function createTask(definition: TaskDefinition, grader: Grader = graderOf(definition)): Task {
  const opened = new Map<Split, Promise<ProblemSource>>();
  return {
    name: definition.name,
    stop: definition.stop ?? [],
    prompt: definition.prompt ?? "own",
    grading: definition.grading,
    programs: definition.programs !== undefined,
    vocabulary: definition.vocabulary,
    splits: SPLITS.filter((split) => definition.splits[split] !== undefined),
    rounds: definition.rounds,
    rates: definition.rates,
    problems(split) {
      let source = opened.get(split);
      if (source === undefined) {
        source = open(definition, split);
        opened.set(split, source);
      }
      return source;
    },
    grade: (items) => grader.grade(items),
    close: () => grader.close(),
  };
}

function graderOf(definition: TaskDefinition): Grader {
  if (definition.programs === undefined) return localGrader(definition);
  parseStrict(programSettings, definition.programs, `task ${definition.name}`, ["programs"]);
  return programGrader(definition);
}

async function open(definition: TaskDefinition, split: Split): Promise<ProblemSource> {
  const given = definition.splits[split];
  const where = `task ${definition.name}, split ${split}`;
  if (given === undefined) {
    const has = Object.keys(definition.splits);
    // Files of questions hold some out when they are asked to; other tasks make a split of their own.
    const hint =
      split === "dev" && has.includes("train")
        ? " (published sets and data files make one of training questions with task.dev = 200)"
        : "";
    throw new UserError(`task ${definition.name} has no split ${split}; it has ${has.join(", ")}${hint}`);
  }
  const problems: unknown = typeof given === "function" ? await given() : given;
  if (Array.isArray(problems)) return listSource(where, problems);
  if (!isSource(problems)) {
    throw new UserError(`${where}: expected an array of problems, or an object with \`size\` and \`at(index)\``);
  }
  if (!(problems.size > 0)) throw new UserError(`${where} is empty; expected at least one problem`);
  return {
    size: problems.size,
    at(index) {
      checkIndex(where, index, problems.size);
      return checkProblem(`${where}, problem ${index}`, problems.at(index));
    },
  };
}

function listSource(where: string, items: unknown[]): ProblemSource {
  if (items.length === 0) throw new UserError(`${where} is empty; expected at least one problem`);
  const numbers = new Map<string, number>();
  const problems = items.map((item, index) => {
    const problem = checkProblem(`${where}, problem ${index}`, item);
    const other = numbers.get(problem.id);
    if (other !== undefined) {
      throw new UserError(
        `${where}: problems ${other} and ${index} have the same id ${JSON.stringify(problem.id)}; ids must differ`,
      );
    }
    numbers.set(problem.id, index);
    return problem;
  });
  return {
    size: problems.length,
    at(index) {
      checkIndex(where, index, problems.length);
      return problems[index];
    },
  };
}

function checkProblem(place: string, item: unknown): Problem {
  return parseStrict(problemSchema, item, place);
}

function checkIndex(where: string, index: number, size: number): void {
  if (!Number.isInteger(index) || index < 0 || index >= size) {
    throw new RangeError(`${where}: no problem ${index}; it has ${size}`);
  }
}

function isSource(value: unknown): value is ProblemSource {
  return (
    typeof value === "object" &&
    value !== null &&
    "size" in value &&
    typeof value.size === "number" &&
    "at" in value &&
    typeof value.at === "function"
  );
}

import { z } from "zod";
import { UserError } from "../errors.ts";
import { openSandbox, type Outcome, type Sandbox } from "../sandbox/index.ts";
import { gradeProgram } from "./grading.ts";
import type { Grader, Item } from "./reward.ts";
import type { GradingMode, Problem, ProgramResult, ProgramSettings, Task, TaskDefinition } from "./types.ts";

/** Limits that a user may choose. */
export const programLimits = z.strictObject({
  seconds: z.number().positive().max(600).optional(),
  memory: z.int().min(64).max(4000).optional(),
  workers: z.int().positive().max(64).optional(),
  wheels: z.string().min(1).optional(),
});

export const programSettings: z.ZodType<ProgramSettings> = programLimits.extend({
  answer: z.enum(["number", "text"]),
  style: z.enum(["reft", "plain"]),
});

/** How a ReFT program begins where the prompt gives its beginning. */
export function programHead(question: string): string {
  const text = question
    .trim()
    // What would end the docstring, or the program: a blank line cuts it.
    .replace(/\\/g, "\\\\")
    .replace(/"""|"$/g, (quotes) => quotes.replaceAll('"', '\\"'))
    .replace(/\n\s*\n/g, "\n");
  return `def solution():\n    """${text}"""\n`;
}

/** A program without its `def` line and docstring: what follows `programHead`. */
export function programBody(program: string): string {
  return program.replace(/^\s*def solution\([^\n]*:[ \t]*\n/, "").replace(/^\s*("""|''')[^]*?\1[ \t]*\n/, "");
}

/**
 * The program of a response. `reft`: line by line up to the first blank one, though a line that begins with `def solution` is always
 * taken, as the published system does (its two import lines are the sandbox's globals). `plain`: the last fenced block, else all of it.
 * `sys.exit` becomes `print` in both.
 */
export function programText(response: string, style: ProgramSettings["style"]): string {
  const text = response.replaceAll("sys.exit", "print").replace(/\r\n?/g, "\n");
  if (style === "plain") {
    const blocks = [...text.matchAll(/^[ \t]*```[^\n`]*\n([^]*?)(?:^[ \t]*```|$(?![^]))/gm)];
    return blocks.at(-1)?.[1] ?? text;
  }
  const lines: string[] = [];
  for (const line of text.trim().split("\n")) {
    if (!line.startsWith("def solution") && line.trim() === "") break;
    lines.push(line);
  }
  return lines.join("\n");
}

/** The answer that an outcome stands for: Python's `float(result)` where a number is asked for, else `str(result)`. */
export function programResult({ number, text, failure }: Outcome, answer: ProgramSettings["answer"]): ProgramResult {
  if (failure !== undefined) return { failure };
  if (answer === "text") return text === undefined ? { failure: "its result cannot be printed" } : { answer: text };
  if (number === undefined) {
    return { failure: `its result is no number: ${text === undefined ? "it cannot be printed" : text.slice(0, 80)}` };
  }
  // An integer as Python prints it, where that is the same number.
  if (text !== undefined && /^-?\d{1,15}$/.test(text)) return { answer: text };
  return { answer: Number.isFinite(number) ? String(number) : number > 0 ? "inf" : number < 0 ? "-inf" : "nan" };
}

/** Whether a program has an answer. ReFT's code takes one that fails on MathQA's options for the answer "none". */
export function programAnswered({ answer }: ProgramResult, mode: GradingMode | undefined): boolean {
  return answer !== undefined || mode === "reft-mathqa";
}

/** Runs the programs of responses, all of a call together, and compares their results. Reward: 1 where the verdict is equal. */
export function programGrader({ name, programs, grading, reward }: TaskDefinition): Grader {
  if (programs === undefined || grading === undefined)
    throw new UserError(`task ${name}: \`programs\` needs a \`grading\``);
  if (reward !== undefined) throw new UserError(`task ${name}: a task with \`programs\` has no \`reward\` of its own`);
  const { answer, style, ...limits } = programs;
  let sandbox: Sandbox | undefined;
  return {
    async grade(items: Item[]) {
      sandbox ??= openSandbox(limits);
      const outcomes = await sandbox.run(
        items.map(({ problem, response }) => programText((problem.prompt.prefill ?? "") + response, style)),
      );
      return items.map(({ problem }, i) => {
        const program = programResult(outcomes[i], answer);
        const { strict } = gradeProgram(problem, program, grading);
        return { reward: Number(strict.equal), parts: {}, answered: programAnswered(program, grading.mode), program };
      });
    },
    close: async () => sandbox?.close(),
  };
}

/** The problems of a task of programs with a gold program that does not give the gold, each once, and why. */
export async function failedPrograms(task: Task, problems: Problem[]): Promise<{ problem: Problem; reason: string }[]> {
  if (!task.programs) return [];
  const items = problems.flatMap((problem) =>
    (problem.demonstrations ?? []).map((response) => ({ problem, response })),
  );
  const grades = await task.grade(items);
  const failed = new Map<Problem, string>();
  for (const [i, { reward, program }] of grades.entries()) {
    const { problem } = items[i];
    if (reward >= 1 || failed.has(problem)) continue;
    const found =
      program?.answer === undefined
        ? `gives no answer: ${program?.failure ?? "it was not run"}`
        : `gives ${program.answer.slice(0, 80)}, the gold is ${problem.answer}`;
    failed.set(problem, `the gold program ${found}`);
  }
  return [...failed].map(([problem, reason]) => ({ problem, reason }));
}

/** Throws a UserError for the first problem whose gold program does not give the gold. */
export async function checkPrograms(task: Task, problems: Problem[]): Promise<void> {
  const [first, ...others] = await failedPrograms(task, problems);
  if (first === undefined) return;
  const more = others.length === 0 ? "" : ` (and ${others.length} more)`;
  throw new UserError(
    `task ${task.name}, problem ${first.problem.id}: ${first.reason}${more}: correct it, or leave the problem out; \`rifft eval --validate --split train\` lists all such programs`,
  );
}

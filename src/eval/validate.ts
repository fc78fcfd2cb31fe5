import { UserError } from "../errors.ts";
import { gradeGold } from "../task/grading.ts";
import { failedPrograms } from "../task/program.ts";
import type { Problem, Task } from "../task/types.ts";

export interface GoldFinding {
  problem: string;
  gold: string;
  rule: string;
  reason: string;
}

export interface Validation {
  problems: number;
  /** How many golds grade equal to themselves by each rule. */
  rules: Record<string, number>;
  /** Of these, the golds that are compared as plain text: nothing but the same text is equal to them. */
  asText: GoldFinding[];
  /** Golds that do not grade equal to themselves: no response can be right. */
  unreadable: GoldFinding[];
}

/** States every gold as the prompt asks and grades it against itself, and runs gold programs. A task with a reward of its own is a UserError. */
export async function validateGolds(task: Task, problems: Problem[]): Promise<Validation> {
  const { grading } = task;
  if (grading === undefined) {
    throw new UserError(`task ${task.name} has a reward of its own and no \`grading\`: its golds cannot be graded`);
  }
  const found: Validation = { problems: problems.length, rules: {}, asText: [], unreadable: [] };
  for (const problem of problems) {
    const { verdict, rule, reason } = gradeGold(problem, grading);
    const finding = { problem: problem.id, gold: problem.answer ?? "", rule, reason };
    if (verdict !== "equal") {
      found.unreadable.push(finding);
      continue;
    }
    found.rules[rule] = (found.rules[rule] ?? 0) + 1;
    if (rule === "text") found.asText.push(finding);
  }
  for (const { problem, reason } of await failedPrograms(task, problems)) {
    found.unreadable.push({ problem: problem.id, gold: problem.answer ?? "", rule: "program", reason });
  }
  return found;
}

import { UserError } from "../errors.ts";
import type { Problem, RoundDemonstration, Task } from "../task/types.ts";

/** What supervised fine-tuning in rounds imitates: a demonstration of every round. */
export function roundDemonstrations(task: Task, problem: Problem, rounds: number): RoundDemonstration[] {
  if (task.rounds?.demonstrate !== undefined) return task.rounds.demonstrate(problem, rounds);
  throw new UserError(`task ${task.name} demonstrates no rounds; leave rounds out`);
}

import { UserError } from "../errors.ts";
import { gradeResponse } from "./grading.ts";
import {
  DEFAULT_DEADLINE,
  describeThrown,
  failedGrade,
  type Grader,
  gradeOf,
  type Item,
  pastDeadline,
} from "./reward.ts";
import type { Grade, TaskDefinition } from "./types.ts";

/** Runs rewards in this thread: for built-in tasks and definitions of the calling program. Ends what waits too long, not what loops. */
export function localGrader(definition: TaskDefinition): Grader {
  const deadline = definition.deadline ?? DEFAULT_DEADLINE;
  return {
    grade: (items) =>
      Promise.all(
        items.map(async (item) => {
          try {
            const grade = await within(deadline, () => gradeItem(definition, item));
            return grade === late ? failedGrade(item, pastDeadline(deadline)) : grade;
          } catch (error) {
            return failedGrade(item, describeThrown(error));
          }
        }),
      ),
    close: async () => {},
  };
}

const late = Symbol("past its deadline");

async function within<T>(seconds: number, work: () => Promise<T>): Promise<T | typeof late> {
  let timer: NodeJS.Timeout | undefined;
  const alarm = new Promise<typeof late>((resolve) => {
    timer = setTimeout(() => resolve(late), seconds * 1000);
  });
  try {
    return await Promise.race([work(), alarm]);
  } finally {
    clearTimeout(timer);
  }
}

/** The task's own reward, or where it has none 1 for a strict verdict of `equal`, else 0. */
async function gradeItem({ reward, grading, weights }: TaskDefinition, item: Item): Promise<Grade> {
  if (reward !== undefined) return gradeOf(item, await reward(item.problem, item.response), weights);
  if (grading === undefined) throw new UserError("the task has neither a reward nor a grading");
  const { strict } = gradeResponse(item.problem, item.response, grading);
  return { ...gradeOf(item, strict.equal ? 1 : 0), answered: strict.extracted !== undefined };
}

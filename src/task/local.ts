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
import type { Reward, TaskDefinition } from "./types.ts";

/** Runs rewards in this thread: for built-in tasks and definitions of the calling program. Ends what waits too long, not what loops. */
export function localGrader(definition: TaskDefinition): Grader {
  const deadline = definition.deadline ?? DEFAULT_DEADLINE;
  return {
    grade: (items) =>
      Promise.all(
        items.map(async (item) => {
          try {
            const reward = await within(deadline, async () => rewardOf(definition, item));
            if (reward === late) return failedGrade(item, pastDeadline(deadline));
            return gradeOf(item, reward, definition.weights);
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
function rewardOf({ reward, grading }: TaskDefinition, { problem, response }: Item): Reward | Promise<Reward> {
  if (reward !== undefined) return reward(problem, response);
  if (grading === undefined) throw new UserError("the task has neither a reward nor a grading");
  return gradeResponse(problem, response, grading).strict.equal ? 1 : 0;
}

/** What the author of a task file imports: `import { defineTask } from "rifft/task"`. Light, because every reward worker loads it. */
import type { TaskDefinition } from "./types.ts";

export { RandomStream } from "../engine/random.ts";
export { extract, extractNumber, type Extraction, type Strategy } from "../grade/extract.ts";
export { equalNumbers } from "../grade/number.ts";
export type { Message } from "../model/types.ts";
export type {
  Grading,
  Problem,
  ProblemSource,
  Prompt,
  Rate,
  Reward,
  RoundDemonstration,
  RoundsDefinition,
  Split,
  TaskDefinition,
} from "./types.ts";

/** Types a task definition; a task file exports the result as its default. */
export function defineTask(definition: TaskDefinition): TaskDefinition {
  return definition;
}

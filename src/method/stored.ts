import { UserError } from "../errors.ts";
import type { Problem } from "../task/types.ts";
import type { DataStage, StoredSample } from "./stage.ts";

/** The samples of a file that `rifft eval` wrote, in its order, each with the training problem that it answers. */
export function storedAnswers(stage: DataStage, file: string): { problem: Problem; sample: StoredSample }[] {
  const problems = new Map<string, Problem>();
  for (let i = 0; i < stage.source.size && stage.source.size !== Infinity; i++) {
    const problem = stage.source.at(i);
    problems.set(problem.id, problem);
  }
  return stage.storedSamples(file).map((sample) => {
    const problem = problems.get(sample.problem);
    if (problem !== undefined) return { problem, sample };
    throw new UserError(
      `${file}: problem ${sample.problem} is not in the training split of task ${stage.task.name}: expected samples of that split (rifft eval --split train)`,
    );
  });
}

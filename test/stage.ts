import type { Model } from "../src/engine/types.ts";
import type { Forest } from "../src/forest/types.ts";
import type { Stage, Step } from "../src/method/stage.ts";
import type { Problem, Task } from "../src/task/types.ts";

export interface RecordedStep {
  metrics: Record<string, number>;
  kept: Forest;
}

/** A stage without a run folder: cycles through the problems and records what each step logs and keeps. */
export async function memoryStage(options: { model: Model; task: Task; steps: number; lr: number }) {
  const { model, task } = options;
  const source = await task.problems("train");
  const policy = await model.snapshot("stage start");
  const recorded: RecordedStep[] = [];
  let cursor = 0;
  const stage: Stage = {
    name: "1-test",
    seed: 0,
    model,
    tokenizer: model.tokenizer,
    task,
    startPolicy: () => Promise.resolve(policy),
    async *steps(): AsyncGenerator<Step> {
      for (let index = 0; index < options.steps; index++) {
        const record: RecordedStep = { metrics: {}, kept: [] };
        const keys = new Map<Problem, string>();
        yield {
          index,
          problems: (count) =>
            Array.from({ length: count }, (_, i) => {
              const problem = { ...source.at(cursor++ % source.size) };
              keys.set(problem, `${index}/${i}/${problem.id}`);
              return problem;
            }),
          lr: () => options.lr,
          key: (problem) => keys.get(problem) ?? problem.id,
          grade: (items) => task.grade(items),
          log: (metrics) => void Object.assign(record.metrics, metrics),
          keep: (forest) => void record.kept.push(...forest),
          time: (_, work) => work(),
        };
        recorded.push(record);
      }
    },
  };
  return { stage, recorded };
}

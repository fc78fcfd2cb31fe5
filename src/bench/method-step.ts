import type { Model, Policy } from "../engine/types.ts";
import type { Stage, Step } from "../method/stage.ts";
import type { Problem, Task } from "../task/types.ts";

/** A stage of one step, without a run around it. Adds to `spent` the seconds of sampling and of training. */
export function oneStep(
  model: Model,
  task: Task,
  o: { index: number; lr: number; makeProblem: () => Problem; spent: { sample: number; train: number } },
): Stage {
  const { index, lr, makeProblem, spent } = o;
  const time: Step["time"] = async (what, work) => {
    const start = performance.now();
    try {
      return await work();
    } finally {
      if (what === "sample" || what === "train") spent[what] += (performance.now() - start) / 1000;
    }
  };
  const step: Step = {
    index,
    problems: (count) => Array.from({ length: count }, makeProblem),
    lr: () => lr,
    key: ({ id }) => id,
    grade: (items) => task.grade(items),
    log() {},
    keep() {},
    countGenerated() {},
    time,
  };
  return {
    name: "bench",
    seed: 0,
    model,
    tokenizer: model.tokenizer,
    task,
    memory: {},
    startPolicy: (): Promise<Policy> => model.snapshot("stage-start"),
    async *steps() {
      yield step;
    },
  };
}

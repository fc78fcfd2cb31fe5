import type { Model } from "../src/engine/types.ts";
import type { Forest } from "../src/forest/types.ts";
import type { DataStage, DrawingStep, RecordLine, StoredSample } from "../src/method/stage.ts";
import type { Problem, Task } from "../src/task/types.ts";

export interface RecordedStep {
  metrics: Record<string, number>;
  kept: Forest;
  /** How often this step asked for an update's learning rate: a step that only samples never does. */
  updates: number;
  /** Tokens that the method counted as generated itself. */
  counted: number;
}

/** A stage without a run folder: cycles through the problems and records what each step logs and keeps. */
export async function memoryStage(options: {
  model: Model;
  critic?: Model;
  task: Task;
  steps: number;
  lr: number;
  stored?: StoredSample[];
  records?: RecordLine[];
  evaluated?: Problem[];
}) {
  const files = new Map<string, readonly object[]>();
  const notes: string[] = [];
  const { model, critic, task, stored = [] } = options;
  const source = await task.problems("train");
  const policy = await model.snapshot("stage start");
  const recorded: RecordedStep[] = [];
  let cursor = 0;
  let sampled = 0;
  let sampling = false;

  async function* run(more: () => boolean, items = source.size): AsyncGenerator<DrawingStep> {
    for (; more();) {
      const index = recorded.length;
      const record: RecordedStep = { metrics: {}, kept: [], updates: 0, counted: 0 };
      const keys = new Map<Problem, string>();
      yield {
        index,
        problems: (count) =>
          Array.from({ length: sampling ? Math.min(count, source.size - cursor) : count }, (_, i) => {
            const problem = { ...source.at(cursor++ % source.size) };
            keys.set(problem, `${index}/${i}/${problem.id}`);
            return problem;
          }),
        draw: (count) => Array.from({ length: count }, () => cursor++ % items),
        lr: () => {
          record.updates++;
          return options.lr;
        },
        key: (problem) => keys.get(problem) ?? problem.id,
        grade: (items) => task.grade(items),
        log: (metrics) => void Object.assign(record.metrics, metrics),
        keep: (forest) => void record.kept.push(...forest),
        countGenerated: (tokens) => void (record.counted += tokens),
        time: (_, work) => work(),
      };
      recorded.push(record);
    }
  }

  const stage: DataStage = {
    name: "1-test",
    seed: 0,
    model,
    critic,
    tokenizer: model.tokenizer,
    task,
    source,
    startPolicy: () => Promise.resolve(policy),
    memory: {},
    steps: () => run(() => recorded.length - sampled < options.steps),
    stepsOver: (items) => run(() => recorded.length - sampled < options.steps, items),
    async *sampling({ generatedTokens = Infinity }) {
      const before = model.counts.generated;
      sampling = true;
      yield* run(() => cursor < source.size && model.counts.generated - before < generatedTokens);
      sampled = recorded.length;
      sampling = false;
    },
    sampled: () => recorded.slice(0, sampled).map(({ kept }) => kept),
    storedSamples: () => stored,
    get over() {
      return recorded.length - sampled >= options.steps;
    },
    storeRecords: (name, records) => void files.set(name, records),
    storeYield: (counts) => void files.set("yield", [counts]),
    records: (from) =>
      options.records ?? [...files.values()].flat().map((value, i) => ({ place: `${from}:${i + 1}`, value })),
    logged: () => recorded.map(({ metrics }) => metrics),
    evaluatedQuestions: () => Promise.resolve(options.evaluated ?? []),
    note: (text) => void notes.push(text),
    restart: () => model.reset(),
    gradeDemonstrations: (items) =>
      task.grade(
        items.map(({ problem, demonstration: i }) => ({ problem, response: problem.demonstrations?.[i] ?? "" })),
      ),
  };
  return { stage, recorded, files, notes };
}

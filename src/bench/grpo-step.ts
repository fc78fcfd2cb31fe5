import type { Model, Policy } from "../engine/types.ts";
import { grpo, grpoSettings } from "../method/grpo.ts";
import type { Stage, Step } from "../method/stage.ts";
import type { ModelConfig } from "../model/types.ts";
import { createTask } from "../task/create.ts";
import type { Problem } from "../task/types.ts";
import { randomTokens } from "./shapes.ts";

export interface GrpoShape {
  prompts: number;
  samples: number;
  /** Tokens of each prompt and of each response. */
  prompt: number;
  response: number;
}

/** Steps of the GRPO method itself, without a run around it: random prompts, and rewards that differ between samples. */
export async function grpoWorkload(
  model: Model,
  config: ModelConfig,
  shape: GrpoShape,
): Promise<{ facts: Record<string, number>; repeat(): Promise<Record<string, number>> }> {
  const { prompts, samples, prompt, response } = shape;
  const settings = grpoSettings.parse({ prompts, samples, maxTokens: response });
  const task = createTask({
    name: "bench",
    splits: {},
    reward: (_, text) => (text.split(" ").reduce((sum, word) => sum + Number(word), 0) % 97) / 97,
  });
  let steps = 0;
  const makeProblem = (): Problem => {
    const id = `${steps}/${++made}`;
    return { id, prompt: { text: randomTokens(config, id, prompt).join(" ") } };
  };
  let made = 0;
  const repeat = async (): Promise<Record<string, number>> => {
    const spent = { sample: 0, train: 0 };
    const time: Step["time"] = async (what, work) => {
      const start = performance.now();
      try {
        return await work();
      } finally {
        if (what === "sample" || what === "train") spent[what] += (performance.now() - start) / 1000;
      }
    };
    const step: Step = {
      index: steps++,
      problems: (count) => Array.from({ length: count }, makeProblem),
      lr: () => settings.lr,
      key: ({ id }) => id,
      grade: (items) => task.grade(items),
      log() {},
      keep() {},
      time,
    };
    const stage: Stage = {
      name: "bench",
      seed: 0,
      model,
      tokenizer: model.tokenizer,
      task,
      startPolicy: (): Promise<Policy> => model.snapshot("stage-start"),
      memory: {},
      async *steps() {
        yield step;
      },
    };
    const start = performance.now();
    await grpo(stage, settings);
    return { seconds: (performance.now() - start) / 1000, ...spent };
  };
  const perPrompt = prompt + samples * response;
  const pairs = prompt * prompt + samples * response * (prompt + response);
  const facts = {
    prompts,
    samples,
    prompt,
    response,
    rows: prompts * perPrompt,
    scored: prompts * samples * response,
    pairs: prompts * pairs,
  };
  return { facts, repeat };
}

import type { Model } from "../engine/types.ts";
import { grpo, grpoSettings } from "../method/grpo.ts";
import type { ModelConfig } from "../model/types.ts";
import { createTask } from "../task/create.ts";
import type { Problem } from "../task/types.ts";
import { oneStep } from "./method-step.ts";
import { randomTokens } from "./shapes.ts";

export interface GrpoShape {
  prompts: number;
  samples: number;
  /** Tokens of each prompt and of each response. */
  prompt: number;
  response: number;
}

/** A reward that differs between samples. */
export const anyReward = (_: Problem, text: string): number =>
  (text.split(" ").reduce((sum, word) => sum + Number(word), 0) % 97) / 97;

/** Steps of the GRPO method itself: random prompts, and rewards that differ between samples. */
export async function grpoWorkload(
  model: Model,
  config: ModelConfig,
  shape: GrpoShape,
): Promise<{ facts: Record<string, number>; repeat(): Promise<Record<string, number>> }> {
  const { prompts, samples, prompt, response } = shape;
  const settings = grpoSettings.parse({ prompts, samples, maxTokens: response });
  const task = createTask({ name: "bench", splits: {}, reward: anyReward });
  let steps = 0;
  let made = 0;
  const makeProblem = (): Problem => {
    const id = `${steps}/${++made}`;
    return { id, prompt: { text: randomTokens(config, id, prompt).join(" ") } };
  };
  const repeat = async (): Promise<Record<string, number>> => {
    const spent = { sample: 0, train: 0 };
    const stage = oneStep(model, task, { index: steps++, lr: settings.lr, makeProblem, spent });
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

import type { Loss, Model, OptimSettings, Sample, SampleRequest } from "../engine/types.ts";
import type { Forest } from "../forest/types.ts";
import { motif } from "../method/motif.ts";
import { motifSettings } from "../method/motif-settings.ts";
import type { ModelConfig } from "../model/types.ts";
import { createTask } from "../task/create.ts";
import type { Problem, RoundsDefinition } from "../task/types.ts";
import { anyReward } from "./grpo-step.ts";
import { oneStep } from "./method-step.ts";
import { randomTokens } from "./shapes.ts";

export interface MotifShape {
  /** m, k and n. */
  samples: number;
  continuations: number;
  rounds: number;
  /** Tokens of the question, of each response, and of what it hands on. */
  prompt: number;
  response: number;
  progress: number;
}

/**
 * A step of the MOTIF method on one question, first responses trained as in the paper, and then its parts: the calls that the step made of the engine, with the same requests
 * and trees, so that batches and lengths are the same, and nothing between them.
 */
export async function motifWorkload(
  model: Model,
  config: ModelConfig,
  shape: MotifShape,
): Promise<{ facts: Record<string, number>; repeat(): Promise<Record<string, number>> }> {
  const { samples, continuations, rounds, prompt, response, progress } = shape;
  const settings = motifSettings.parse({
    prompts: 1,
    samples,
    continuations,
    rounds,
    maxTokens: response,
  });
  const words: RoundsDefinition = {
    prompt: ({ question = "" }, round, _, handed) => ({ text: [question, `${round}`, handed ?? ""].join(" ").trim() }),
    progress: (text) => text.split(" ").slice(-progress).join(" "),
    final: () => false,
  };
  const task = createTask({ name: "bench", splits: {}, reward: anyReward, rounds: words });
  let steps = 0;
  const repeat = async (): Promise<Record<string, number>> => {
    const id = `${steps}`;
    const makeProblem = (): Problem => ({
      id,
      prompt: { text: "0" },
      question: randomTokens(config, id, prompt).join(" "),
    });
    const calls: (() => Promise<unknown>)[] = [];
    const lengths: number[] = [];
    const spent = { sample: 0, train: 0 };
    await model.discard();
    const stage = oneStep(recording(model, calls, lengths), task, {
      index: steps++,
      lr: settings.lr,
      makeProblem,
      spent,
    });
    const start = performance.now();
    await motif(stage, settings);
    const seconds = (performance.now() - start) / 1000;

    await model.discard();
    let parts = 0;
    const own = lengths.splice(0);
    for (const call of calls) {
      const before = performance.now();
      await call();
      parts += (performance.now() - before) / 1000;
    }
    if (own.join() !== lengths.join())
      throw new Error(`replayed responses have ${lengths.join()} tokens, not ${own.join()}`);
    return { seconds, parts, ...spent };
  };
  await repeat();
  return { facts: { ...shape, chains: samples * continuations }, repeat };
}

/** A model that notes its calls, as functions that do the same again, and the tokens of what it samples. */
function recording(model: Model, calls: (() => Promise<unknown>)[], lengths: number[]): Model {
  const noted: Pick<Model, "sample" | "forwardBackward" | "optimStep"> = {
    sample(requests: SampleRequest[]): Promise<Sample[]> {
      const call = async () => {
        const drawn = await model.sample(requests);
        lengths.push(drawn.reduce((sum, { tokens }) => sum + tokens.length, 0));
        return drawn;
      };
      calls.push(call);
      return call();
    },
    forwardBackward(forest: Forest, loss: Loss) {
      const call = () => model.forwardBackward(forest, loss);
      calls.push(call);
      return call();
    },
    optimStep(optim: OptimSettings) {
      const call = () => model.optimStep(optim);
      calls.push(call);
      return call();
    },
  };
  const recorder: Model = Object.create(model);
  return Object.assign(recorder, noted);
}

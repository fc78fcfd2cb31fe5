import type { Model, SampleRequest } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { groupTree } from "../forest/build.ts";
import type { Forest } from "../forest/types.ts";

/** Tokens that a response may have: `maxTokens`, or what the prompt leaves of the context. None is a UserError. */
export function responseRoom(problem: string, prompt: Int32Array, maxContext: number, maxTokens: number): number {
  const room = Math.min(maxTokens, maxContext - prompt.length);
  if (room >= 1) return room;
  throw new UserError(
    `problem ${problem}: its prompt of ${prompt.length} tokens fills the context of ${maxContext}: leave it out or shorten it`,
  );
}

/** A prompt to be answered. */
export interface Question {
  /** The id of the tree that its samples make. */
  id: string;
  problem: string;
  prompt: Int32Array;
  /** Names the random stream; sample i draws from (key, i). */
  key: string;
}

export interface SamplingSettings {
  /** Samples a prompt. */
  samples: number;
  temperature: number;
  maxTokens: number;
  /** 1: the whole distribution. */
  topP: number;
  /** 0: the whole vocabulary. */
  topK: number;
  stop: string[];
}

export interface GroupRollout {
  /** One tree a question: its prompt as segment 0, its samples as segments 1 to n. */
  forest: Forest;
  /** The decoded responses, [question][sample]. */
  responses: string[][];
}

/** One turn: every question is answered `samples` times. A response ends where the context does. */
export async function sampleGroups(
  model: Model,
  questions: Question[],
  settings: SamplingSettings,
): Promise<GroupRollout> {
  const { samples: n, temperature, topP, topK, stop } = settings;
  const truncated = topP < 1 || topK > 0;
  const requests = questions.map(({ problem, prompt, key }): SampleRequest => ({
    prefix: prompt,
    n,
    maxTokens: responseRoom(problem, prompt, model.info.maxContext, settings.maxTokens),
    temperature,
    ...(topP < 1 && { topP }),
    ...(topK > 0 && { topK }),
    stop,
    key,
  }));
  const drawn = await model.sample(requests);
  const groups = questions.map((_, q) => drawn.slice(q * n, (q + 1) * n));
  return {
    forest: questions.map(({ id, problem, prompt }, q) =>
      groupTree({ id, problem }, prompt, groups[q], { temperature, truncated }),
    ),
    responses: groups.map((group) => group.map((sample) => sample.text)),
  };
}

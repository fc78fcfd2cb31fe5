import type { Segment, StopReason, Tree } from "./types.ts";

/** What a group's sample brings along. */
export interface SampledTokens {
  tokens: Int32Array;
  /** One natural log-prob a token. */
  logprobs: Float32Array;
  stop: StopReason;
  /** Of each token, the probability that top-k or top-p took away. */
  cutMass?: Float32Array;
}

export interface GroupOptions {
  /** The sampling temperature; 0 (arg max) is stored as 1, for its log-probs are those of temperature 1. */
  temperature: number;
  /** The samples were drawn with top-k or top-p. */
  truncated?: boolean;
}

/** A prompt (segment 0) with one policy leaf for each sample (segments 1 to n). */
export function groupTree(
  about: { id: string; problem: string; group?: string },
  prompt: Int32Array,
  samples: SampledTokens[],
  options: GroupOptions,
): Tree {
  const chosen: Pick<Segment, "temperature" | "truncated"> = {};
  if (options.temperature !== 0 && options.temperature !== 1) chosen.temperature = options.temperature;
  if (options.truncated) chosen.truncated = true;
  const leaves = samples.map(({ tokens, logprobs, stop, cutMass }): Segment => ({
    parent: 0,
    tokens,
    source: "policy",
    logprobs,
    ...chosen,
    fields: cutMass === undefined ? {} : { cutMass },
    stop,
  }));
  return { ...about, segments: [{ parent: -1, tokens: prompt, source: "prompt", fields: {} }, ...leaves] };
}

/** A prompt (segment 0) and the demonstration that continues it (segment 1). */
export function sequenceTree(
  about: { id: string; problem: string },
  prompt: Int32Array,
  demonstration: Int32Array,
): Tree {
  return {
    ...about,
    segments: [
      { parent: -1, tokens: prompt, source: "prompt", fields: {} },
      { parent: 0, tokens: demonstration, source: "data", fields: {} },
    ],
  };
}

import type { Model } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { sequenceTree } from "../forest/build.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { Problem, Split, Task } from "../task/types.ts";

/** Tokens that are scored before and after. */
const tokenCount = 200;
const longestResponse = 64;

/** A prompt and what the model answered. */
export interface Probe {
  prompt: Int32Array;
  response: Int32Array;
}

/** How far the log-probs of tokens (natural log, temperature 1) moved. */
export interface Verification {
  tokens: number;
  largest: number;
  mean: number;
}

/** Prompts of the run's own task and the model's answers, sampled at temperature 1: 200 answered tokens in all. */
export async function probeTexts(model: Model, task: Task): Promise<Probe[]> {
  const source = await task.problems(await anySplit(task));
  const probes: Probe[] = [];
  let left = tokenCount;
  // An answer may be one token, and a prompt longer than the context.
  for (let at = 0; left > 0 && at < Math.min(source.size, 4 * tokenCount); at += 8) {
    const problems = Array.from({ length: Math.min(8, source.size - at) }, (_, i) => source.at(at + i));
    const requests = problems.flatMap((problem: Problem) => {
      const prefix = encodePrompt(model.tokenizer, problem);
      const maxTokens = Math.min(longestResponse, model.info.maxContext - prefix.length);
      if (maxTokens < 1 || prefix.length === 0) return [];
      return [{ prefix, n: 1, maxTokens, temperature: 1, stop: task.stop, key: `verify/${problem.id}` }];
    });
    const samples = await model.sample(requests);
    samples.forEach(({ tokens }, i) => {
      const response = tokens.subarray(0, left);
      if (response.length > 0) probes.push({ prompt: requests[i].prefix, response });
      left -= response.length;
    });
  }
  if (probes.length === 0) {
    throw new UserError(`task ${task.name}: no prompt fits the model's context of ${model.info.maxContext} tokens`);
  }
  return probes;
}

async function anySplit(task: Task): Promise<Split> {
  for (const split of ["dev", "test"] as const) {
    try {
      if ((await task.problems(split)).size > 0) return split;
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
    }
  }
  return "train";
}

/** Log-probs of each response's tokens. */
export async function scoreProbes(model: Model, probes: Probe[]): Promise<Float32Array[]> {
  const forest = probes.map(({ prompt, response }, i) =>
    sequenceTree({ id: String(i), problem: String(i) }, prompt, response),
  );
  return (await model.forward(forest)).map(({ logprobs }) => logprobs[1]);
}

export function compareScores(before: Float32Array[], after: Float32Array[]): Verification {
  const differences = before.flatMap((row, i) => Array.from(row, (value, t) => Math.abs(value - after[i][t])));
  const sum = differences.reduce((a, b) => a + b, 0);
  return {
    tokens: differences.length,
    // NaN stays NaN.
    largest: differences.reduce((a, b) => Math.max(a, b), 0),
    mean: sum / differences.length,
  };
}

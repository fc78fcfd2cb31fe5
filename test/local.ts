import { join } from "node:path";
import { expect } from "vitest";
import { BaseWeights } from "../src/engine/local/weights.ts";
import { type LocalEngine, LocalModel, readFiles } from "../src/engine/local/index.ts";
import { type MemoryPlan, planMemory } from "../src/engine/local/plan.ts";
import { RandomStream } from "../src/engine/random.ts";
import type { Loss, ModelSpec } from "../src/engine/types.ts";
import type { Forest, Segment, Tree } from "../src/forest/types.ts";
import type { ModelConfig } from "../src/model/types.ts";

// What tests of the local engine share: tiny models with plans of their own, trees of random tokens, gradients and their distance.

export type Family = "llama" | "llama3" | "qwen2" | "qwen3";
export const families: Family[] = ["llama", "llama3", "qwen2", "qwen3"];
export const fixture = (family: Family): string => join(import.meta.dirname, "fixtures", "models", family);
/** Vocabulary of the fixtures. */
export const VOCAB = 300;

/** The shape of a model that fits on a screen. */
export const smallConfig = (special: Partial<ModelConfig> = {}): ModelConfig => ({
  architecture: "llama",
  layers: 1,
  hidden: 6,
  heads: 4,
  kvHeads: 2,
  headDim: 4,
  intermediate: 5,
  vocab: 9,
  maxContext: 16,
  rmsEps: 1e-5,
  ropeTheta: 100,
  tiedEmbeddings: true,
  qkvBias: false,
  qkNorm: false,
  eosIds: [0],
  ...special,
});

/** A fixture with a memory plan that the test chooses in part, and its own frozen weights unless some are given. */
export async function plannedModel(
  engine: LocalEngine,
  family: Family,
  rest: Partial<ModelSpec>,
  plan: Partial<MemoryPlan>,
  shared?: BaseWeights,
): Promise<LocalModel> {
  const spec: ModelSpec = { base: fixture(family), train: "none", ...rest };
  const files = await readFiles(spec);
  const whole = { ...planMemory(files, spec), ...plan };
  const base = spec.train === "full" ? null : (shared ?? new BaseWeights(files, whole.keepStored));
  return new LocalModel(engine.runtime, files, base, spec, whole, () => readFiles(spec));
}

export const lora = { lora: { rank: 3, alpha: 6 } };

/** Random values for every adapter and head, both factors of an adapter included; other weights stay. */
export function randomise(model: LocalModel, seed = 1): LocalModel {
  const random = new RandomStream(`test values ${seed}`);
  for (const { name, group } of model.parameters.entries) {
    if (!name.includes(".lora_") && !group.startsWith("head:")) continue;
    const values = model.parameters.value(name);
    for (let i = 0; i < values.length; i++) values[i] = 0.2 * random.normal();
  }
  return model;
}

export function randomTokens(seed: string | number, length: number, vocab = VOCAB): Int32Array {
  const random = new RandomStream(`test tokens ${seed}`);
  return Int32Array.from({ length }, () => random.below(vocab));
}

export const numbers = (seed: string | number, length: number): Float32Array => {
  const random = new RandomStream(`test numbers ${seed}`);
  return Float32Array.from({ length }, () => random.normal());
};

export const segmentOf = (parent: number, tokens: Int32Array, rest: Partial<Segment> = {}): Segment => ({
  parent,
  tokens,
  source: parent < 0 ? "prompt" : "policy",
  fields: {},
  ...rest,
});

export const treeOf = (id: string, ...segments: Segment[]): Tree => ({ id, problem: id, segments });

/** One tree for each path to a leaf; every token keeps its own fields. */
export function pathsOf(tree: Tree): Forest {
  const parents = new Set(tree.segments.map(({ parent }) => parent));
  return tree.segments.flatMap((leaf, s) => {
    if (parents.has(s)) return [];
    const path: Segment[] = [];
    for (let at: Segment | undefined = leaf; at; at = tree.segments[at.parent]) path.unshift(at);
    return [treeOf(`${tree.id}/${s}`, ...path.map((segment, i) => ({ ...segment, parent: i - 1 })))];
  });
}

/** Sum of a x logprob + b x entropy + c x heads, a, b, c being the fields of each token: gradients go everywhere and are known. */
export const weightedSum = (scope: Loss["scope"], parts: { entropy?: boolean; heads?: string[] } = {}): Loss => ({
  name: "weighted sum",
  config: {},
  scope,
  entropy: parts.entropy,
  fn(trees, now) {
    let loss = 0;
    const add = (weights: Float32Array | undefined, values: Float32Array): Float32Array =>
      values.map((value, i) => {
        const weight = weights?.[i % weights.length] ?? 0;
        loss += weight * value;
        return weight;
      });
    const grads = trees.map(({ segments }, t) => ({
      logprobs: segments.map(({ fields }, s) => add(fields.weights, now[t].logprobs[s])),
      ...(parts.entropy ? { entropy: segments.map(({ fields }, s) => add(fields.entropy, now[t].entropy[s])) } : {}),
      ...(parts.heads
        ? {
            heads: Object.fromEntries(
              parts.heads.map((name) => [
                name,
                segments.map(({ fields }, s) => add(fields[name], now[t].heads[name][s])),
              ]),
            ),
          }
        : {}),
    }));
    return { loss, grads, metrics: { tokens: trees.length } };
  },
});

/** The summed gradients by parameter; the model's own are zero afterwards. */
export async function takeGradients(model: LocalModel): Promise<Map<string, Float32Array>> {
  const taken = new Map(model.parameters.entries.map(({ name }) => [name, model.parameters.gradient(name).slice()]));
  await model.discard();
  return taken;
}

const norm = (x: ArrayLike<number>): number => Math.sqrt(Array.from(x).reduce((sum, v) => sum + v * v, 0));

/** ||a - b|| / ||b|| */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  return norm(Array.from(a, (x, i) => x - b[i])) / norm(b);
}

/** Every tensor's relative distance is within the limit, and none vanishes: a zero gradient tests nothing. */
export function expectSameGradients(
  found: Map<string, Float32Array>,
  expected: Map<string, Float32Array>,
  limit = 1e-5,
  untouched: (name: string) => boolean = () => false,
): void {
  expect([...found.keys()]).toEqual([...expected.keys()]);
  for (const [name, gradient] of expected) {
    if (untouched(name)) continue;
    expect(norm(gradient), `the gradient of ${name} must not vanish`).toBeGreaterThan(1e-6);
    expect(distance(found.get(name) ?? [], gradient), name).toBeLessThanOrEqual(limit);
  }
}

/** The largest difference of two lists of lists of numbers. */
export function largestDifference(a: ArrayLike<number>[], b: ArrayLike<number>[]): number {
  expect(a.map(({ length }) => length)).toEqual(b.map(({ length }) => length));
  return Math.max(0, ...a.flatMap((part, s) => Array.from(part, (x, i) => Math.abs(x - b[s][i]))));
}

/** Whether two arrays of numbers are the same, bit by bit. */
export const sameBits = (a: Float32Array, b: Float32Array): boolean => {
  const bytes = (x: Float32Array) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
  return Buffer.compare(bytes(a), bytes(b)) === 0;
};

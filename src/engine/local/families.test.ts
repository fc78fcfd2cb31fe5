import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { Forest, Tree } from "../../forest/types.ts";
import { crossEntropy } from "../../method/losses.ts";
import { readSafetensors, readSafetensorsHeader } from "../../model/safetensors.ts";
import { widen } from "../../model/widen.ts";
import { createLocalEngine, type LocalModel } from "./index.ts";
import { adapterNames } from "./weights.ts";

// Log-probs and gradients made by `transformers` and `peft`; see test/fixtures/README.md.

const fixtures = join(import.meta.dirname, "../../../test/fixtures");

interface Sequence {
  tokens: number[];
  weights: number[];
  logprobs: number[];
  entropy: number[];
}

interface Expected {
  sequences: Sequence[];
  temperature: { sequence: number; temperature: number; logprobs: number[]; entropy: number[] };
  sft: { loss: number };
  lora: { loss: number; logprobs: number[][] };
}

const engine = createLocalEngine();
afterAll(() => engine.close());

const treeOf = (
  id: string,
  tokens: number[],
  fields: Tree["segments"][0]["fields"] = {},
  temperature?: number,
): Tree => ({
  id,
  problem: id,
  segments: [
    { parent: -1, tokens: Int32Array.from(tokens), source: "data", fields, ...(temperature ? { temperature } : {}) },
  ],
});

const weighted = (sequences: Sequence[]): Forest =>
  sequences.map(({ tokens, weights }, i) => treeOf(`${i}`, tokens, { weights: Float32Array.from(weights) }));

const largest = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  return Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i])));
};

/** ||a - b|| / ||b|| */
function relative(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  const norm = (x: Float32Array) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0));
  return norm(a.map((x, i) => x - b[i])) / norm(b);
}

async function readAll(path: string): Promise<Map<string, Float32Array>> {
  const tensors = await readSafetensors(path, await readSafetensorsHeader(path));
  return new Map(
    [...tensors].map(([name, tensor]) => {
      const wide = new Float32Array(tensor.dims.reduce((a, b) => a * b, 1));
      widen(tensor, wide);
      return [name, wide];
    }),
  );
}

/** The adapter's tensors by the engine's names. */
const engineName = (name: string): string =>
  name.replace("base_model.model.", "").replace(/\.lora_([AB])\.(default\.)?weight/, ".lora_$1.weight");

describe.each(["llama", "llama3", "qwen2", "qwen3"])("%s", (family) => {
  const folder = join(fixtures, "models", family);
  const expected = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8")) as Expected;

  test("log-probs and entropies, at temperature 1 and below", async () => {
    const model = await engine.create({ base: folder, train: "none" });
    const { temperature: cool } = expected;
    const forest = expected.sequences.map(({ tokens }, i) => treeOf(`${i}`, tokens));
    forest.push(treeOf("cool", expected.sequences[cool.sequence].tokens, {}, cool.temperature));
    const scores = await model.forward(forest);
    [...expected.sequences, cool].forEach(({ logprobs, entropy }, i) => {
      expect(largest(scores[i].logprobs[0], logprobs)).toBeLessThan(2e-5);
      expect(largest(scores[i].entropy[0], entropy)).toBeLessThan(2e-5);
    });
  });

  test("the gradient of every parameter", async () => {
    const model = await engine.create({ base: folder, train: "full" });
    const { loss } = await model.forwardBackward(weighted(expected.sequences), crossEntropy());
    expect(loss).toBeCloseTo(expected.sft.loss, 3);
    const reference = await readAll(join(folder, "grads.safetensors"));
    expect([...reference.keys()].sort()).toEqual(model.parameters.entries.map(({ name }) => name).sort());
    for (const [name, gradient] of reference) {
      expect(relative(model.parameters.gradient(name), gradient), name).toBeLessThan(1e-4);
    }
  });

  test("an adapter: log-probs and gradients of both factors", async () => {
    const model = await engine.create({ base: folder, train: { lora: { rank: 4, alpha: 8 } } });
    for (const [name, values] of await readAll(join(folder, "lora", "adapter_model.safetensors"))) {
      model.parameters.value(engineName(name)).set(values);
    }
    const forest = weighted(expected.sequences);
    const plain = forest.map(({ id, segments }) => treeOf(id, [...segments[0].tokens]));
    const scores = await model.forward(plain);
    expected.lora.logprobs.forEach((logprobs, i) =>
      expect(largest(scores[i].logprobs[0], logprobs)).toBeLessThan(2e-5),
    );
    const { loss } = await model.forwardBackward(forest, crossEntropy());
    expect(loss).toBeCloseTo(expected.lora.loss, 3);
    const reference = await readAll(join(folder, "lora-grads.safetensors"));
    expect(reference.size).toBe(model.parameters.entries.length);
    for (const [name, gradient] of reference) {
      expect(relative(model.parameters.gradient(engineName(name)), gradient), name).toBeLessThan(1e-4);
    }
  });

  test("what it samples scores the same", async () => {
    const model = await engine.create({ base: folder, train: "none" });
    expect(await mismatch(model, Int32Array.from(expected.sequences[0].tokens), 12)).toBeLessThan(1e-5);
  });
});

/** The largest difference between a sampler's log-probs and the trainer's. */
async function mismatch(model: LocalModel, prefix: Int32Array, maxTokens: number): Promise<number> {
  const samples = await model.sample([{ prefix, n: 5, maxTokens, temperature: 1, stop: [], key: "mismatch" }]);
  const scores = await model.forward(
    samples.map(({ tokens }, i) => ({
      id: `${i}`,
      problem: "p",
      segments: [
        { parent: -1, tokens: prefix, source: "prompt" as const, fields: {} },
        { parent: 0, tokens, source: "policy" as const, fields: {} },
      ],
    })),
  );
  return Math.max(...samples.map((sample, i) => largest(sample.logprobs, scores[i].logprobs[1])));
}

const shared = process.env.RIFFT_SHARED ?? join(import.meta.dirname, "../../../../shared");
const gguf = join(shared, "models", "smollm2-135m-instruct.Q4_1.gguf");

describe.skipIf(!existsSync(gguf))("SmolLM2-135M-Instruct (skipped where its weights are absent)", () => {
  const real = JSON.parse(readFileSync(join(fixtures, "smollm2.json"), "utf8")) as {
    sequences: { tokens: number[]; logprobs: number[] }[];
    greedy: { prompt: number[]; tokens: number[]; answer: string };
  };

  test("log-probs within 2e-4, sampler against trainer within 1e-4, greedy answer", async () => {
    const model = await engine.create({ base: gguf, train: "none" });
    const scores = await model.forward(real.sequences.map(({ tokens }, i) => treeOf(`${i}`, tokens)));
    real.sequences.forEach(({ logprobs }, i) => expect(largest(scores[i].logprobs[0], logprobs)).toBeLessThan(2e-4));
    const prefix = Int32Array.from(real.greedy.prompt);
    const [greedy] = await model.sample([{ prefix, n: 1, maxTokens: 32, temperature: 0, stop: [], key: "greedy" }]);
    expect(greedy.text).toBe(real.greedy.answer);
    expect([...greedy.tokens]).toEqual(real.greedy.tokens.slice(0, greedy.tokens.length));
    expect(await mismatch(model, prefix, 24)).toBeLessThan(1e-4);
  });
});

test("adapters are named as peft names them", () => {
  expect(adapterNames("model.layers.0.self_attn.q_proj").a).toBe("model.layers.0.self_attn.q_proj.lora_A.weight");
});

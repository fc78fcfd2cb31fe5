import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  expectSameGradients,
  families,
  fixture,
  largestDifference,
  lora,
  numbers,
  plannedModel,
  randomise,
  randomTokens,
  sameBits,
  segmentOf,
  takeGradients,
  treeOf,
  weightedSum,
} from "../../../test/local.ts";
import type { Forest } from "../../forest/types.ts";
import { encodePrompt, encodeResponse } from "../../task/prompt.ts";
import { loadModelFiles } from "../../model/load.ts";
import { Value } from "../../runtime/index.ts";
import { Graph, gemm } from "../../tensor/index.ts";
import type { ModelSpec } from "../types.ts";
import { createLocalEngine, type LocalEngine, type LocalModel, readFiles } from "./index.ts";
import { planMemory } from "./plan.ts";

const tags = ["<verify>", "</verify>", "<next_step>", "</next_step>"];
const vocabulary = [..."0123456789+=?", "\n", " is", "<verify>"];
const adam = { lr: 1e-2, betas: [0.9, 0.999] as [number, number], eps: 1e-8, weightDecay: 0.1 };

let engine: LocalEngine;
let folder: string;
beforeAll(() => {
  engine = createLocalEngine({ threads: 2 });
  folder = mkdtempSync(join(tmpdir(), "rifft-tokens-"));
});
afterAll(async () => {
  await engine.close();
  rmSync(folder, { recursive: true, force: true });
});

const tiny = (rest: Partial<ModelSpec> = {}) =>
  engine.create({ base: "tiny", train: "full", vocabulary, seed: 3, addTokens: tags, ...rest });

/** A prompt, and a response in which added tokens stand between others; every token of the response weighs. */
function example(model: LocalModel, id = "t"): Forest {
  const ids = tags.map((tag) => model.tokenizer.added.get(tag) ?? -1);
  const [a, b, c] = randomTokens(id, 3, 10).map((token) => token + 1);
  const response = Int32Array.of(ids[2], a, b, ids[3], ids[0], c, ids[1]);
  const weights = Float32Array.from(response, (_, i) => 1 + (i % 3));
  return [
    treeOf(id, segmentOf(-1, randomTokens(`${id} prompt`, 4, 10)), segmentOf(0, response, { fields: { weights } })),
  ];
}

describe("a tiny model", () => {
  test("takes tags as tokens of their own, out of the vocabulary of words", async () => {
    const model = await tiny();
    const { tokenizer, info } = model;
    expect([...tokenizer.added]).toEqual(tags.map((tag, i) => [tag, vocabulary.length + i]));
    expect(info.vocabSize).toBe(vocabulary.length + tags.length);
    const text = "<verify>\n1+1=2 is\n</verify>\n";
    const ids = encodeResponse(tokenizer, text);
    expect([ids[0], ids.at(-2)]).toEqual([tokenizer.added.get(tags[0]), tokenizer.added.get(tags[1])]);
    expect(tokenizer.decode(ids)).toBe(text);
    const prompt = { text: "1+1?", prefill: "\n<next_step>2" };
    expect(tokenizer.decode(encodePrompt(tokenizer, { id: "p", prompt }))).toBe("1+1?\n<next_step>2");
    // A question cannot say a tag: here its characters are unknown.
    expect(() => encodePrompt(tokenizer, { id: "p", prompt: { text: "1<verify>" } })).toThrow("no token for");
  });

  test("samples them, masks to them and scores them as any other token", async () => {
    const model = await tiny();
    const allowed = Int32Array.from(model.tokenizer.added.values());
    const prefix = Int32Array.of(1, 2, 3);
    const request = { prefix, n: 4, maxTokens: 3, temperature: 1, stop: [], allowed, scoreIds: allowed, key: "k" };
    const samples = await model.sample([request, { ...request, key: "top", topK: 2, topP: 0.9 }]);
    for (const { tokens, logprobs, idLogprobs = new Float32Array(0) } of samples) {
      const at = allowed.indexOf(tokens[0]);
      expect(at).toBeGreaterThanOrEqual(0);
      const lse = Math.log(idLogprobs.reduce((sum, value) => sum + Math.exp(value), 0));
      expect(logprobs[0]).toBeCloseTo(idLogprobs[at] - lse, 5);
    }
    const forest = samples
      .slice(0, 4)
      .map(({ tokens }, i) =>
        treeOf(
          String(i),
          segmentOf(-1, prefix),
          segmentOf(0, tokens, { allowed: Array.from(tokens, (_, t) => (t === 0 ? allowed : null)) }),
        ),
      );
    const scores = await model.forward(forest);
    samples.slice(0, 4).forEach(({ logprobs }, i) => {
      expect(largestDifference([logprobs], [scores[i].logprobs[1]])).toBeLessThan(1e-5);
    });
  });

  test("trains, saves and goes on with the same bits", async () => {
    const model = await tiny();
    const settings = { groups: { body: adam, tokens: { ...adam, lr: 0 } } };
    const rows = () => {
      const all = model.parameters.value("model.embed_tokens.weight");
      const first = (model.info.vocabSize - tags.length) * 64;
      return [all.slice(0, first), all.slice(first)];
    };
    const [words, before] = rows();
    await model.forwardBackward(example(model), weightedSum("tree"));
    await model.optimStep(settings);
    expect(sameBits(rows()[1], before)).toBe(true);
    expect(sameBits(rows()[0], words)).toBe(false);
    const dir = join(folder, "tiny");
    await model.save(dir);
    const again = await tiny({ from: { dir, optimizer: true } });
    for (const one of [model, again]) {
      await one.forwardBackward(example(one, "u"), weightedSum("tree"));
      await one.optimStep({ groups: { body: adam } });
    }
    expect(sameBits(model.parameters.values, again.parameters.values)).toBe(true);
    expect(sameBits(rows()[1], before)).toBe(false);
  });
});

describe.each(families)("%s", (family) => {
  const make = (rest: Partial<ModelSpec>) => engine.create({ base: fixture(family), train: lora, seed: 5, ...rest });
  const grown = (rest: Partial<ModelSpec> = {}) => make({ addTokens: tags, ...rest });

  test("the logits of old tokens stay as they were, bit for bit, in decoding and after a prefill", async () => {
    for (const train of ["none", "full", lora] as const) {
      const [before, after] = await Promise.all([make({ train }), grown({ train })]);
      const vocab = before.info.vocabSize;
      expect(after.info.vocabSize).toBe(vocab + tags.length);
      for (const [n, length] of [
        [1, 5],
        [3, 40],
        [16, 2],
      ]) {
        const [old, now] = await Promise.all([before, after].map((model) => rawLogits(model, n, length)));
        expect(now.length).toBe(n);
        now.forEach((row, i) => expect(sameBits(row.subarray(0, vocab), old[i])).toBe(true));
      }
      await Promise.all([before.close(), after.close()]);
    }
  });

  test("a training pass gives every old token what it gave, but for the share of the new ones", async () => {
    const [before, after] = await Promise.all([make({}), grown()]);
    const old = Int32Array.from({ length: before.info.vocabSize }, (_, id) => id);
    const tokens = randomTokens("pass", 30, before.info.vocabSize);
    const tree = (allowed?: (Int32Array | null)[]) => [treeOf("t", segmentOf(-1, tokens, { allowed }))];
    const [plain] = await before.forward(tree());
    const [masked] = await after.forward(tree(Array.from(tokens, () => old)));
    expect(largestDifference(masked.logprobs, plain.logprobs)).toBeLessThan(2e-6);
    const [whole] = await after.forward(tree());
    for (const [i, value] of whole.logprobs[0].entries()) if (i > 0) expect(value).toBeLessThan(plain.logprobs[0][i]);
    await Promise.all([before.close(), after.close()]);
  });

  test("beside an adapter the new rows alone have a gradient: that of full fine-tuning, row for row", async () => {
    const [full, adapter] = await Promise.all([grown({ train: "full" }), grown()]);
    const ids = Array.from(adapter.tokenizer.added.values());
    const { hidden } = adapter.files.config;
    for (const entropy of [false, true]) {
      const forest = example(adapter);
      forest[0].segments[1].fields.entropy = Float32Array.from([0.5, 1, 0.2, 0.7, 1, 0.4, 0.3]);
      for (const model of [full, adapter]) await model.forwardBackward(forest, weightedSum("tree", { entropy }));
      const every = await takeGradients(full);
      const found = await takeGradients(adapter);
      const names = [...found.keys()].filter((name) => name.endsWith(".tokens"));
      expect(names).toHaveLength(adapter.files.config.tiedEmbeddings ? 1 : 2);
      const rows = (name: string) => {
        const whole = every.get(name.replace(/tokens$/, "weight")) ?? new Float32Array(0);
        return Float32Array.from(ids.flatMap((id) => Array.from(whole.subarray(id * hidden, (id + 1) * hidden))));
      };
      expectSameGradients(
        new Map(names.map((name) => [name, found.get(name) ?? new Float32Array(0)])),
        new Map(names.map((name) => [name, rows(name)])),
      );
    }
    await Promise.all([full.close(), adapter.close()]);
  });

  test("trained rows are used by decoding, passes and snapshots, and the base keeps its own", async () => {
    const model = randomise(await grown());
    const forest = example(model);
    const [first] = await model.forward(forest);
    await model.snapshot("first");
    await model.forwardBackward(forest, weightedSum("tree"));
    await model.optimStep({ groups: { body: { ...adam, lr: 0 }, tokens: { ...adam, lr: 0.1 } } });
    const fresh = await grown();
    const [base, untouched] = await Promise.all([model.forward(forest, "base"), fresh.forward(forest, "base")]);
    expect(sameBits(base[0].logprobs[1], untouched[0].logprobs[1])).toBe(true);
    const [now] = await model.forward(forest);
    const [again] = await model.forward(forest, "first");
    expect(sameBits(again.logprobs[1], first.logprobs[1])).toBe(true);
    expect(largestDifference(now.logprobs, first.logprobs)).toBeGreaterThan(0.01);
    const [{ tokens: prompt }, { tokens }] = forest[0].segments;
    for (const policy of ["current", "first", "base", "current"]) {
      // After each prefix the log-prob of the token that follows.
      const samples = await model.sample(
        Array.from(tokens, (id, t) => ({
          prefix: Int32Array.of(...prompt, ...tokens.subarray(0, t)),
          policy,
          n: 1,
          maxTokens: 1,
          temperature: 1,
          stop: [],
          scoreIds: Int32Array.of(id),
          key: `${policy}/${t}`,
        })),
      );
      const [expected] = await model.forward(forest, policy);
      const found = Float32Array.from(samples, ({ idLogprobs }) => idLogprobs?.[0] ?? NaN);
      expect(largestDifference([found], [expected.logprobs[1]])).toBeLessThan(2e-5);
    }
    await Promise.all([model.close(), fresh.close()]);
  });

  test("goes on byte for byte, and a model of other tokens is refused", async () => {
    const dir = join(folder, family);
    const model = randomise(await grown());
    const step = async (one: LocalModel, id: string) => {
      await one.forwardBackward(example(one, id), weightedSum("tree"));
      await one.optimStep({ groups: { body: adam }, maxGradNorm: 1 });
    };
    await step(model, "a");
    await model.save(dir);
    await step(model, "b");
    const again = await grown({ from: { dir, optimizer: true } });
    await step(again, "b");
    expect(sameBits(again.parameters.values, model.parameters.values)).toBe(true);
    await expect(make({ addTokens: tags.slice(1), from: { dir, optimizer: false } })).rejects.toThrow("added tokens");
    await model.reset();
    const fresh = await grown();
    expect(sameBits(model.parameters.values, fresh.parameters.values)).toBe(true);
    await Promise.all([model.close(), again.close(), fresh.close()]);
  });
});

test("frozen layers that stay as they were stored, and layers computed again, change nothing", async () => {
  const rest = { train: lora, seed: 5, addTokens: tags };
  const gradients: Map<string, Float32Array>[] = [];
  for (const plan of [{}, { keepStored: true }, { keepStored: true, keep: "inputs", headBytes: 0 }] as const) {
    const model = randomise(await plannedModel(engine, "llama3", rest, plan));
    await model.forwardBackward(example(model), weightedSum("tree"));
    gradients.push(await takeGradients(model));
    await model.close();
  }
  for (const found of gradients.slice(1)) expectSameGradients(found, gradients[0]);
});

test("the memory plan counts the rows, and the copies of matrices in which they are trained", async () => {
  const base = fixture("qwen2");
  const files = await loadModelFiles(base);
  const many = Array.from({ length: 700 }, (_, i) => `<${i}>`);
  for (const [train, rows, copies] of [
    // Values, gradients and two moments of 700 x 32 in two matrices; a copy of both matrices beside an adapter.
    ["full", 2 * 700 * 32 * 4 * 4, 0],
    [lora, 2 * 700 * 32 * 4 * 4, 2 * 1000 * 32 * 4],
  ] as const) {
    const spec = { base, train };
    const grown = await readFiles({ ...spec, addTokens: many });
    const more = planMemory(grown, spec, 4).bytes - planMemory(files, spec, 4).bytes;
    const frozen = train === "full" ? 0 : 2 * 700 * 32 * 4;
    const packed = 2 * 700 * 32 * 4;
    const head = 2048 * 700 * 4;
    expect(more).toBe(rows + copies + frozen + packed + head);
  }
});

test("the columns of a head's product do not depend on how many there are", async () => {
  const [hidden, vocab, more] = [576, 5000, 16];
  const run = async (n: number, columns: number, rows: Float32Array) => {
    const graph = new Graph();
    const h = graph.input("h", ["n", hidden]);
    const embedding = graph.input("embedding", [columns, hidden]);
    graph.output("logits", gemm(["n", columns], h, embedding, { transB: true }));
    const session = engine.runtime.createSession(graph.build(), { name: "product" });
    const logits = new Float32Array(n * columns);
    const inputs = {
      h: new Value(numbers("h", n * hidden), [n, hidden]),
      embedding: new Value(rows.subarray(0, columns * hidden), [columns, hidden]),
    };
    await session.bind(inputs, { logits: new Value(logits, [n, columns]) }).run();
    session.release();
    return logits;
  };
  const rows = numbers("rows", (vocab + more) * hidden);
  for (const n of [1, 2, 7, 64, 300]) {
    const [before, after] = [await run(n, vocab, rows), await run(n, vocab + more, rows)];
    for (let i = 0; i < n; i++) {
      const at = i * (vocab + more);
      expect(sameBits(after.subarray(at, at + vocab), before.subarray(i * vocab, (i + 1) * vocab))).toBe(true);
    }
  }
});

/** The logits that the first decoding step gives `n` prompts, row by row. */
async function rawLogits(model: LocalModel, n: number, length: number): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  const decoder = model["decoder"];
  const step = decoder.step.bind(decoder);
  decoder.step = async (given) => {
    const choices = await step(given);
    const { vocabSize } = model.info;
    for (const [key, bound] of decoder["calls"]) {
      if (Number(key.split(" ")[0]) < n) continue;
      for (let i = 0; i < n; i++) rows.push(bound.logits().slice(i * vocabSize, (i + 1) * vocabSize));
    }
    return choices;
  };
  const requests = Array.from({ length: n }, (_, i) => ({
    prefix: randomTokens(`raw ${i}`, length),
    n: 1,
    maxTokens: 1,
    temperature: 1,
    stop: [],
    scoreIds: Int32Array.of(0),
    key: `${i}`,
  }));
  await model.sample(requests);
  decoder.step = step;
  return rows;
}

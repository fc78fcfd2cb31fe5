import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  largestDifference,
  randomTokens,
  sameBits,
  segmentOf,
  treeOf,
  weightedSum,
} from "../../../test/local.ts";
import type { Forest } from "../../forest/types.ts";
import { encodePrompt, encodeResponse } from "../../task/prompt.ts";
import type { ModelSpec } from "../types.ts";
import { createLocalEngine, type LocalEngine, type LocalModel } from "./index.ts";

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

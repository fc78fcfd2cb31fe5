import { afterAll, describe, expect, test } from "vitest";
import {
  families,
  fixture,
  largestDifference,
  lora,
  plannedModel,
  randomise,
  randomTokens,
  segmentOf,
  treeOf,
  VOCAB,
} from "../../../test/local.ts";
import { hashKey, uniform } from "../random.ts";
import type { Sample, SampleRequest } from "../types.ts";
import { createLocalEngine, type LocalModel } from "./index.ts";

// What is sampled, from which distribution, and what is said of it.

const engine = createLocalEngine();
afterAll(() => engine.close());

const ask = (key: string, rest: Partial<SampleRequest> = {}): SampleRequest => ({
  prefix: randomTokens(`prefix of ${key}`, 9),
  n: 1,
  maxTokens: 8,
  temperature: 1,
  stop: [],
  key,
  ...rest,
});

/** The log-probs of every id after a prefix, at temperature 1, as `forward` gives them. */
async function distributionAfter(model: LocalModel, prefix: Int32Array, policy = "current"): Promise<Float32Array> {
  const { vocabSize } = model.info;
  const leaves = Array.from({ length: vocabSize }, (_, id) => segmentOf(0, Int32Array.of(id)));
  const [scores] = await model.forward([treeOf("all", segmentOf(-1, prefix), ...leaves)], policy);
  return Float32Array.from(scores.logprobs.slice(1), ([lp]) => lp);
}

const EVEN = Int32Array.from({ length: VOCAB / 2 }, (_, i) => 2 * i);

/** The samples' log-probs as the trainer computes them, each in a segment that says how its tokens were chosen. */
async function rescored(model: LocalModel, request: SampleRequest, samples: Sample[]): Promise<Float32Array[]> {
  const chosen = samples.map(({ tokens }) => {
    const { allowed: first, banned } = request;
    const others = banned
      ? Int32Array.from({ length: VOCAB }, (_, id) => id).filter((id) => !banned.includes(id))
      : null;
    const allowed = Array.from(tokens, (_, i) => (i === 0 && first ? first : others));
    return segmentOf(0, tokens, { temperature: request.temperature || 1, ...(first || banned ? { allowed } : {}) });
  });
  const [scores] = await model.forward([treeOf("t", segmentOf(-1, request.prefix), ...chosen)], request.policy);
  return scores.logprobs.slice(1);
}

const tokensOf = (samples: Sample[]) => samples.map(({ tokens }) => [...tokens]);

describe.each(families)("%s: log-probs of samples are the trainer's", (family) => {
  test.each([
    { name: "no adapter", train: "none" as const },
    { name: "an active adapter", train: lora },
    { name: "all weights trained", train: "full" as const },
  ])("$name", async ({ train }) => {
    const model = randomise(await engine.create({ base: fixture(family), train }));
    for (const request of [
      ask("plain", { n: 5 }),
      ask("cool", { n: 5, temperature: 0.7 }),
      ask("allowed", { n: 5, temperature: 0.7, allowed: Int32Array.of(3, 50, 51, 250) }),
      ask("banned", { n: 5, temperature: 0.7, banned: EVEN }),
      ask("banned, greedy", { temperature: 0, banned: EVEN }),
      ask("greedy", { temperature: 0 }),
      ask("truncated", { n: 5, topK: 20, topP: 0.9 }),
      ask("one token before it", { n: 5, prefix: Int32Array.of(7) }),
    ]) {
      const samples = await model.sample([request]);
      expect(samples).toHaveLength(request.n);
      const scores = await rescored(model, request, samples);
      const found = samples.map(({ logprobs }) => logprobs);
      expect(largestDifference(found, scores)).toBeLessThan(1e-5 / Math.min(1, request.temperature || 1));
      for (const { tokens } of request.banned ? samples : []) expect(tokens.every((id) => id % 2 === 1)).toBe(true);
      if (!request.allowed) continue;
      for (const { tokens } of samples) expect(request.allowed.includes(tokens[0])).toBe(true);
    }
  });
});

describe("the choice", () => {
  const prefix = randomTokens("choice", 6);

  /** Each draw must be the inverse of the cumulative distribution at its own number, but for 1e-5 around the boundaries. */
  function expectInverse(samples: Sample[], key: string, probs: ArrayLike<number>): void {
    const upTo = new Float64Array(probs.length + 1);
    for (let id = 0; id < probs.length; id++) upTo[id + 1] = upTo[id] + probs[id];
    samples.forEach(({ tokens }, i) => {
      const u = uniform(hashKey(key), i, 0) * upTo[probs.length];
      expect(upTo[tokens[0]], `sample ${i}`).toBeLessThan(u + 1e-5);
      expect(upTo[tokens[0] + 1], `sample ${i}`).toBeGreaterThan(u - 1e-5);
      expect(probs[tokens[0]]).toBeGreaterThan(0);
    });
  }

  function chiSquare(samples: Sample[], probs: ArrayLike<number>): { statistic: number; freedom: number } {
    const counts = new Float64Array(probs.length);
    for (const { tokens } of samples) counts[tokens[0]]++;
    let statistic = 0;
    let bins = 0;
    let [rest, restExpected] = [0, 0];
    for (let id = 0; id < probs.length; id++) {
      const expected = probs[id] * samples.length;
      if (expected < 5) [rest, restExpected] = [rest + counts[id], restExpected + expected];
      else [statistic, bins] = [statistic + (counts[id] - expected) ** 2 / expected, bins + 1];
    }
    if (restExpected > 0) [statistic, bins] = [statistic + (rest - restExpected) ** 2 / restExpected, bins + 1];
    return { statistic, freedom: bins - 1 };
  }

  test.each([
    { temperature: 1, allowed: undefined },
    { temperature: 0.5, allowed: undefined },
    { temperature: 1.5, allowed: [0, 1, 127, 128, 129, 255, 256, 297, 299] },
  ])("follows the probabilities, temperature $temperature, allowed $allowed", async ({ temperature, allowed }) => {
    const model = await engine.create({ base: fixture("qwen3"), train: "none" });
    const lp = await distributionAfter(model, prefix);
    const weights = Array.from(lp, (x, id) => (!allowed || allowed.includes(id) ? Math.exp(x / temperature) : 0));
    const whole = weights.reduce((a, b) => a + b, 0);
    const probs = weights.map((w) => w / whole);
    const n = 2000;
    const request = ask("many", { prefix, n, maxTokens: 1, temperature, allowed: allowed && Int32Array.from(allowed) });
    const samples = await model.sample([request]);
    expectInverse(samples, "many", probs);
    const { statistic, freedom } = chiSquare(samples, probs);
    expect(Math.abs(statistic - freedom)).toBeLessThan(5 * Math.sqrt(2 * freedom));
    samples.forEach(({ tokens, logprobs }) => expect(logprobs[0]).toBeCloseTo(Math.log(probs[tokens[0]]), 4));
  });

  test("top-k and top-p choose inside their sets, in proportion; log-probs stay untruncated", async () => {
    const model = await engine.create({ base: fixture("qwen3"), train: "none" });
    const lp = await distributionAfter(model, prefix);
    const order = Array.from(lp.keys()).sort((a, b) => lp[b] - lp[a]);
    const nucleus = (p: number) => {
      let sum = 0;
      return order.filter((id) => {
        const stays = sum < p;
        sum += Math.exp(lp[id]);
        return stays;
      });
    };
    const cases: [Partial<SampleRequest>, number[]][] = [
      [{ topK: 1 }, order.slice(0, 1)],
      [{ topK: 7 }, order.slice(0, 7)],
      [{ topP: 0.3 }, nucleus(0.3)],
      [{ topK: 9, topP: 0.9 }, order.slice(0, 9)],
      [{ topP: 1e-9 }, order.slice(0, 1)],
    ];
    for (const [settings, set] of cases) {
      const samples = await model.sample([ask("cut", { prefix, n: 400, maxTokens: 1, ...settings })]);
      const whole = set.reduce((sum, id) => sum + Math.exp(lp[id]), 0);
      const probs = Array.from(lp, (x, id) => (set.includes(id) ? Math.exp(x) / whole : 0));
      for (const { tokens, logprobs, cutMass } of samples) {
        expect(cutMass).toHaveLength(1);
        expect(cutMass?.[0]).toBeCloseTo(1 - whole, 5);
        expect(set).toContain(tokens[0]);
        expect(logprobs[0]).toBeCloseTo(lp[tokens[0]], 4);
      }
      const { statistic, freedom } = chiSquare(samples, probs);
      expect(statistic).toBeLessThanOrEqual(freedom + 5 * Math.sqrt(2 * freedom));
    }
  });

  test("temperature 0 takes the most probable id, the lowest on a tie, with log-probs of temperature 1", async () => {
    const model = await engine.create({ base: fixture("llama3"), train: "full" });
    const lp = await distributionAfter(model, prefix);
    const best = lp.indexOf(Math.max(...lp));
    const [greedy, again] = await model.sample([
      ask("a", { prefix, temperature: 0, maxTokens: 1 }),
      ask("b", { prefix, temperature: 0, maxTokens: 1 }),
    ]);
    expect([greedy.tokens[0], again.tokens[0]]).toEqual([best, best]);
    expect(greedy.logprobs[0]).toBeCloseTo(lp[best], 4);
    const [limited] = await model.sample([
      ask("c", { prefix, temperature: 0, maxTokens: 1, allowed: Int32Array.of(299, 17) }),
    ]);
    expect(limited.tokens[0]).toBe(lp[17] >= lp[299] ? 17 : 299);
    // The same row of the head twice is a tie.
    const head = model.parameters.value("lm_head.weight");
    const row = head.slice(best * 32, (best + 1) * 32);
    const twin = best < 100 ? best + 130 : best - 90;
    head.set(row, twin * 32);
    const tied = await engine.create({ base: fixture("llama3"), train: "full" });
    tied.parameters.values.set(model.parameters.values);
    const [tie] = await tied.sample([ask("d", { prefix, temperature: 0, maxTokens: 1 })]);
    expect(tie.tokens[0]).toBe(Math.min(best, twin));
  });

  test("scoreIds gives raw log-probs, whatever the temperature and the mask; maxTokens 0 gives nothing else", async () => {
    const model = randomise(await engine.create({ base: fixture("qwen2"), train: lora }));
    const scoreIds = Int32Array.of(0, 5, 128, 299);
    const lp = await distributionAfter(model, prefix);
    const expected = Array.from(scoreIds, (id) => lp[id]);
    const before = model.counts.generated;
    const [only, beside, plain] = await model.sample([
      ask("x", { prefix, maxTokens: 0, temperature: 0.3, scoreIds }),
      ask("y", { prefix, maxTokens: 3, temperature: 0.5, allowed: Int32Array.of(4, 9), scoreIds }),
      ask("z", { prefix, maxTokens: 2 }),
    ]);
    expect(only).toMatchObject({ stop: "length", text: "" });
    expect(only.tokens).toHaveLength(0);
    expect(only.logprobs).toHaveLength(0);
    expect(largestDifference([only.idLogprobs ?? []], [expected])).toBeLessThan(1e-5);
    expect(largestDifference([beside.idLogprobs ?? []], [expected])).toBeLessThan(1e-5);
    expect(plain.idLogprobs).toBeUndefined();
    expect(model.counts.generated - before).toBe(beside.tokens.length + plain.tokens.length);
  });
});

describe("random streams", () => {
  const requests = [
    ask("first", { n: 3, maxTokens: 12 }),
    ask("second", { n: 2, maxTokens: 5, temperature: 0.6 }),
    ask("third", { n: 4, maxTokens: 20 }),
    ask("fourth", { n: 1, maxTokens: 1, allowed: Int32Array.of(2, 3, 4) }),
  ];
  const fresh = () => engine.create({ base: fixture("llama"), train: "none" });

  /** By request, its samples. */
  function parts(samples: Sample[], order: SampleRequest[]): Map<string, number[][]> {
    let at = 0;
    return new Map(order.map(({ key, n }) => [key, tokensOf(samples.slice(at, (at += n)))]));
  }

  test("a sample is a function of its key and index: alone, in company, in any order, again", async () => {
    const together = parts(await (await fresh()).sample(requests), requests);
    const reversed = requests.toReversed();
    expect(parts(await (await fresh()).sample(reversed), reversed)).toEqual(together);
    const model = await fresh();
    for (const request of requests) {
      expect(tokensOf(await model.sample([request]))).toEqual(together.get(request.key));
      expect(tokensOf(await model.sample([{ ...request, n: 1 }]))).toEqual(together.get(request.key)?.slice(0, 1));
    }
  });

  test("n samples of a request differ, as do those of another key", async () => {
    const model = await fresh();
    const many = tokensOf(await model.sample([ask("n", { n: 6, maxTokens: 6 })])).map(String);
    expect(new Set(many).size).toBe(6);
    const prefix = randomTokens("prefix of n", 9);
    const other = tokensOf(await model.sample([ask("m", { n: 6, maxTokens: 6, prefix })])).map(String);
    expect(other.some((tokens) => many.includes(tokens))).toBe(false);
  });

  test("few slots: more rows than fit are refilled, and say the same", async () => {
    const decoder = { maxRows: 3, slotBytes: 1e9, prefixBytes: 0 };
    const small = await plannedModel(engine, "llama", {}, { decoder });
    const whole = parts(await (await fresh()).sample(requests), requests);
    const done: [number, number][] = [];
    const samples = await small.sample(requests, (_, request, index) => void done.push([request, index]));
    expect(parts(samples, requests)).toEqual(whole);
    expect(done).toHaveLength(10);
    expect(new Set(done.map(String)).size).toBe(10);
    await small.close();
  });

  test("a neighbour that samples with top-k does not change what a row without it draws", async () => {
    const alone = tokensOf(await (await fresh()).sample([requests[2]]));
    const model = await fresh();
    const samples = await model.sample([requests[2], ask("cut", { n: 2, maxTokens: 20, topK: 5 })]);
    expect(tokensOf(samples.slice(0, 4))).toEqual(alone);
  });
});

describe("where a sample ends", () => {
  const vocabulary = [
    " one",
    " two",
    " three",
    "1",
    "2",
    "3",
    ".",
    "\n",
    ...Array.from({ length: 140 }, (_, i) => ` w${i}`),
  ];
  const words = () => engine.create({ base: "tiny", train: "none", vocabulary, seed: 3 });
  const prefix = Int32Array.of(1, 2);

  test("at any of several end-of-sequence ids, which belong to the tokens and not to the text", async () => {
    const model = await engine.create({ base: fixture("llama3"), train: "none" });
    expect(model.info.eosIds).toHaveLength(2);
    for (const id of model.info.eosIds) {
      const [sample] = await model.sample([ask("eos", { allowed: Int32Array.of(id) })]);
      expect(sample).toMatchObject({ stop: "eos", text: "" });
      expect([...sample.tokens]).toEqual([id]);
      expect(sample.logprobs).toHaveLength(1);
    }
    const [late] = await model.sample([ask("length", { maxTokens: 3, allowed: Int32Array.of(20) })]);
    expect(late).toMatchObject({ stop: "length", text: model.tokenizer.decode(late.tokens) });
    expect(late.tokens).toHaveLength(3);
  });

  test("at a stop string, also one that spans tokens; the text ends before it, the tokens keep all of it", async () => {
    const model = await words();
    const request = { prefix, maxTokens: 16 };
    const [free] = await model.sample([ask("free", request)]);
    expect(free.tokens.length).toBe(16);
    const decode = (ids: Int32Array) => model.tokenizer.decode(ids);
    for (let end = 3; end < 16; end += 3) {
      // The last letter of one word and the first two of the next, at their first occurrence.
      const before = decode(free.tokens.slice(0, end));
      const after = decode(free.tokens.slice(end, end + 1));
      const stop = before.slice(-1) + after.slice(0, 2);
      const at = decode(free.tokens).indexOf(stop);
      let needed = 1;
      while (decode(free.tokens.slice(0, needed)).length < at + stop.length) needed++;
      const [sample] = await model.sample([ask("free", { ...request, stop: ["never", stop] })]);
      expect(sample.stop).toBe("stop");
      expect(sample.tokens).toEqual(free.tokens.slice(0, needed));
      expect(sample.text).toBe(decode(free.tokens).slice(0, at));
      expect(sample.logprobs).toHaveLength(needed);
    }
  });

  test("of several stops the one that begins first cuts the text", async () => {
    const model = await words();
    const [free] = await model.sample([ask("free", { prefix, maxTokens: 6 })]);
    const [first, second] = [free.tokens.slice(0, 1), free.tokens.slice(1, 2)].map((ids) =>
      model.tokenizer.decode(ids),
    );
    const stops = [second, first.slice(1) + second];
    for (const stop of [stops, stops.toReversed()]) {
      const [sample] = await model.sample([ask("free", { prefix, maxTokens: 6, stop })]);
      expect(sample).toMatchObject({ stop: "stop", text: first.slice(0, 1) });
      expect(sample.tokens).toHaveLength(2);
    }
  });

  test("at a sequence of stop ids", async () => {
    const model = await words();
    const [free] = await model.sample([ask("free", { prefix, maxTokens: 12 })]);
    const [sample] = await model.sample([
      ask("free", { prefix, maxTokens: 12, stop: [Int32Array.of(1, 2, 3), free.tokens.slice(4, 6)] }),
    ]);
    expect(sample.stop).toBe("stop");
    expect(sample.tokens).toEqual(free.tokens.slice(0, 6));
    expect(sample.text).toBe(model.tokenizer.decode(free.tokens.slice(0, 4)));
  });

  test("a stop whose letters take several tokens each is seen", async () => {
    const model = await engine.create({ base: fixture("llama3"), train: "full" });
    // Ten letters of three bytes, all bytes different, each of them a token.
    const letters = Array.from({ length: 10 }, (_, i) => ((i + 1) << 12) | ((2 * i) << 6) | (2 * i + 21));
    const stop = String.fromCodePoint(...letters);
    const ids = model.tokenizer.encode(stop);
    expect(new Set(ids).size).toBe(30);
    // Nothing but embedding and head is left of the model: after each token of the chain only the next one is probable.
    const { parameters } = model;
    for (const { name } of parameters.entries) {
      if (/o_proj|down_proj|embed_tokens|lm_head/.test(name)) parameters.value(name).fill(0);
    }
    const hidden = 32;
    const chain = [20, ...ids];
    chain.slice(0, -1).forEach((id, i) => {
      parameters.value("model.embed_tokens.weight")[id * hidden + i] = 1;
      parameters.value("lm_head.weight")[chain[i + 1] * hidden + i] = 10;
    });
    const [sample] = await model.sample([
      ask("bytes", { prefix: Int32Array.of(20), maxTokens: 40, temperature: 0, stop: [stop] }),
    ]);
    expect([...sample.tokens]).toEqual([...ids]);
    expect(sample).toMatchObject({ stop: "stop", text: "" });
  });
});

describe("requests that cannot be", () => {
  test.each<[string, Partial<SampleRequest>, RegExp]>([
    ["an empty prefix", { prefix: new Int32Array(0) }, /prefix is empty/],
    ["no sample", { n: 0 }, /n must be/],
    ["half a token", { maxTokens: 1.5 }, /maxTokens/],
    ["a negative temperature", { temperature: -1 }, /temperature/],
    ["more than the context", { maxTokens: 200 }, /context of 128/],
    ["an id outside the vocabulary", { prefix: Int32Array.of(VOCAB) }, /id 300/],
    ["nothing allowed", { allowed: new Int32Array(0) }, /allowed/],
    ["an allowed id outside the vocabulary", { allowed: Int32Array.of(1, -1) }, /id -1/],
    ["a top-p of nothing", { topP: 0 }, /topP/],
    ["a top-p above 1", { topP: 1.5 }, /topP/],
    ["a negative top-k", { topK: -1 }, /topK/],
    ["an empty stop string", { stop: [""] }, /stop/],
    ["an empty stop sequence", { stop: [new Int32Array(0)] }, /stop/],
  ])("%s", async (_, rest, words) => {
    const model = await engine.create({ base: fixture("llama"), train: "none" });
    await expect(model.sample([ask("bad", rest)])).rejects.toThrow(words);
    expect(await model.sample([ask("good")])).toHaveLength(1);
  });
});

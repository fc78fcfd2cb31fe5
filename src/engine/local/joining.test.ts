import { afterAll, describe, expect, test } from "vitest";
import {
  fixture,
  largestDifference,
  lora,
  plannedModel,
  randomise,
  randomTokens,
  segmentOf,
  treeOf,
} from "../../../test/local.ts";
import { crossEntropy } from "../../method/losses.ts";
import type { ModelSpec, Sample, SampleRequest } from "../types.ts";
import { createLocalEngine, type LocalModel } from "./index.ts";

// Who waits for whom, what is computed once, and which weights answer.

const engine = createLocalEngine();
afterAll(() => engine.close());

const modelOf = async (train: ModelSpec["train"] = "none"): Promise<LocalModel> =>
  randomise(await engine.create({ base: fixture("qwen3"), train }));

const ask = (key: string, rest: Partial<SampleRequest> = {}): SampleRequest => ({
  prefix: randomTokens(`prefix of ${key}`, 9),
  n: 1,
  maxTokens: 8,
  temperature: 1,
  stop: [],
  key,
  ...rest,
});

const tokensOf = (samples: Sample[]) => samples.map(({ tokens }) => [...tokens]);
const joined = (...parts: ArrayLike<number>[]) => Int32Array.from(parts.flatMap((part) => Array.from(part)));
const tree = (id: string, length: number) => treeOf(id, segmentOf(-1, randomTokens(id, length)));

const adam = { groups: { body: { lr: 0.05, betas: [0.9, 0.99] as [number, number], eps: 1e-8, weightDecay: 0 } } };

async function train(model: LocalModel): Promise<void> {
  const weights = new Float32Array(12).fill(1);
  await model.forwardBackward(
    [treeOf("t", segmentOf(-1, randomTokens("trained", 12), { fields: { weights } }))],
    crossEntropy(),
  );
  await model.optimStep(adam);
}

describe("the running batch", () => {
  // A sample that goes on for as long as it may: temperature 0 keeps these models clear of the end of sequence.
  const long = ask("long", { maxTokens: 100, temperature: 0 });

  test("later calls join it: from a callback, after an await, and from elsewhere", async () => {
    const model = await modelOf();
    const events: string[] = [];
    const note = (name: string) => (samples: Sample[]) => {
      events.push(name);
      return samples;
    };
    const late: Promise<Sample[]>[] = [];
    const all = model
      .sample([long, ask("short", { maxTokens: 3 })], (_, request) => {
        if (request === 1) late.push(model.sample([ask("from the callback")]).then(note("from the callback")));
      })
      .then(note("long"));
    const turns = (async () => {
      for (let turn = 0; turn < 4; turn++) await model.sample([ask(`turn ${turn}`, { maxTokens: 2 })]);
      events.push("turns");
    })();
    const elsewhere = new Promise<Sample[]>((resolve) =>
      setImmediate(() => resolve(model.sample([ask("elsewhere")]).then(note("elsewhere")))),
    );
    const [whole] = await all;
    await Promise.all([turns, elsewhere, ...late]);
    expect(whole.tokens).toHaveLength(100);
    expect(events[4 - 1]).toBe("long");
    expect([...events].sort()).toEqual(["elsewhere", "from the callback", "long", "turns"]);
    const alone = await modelOf();
    expect(tokensOf(await alone.sample([ask("from the callback")]))).toEqual(tokensOf(await late[0]));
    expect(tokensOf(await alone.sample([ask("elsewhere")]))).toEqual(tokensOf(await elsewhere));
  });

  test("other verbs wait for it, and samples after them wait for those", async () => {
    const model = await modelOf();
    const events: string[] = [];
    const done = (name: string) => () => void events.push(name);
    await Promise.all([
      model.sample([long]).then(done("long")),
      model.sample([ask("joins")]).then(done("joins")),
      model.forward([tree("a", 5)]).then(done("forward")),
      model.sample([ask("after", { maxTokens: 1 })]).then(done("after")),
      model.snapshot("frozen").then(done("snapshot")),
      model.sample([ask("last", { maxTokens: 1, policy: "frozen" })]).then(done("last")),
    ]);
    expect(events).toEqual(["joins", "long", "forward", "after", "snapshot", "last"]);
  });

  test("callbacks come once a sample, with its request and index, before the call ends", async () => {
    const model = await modelOf();
    const requests = [ask("a", { n: 3, maxTokens: 4 }), ask("b", { n: 2, maxTokens: 2, policy: "base" })];
    const heard = new Map<string, Sample>();
    const samples = await model.sample(requests, (sample, request, index) => {
      expect(heard.has(`${request} ${index}`)).toBe(false);
      heard.set(`${request} ${index}`, sample);
    });
    expect(["0 0", "0 1", "0 2", "1 0", "1 1"].map((at) => heard.get(at))).toEqual(samples);
    expect(await model.sample([])).toEqual([]);
  });

  test("counts only ever grow, also while verbs wait", async () => {
    const model = await modelOf();
    const seen: number[] = [];
    const watch = () => void seen.push(model.counts.generated);
    const sampling = model.sample(
      Array.from({ length: 6 }, (_, i) => ask(`${i}`, { maxTokens: 3 + 3 * i })),
      watch,
    );
    const forward = model.forward([tree("a", 5)]).then(watch);
    const samples = await sampling;
    watch();
    await forward;
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(seen[0]).toBeGreaterThan(0);
    expect(seen[seen.length - 1]).toBe(samples.reduce((sum, { tokens }) => sum + tokens.length, 0));
  });
});

describe("errors", () => {
  test("one in a callback fails every call of the batch, and the model goes on", async () => {
    const model = await modelOf();
    const expected = tokensOf(await (await modelOf()).sample([ask("x", { n: 3 })]));
    const calls = [
      model.sample([ask("a", { maxTokens: 2 })], () => {
        throw new Error("the callback's own");
      }),
      model.sample([ask("b", { maxTokens: 50 })]),
    ];
    for (const { status, reason } of (await Promise.allSettled(calls)) as PromiseRejectedResult[]) {
      expect(status).toBe("rejected");
      expect(reason).toEqual(new Error("the callback's own"));
    }
    expect(tokensOf(await model.sample([ask("x", { n: 3 })]))).toEqual(expected);
    expect(await model.forward([tree("a", 5)])).toHaveLength(1);
  });

  test("a policy that does not exist is named; others are not touched", async () => {
    const model = await modelOf();
    const calls = [model.sample([ask("a", { policy: "nobody" })]), model.sample([ask("b")])];
    await expect(calls[0]).rejects.toThrow(/no policy "nobody"; there are current, base/);
    expect(await calls[1]).toHaveLength(1);
    await expect(model.forward([tree("a", 5)], "nobody")).rejects.toThrow(/nobody/);
    await expect(model.snapshot("base")).rejects.toThrow(/"base"/);
  });

  test("after close nothing runs, closing twice is nothing, and the engine closes all the same", async () => {
    const own = createLocalEngine();
    const model = await own.create({ base: fixture("qwen3"), train: "none" });
    const sampling = model.sample([ask("a")]);
    const closing = model.close();
    await expect(model.sample([ask("b")])).rejects.toThrow(/closed/);
    expect(await sampling).toHaveLength(1);
    await closing;
    await model.close();
    await expect(model.sample([ask("c")])).rejects.toThrow(/closed/);
    await expect((async () => model.forward([tree("a", 5)]))()).rejects.toThrow(/closed/);
    await own.close();
  });

  test.each([
    ["a path longer than the context", tree("t", 129), /tree t.*129 tokens.*context of 128/],
    ["a token outside the vocabulary", treeOf("t", segmentOf(-1, Int32Array.of(1, 300))), /tree t.*300/],
    [
      "an allowed id outside the vocabulary",
      treeOf("t", segmentOf(-1, Int32Array.of(1, 2), { allowed: [null, Int32Array.of(2, 300)] })),
      /tree t.*300/,
    ],
  ])("%s is refused by name", async (_, wrong, words) => {
    const model = await modelOf();
    await expect(model.forward([wrong])).rejects.toThrow(words);
    expect(await model.forward([tree("a", 5)])).toHaveLength(1);
  });
});

describe("prefixes", () => {
  test("a group's prompt, a repeated one and a continued sample are computed once", async () => {
    const model = await modelOf();
    const prefix = randomTokens("prefix", 21);
    const [first] = await model.sample([ask("a", { prefix, n: 5, maxTokens: 6 })]);
    // The last token of a prefix is read by the first decode step.
    expect(model.counts.prefilled).toBe(20);
    await model.sample([ask("b", { prefix, n: 2 })]);
    expect(model.counts.prefilled).toBe(20);
    const said = joined(prefix, first.tokens);
    const turn = joined(said, randomTokens("turn", 4));
    const [next] = await model.sample([ask("c", { prefix: turn, maxTokens: 6 })]);
    // The sample's own last token, which nobody had read, and three of the four new ones.
    expect(model.counts.prefilled).toBe(20 + 4);
    const branch = joined(said.subarray(0, 23), randomTokens("branch", 3));
    const [other] = await model.sample([ask("d", { prefix: branch, maxTokens: 6 })]);
    expect(model.counts.prefilled).toBe(20 + 4 + 2);
    // The same without any cache.
    const fresh = await plannedModel(engine, "qwen3", {}, { decoder: { maxRows: 4, slotBytes: 1e9, prefixBytes: 0 } });
    const expected = await fresh.sample([
      ask("c", { prefix: turn, maxTokens: 6 }),
      ask("d", { prefix: branch, maxTokens: 6 }),
    ]);
    expect(tokensOf([next, other])).toEqual(tokensOf(expected));
    expect(
      largestDifference(
        [next.logprobs, other.logprobs],
        expected.map(({ logprobs }) => logprobs),
      ),
    ).toBeLessThan(1e-5);
    await fresh.close();
  });

  test("shared beginnings of one call's requests are computed once", async () => {
    const model = await modelOf();
    const common = randomTokens("common", 30);
    const prefixes = [4, 9, 1, 0].map((length, i) => joined(common, randomTokens(`own ${i}`, length)));
    const requests = prefixes.map((prefix, i) => ask(`${i}`, { prefix, n: 2 }));
    const samples = await model.sample(requests);
    expect(model.counts.prefilled).toBe(30 + 3 + 8);
    for (const [i, request] of requests.entries()) {
      const alone = await (await modelOf()).sample([request]);
      expect(tokensOf(samples.slice(2 * i, 2 * i + 2))).toEqual(tokensOf(alone));
    }
  });

  test("a small budget forgets, and says the same", async () => {
    const budget = { maxRows: 2, slotBytes: 1e9, prefixBytes: 20_000 };
    const small = await plannedModel(engine, "qwen3", {}, { decoder: budget });
    const large = await modelOf();
    const requests = Array.from({ length: 8 }, (_, i) =>
      ask(`${i % 3}`, { prefix: randomTokens(i % 3, 10 + (i % 3)), n: 2, maxTokens: 10 }),
    );
    for (const request of requests) {
      expect(tokensOf(await small.sample([request]))).toEqual(tokensOf(await large.sample([request])));
    }
    expect(small.counts.prefilled).toBeGreaterThanOrEqual(large.counts.prefilled);
    await small.close();
  });

  test.each([
    ["an adapter", lora],
    ["all weights", "full" as const],
  ])("%s: an optimizer step forgets all of them", async (_, trained) => {
    const model = await modelOf(trained);
    const request = ask("a", { n: 2, maxTokens: 6 });
    const before = tokensOf(await model.sample([request]));
    const prefilled = model.counts.prefilled;
    await train(model);
    const after = await model.sample([request]);
    expect(model.counts.prefilled).toBe(2 * prefilled);
    expect(tokensOf(after)).not.toEqual(before);
    const [scores] = await model.forward([
      treeOf("t", segmentOf(-1, request.prefix), ...after.map(({ tokens }) => segmentOf(0, tokens))),
    ]);
    expect(
      largestDifference(
        scores.logprobs.slice(1),
        after.map(({ logprobs }) => logprobs),
      ),
    ).toBeLessThan(1e-5);
  });
});

describe.each([
  ["an adapter", lora],
  ["all weights", "full" as const],
])("policies, %s", (_, trained) => {
  test("each samples and scores with its own weights", async () => {
    const model = await modelOf(trained);
    const base = await modelOf();
    const forest = [tree("a", 20)];
    const request = ask("p", { n: 3, maxTokens: 6 });
    const look = async (policy?: string) => ({
      scores: (await model.forward(forest, policy))[0].logprobs[0],
      samples: await model.sample([{ ...request, policy }]),
    });
    const close = (a: Awaited<ReturnType<typeof look>>, b: typeof a) => {
      expect(largestDifference([a.scores], [b.scores])).toBeLessThan(1e-5);
      expect(tokensOf(a.samples)).toEqual(tokensOf(b.samples));
    };
    expect(await model.snapshot("start")).toBe("start");
    const start = await look();
    close(await look("start"), start);
    await train(model);
    const later = await look();
    expect(largestDifference([later.scores], [start.scores])).toBeGreaterThan(1e-2);
    close(await look("start"), start);
    await model.snapshot("later");
    await train(model);
    close(await look("later"), later);
    close(await look("start"), start);
    close(await look("base"), {
      scores: (await base.forward(forest))[0].logprobs[0],
      samples: await base.sample([request]),
    });
    // One call may ask several.
    const mixed = await model.sample(["start", "current", "later"].map((policy) => ({ ...request, policy })));
    expect(tokensOf(mixed.slice(0, 3))).toEqual(tokensOf(start.samples));
    expect(tokensOf(mixed.slice(6))).toEqual(tokensOf(later.samples));
    await model.release("start");
    await expect(model.forward(forest, "start")).rejects.toThrow(/no policy "start"; there are current, base, later/);
    await model.snapshot("later");
    const renewed = await look("later");
    close(renewed, await look());
  });
});

test("tiny, all weights trained: its base can be asked", async () => {
  const model = await engine.create({ base: "tiny", train: "full", vocabulary: [" a", " b", " c"], seed: 2 });
  const forest = [treeOf("t", segmentOf(-1, Int32Array.of(1, 2, 3, 1, 2)))];
  const [before] = await model.forward(forest);
  const weights = Float32Array.of(1, 1, 1, 1, 1);
  await model.forwardBackward([treeOf("t", { ...forest[0].segments[0], fields: { weights } })], crossEntropy());
  await model.optimStep(adam);
  const [base] = await model.forward(forest, "base");
  expect(largestDifference(base.logprobs, before.logprobs)).toBe(0);
  expect(largestDifference((await model.forward(forest))[0].logprobs, before.logprobs)).toBeGreaterThan(1e-3);
});

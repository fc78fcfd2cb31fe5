import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  expectSameGradients,
  families,
  type Family,
  fixture,
  largestDifference,
  lora,
  numbers,
  pathsOf,
  plannedModel,
  randomise,
  randomTokens,
  segmentOf,
  takeGradients,
  treeOf,
  VOCAB,
  weightedSum,
} from "../../../test/local.ts";
import type { Forest, Tree } from "../../forest/types.ts";
import { crossEntropy, ppo } from "../../method/losses.ts";
import { loadModelFiles } from "../../model/load.ts";
import { RandomStream } from "../random.ts";
import type { HeadSpec, Loss, ModelSpec, Scores } from "../types.ts";
import { createLocalEngine, type LocalModel } from "./index.ts";
import type { MemoryPlan } from "./plan.ts";
import { BaseWeights } from "./weights.ts";

// Batch, padding, accumulation, packing, cutting and prefix sharing never change a gradient by more than rounding.

const engine = createLocalEngine();
const models: LocalModel[] = [];
afterAll(async () => {
  for (const model of models) await model.close();
  await engine.close();
});

async function modelOf(family: Family, rest: Partial<ModelSpec>, plan: Partial<MemoryPlan> = {}): Promise<LocalModel> {
  const model = randomise(await plannedModel(engine, family, rest, plan));
  models.push(model);
  return model;
}

const value: HeadSpec = { name: "value", width: 2, bias: true, init: 0.1 };
const everything = (scope: Loss["scope"]) => weightedSum(scope, { entropy: true, heads: ["value"] });

/** Fields with which every token gives a gradient to its log-prob, its entropy and both columns of the head. */
const fieldsFor = (seed: string, length: number) => ({
  weights: numbers(`${seed} weights`, length),
  entropy: numbers(`${seed} entropy`, length),
  value: numbers(`${seed} value`, length),
});

const sequence = (id: string, length: number): Tree =>
  treeOf(id, segmentOf(-1, randomTokens(id, length), { fields: fieldsFor(id, length) }));

/** A prompt that nothing is asked of, with responses of these lengths. */
const group = (id: string, prompt: number, responses: number[]): Tree =>
  treeOf(
    id,
    segmentOf(-1, randomTokens(`${id} prompt`, prompt)),
    ...responses.map((length, i) =>
      segmentOf(0, randomTokens(`${id} ${i}`, length), { fields: fieldsFor(`${id} ${i}`, length) }),
    ),
  );

/** A tree search: several levels under several roots, empty segments, segments of one token. */
function searchTree(id: string, nodes: number, longest: number): Tree {
  const random = new RandomStream(`test tree ${id}`);
  const depth: number[] = [];
  return treeOf(
    id,
    ...Array.from({ length: nodes }, (_, s) => {
      let parent = s < 2 ? -1 : random.below(s);
      if (parent >= 0 && depth[parent] > 40) parent = 0;
      const length = s % 5 === 3 ? 0 : s % 5 === 4 ? 1 : 1 + random.below(longest);
      depth[s] = (parent < 0 ? 0 : depth[parent]) + length;
      return segmentOf(parent, randomTokens(`${id} ${s}`, length), { fields: fieldsFor(`${id} ${s}`, length) });
    }),
  );
}

async function gradientsOf(model: LocalModel, calls: Forest[], loss: Loss) {
  for (const forest of calls) await model.forwardBackward(forest, loss);
  return takeGradients(model);
}

const trainings: [string, ModelSpec["train"]][] = [
  ["LoRA", lora],
  ["full", "full"],
];

describe.each(families.flatMap((family) => trainings.map(([name, train]) => [family, name, train] as const)))(
  "%s, %s",
  (family, _name, train) => {
    test("8 sequences at once, one at a time, and in a batch of other lengths", async () => {
      const model = await modelOf(family, { train, heads: [value] });
      const equal = Array.from({ length: 8 }, (_, i) => sequence(`equal ${i}`, 13));
      const loss = everything("tree");
      const alone = await gradientsOf(
        model,
        equal.map((tree) => [tree]),
        loss,
      );
      expectSameGradients(await gradientsOf(model, [equal], loss), alone);
      const mixed = [3, 17, 2, 9, 30, 9, 16, 5].map((length, i) => sequence(`mixed ${i}`, length));
      const each = await gradientsOf(
        model,
        mixed.map((tree) => [tree]),
        loss,
      );
      expectSameGradients(await gradientsOf(model, [mixed], loss), each);
    });

    test("a group as separate sequences, as one tree, and as a tree cut to fit", async () => {
      const whole = await modelOf(family, { train, heads: [value] });
      const cut = await modelOf(family, { train, heads: [value] }, { rows: 40 });
      const again = await modelOf(family, { train, heads: [value] }, { rows: 40, keep: "inputs", headBytes: 0 });
      const tree = group("g", 21, [7, 12, 1, 16, 12]);
      const loss = everything("tree");
      const packed = await gradientsOf(whole, [[tree]], loss);
      expectSameGradients(await gradientsOf(whole, [pathsOf(tree)], loss), packed);
      expectSameGradients(await gradientsOf(cut, [[tree]], loss), packed);
      expectSameGradients(await gradientsOf(again, [[tree]], loss), packed);
    });
  },
);

describe("search trees", () => {
  const forest = [searchTree("a", 24, 6), group("b", 9, [4, 4, 4]), searchTree("c", 18, 4), sequence("d", 25)];

  test("plans of every kind give the scores and gradients of the roomiest one", async () => {
    const spec: Partial<ModelSpec> = { train: lora, heads: [value] };
    const roomy = await modelOf("qwen3", spec);
    const expected = await roomy.forwardBackward(forest, everything("tree"));
    const gradients = await takeGradients(roomy);
    for (const plan of [
      { keep: "inputs" },
      { probBytes: 0 },
      { rows: 64 },
      { rows: 64, keep: "inputs" },
      { rows: 70, headBytes: 0 },
    ] satisfies Partial<MemoryPlan>[]) {
      for (const scope of ["tree", "forest"] as const) {
        const model = await modelOf("qwen3", spec, plan);
        const result = await model.forwardBackward(forest, everything(scope));
        expect(Math.abs(result.loss - expected.loss)).toBeLessThan(1e-3);
        result.scores.forEach((scores, t) => {
          expect(largestDifference(scores.logprobs, expected.scores[t].logprobs)).toBeLessThan(1e-5);
          expect(largestDifference(scores.entropy, expected.scores[t].entropy)).toBeLessThan(1e-5);
          expect(largestDifference(scores.heads.value, expected.scores[t].heads.value)).toBeLessThan(1e-5);
        });
        expectSameGradients(await takeGradients(model), gradients);
      }
    }
  });

  test("every token scores as it does on its own path, in `forward` as in training", async () => {
    const model = await modelOf("qwen2", { train: lora, heads: [value] });
    const small = await modelOf("qwen2", { train: lora, heads: [value] }, { rows: 64 });
    const trained = await model.forwardBackward(forest, everything("forest"));
    for (const scores of [await model.forward(forest), await small.forward(forest), trained.scores]) {
      for (const [t, tree] of forest.entries()) {
        const found = scores[t];
        expect(found.heads.value.map(({ length }) => length)).toEqual(
          tree.segments.map(({ tokens }) => 2 * tokens.length),
        );
        const paths = pathsOf(tree);
        const alone = await model.forward(paths);
        paths.forEach(({ id, segments }, p) => {
          let s = Number(id.split("/")[1]);
          for (let i = segments.length - 1; i >= 0; i--, s = tree.segments[s].parent) {
            // In training, tokens without weight are not scored.
            if (found === trained.scores[t] && !("weights" in segments[i].fields)) continue;
            expect(largestDifference([found.logprobs[s]], [alone[p].logprobs[i]])).toBeLessThan(1e-5);
            expect(largestDifference([found.entropy[s]], [alone[p].entropy[i]])).toBeLessThan(1e-5);
            expect(largestDifference([found.heads.value[s]], [alone[p].heads.value[i]])).toBeLessThan(1e-5);
          }
        });
      }
    }
  });

  test("tokens without weight score zero, in a tree that is cut as in a whole one", async () => {
    const tree = group("g", 21, [7, 12, 1, 16, 12]);
    // A branch that nobody weighs, in a piece of its own.
    tree.segments.push(segmentOf(0, randomTokens("abandoned", 19)));
    const whole = await modelOf("llama", { train: lora });
    const cut = await modelOf("llama", { train: lora }, { rows: 40 });
    const expected = await whole.forwardBackward([tree], crossEntropy());
    const found = await cut.forwardBackward([tree], crossEntropy());
    expect(largestDifference(found.scores[0].logprobs, expected.scores[0].logprobs)).toBeLessThan(1e-5);
    for (const s of [0, 6]) expect(expected.scores[0].logprobs[s].every((x) => x === 0)).toBe(true);
  });
});

test("passes of more rows than one call of the row-wise graphs and of the head takes", async () => {
  const model = await modelOf("qwen3", { train: "full", heads: [value] });
  const again = await modelOf(
    "qwen3",
    { train: "full", heads: [value] },
    { keep: "inputs", headBytes: 0, probBytes: 0 },
  );
  const equal = Array.from({ length: 9 }, (_, i) => sequence(`equal ${i}`, 120));
  const mixed = [...equal.slice(0, 4), group("wide", 100, [27, 3, 27, 27, 9, 1]), ...equal.slice(4)];
  const loss = everything("forest");
  for (const forest of [equal, mixed]) {
    const alone = await gradientsOf(
      model,
      forest.map((tree) => [tree]),
      loss,
    );
    expectSameGradients(await gradientsOf(model, [forest], loss), alone);
    expectSameGradients(await gradientsOf(again, [forest], loss), alone);
  }
  const together = await model.forward(mixed);
  for (const [t, tree] of mixed.entries()) {
    const [alone] = await model.forward([tree]);
    expect(largestDifference(together[t].logprobs, alone.logprobs)).toBeLessThan(1e-5);
  }
});

describe("work that cannot matter", () => {
  const withFields = (tree: Tree, change: (weights: Float32Array) => Float32Array): Tree => ({
    ...tree,
    segments: tree.segments.map((segment) =>
      segment.fields.weights ? { ...segment, fields: { weights: change(segment.fields.weights) } } : segment,
    ),
  });

  test("a tree whose fields are zero is skipped, and nothing else changes", async () => {
    const model = await modelOf("llama", { train: lora });
    const live = [group("a", 8, [5, 6]), sequence("b", 9)].map((tree) => withFields(tree, (w) => w));
    const dead = ["x", "y"].map((id) => withFields(group(id, 8, [5, 6]), (w) => w.map(() => 0)));
    const forest = [dead[0], live[0], dead[1], live[1]];
    const before = model.counts.trained;
    const result = await model.forwardBackward(forest, crossEntropy());
    const skipping = await takeGradients(model);
    expect(result.skipped).toBe(2);
    expect(result.scores.map(({ logprobs }) => logprobs.length)).toEqual([0, 3, 0, 1]);
    expect(model.counts.trained - before).toBe(19 + 9);
    expectSameGradients(skipping, await gradientsOf(model, [live], crossEntropy()));
    // The long way: no field tells the engine what may be left out; the loss itself gives zeros.
    const renamed = forest.map((tree): Tree => ({
      ...tree,
      segments: tree.segments.map((segment) => ({
        ...segment,
        fields: Object.fromEntries(Object.values(segment.fields).map((weights) => ["mine", weights])),
      })),
    }));
    const slow: Loss = {
      ...crossEntropy(),
      fn: (trees, now) => ({
        loss: 0,
        metrics: {},
        grads: trees.map(({ segments }, t) => ({
          logprobs: segments.map(({ fields }, s) => now[t].logprobs[s].map((_, i) => -(fields.mine?.[i] ?? 0))),
        })),
      }),
    };
    const all = await model.forwardBackward(renamed, slow);
    expect(all.skipped).toBe(0);
    expectSameGradients(skipping, await takeGradients(model));
  });

  test("a forest of nothing but zeros is no work and no gradient", async () => {
    const model = await modelOf("llama", { train: lora });
    const dead = withFields(sequence("z", 9), (w) => w.map(() => 0));
    for (const scope of ["tree", "forest"] as const) {
      const result = await model.forwardBackward([dead], { ...crossEntropy(), scope });
      expect(result).toMatchObject({ loss: 0, skipped: 1 });
    }
    for (const gradient of (await takeGradients(model)).values()) expect(gradient.every((g) => g === 0)).toBe(true);
  });
});

test.each(["llama3", "qwen2"] as const)(
  "%s: a base kept as stored gives the same bits as one widened",
  async (family) => {
    const spec: Partial<ModelSpec> = { train: lora, heads: [value] };
    const forest = [group("g", 11, [7, 12, 1]), sequence("s", 30)];
    const run = async (keepStored: boolean) => {
      const model = await modelOf(family, spec, { keepStored });
      const { scores } = await model.forwardBackward(forest, everything("tree"));
      const [sample] = await model.sample([
        { prefix: randomTokens("stored", 6), n: 1, maxTokens: 8, temperature: 1, stop: [], key: "stored" },
      ]);
      return { scores, sample, gradients: await takeGradients(model) };
    };
    const [stored, wide] = [await run(true), await run(false)];
    expect(stored.scores).toEqual(wide.scores);
    expect(stored.gradients).toEqual(wide.gradients);
    expect(stored.sample).toEqual(wide.sample);
  },
);

test("two models over one stored base do not disturb each other", async () => {
  const base = new BaseWeights(await loadModelFiles(fixture("llama3")), true);
  const [first, second] = await Promise.all(
    [1, 2].map(() => plannedModel(engine, "llama3", { train: "none" }, { keepStored: true }, base)),
  );
  models.push(first, second);
  const [a, b] = [[sequence("a", 60)], [sequence("b", 20)]];
  const alone = { a: await first.forward(a), b: await second.forward(b) };
  // Unequal work, so that they meet at different layers.
  const repeat = async (times: number, model: LocalModel, forest: Forest, expected: Scores[]) => {
    for (let i = 0; i < times; i++) expect(await model.forward(forest)).toEqual(expected);
  };
  await Promise.all([repeat(20, first, a, alone.a), repeat(50, second, b, alone.b)]);
});

/**
 * Temperature and allowed ids, the long way: leaves for every id of the vocabulary give the whole distribution at temperature 1;
 * what the head computes of it, and its gradient, is computed here from those.
 */
describe("the distribution that a token was chosen from", () => {
  const prompt = randomTokens("distribution", 7);
  const ids = Int32Array.from({ length: VOCAB }, (_, id) => id);
  const target = 41;
  const open = treeOf(
    "open",
    segmentOf(-1, prompt),
    ...Array.from(ids, (id) => segmentOf(0, Int32Array.of(id), { fields: { weights: Float32Array.of(1) } })),
  );

  test.each([
    { temperature: 0.6, allowed: null },
    { temperature: 1.7, allowed: null },
    { temperature: 1, allowed: [3, 41, 42, 200, 299] },
    { temperature: 0.8, allowed: [41, 5] },
  ])("temperature $temperature, allowed ids $allowed", async ({ temperature, allowed }) => {
    const g = { logprob: 0.7, entropy: -1.3 };
    const expected = { logprob: 0, entropy: 0 };
    const slow: Loss = {
      name: "the long way",
      config: {},
      scope: "forest",
      fn: (_, [now]) => {
        const among = allowed ?? [...ids];
        const z = among.map((id) => now.logprobs[id + 1][0] / temperature);
        const lse = Math.log(z.reduce((sum, x) => sum + Math.exp(x), 0));
        const p = z.map((x) => Math.exp(x - lse));
        expected.entropy = p.reduce((sum, q, i) => sum - q * (z[i] - lse), 0);
        expected.logprob = z[among.indexOf(target)] - lse;
        const grad = new Map(
          among.map((id, i) => {
            const onLogprob = (id === target ? 1 : 0) - p[i];
            const onEntropy = -p[i] * (z[i] - lse + expected.entropy);
            return [id, (g.logprob * onLogprob + g.entropy * onEntropy) / temperature];
          }),
        );
        const logprobs = [new Float32Array(7), ...Array.from(ids, (id) => Float32Array.of(grad.get(id) ?? 0))];
        return { loss: 0, grads: [{ logprobs }], metrics: {} };
      },
    };
    const model = await modelOf("llama3", { train: "full" });
    const long = await gradientsOf(model, [[open]], slow);
    const chosen = segmentOf(0, Int32Array.of(target), {
      temperature,
      fields: { weights: Float32Array.of(g.logprob), entropy: Float32Array.of(g.entropy) },
      ...(allowed ? { allowed: [Int32Array.from(allowed)] } : {}),
    });
    // A neighbour with settings of its own in the same chunk of the head.
    const neighbour = segmentOf(0, Int32Array.of(9), { fields: { weights: Float32Array.of(0) } });
    const tree = treeOf("chosen", segmentOf(-1, prompt), chosen, neighbour);
    const { scores } = await model.forwardBackward([tree], weightedSum("tree", { entropy: true }));
    expect(scores[0].logprobs[1][0]).toBeCloseTo(expected.logprob, 4);
    expect(scores[0].entropy[1][0]).toBeCloseTo(expected.entropy, 4);
    expectSameGradients(await takeGradients(model), long);
    // Without the entropy's gradient the head's probabilities are kept, or made again where memory is short.
    const plain = await gradientsOf(model, [[tree]], weightedSum("tree"));
    const short = await modelOf("llama3", { train: "full" }, { headBytes: 0 });
    expectSameGradients(await gradientsOf(short, [[tree]], weightedSum("tree")), plain);
    const forward = await model.forward([tree]);
    expect(largestDifference(forward[0].logprobs.slice(1, 2), scores[0].logprobs.slice(1, 2))).toBeLessThan(1e-5);
  });
});

test("a token that paths share: its own fields say what the paths' would", async () => {
  const model = await modelOf("llama", { train: lora });
  const old = (id: string, length: number) => numbers(id, length).map((x) => -6 + 0.3 * x);
  const shared = { tokens: randomTokens("shared", 4), logprobs: old("shared", 4) };
  const advantages = [1.5, -0.5, 0.25];
  const leaves = advantages.map((advantage, i) => ({
    tokens: randomTokens(`leaf ${i}`, 5),
    logprobs: old(`leaf ${i}`, 5),
    fields: { advantages: new Float32Array(5).fill(advantage) },
  }));
  const prompt = segmentOf(-1, randomTokens("prompt", 6));
  const sum = (sign: 1 | -1) => advantages.reduce((total, a) => total + Math.max(sign * a, 0), 0);
  const fields = { advantagesUp: new Float32Array(4).fill(sum(1)), advantagesDown: new Float32Array(4).fill(sum(-1)) };
  const packed = treeOf(
    "packed",
    prompt,
    segmentOf(0, shared.tokens, { ...shared, fields }),
    ...leaves.map((leaf) => segmentOf(1, leaf.tokens, leaf)),
  );
  const separate = leaves.map((leaf, i) =>
    treeOf(
      `${i}`,
      prompt,
      segmentOf(0, shared.tokens, {
        ...shared,
        fields: { advantages: new Float32Array(4).fill(advantages[i]) },
      }),
      segmentOf(1, leaf.tokens, leaf),
    ),
  );
  const loss = ppo({ low: 0.8, high: 1.2 });
  expectSameGradients(await gradientsOf(model, [[packed]], loss), await gradientsOf(model, [separate], loss));
});

const shared = process.env.RIFFT_SHARED ?? join(import.meta.dirname, "../../../../shared");
const gguf = join(shared, "models", "smollm2-135m-instruct.Q4_1.gguf");

test.skipIf(!existsSync(gguf))(
  "SmolLM2-135M: a group flat and packed (skipped where its weights are absent)",
  async () => {
    const model = await engine.create({
      base: gguf,
      train: { lora: { rank: 4, alpha: 8, targets: ["q", "v", "down"] } },
    });
    for (const { name } of model.parameters.entries) {
      const values = model.parameters.value(name);
      values.set(numbers(name, values.length).map((x) => 0.02 * x));
    }
    const vocab = model.info.vocabSize;
    const tree = treeOf(
      "g",
      segmentOf(-1, randomTokens("real prompt", 24, vocab)),
      ...[9, 14, 5].map((length, i) =>
        segmentOf(0, randomTokens(`real ${i}`, length, vocab), { fields: { weights: numbers(`real ${i}`, length) } }),
      ),
    );
    const packed = await gradientsOf(model, [[tree]], weightedSum("tree"));
    const flat = await gradientsOf(model, [pathsOf(tree)], weightedSum("tree"));
    expectSameGradients(flat, packed, 1e-4);
  },
);

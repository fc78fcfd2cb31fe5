import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  distance,
  expectSameGradients,
  fixture,
  largestDifference,
  lora,
  numbers,
  randomise,
  randomTokens,
  segmentOf,
  takeGradients,
  treeOf,
  weightedSum,
} from "../../../test/local.ts";
import type { HeadSpec, Loss } from "../types.ts";
import { createLocalEngine } from "./index.ts";

// Scalar heads on the final hidden state: what they give, and their gradient through the whole body.

const engine = createLocalEngine();
afterAll(() => engine.close());

const value: HeadSpec = { name: "value", width: 1, bias: true, init: 0 };
const wide: HeadSpec = { name: "wide", width: 3, bias: false, init: 0.1 };
const adam = { lr: 0.05, betas: [0.9, 0.99] as [number, number], eps: 1e-8, weightDecay: 0 };

const tree = treeOf(
  "t",
  segmentOf(-1, randomTokens("prompt", 5)),
  segmentOf(0, randomTokens("a", 4), { fields: { value: numbers("a value", 4), weights: numbers("a", 4) } }),
  segmentOf(0, new Int32Array(0)),
  segmentOf(1, randomTokens("b", 1), { fields: { value: numbers("b value", 1), weights: numbers("b", 1) } }),
);

test("values stand for every token, prompts included, row-major tokens x width", async () => {
  const model = randomise(await engine.create({ base: fixture("llama"), train: "none", heads: [value, wide] }));
  const [{ heads }] = await model.forward([tree]);
  expect(heads.value.map(({ length }) => length)).toEqual([5, 4, 0, 1]);
  expect(heads.wide.map(({ length }) => length)).toEqual([15, 12, 0, 3]);
  // A wide head's columns are heads of their own; this one has no bias.
  const weight = model.parameters.value("wide.weight").slice();
  for (const column of [0, 1, 2]) {
    model.parameters.value("value.weight").set(weight.subarray(column * 32, (column + 1) * 32));
    model.parameters.value("value.bias").fill(0);
    const [scores] = await model.forward([tree]);
    const expected = heads.wide.map((part) => part.filter((_, i) => i % 3 === column));
    expect(largestDifference(scores.heads.value, expected)).toBeLessThan(1e-5);
  }
});

/** A chain of single tokens; after each stand leaves a and b, whose difference of log-probs is what a head of E_a - E_b says there. */
const [a, b] = [17, 203];
const chain = randomTokens("chain", 12);
const weights = numbers("chain weights", 12);
const ladder = treeOf(
  "ladder",
  ...Array.from(chain, (id, i) => [
    segmentOf(i === 0 ? -1 : 3 * (i - 1), Int32Array.of(id)),
    segmentOf(3 * i, Int32Array.of(a), { fields: { weights: Float32Array.of(weights[i]) } }),
    segmentOf(3 * i, Int32Array.of(b), { fields: { weights: Float32Array.of(-weights[i]) } }),
  ]).flat(),
);
const line = treeOf("line", segmentOf(-1, chain, { fields: { value: weights } }));

describe.each(["LoRA", "full"])("a head whose value is a difference of two logits, %s", (name) => {
  test("its values and gradients are those of the log-probs", async () => {
    const model = randomise(
      await engine.create({ base: fixture("qwen2"), train: name === "full" ? "full" : lora, heads: [value] }),
    );
    let head = new Float32Array(0);
    for await (const [tensor, { data }] of model.tensors()) if (tensor === "lm_head.weight") head = data.slice();
    const width = 32;
    const difference = head.slice(a * width, (a + 1) * width).map((x, j) => x - head[b * width + j]);
    model.parameters.value("value.weight").set(difference);
    model.parameters.value("value.bias").fill(0.5);

    const [scores] = await model.forward([line]);
    const [leaves] = await model.forward([ladder]);
    const expected = Array.from(chain, (_, i) => leaves.logprobs[3 * i + 1][0] - leaves.logprobs[3 * i + 2][0] + 0.5);
    expect(largestDifference([scores.heads.value[0]], [expected])).toBeLessThan(1e-4);

    const throughHead: Loss = weightedSum("tree", { heads: ["value"] });
    const { loss } = await model.forwardBackward([line], throughHead);
    expect(loss).toBeCloseTo(
      weights.reduce((sum, w, i) => sum + w * scores.heads.value[0][i], 0),
      3,
    );
    const found = await takeGradients(model);
    await model.forwardBackward([ladder], weightedSum("tree"));
    const long = await takeGradients(model);
    const ofHeads = (tensor: string) => tensor === "lm_head.weight" || tensor.startsWith("value.");
    expectSameGradients(found, long, 1e-5, ofHeads);
    expect(found.get("value.bias")?.[0]).toBeCloseTo(
      weights.reduce((sum, w) => sum + w, 0),
      4,
    );
    if (name !== "full") return;
    // Row a of the output matrix is pulled by the same hidden states as the head.
    const row = long.get("lm_head.weight")?.subarray(a * width, (a + 1) * width) ?? [];
    expect(distance(found.get("value.weight") ?? [], row)).toBeLessThan(1e-4);
    expect(found.get("lm_head.weight")?.every((g) => g === 0)).toBe(true);
  });
});

test("finite differences along a random direction of all parameters, body and head", async () => {
  const model = randomise(await engine.create({ base: fixture("qwen3"), train: lora, heads: [wide] }));
  const { parameters } = model;
  const loss: Loss = {
    name: "squares of values and log-probs",
    config: {},
    scope: "tree",
    fn: (trees, now) => {
      const half = (part: Float32Array) => part.reduce((sum, x) => sum + (x * x) / 2, 0);
      const sum = (parts: Float32Array[]) => parts.reduce((total, part) => total + half(part), 0);
      return {
        loss: trees.reduce((total, _, t) => total + sum(now[t].heads.wide) + 0.01 * sum(now[t].logprobs), 0),
        grads: now.map(({ heads, logprobs }) => ({
          heads,
          logprobs: logprobs.map((part) => part.map((x) => 0.01 * x)),
        })),
        metrics: {},
      };
    },
  };
  const open = [treeOf("open", ...tree.segments.map((segment) => ({ ...segment, fields: {} })))];
  const start = parameters.values.slice();
  for (const seed of [1, 2, 3]) {
    const direction = numbers(`direction ${seed}`, start.length);
    const at = async (step: number) => {
      parameters.values.set(start.map((x, i) => x + step * direction[i]));
      return (await model.forwardBackward(open, loss)).loss;
    };
    const step = 2e-3;
    const numeric = ((await at(step)) - (await at(-step))) / (2 * step);
    await model.discard();
    await at(0);
    const analytic = parameters.grads().reduce((sum, g, i) => sum + g * direction[i], 0);
    await model.discard();
    expect(Math.abs(numeric - analytic) / Math.abs(analytic)).toBeLessThan(0.02);
  }
});

test("a model that trains nothing but a head trains it, and snapshots hold it", async () => {
  const model = await engine.create({ base: fixture("llama3"), train: "none", heads: [value], seed: 4 });
  const untouched = await engine.create({ base: fixture("llama3"), train: "none" });
  expect((await model.forward([tree]))[0].heads.value.every((part) => part.every((x) => x === 0))).toBe(true);
  const step = async () => {
    await model.forwardBackward([tree], weightedSum("tree", { heads: ["value"] }));
    return model.optimStep({ groups: { "head:value": adam } });
  };
  const { gradNorm } = await step();
  expect(gradNorm).toBeGreaterThan(0);
  const first = (await model.forward([tree]))[0].heads.value;
  await model.snapshot("first");
  await step();
  const second = (await model.forward([tree]))[0].heads.value;
  expect(largestDifference(second, first)).toBeGreaterThan(1e-3);
  expect(largestDifference((await model.forward([tree], "first"))[0].heads.value, first)).toBe(0);
  expect((await model.forward([tree]))[0].logprobs).toEqual((await untouched.forward([tree]))[0].logprobs);
});

test("heads start as they are told: zero, normal or uniform from the seed", async () => {
  const uniform: HeadSpec = { name: "uniform", width: 40, bias: true, init: "uniform" };
  const make = (seed: number) =>
    engine.create({ base: fixture("llama"), train: "none", heads: [value, wide, uniform], seed });
  const [first, again, other] = [await make(1), await make(1), await make(2)];
  const at = (model: typeof first, name: string) => model.parameters.value(name);
  expect(at(first, "value.weight").every((x) => x === 0)).toBe(true);
  expect(at(again, "wide.weight")).toEqual(at(first, "wide.weight"));
  expect(at(other, "wide.weight")).not.toEqual(at(first, "wide.weight"));
  const deviation = Math.sqrt(at(first, "wide.weight").reduce((sum, x) => sum + x * x, 0) / 96);
  expect(deviation).toBeGreaterThan(0.07);
  expect(deviation).toBeLessThan(0.13);
  expect(first.parameters.entries.map(({ name }) => name)).not.toContain("wide.bias");
  const bound = 1 / Math.sqrt(32);
  for (const name of ["uniform.weight", "uniform.bias"]) {
    const size = at(first, name).map(Math.abs);
    expect(Math.max(...size)).toBeLessThanOrEqual(bound);
    expect(Math.max(...size)).toBeGreaterThan(0.9 * bound);
    expect(Math.abs(size.reduce((sum, x) => sum + x, 0) / size.length - bound / 2)).toBeLessThan(bound / 8);
  }
});

test("a pass for the heads alone gives the same values and gradients, and no log-probs", async () => {
  const model = randomise(await engine.create({ base: fixture("llama"), train: "full", heads: [value] }));
  const [whole] = await model.forward([tree]);
  const [alone] = await model.forward([tree], "current", { logprobs: false });
  expect(alone.heads).toEqual(whole.heads);
  expect(alone.logprobs.every((part) => part.every((x) => x === 0))).toBe(true);
  const loss = weightedSum("tree", { heads: ["value"] });
  await model.forwardBackward([tree], { ...loss, logprobs: false });
  const found = await takeGradients(model);
  const values: Loss = {
    ...loss,
    fn: (trees, now) => {
      const result = loss.fn(trees, now);
      return { ...result, grads: result.grads.map(({ heads }) => ({ heads })) };
    },
  };
  await model.forwardBackward([tree], values);
  expectSameGradients(found, await takeGradients(model), 1e-6, () => false);
});

test("weights that were saved without a head, or with another, leave it new; with their moments they must fit", async () => {
  const dir = mkdtempSync(join(tmpdir(), "rifft-heads-"));
  const make = (heads: HeadSpec[]) => engine.create({ base: fixture("llama"), train: lora, heads, seed: 1 });
  const plain = randomise(await make([]));
  await plain.save(join(dir, "plain"));
  const headed = randomise(await make([value]));
  expect(headed.info.newHeads).toEqual(["value"]);
  const before = headed.parameters.value("value.weight").slice();
  await headed.load({ dir: join(dir, "plain"), optimizer: false });
  expect(headed.info.newHeads).toEqual(["value"]);
  expect(headed.parameters.value("value.weight")).toEqual(before);
  await expect(headed.load({ dir: join(dir, "plain"), optimizer: true })).rejects.toThrow(/value\.weight/);

  await headed.save(join(dir, "headed"));
  const again = await make([value]);
  await again.load({ dir: join(dir, "headed"), optimizer: false });
  expect(again.info.newHeads).toEqual([]);
  expect(again.parameters.value("value.weight")).toEqual(before);
  // A head that nobody asks for is left where it is.
  await plain.load({ dir: join(dir, "headed"), optimizer: true });
  const other = await make([{ ...value, width: 2 }]);
  await other.load({ dir: join(dir, "headed"), optimizer: false });
  expect(other.info.newHeads).toEqual(["value"]);
});

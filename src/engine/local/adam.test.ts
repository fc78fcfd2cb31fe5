import { afterAll, describe, expect, test } from "vitest";
import {
  distance,
  fixture,
  lora,
  numbers,
  randomise,
  randomTokens,
  sameBits,
  segmentOf,
  treeOf,
} from "../../../test/local.ts";
import { Runtime } from "../../runtime/index.ts";
import { crossEntropy } from "../../method/losses.ts";
import type { AdamSettings, Loss, OptimSettings } from "../types.ts";
import { AdamW } from "./adam.ts";
import { createLocalEngine } from "./index.ts";
import { Parameters } from "./parameters.ts";

const engine = createLocalEngine();
afterAll(() => engine.close());

const shapes = [
  { name: "matrix", dims: [260, 256], group: "body" },
  { name: "norm", dims: [50], group: "body" },
  { name: "value.weight", dims: [1, 40], group: "head:value" },
  { name: "value.bias", dims: [1], group: "head:value" },
];

const body: AdamSettings = { lr: 1e-2, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1 };
const head: AdamSettings = { lr: 3e-2, betas: [0.8, 0.999], eps: 1e-5, weightDecay: 0.5 };
const groups = { body, "head:value": head };

/** Algorithm 2 of Loshchilov and Hutter 2019, tensor by tensor in float64; decay on matrices alone. */
class SlowAdamW {
  readonly tensors = shapes.map((shape) => {
    const length = shape.dims.reduce((a, b) => a * b, 1);
    const values = Array.from(numbers(`${shape.name} start`, length));
    return { ...shape, values, m: values.map(() => 0), v: values.map(() => 0) };
  });
  private t = 0;

  step(gradients: Float32Array[], settings: OptimSettings): number {
    const norm = Math.sqrt(gradients.reduce((sum, g) => sum + g.reduce((s, x) => s + x * x, 0), 0));
    const clip = Math.min(1, (settings.maxGradNorm ?? Infinity) / norm);
    this.t++;
    this.tensors.forEach(({ values, m, v, dims, group }, k) => {
      const { lr, betas, eps, weightDecay } = settings.groups[group];
      for (let i = 0; i < values.length; i++) {
        const g = gradients[k][i] * clip;
        m[i] = betas[0] * m[i] + (1 - betas[0]) * g;
        v[i] = betas[1] * v[i] + (1 - betas[1]) * g * g;
        const mHat = m[i] / (1 - betas[0] ** this.t);
        const vHat = v[i] / (1 - betas[1] ** this.t);
        const decay = dims.length > 1 ? weightDecay : 0;
        values[i] -= lr * (mHat / (Math.sqrt(vHat) + eps) + decay * values[i]);
      }
    });
    return norm;
  }
}

function make(): { parameters: Parameters; adam: AdamW; slow: SlowAdamW } {
  const parameters = new Parameters(shapes);
  const slow = new SlowAdamW();
  for (const { name, values } of slow.tensors) parameters.value(name).set(values);
  return { parameters, adam: new AdamW(Runtime.open(), parameters), slow };
}

describe("AdamW", () => {
  test.each([
    { name: "unclipped", maxGradNorm: undefined },
    { name: "clipped", maxGradNorm: 1.5 },
    { name: "a norm that is never reached", maxGradNorm: 1e9 },
  ])("$name: five steps are the definition's", async ({ maxGradNorm }) => {
    const { parameters, adam, slow } = make();
    for (let step = 0; step < 5; step++) {
      const gradients = slow.tensors.map(({ name, values }) =>
        numbers(`${name} ${step}`, values.length).map((x) => x * (step === 2 ? 1e-4 : 1)),
      );
      slow.tensors.forEach(({ name }, k) => parameters.gradient(name).set(gradients[k]));
      const settings = { groups, maxGradNorm };
      // The schedule changes the rate from step to step.
      settings.groups = { ...groups, body: { ...body, lr: body.lr / (step + 1) } };
      const expected = slow.step(gradients, settings);
      const { gradNorm } = await adam.step(settings);
      expect(Math.abs(gradNorm / expected - 1)).toBeLessThan(1e-6);
      expect(parameters.grads().every((g) => g === 0)).toBe(true);
      for (const { name, values } of slow.tensors) {
        expect(distance(parameters.value(name), values), `${name}, step ${step}`).toBeLessThan(2e-6);
      }
    }
    expect(parameters.step).toBe(5);
    adam.release();
  });

  test("decay moves matrices and leaves vectors", async () => {
    const { parameters, adam, slow } = make();
    await adam.step({ groups });
    for (const { name, dims, group, values } of slow.tensors) {
      const { lr, weightDecay } = groups[group as keyof typeof groups];
      const kept = dims.length > 1 ? 1 - lr * weightDecay : 1;
      expect(
        distance(
          parameters.value(name),
          values.map((x) => x * kept),
        ),
        name,
      ).toBeLessThan(1e-6);
    }
    adam.release();
  });

  test.each([NaN, Infinity, -Infinity])(
    "a gradient of %s stops before any weight is touched and is named",
    async (bad) => {
      const { parameters, adam } = make();
      parameters.grads().fill(0.1);
      await adam.step({ groups });
      const before = { values: parameters.values.slice(), first: parameters.adam().first.slice() };
      parameters.grads().fill(0.1);
      parameters.gradient("norm")[7] = bad;
      await expect(adam.step({ groups, maxGradNorm: 1 })).rejects.toThrow(/gradient of norm is not finite/);
      expect(parameters.values).toEqual(before.values);
      expect(parameters.adam().first).toEqual(before.first);
      expect(parameters.step).toBe(1);
      parameters.discard();
      await adam.step({ groups });
      expect(parameters.values.every(Number.isFinite)).toBe(true);
      adam.release();
    },
  );

  test("a group without settings is named", async () => {
    const { adam } = make();
    await expect(adam.step({ groups: { body } })).rejects.toThrow(/"head:value"/);
    adam.release();
  });
});

describe("a loss that is not finite", () => {
  const tree = (id: string) =>
    treeOf(id, segmentOf(-1, randomTokens(id, 6), { fields: { weights: new Float32Array(6).fill(1) } }));

  const spoilt = (part: "loss" | "logprobs" | "entropy" | "heads"): Loss => ({
    ...crossEntropy(),
    name: "spoilt",
    entropy: true,
    fn: (trees, now) => ({
      loss: part === "loss" ? NaN : 1,
      metrics: {},
      grads: now.map(({ logprobs, entropy, heads }, t) => {
        const spoil = (parts: Float32Array[]) =>
          parts.map((values) => values.map((_, i) => (trees[t].id === "bad" && i === 3 ? NaN : 0.1)));
        if (part === "heads") return { heads: { value: spoil(heads.value) } };
        return part === "entropy"
          ? { entropy: spoil(entropy) }
          : part === "logprobs"
            ? { logprobs: spoil(logprobs) }
            : {};
      }),
    }),
  });

  test.each(["loss", "logprobs", "entropy", "heads"] as const)("%s: the tree is named, weights stay", async (part) => {
    const heads = [{ name: "value", width: 1, bias: true, init: 0.1 }];
    const model = randomise(await engine.create({ base: fixture("llama"), train: lora, heads }));
    const before = model.parameters.values.slice();
    await expect(model.forwardBackward([tree("good"), tree("bad")], spoilt(part))).rejects.toThrow(/spoilt.*bad/);
    expect(sameBits(model.parameters.values, before)).toBe(true);
    await model.discard();
    await model.forwardBackward([tree("good")], crossEntropy());
    await model.optimStep({ groups });
    expect(model.parameters.values.every(Number.isFinite)).toBe(true);
  });
});

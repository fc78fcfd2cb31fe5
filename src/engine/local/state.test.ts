import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { fixture, lora, randomTokens, sameBits, segmentOf, treeOf } from "../../../test/local.ts";
import { crossEntropy } from "../../method/losses.ts";
import type { ModelSpec } from "../types.ts";
import { createLocalEngine, type LocalModel } from "./index.ts";

const engine = createLocalEngine();
const folder = mkdtempSync(join(tmpdir(), "rifft-state-"));
afterAll(async () => {
  await engine.close();
  rmSync(folder, { recursive: true });
});

const adam = { lr: 0.01, betas: [0.9, 0.99] as [number, number], eps: 1e-8, weightDecay: 0.1 };
const value = { name: "value", width: 1, bias: true, init: 0.1 };

async function train(model: LocalModel, steps: number[]): Promise<number[]> {
  const norms: number[] = [];
  for (const step of steps) {
    const weights = new Float32Array(15).fill(1 / 15);
    await model.forwardBackward(
      [treeOf("t", segmentOf(-1, randomTokens(`step ${step}`, 15), { fields: { weights } }))],
      crossEntropy(),
    );
    norms.push((await model.optimStep({ groups: { body: adam, "head:value": adam }, maxGradNorm: 1 })).gradNorm);
  }
  return norms;
}

const trainings: [string, ModelSpec["train"]][] = [
  ["LoRA", lora],
  ["full", "full"],
];

describe.each(trainings)("saved and continued, %s", (name, trained) => {
  const spec: ModelSpec = { base: fixture("qwen2"), train: trained, heads: [value], seed: 1 };

  test("bit by bit as if it had never stopped", async () => {
    const dir = join(folder, name);
    const model = await engine.create(spec);
    await train(model, [0, 1]);
    await model.save(dir);
    const norms = await train(model, [2, 3]);
    const again = await engine.create({ ...spec, seed: 2, from: { dir, optimizer: true } });
    expect(await train(again, [2, 3])).toEqual(norms);
    expect(sameBits(again.parameters.values, model.parameters.values)).toBe(true);
    expect(sameBits(again.parameters.adam().first, model.parameters.adam().first)).toBe(true);
    expect(sameBits(again.parameters.adam().second, model.parameters.adam().second)).toBe(true);
    expect(again.parameters.step).toBe(4);
  });

  test("reset, it trains bit by bit as a new one", async () => {
    const model = await engine.create(spec);
    const initial = model.parameters.values.slice();
    const norms = await train(model, [0, 1]);
    await model.reset();
    expect(sameBits(model.parameters.values, initial)).toBe(true);
    const request = { prefix: randomTokens("prompt", 4), n: 1, maxTokens: 6, temperature: 0, stop: [], key: "" };
    const fresh = await engine.create(spec);
    expect(await model.sample([request])).toEqual(await fresh.sample([request]));
    expect(await train(model, [0, 1])).toEqual(norms);
    await train(fresh, [0, 1]);
    expect(sameBits(model.parameters.values, fresh.parameters.values)).toBe(true);
    expect(sameBits(model.parameters.adam().second, fresh.parameters.adam().second)).toBe(true);
  });

  test("without moments the weights go on and the optimizer starts afresh", async () => {
    const dir = join(folder, `${name} weights`);
    const model = await engine.create(spec);
    await train(model, [0]);
    await model.save(dir);
    const again = await engine.create({ ...spec, from: { dir, optimizer: false } });
    expect(sameBits(again.parameters.values, model.parameters.values)).toBe(true);
    expect(again.parameters.hasMoments).toBe(false);
    await train(model, [1]);
    await train(again, [1]);
    expect(again.parameters.step).toBe(1);
    expect(sameBits(again.parameters.values, model.parameters.values)).toBe(false);
  });

  test("before the first step there are no moments to save", async () => {
    const dir = join(folder, `${name} untrained`);
    const model = await engine.create(spec);
    await model.save(dir);
    const again = await engine.create({ ...spec, seed: 2, from: { dir, optimizer: true } });
    expect(sameBits(again.parameters.values, model.parameters.values)).toBe(true);
    expect(again.parameters.step).toBe(0);
  });

  test("a folder that holds moments of an earlier save loses them with them gone", async () => {
    const dir = join(folder, `${name} twice`);
    const trainedModel = await engine.create(spec);
    await train(trainedModel, [0]);
    await trainedModel.save(dir);
    const fresh = await engine.create(spec);
    await fresh.save(dir);
    const again = await engine.create({ ...spec, seed: 2, from: { dir, optimizer: true } });
    expect(sameBits(again.parameters.values, fresh.parameters.values)).toBe(true);
    expect(again.parameters.step).toBe(0);
  });
});

test("what another shape saved is refused by name", async () => {
  const dir = join(folder, "rank 3");
  const base = fixture("qwen2");
  await (await engine.create({ base, train: lora })).save(dir);
  const from = { dir, optimizer: false };
  await expect(engine.create({ base, train: { lora: { rank: 4, alpha: 8 } }, from })).rejects.toThrow(
    /q_proj.lora_A.weight with dims \[4, 32\], found \[3, 32\]/,
  );
  await expect(engine.create({ base, train: "full", from })).rejects.toThrow(/q_proj.weight.*no such tensor/);
  await expect(
    engine.create({ base, train: lora, from: { dir: join(folder, "none"), optimizer: false } }),
  ).rejects.toThrow(/none/);
});

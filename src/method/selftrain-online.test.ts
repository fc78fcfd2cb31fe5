import { afterAll, expect, test } from "vitest";
import { problems, repeats, vocabulary } from "../../test/letters.ts";
import { memoryStage } from "../../test/stage.ts";
import { LocalEngine } from "../engine/local/index.ts";
import { createTask } from "../task/create.ts";
import { onlineSelftrain, type OnlineSelftrainSettings, onlineSelftrainSettings } from "./selftrain-online.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());

async function run(steps: number, settings: Partial<OnlineSelftrainSettings> = {}, reward = repeats, lr = 3e-3) {
  const model = await engine.create({ base: "tiny", train: "full", vocabulary, seed: 3 });
  const task = createTask({ name: "letters", splits: { train: problems }, reward });
  const { stage, recorded } = await memoryStage({ model, task, steps, lr });
  await onlineSelftrain(stage, onlineSelftrainSettings.parse({ prompts: 8, maxTokens: 3, ...settings }));
  await model.close();
  return recorded;
}

test("learns, from demonstrations and its own right answers", async () => {
  const recorded = await run(40);
  expect(recorded[0].metrics.solveRate).toBeLessThan(0.6);
  expect(recorded.at(-1)?.metrics.solveRate).toBe(1);
  expect(recorded.at(-1)?.metrics.kept).toBe(8);
  expect(recorded.at(-1)?.kept).toHaveLength(8);
});

test("the loss is half the mean over the right samples' tokens and half that over the demonstrations'", async () => {
  const [{ metrics }] = await run(1, { innerPasses: 1 }, (_, response) => Number(response.length > 0));
  expect(metrics.kept).toBeGreaterThan(0);
  expect(metrics.loss).toBeCloseTo((metrics.keptLoss + metrics.demonstrationLoss) / 2, 5);
});

test("where nothing is right, half the demonstrations' loss is left", async () => {
  const [{ metrics }] = await run(1, { innerPasses: 1 }, () => 0);
  expect(metrics.kept).toBe(0);
  expect(metrics).not.toHaveProperty("keptLoss");
  expect(metrics.loss).toBeCloseTo(metrics.demonstrationLoss / 2, 6);
});

test("two passes train twice on the same samples; micro-batches do not change the result", async () => {
  const [once] = await run(1, { innerPasses: 1 });
  const [twice] = await run(1, { innerPasses: 2 });
  expect(twice.metrics.demonstrationLoss).toBeLessThan(once.metrics.demonstrationLoss);
  const [split] = await run(1, { innerPasses: 2, microBatch: 3 });
  expect(split.metrics.loss).toBeCloseTo(twice.metrics.loss, 5);
  expect(split.metrics.gradNorm / twice.metrics.gradNorm).toBeCloseTo(1, 4);
});

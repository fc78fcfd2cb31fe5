import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readRecipe, type Recipe } from "./recipe.ts";
import { learningRateFactor } from "./schedule.ts";

const root = join(import.meta.dirname, "../../recipes/motif");
const published = readdirSync(root).filter((name) => name.startsWith("qwen"));
const stageOf = (recipe: Recipe) => recipe.stages[0];

test("the published recipes have the authors' settings and name the paper's numbers", () => {
  expect(published).toHaveLength(3);
  for (const name of published) {
    const recipe = readRecipe(join(root, name));
    const comment = readFileSync(join(root, name), "utf8").split("\nmodel =")[0];
    for (const number of ["44.8 %", "3.33 %", "37.6 %"]) expect(comment, name).toContain(number);
    expect(recipe).toMatchObject({ seed: 3407, context: 2048, lora: { rank: 64, alpha: 64 } });
    expect(stageOf(recipe).settings).toMatchObject({
      style: "reference",
      prompts: 1,
      samples: 8,
      continuations: 4,
      maxTokens: 1024,
      trainRounds: "first",
      innerPasses: 1,
      clipLow: 0.2,
      clipHigh: 0.2,
      normalize: "token",
      scale: "group",
      beta: 0,
      lr: 5e-6,
      betas: [0.9, 0.99],
      weightDecay: 0.1,
      maxGradNorm: 0.1,
    });
    expect(stageOf(recipe).schedule).toMatchObject({ kind: "cosine", warmup: 0.1 });
  }
});

test("MOTIF as reported and as released differ in temperature, rewards and who continues; GRPO has one round", () => {
  const settings = (name: string) => stageOf(readRecipe(join(root, `qwen2.5-3b-gsm8k-${name}.toml`))).settings;
  expect(settings("motif")).toMatchObject({
    temperature: 0.8,
    reward: "paper",
    continuationPolicy: "current",
    rounds: 3,
  });
  expect(settings("motif-code")).toMatchObject({
    temperature: 1,
    reward: "reference",
    continuationPolicy: "frozenBase",
    rounds: 3,
  });
  expect(settings("grpo")).toMatchObject({ temperature: 1, reward: "reference", rounds: 1 });
});

test("at step 300 of 1000 the rate is 4.42e-6", () => {
  const { lr, schedule, budget, stopAt } = stageOf(readRecipe(join(root, "qwen2.5-3b-gsm8k-motif.toml")));
  expect(stopAt).toBe(300);
  const rate = lr * learningRateFactor(schedule, budget, { step: 300, before: 0.3, now: 0.301 });
  expect(rate).toBeCloseTo(4.42e-6, 7);
});

test("the two recipes of SmolLM2 begin alike, in rounds and in one, and have one schedule", () => {
  const [motif, grpo] = ["motif", "grpo"].map((name) => readRecipe(join(root, `smollm2-svamp-${name}.toml`)));
  expect(JSON.stringify(grpo.stages[0])).toBe(JSON.stringify(motif.stages[0]));
  expect(grpo.stages[0].settings.mixture).toEqual([{ rounds: 3 }, { rounds: 1 }]);
  expect(grpo.stages[1].schedule).toEqual(motif.stages[1].schedule);
  expect([motif, grpo].map(({ stages }) => stages[1].settings.rounds)).toEqual([3, 1]);
});

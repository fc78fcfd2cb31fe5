import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readRecipe } from "./recipe.ts";

const root = join(import.meta.dirname, "../../recipes/rftt");
const names = readdirSync(root).filter((name) => name.endsWith(".toml"));
const last = (name: string) => readRecipe(join(root, name)).stages.at(-1);

test.each(names)("recipes/rftt/%s is valid, and its model has the functions as tokens", (name) => {
  expect(readRecipe(join(root, name)).functions).toBe("tokens");
});

test("the published RL recipes have the scripts' settings: 16 updates a step with search, 8 without", () => {
  for (const [name, updates, rollouts] of [
    ["qwen2.5-7b-math-mcts-orm.toml", 16, 16],
    ["qwen2.5-7b-math-mcts-prm.toml", 16, 16],
    ["qwen2.5-7b-math-normal-orm.toml", 8, 8],
  ] as const) {
    expect(last(name), name).toMatchObject({
      lr: 5e-7,
      schedule: { kind: "cosine", warmup: 0.03, final: 0.1 },
      settings: {
        prompts: 16,
        minibatches: updates,
        rollouts,
        advantages: "whiten",
        beta: 0.01,
        dropFlatGroups: false,
      },
    });
  }
});

test("the published warm-up has the script's settings", () => {
  expect(last("qwen2.5-7b-math-warmup.toml")).toMatchObject({
    budget: { kind: "epochs", amount: 10 },
    lr: 7e-6,
    schedule: { kind: "constant", warmup: 10 },
    settings: { batch: 32, betas: [0.9, 0.95], weightDecay: 0.1 },
  });
});

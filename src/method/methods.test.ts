import { afterAll, describe, expect, test } from "vitest";
import { problems, repeats, vocabulary } from "../../test/letters.ts";
import { memoryStage } from "../../test/stage.ts";
import { LocalEngine } from "../engine/local/index.ts";
import { createTask } from "../task/create.ts";
import type { Problem, Reward } from "../task/types.ts";
import { grpo, type GrpoSettings, grpoSettings } from "./grpo.ts";
import { sft, type SftSettings, sftSettings } from "./sft.ts";

const taskOf = (reward: (problem: Problem, response: string) => Reward) =>
  createTask({ name: "letters", splits: { train: problems }, reward });

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());
const tiny = (seed = 3) => engine.create({ base: "tiny", train: "full", vocabulary, seed });

async function runSft(steps: number, settings: Partial<SftSettings>, model = tiny()) {
  const { stage, recorded } = await memoryStage({ model: await model, task: taskOf(repeats), steps, lr: 3e-3 });
  await sft(stage, sftSettings.parse({ batch: 4, ...settings }));
  return recorded;
}

async function runGrpo(
  steps: number,
  settings: Partial<GrpoSettings>,
  reward: typeof repeats = repeats,
  model = tiny(),
) {
  const { stage, recorded } = await memoryStage({ model: await model, task: taskOf(reward), steps, lr: 1e-3 });
  await grpo(stage, grpoSettings.parse({ prompts: 4, samples: 8, maxTokens: 3, maxGradNorm: 1, ...settings }));
  return recorded;
}

/** Some letters right: no group is flat for long. */
const graded = (problem: Problem, response: string) =>
  repeats(problem, response) + response.length / 10 + (response.includes("?") ? 0.25 : 0);

describe("SFT", () => {
  test("learns its demonstrations, with their end", async () => {
    const recorded = await runSft(60, {});
    expect(recorded[0].metrics.loss).toBeGreaterThan(1);
    expect(recorded[0].metrics.responseLength).toBe(3);
    expect(recorded.at(-1)?.metrics.loss).toBeLessThan(0.05);
  });

  test("micro-batches do not change the result", async () => {
    const [whole, split] = [await runSft(3, {}), await runSft(3, { microBatch: 1 })];
    whole.forEach(({ metrics }, i) => {
      expect(split[i].metrics.loss).toBeCloseTo(metrics.loss, 5);
      expect(split[i].metrics.gradNorm / metrics.gradNorm).toBeCloseTo(1, 4);
    });
  });

  test("a mixture shows every question in each of its ways, equally often", async () => {
    const source = problems.map((problem) => ({
      ...problem,
      formats: { loud: { prompt: { text: "ab" }, demonstrations: ["ab"] } },
    }));
    const task = createTask({ name: "letters", splits: { train: source }, reward: repeats });
    const model = await tiny();
    const { stage } = await memoryStage({ model, task, steps: source.length, lr: 1e-3 });
    const shown = new Map<string, number>();
    const forwardBackward = model.forwardBackward.bind(model);
    model.forwardBackward = (forest, loss) => {
      for (const { problem, segments } of forest) {
        const key = `${problem} ${segments[0].tokens.join()}`;
        shown.set(key, (shown.get(key) ?? 0) + 1);
      }
      return forwardBackward(forest, loss);
    };
    await sft(stage, sftSettings.parse({ batch: 4, mixture: [{}, { format: "loud" }] }));
    // Two epochs of questions times ways.
    expect([...shown.values()]).toEqual(Array.from({ length: 2 * source.length }, () => 2));
    const missing = sftSettings.parse({ batch: 4, mixture: [{}, { format: "lout" }] });
    const again = await memoryStage({ model, task, steps: 1, lr: 1e-3 });
    await expect(sft(again.stage, missing)).rejects.toThrow("did you mean that?");
  });

  test("a problem without demonstrations is named", async () => {
    const bare = createTask({
      name: "bare",
      splits: { train: [{ id: "p9", prompt: { text: "a?" } }] },
      reward: () => 0,
    });
    const { stage } = await memoryStage({ model: await tiny(), task: bare, steps: 1, lr: 1 });
    await expect(sft(stage, sftSettings.parse({ batch: 1 }))).rejects.toThrow(/problem p9: .*demonstration/);
  });
});

describe("GRPO", () => {
  test("raises the reward", async () => {
    const recorded = await runGrpo(30, { normalize: "sequence" });
    const mean = (part: typeof recorded) => part.reduce((sum, { metrics }) => sum + metrics.reward, 0) / part.length;
    expect(mean(recorded.slice(0, 2))).toBeLessThan(0.4);
    expect(mean(recorded.slice(-5))).toBeGreaterThan(0.8);
  });

  test("the first pass is on-policy: ratio 1, no mismatch, no distance from the reference", async () => {
    const [{ metrics, kept }] = await runGrpo(1, { beta: 0.1 }, graded);
    expect(metrics.ratio).toBeCloseTo(1, 5);
    expect(metrics.mismatch).toBeLessThan(1e-5);
    expect(metrics["mismatch/max"]).toBeLessThan(1e-3);
    expect(metrics.kl).toBeLessThan(1e-8);
    expect(metrics.entropy).toBeGreaterThan(0.5);
    expect(metrics.clipFraction).toBe(0);
    expect(kept).toHaveLength(4);
    expect(kept[0].segments).toHaveLength(9);
  });

  test.each<Partial<GrpoSettings>>([
    { normalize: "token" },
    { normalize: "sequence", minibatches: 2, innerPasses: 2 },
    { beta: 0.1, kl: "k3" },
    { beta: 0.1, kl: "k1", dropFlatGroups: true },
  ])("micro-batches do not change the result: %o", async (settings) => {
    const [whole] = await runGrpo(1, settings, graded);
    const [split] = await runGrpo(1, { ...settings, microBatch: 1 }, graded);
    expect(split.metrics.loss).toBeCloseTo(whole.metrics.loss, 5);
    expect(split.metrics.gradNorm / whole.metrics.gradNorm).toBeCloseTo(1, 4);
    expect(split.metrics.reward).toBe(whole.metrics.reward);
  });

  test("the KL penalty holds the policy near its reference", async () => {
    for (const kl of ["k1", "k3"] as const) {
      const free = await runGrpo(8, { innerPasses: 2, beta: 1e-6, kl }, graded);
      const held = await runGrpo(8, { innerPasses: 2, beta: 2, kl }, graded);
      expect(held.at(-1)?.metrics.kl).toBeLessThan((free.at(-1)?.metrics.kl ?? 0) / 3);
    }
  });

  test("where all rewards are equal no weight moves", async () => {
    const model = await tiny();
    const before = await model.snapshot("before");
    const recorded = await runGrpo(2, {}, () => 1, Promise.resolve(model));
    for (const { metrics } of recorded) {
      expect(metrics.flatGroups).toBe(1);
      expect(metrics).not.toHaveProperty("gradNorm");
    }
    const forest = recorded[0].kept;
    expect(await model.forward(forest)).toEqual(await model.forward(forest, before));
  });

  test("flat groups that are dropped leave the mean", async () => {
    const reward = (problem: Problem, response: string) => (problem.id === "a" ? 1 : graded(problem, response));
    const [kept] = await runGrpo(1, {}, reward);
    const [dropped] = await runGrpo(1, { dropFlatGroups: true }, reward);
    expect(kept.metrics.flatGroups).toBe(0.25);
    const tokensOf = (trees: typeof kept.kept) =>
      trees.flatMap((tree) => tree.segments.slice(1)).reduce((sum, leaf) => sum + leaf.tokens.length, 0);
    const share = tokensOf(kept.kept.slice(1)) / tokensOf(kept.kept);
    expect(kept.metrics.gradNorm / dropped.metrics.gradNorm).toBeCloseTo(share, 4);
    expect(dropped.kept).toHaveLength(4);
  });
});

import { afterAll, describe, expect, test } from "vitest";
import { problems, repeats, vocabulary } from "../../test/letters.ts";
import { memoryStage, type RecordedStep } from "../../test/stage.ts";
import { LocalEngine } from "../engine/local/index.ts";
import { createTask } from "../task/create.ts";
import type { Problem, Reward } from "../task/types.ts";
import { FAMILY, type GroupSettings, groupSettings } from "./family.ts";
import { grpo } from "./grpo.ts";

type Name = keyof typeof FAMILY;
type RewardOf = (problem: Problem, response: string) => Reward;

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());

/** Steps of a member from the same weights on the letters, and what the model says of the last step's samples in the end. */
async function run(name: Name, steps: number, changes: Partial<GroupSettings>, reward: RewardOf = graded) {
  const model = await engine.create({ base: "tiny", train: "full", vocabulary, seed: 3 });
  const task = createTask({ name: "letters", splits: { train: problems }, reward });
  const { stage, recorded } = await memoryStage({ model, task, steps, lr: 1e-3 });
  const shared = { prompts: 4, samples: 8, maxTokens: 3, maxGradNorm: 1, innerPasses: 1, minibatches: 1 };
  await grpo(stage, groupSettings(FAMILY[name]).parse({ ...shared, ...changes }));
  const last = recorded[recorded.length - 1].kept;
  const after = (await model.forward(last)).flatMap(({ logprobs }) => logprobs.flatMap((part) => Array.from(part)));
  await model.close();
  return { recorded, after, memory: stage.memory };
}

/** Some letters right: hardly a group is flat. */
const graded = (problem: Problem, response: string) =>
  repeats(problem, response) + response.length / 10 + (response.includes("?") ? 0.25 : 0);
const tokensOf = (steps: RecordedStep[]) =>
  steps.flatMap(({ kept }) => kept.flatMap(({ segments }) => segments.map((one) => Array.from(one.tokens))));

/** The same samples step by step, and in the end the same log-probs. */
function expectSame(a: Awaited<ReturnType<typeof run>>, b: Awaited<ReturnType<typeof run>>, digits: number): void {
  expect(tokensOf(a.recorded)).toEqual(tokensOf(b.recorded));
  a.after.forEach((lp, i) => expect(lp).toBeCloseTo(b.after[i], digits));
}

test.each(Object.keys(FAMILY) as Name[])("%s raises the reward", async (name) => {
  const bounds = name === "gspo" ? { clipLow: 0.05, clipHigh: 0.05 } : {};
  const { recorded } = await run(name, 30, { minibatches: 2, beta: 0, ...bounds }, repeats);
  const mean = (part: RecordedStep[]) => part.reduce((sum, { metrics }) => sum + metrics.reward, 0) / part.length;
  expect(mean(recorded.slice(0, 2))).toBeLessThan(0.4);
  expect(mean(recorded.slice(-5))).toBeGreaterThan(0.7);
});

describe("equivalent settings have the same trajectory", () => {
  test("RLOO is a mean baseline whose rewards are n / (n - 1) times as large", async () => {
    const scaled: RewardOf = (problem, response) => (graded(problem, response) * 8) / 7;
    expectSame(await run("rloo", 4, {}), await run("rloo", 4, { baseline: "group" }, scaled), 4);
  });

  test("DAPO without its parts is GRPO with a mean over tokens", async () => {
    const without = { clipHigh: 0.2, dropFlatGroups: false, refills: 0, overlongPenalty: 0 };
    expectSame(await run("dapo", 3, without), await run("grpo", 3, { normalize: "token" }), 12);
  });

  test("Dr. GRPO's constant is a sum whose gradient is maxTokens times smaller, which Adam does not see", async () => {
    const free = { maxGradNorm: 0, eps: 1e-12 };
    expectSame(await run("dr-grpo", 3, free), await run("dr-grpo", 3, { ...free, normalize: "sum" }), 4);
  });

  test("in one update a step ratios are 1: GSPO is GRPO with a mean over sequences, CISPO GRPO with a mean over tokens", async () => {
    const whole = { dropFlatGroups: false, refills: 0, overlongPenalty: 0 };
    expectSame(await run("gspo", 3, {}), await run("grpo", 3, { normalize: "sequence" }), 4);
    expectSame(await run("cispo", 3, whole), await run("grpo", 3, { normalize: "token" }), 4);
    expectSame(await run("reinforce++", 3, { beta: 0, clip: "none" }), await run("reinforce++", 3, { beta: 0 }), 4);
  });

  test("in several updates they differ", async () => {
    const updates = { innerPasses: 3 };
    const [tokens, whole] = [
      await run("grpo", 1, { ...updates, normalize: "sequence" }),
      await run("gspo", 1, updates),
    ];
    expect(Math.max(...tokens.after.map((lp, i) => Math.abs(lp - whole.after[i])))).toBeGreaterThan(1e-3);
    expect(whole.recorded[0].metrics.clipFraction).toBeGreaterThan(0);
  });

  test("a baseline within the group with one update does not see a shift of the reward, a running one does", async () => {
    const shifted: RewardOf = (problem, response) => graded(problem, response) + 1;
    expectSame(await run("rloo", 2, {}), await run("rloo", 2, {}, shifted), 4);
    const before = await run("reinforce", 2, {});
    expect(before.memory.responses).toBe(64);
    const mean = before.recorded.reduce((sum, { metrics }) => sum + metrics.reward, 0) / 2;
    expect(before.memory.rewards / before.memory.responses).toBeCloseTo(mean, 10);
  });
});

describe("dynamic sampling", () => {
  /** Problem a's rewards are always equal. */
  const flatA: RewardOf = (problem, response) => (problem.id === "a" ? 1 : graded(problem, response));

  test("fills the places of flat groups with further problems", async () => {
    const { recorded } = await run("dapo", 2, { overlongPenalty: 0 }, flatA);
    const ids = recorded.map(({ kept }) => kept.map(({ id, problem }) => `${id} ${problem}`));
    // The problems go round: a's place is taken by the next problem, which in the first step is a again.
    expect(ids[0]).toEqual(["a", "b", "c", "d", "a", "b"].map((problem, i) => `1-test/0/${i} ${problem}`));
    expect(ids[1]).toEqual(["c", "d", "a", "b", "c"].map((problem, i) => `1-test/1/${i} ${problem}`));
    expect(recorded.map(({ metrics }) => [metrics.refills, metrics.trainedGroups])).toEqual([
      [2, 4],
      [1, 4],
    ]);
    expect(recorded[0].metrics.flatGroups).toBeCloseTo(2 / 6, 12);
    // Two answers to the same problem in a step come from different random numbers.
    const again = recorded[0].kept.filter(({ problem }) => problem === "b");
    expect(again[0].segments.slice(1).map(({ tokens }) => tokens)).not.toEqual(again[1].segments.slice(1).map(({ tokens }) => tokens)); // prettier-ignore
  });

  test("ends after so many draws, and trains on what there is", async () => {
    const mostly: RewardOf = (problem, response) => (problem.id === "d" ? graded(problem, response) : 1);
    const [step] = (await run("dapo", 1, { refills: 1 }, mostly)).recorded;
    expect(step.metrics).toMatchObject({ refills: 1, trainedGroups: 1 });
    expect(step.kept.map(({ problem }) => problem)).toEqual(["a", "b", "c", "d", "a", "b", "c"]);
    expect(step.metrics.loss).toBeDefined();
    const { recorded } = await run("dapo", 2, { refills: 3 }, () => 1);
    for (const { metrics, kept } of recorded) {
      expect(metrics).toMatchObject({ refills: 3, trainedGroups: 0, flatGroups: 1 });
      expect(metrics).not.toHaveProperty("gradNorm");
      expect(kept).toHaveLength(16);
    }
  });

  test("a micro-batch changes nothing", async () => {
    expectSame(await run("dapo", 2, { minibatches: 2 }, flatA), await run("dapo", 2, { minibatches: 2, microBatch: 1 }, flatA), 4); // prettier-ignore
  });
});

describe("length", () => {
  test("overlong responses lose reward, which is logged beside it and makes no group useful", async () => {
    const [{ metrics, kept }] = (await run("grpo", 1, { overlongPenalty: 0.5, overlongBuffer: 2 }, () => 1)).recorded;
    const lost = kept.flatMap(({ segments }) =>
      segments.slice(1).map(({ tokens, outcome }) => {
        expect(outcome).toMatchObject({ reward: 1, overlong: -0.25 * (tokens.length - 1) });
        return -0.25 * (tokens.length - 1);
      }),
    );
    expect(metrics["reward/overlong"]).toBeCloseTo(lost.reduce((sum, one) => sum + one, 0) / 32, 12);
    expect(metrics.reward).toBe(1);
    expect(metrics.flatGroups).toBe(1);
    expect(metrics.gradNorm).toBeGreaterThan(0);
  });

  test("masked responses carry no weight but count in their group's mean", async () => {
    const [{ kept }] = (await run("grpo", 1, { maskTruncated: true, normalize: "sum" })).recorded;
    const leaves = kept.flatMap(({ segments }) => segments.slice(1));
    const cut = leaves.filter(({ stop }) => stop === "length");
    expect(cut.length).toBeGreaterThan(0);
    for (const { fields } of cut) expect(fields.advantages.every((advantage) => advantage === 0)).toBe(true);
    const rest = leaves.filter(({ stop }) => stop !== "length");
    expect(rest.some(({ fields }) => fields.advantages[0] !== 0)).toBe(true);
    const [{ kept: whole }] = (await run("grpo", 1, { normalize: "sum" })).recorded;
    const same = whole.flatMap(({ segments }) => segments.slice(1)).filter(({ stop }) => stop !== "length");
    // The sum's weight is 1 / n, of which fewer are left.
    rest.forEach(({ fields }, i) =>
      expect(fields.advantages[0]).toBeCloseTo((same[i].fields.advantages[0] * leaves.length) / rest.length, 6),
    );
  });
});

describe("rewards that are no numbers, and single samples", () => {
  test.each([NaN, Infinity])("a reward of %s counts as 0 and is counted", async (strange) => {
    for (const name of ["grpo", "rloo", "reinforce++", "reinforce"] as const) {
      const { recorded } = await run(name, 1, { beta: 0 }, () => strange);
      expect(recorded[0].metrics).toMatchObject({ reward: 0, gradeErrors: 32, flatGroups: 1 });
      expect(recorded[0].metrics).not.toHaveProperty("gradNorm");
    }
  });

  test("equal rewards move no weight where the baseline is within the group or the batch", async () => {
    for (const name of ["grpo", "dr-grpo", "dapo", "gspo", "cispo", "rloo", "reinforce++"] as const) {
      const { recorded } = await run(name, 1, { beta: 0, overlongPenalty: 0 }, () => 0.1);
      expect(recorded[0].metrics).not.toHaveProperty("gradNorm");
    }
  });

  test("one sample a problem", async () => {
    for (const name of ["reinforce++", "reinforce"] as const) {
      const { recorded } = await run(name, 2, { samples: 1 });
      expect(recorded[1].metrics.gradNorm).toBeGreaterThan(0);
      expect(recorded[1].metrics.flatGroups).toBe(1);
    }
  });
});

import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { memoryStage } from "../../test/stage.ts";
import { LocalEngine } from "../engine/local/index.ts";
import type { HeadSpec, Model } from "../engine/types.ts";
import type { Forest } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";
import { taggedModel, WORDS } from "../rollout/testing.ts";
import { TAG_TOKENS } from "../tags/index.ts";
import { createTask } from "../task/create.ts";
import type { Problem } from "../task/types.ts";
import { PROCESS } from "./process-head.ts";
import { rftt, type RfttSettings, rfttSettings } from "./rftt.ts";
import { rewardOf } from "./rftt-rewards.ts";
import { isChoice } from "./tree-credit.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());

const dir = mkdtempSync(join(tmpdir(), "rifft-rftt-"));
beforeAll(async () => {
  const model = await taggedModel(engine);
  await model.save(dir);
  await model.close();
});
const warm = (heads: HeadSpec[] = []): Promise<Model> =>
  engine.create({
    base: "tiny",
    train: "full",
    vocabulary: WORDS,
    addTokens: TAG_TOKENS,
    seed: 1,
    heads,
    from: { dir, optimizer: false },
  });

const problems = WORDS.slice(0, 4).map((word): Problem => ({ id: word, prompt: { text: `${word}?` }, answer: "1" }));
const task = createTask({
  name: "ones",
  splits: { train: problems },
  reward: (_, response) => Number(response.includes("#### 1")),
  stop: ["</output>"],
});

const small = { prompts: 4, rollouts: 8, stepTokens: 6, answerTokens: 6, maxTokens: 32 };
async function run(steps: number, settings: Partial<RfttSettings>, lr = 1e-3, model?: Model) {
  const { stage, recorded } = await memoryStage({ model: model ?? (await warm()), task, steps, lr });
  await rftt(stage, rfttSettings.parse({ ...small, ...settings }));
  return recorded;
}

describe("RFTT", () => {
  test.each<Partial<RfttSettings>>([
    {},
    { advantages: "tree", values: "visits", searchTokens: "paper" },
    { advantages: "whiten", searchTokens: "masked", duplicates: true, dropFlatGroups: false },
    { search: "none" },
  ])("the first pass is on-policy, and micro-batches do not change the result: %o", async (settings) => {
    const [{ metrics, kept }] = await run(1, settings);
    const [{ metrics: split }] = await run(1, { ...settings, microBatch: 1 });
    expect(metrics.ratio).toBeCloseTo(1, 5);
    expect(metrics["mismatch/max"]).toBeLessThan(1e-3);
    expect(metrics.kl).toBeLessThan(1e-8);
    expect(metrics.clipFraction).toBe(0);
    expect(metrics.gradNorm).toBeGreaterThan(0);
    expect(split.gradNorm / metrics.gradNorm).toBeCloseTo(1, 4);
    expect(split.reward).toBe(metrics.reward);
    expect(kept).toHaveLength(4);
  });

  test.each<Partial<RfttSettings>>([{}, { advantages: "tree" }, { advantages: "whiten", searchTokens: "paper" }])(
    "raises the reward: %o",
    async (settings) => {
      const recorded = await run(settings.advantages === "tree" ? 20 : 10, settings, 3e-3);
      const mean = (part: typeof recorded) =>
        part.reduce((sum, { metrics }) => sum + metrics.solveRate, 0) / part.length;
      expect(mean(recorded.slice(-3))).toBeGreaterThan(mean(recorded.slice(0, 3)) + 0.1);
    },
  );

  test("nothing is trained that nobody chose: unfinished paths have no invented end, masked functions no gradient", async () => {
    const [{ kept }] = await run(1, { searchTokens: "masked", stepTokens: 2 });
    const segments = kept.flatMap((tree) => tree.segments);
    expect(segments.some(({ outcome }) => outcome?.finished === 0)).toBe(true);
    expect(segments.some(({ source }) => source === "forced")).toBe(false);
    for (const segment of segments.filter(isChoice)) {
      expect(segment.fields.advantagesUp?.[0] ?? 0).toBe(0);
      expect(segment.fields.advantagesDown?.[0] ?? 0).toBe(0);
      expect(segment.fields).not.toHaveProperty("weights");
    }
    for (const { outcome } of segments) if (outcome?.finished === 0) expect(outcome.reward).toBe(0);
  });

  test("a head learns the tree's values and says sigma of unfinished paths", async () => {
    const judged = await warm([PROCESS]);
    const recorded = await run(
      10,
      { processReward: "head", stepCredit: 0.1, stepTokens: 3, lr: 1e-3, processLr: 3e-3 },
      1e-3,
      judged,
    );
    const unfinished = recorded[0].kept
      .flatMap(({ segments }) => segments)
      .filter(({ outcome }) => outcome?.finished === 0);
    // Before it has learnt anything sigma is one half, of paths that were cut off; one that lost its way earns nothing.
    const rewards = unfinished.map(({ outcome }) => Number(outcome?.reward.toFixed(6)));
    expect(new Set(rewards)).toEqual(new Set([0, 0.5]));
    expect(recorded.at(-1)?.metrics.processError).toBeLessThan(recorded[0].metrics.processError);
    // What it is told of such paths is not what it said of them.
    for (const { segments } of recorded[0].kept)
      for (const { outcome, fields } of segments) if (outcome?.finished === 0) expect(fields.stepValues.at(-1)).toBe(0);
  });

  test("a server that is down ends the step with what to do", async () => {
    const processReward = {
      url: "http://127.0.0.1:9/score",
      format: "steps",
      timeout: 1,
      retries: 0,
      batch: 8,
    } as const;
    await expect(run(1, { processReward, stepCredit: 1 })).rejects.toThrow(/process reward server .*cannot be reached/);
  });
});

test("a search counts its functions as generated", async () => {
  const [{ kept, counted }] = await run(1, {});
  expect(counted).toBe(kept.flatMap(({ segments }) => segments.filter(isChoice)).length);
  expect(counted).toBeGreaterThan(4);
  const [plain] = await run(1, { search: "none" });
  expect(plain.counted).toBe(0);
});

test("a plain sample that is no whole path of the grammar earns nothing, though its text has the answer", async () => {
  const [{ kept }] = await run(1, { search: "none", maxTokens: 64 });
  const model = await warm();
  const leaves = kept.flatMap(({ segments }) => segments.slice(1));
  const outcomes = leaves.map(({ tokens, outcome }) => ({ text: model.tokenizer.decode(tokens), outcome }));
  const broken = outcomes.filter(({ text }) => text.includes("#### 1") && !/<output>[^<]*<\/output>$/.test(text));
  for (const { outcome } of broken) expect(outcome?.reward).toBe(0);
  expect(outcomes.some(({ outcome }) => outcome?.finished === 1)).toBe(true);
});

test("what looks like a tag and is none is text of its step", async () => {
  const settings = { search: "none", maxTokens: 64 } as const;
  const [{ kept }] = await run(1, settings);
  const model = await warm();
  const { stage, recorded } = await memoryStage({ model, task, steps: 1, lr: 1e-3 });
  const { tokenizer } = model;
  const answering: Tokenizer = {
    vocabSize: tokenizer.vocabSize,
    added: tokenizer.added,
    hasChatTemplate: false,
    encode: (text, options) => tokenizer.encode(text, options),
    decode: (tokens) => tokenizer.decode(tokens).replaceAll("#### ", "<answer>#### "),
    idOf: (token) => tokenizer.idOf(token),
    renderChat: (messages) => tokenizer.renderChat(messages),
  };
  await rftt({ ...stage, tokenizer: answering }, rfttSettings.parse({ ...small, ...settings }));
  const finished = (forest: Forest) =>
    forest.flatMap(({ segments }) => segments.slice(1).map(({ outcome }) => outcome?.finished));
  expect(finished(kept)).toContain(1);
  expect(finished(recorded[0].kept)).toEqual(finished(kept));
});

test("what top-p cuts off is logged", async () => {
  const [{ metrics }] = await run(1, { topP: 0.8, allowTruncated: true });
  expect(metrics.cutMass).toBeGreaterThan(0);
});

describe("rewards", () => {
  const right = { reward: 1, parts: {}, answered: true };
  const wrong = { reward: 0, parts: {}, answered: true };
  const key = "k";

  test("of the paper: 1, 0.1, and sigma where it was cut off", () => {
    expect(rewardOf("paper", { grade: right, scores: [0.3], key }, 0.1)).toEqual({ reward: 1 });
    expect(rewardOf("paper", { grade: wrong, scores: [0.3], key }, 0.1)).toEqual({ reward: 0.1 });
    expect(rewardOf("paper", { grade: { ...wrong, answered: false }, key }, 0.1)).toEqual({ reward: 0 });
    expect(rewardOf("paper", { cutOff: true, scores: [0.3, 0.6], key }, 0.1)).toEqual({ reward: 0.6 });
    expect(rewardOf("paper", { scores: [0.3, 0.6], key }, 0.1)).toEqual({ reward: 0 });
    expect(rewardOf("paper", { key }, 0.1)).toEqual({ reward: 0 });
  });

  test("as released: each step its score, the last one mixed with the verdict; or their mean; or noise", () => {
    const prm = rewardOf("released-prm", { grade: right, scores: [0.5, 0.8], key }, 0.1);
    expect(prm.steps?.map((step) => +step.toFixed(6))).toEqual([0.5, 0.92]);
    expect(prm.reward).toBeCloseTo(0.71, 6);
    // Right against wrong: 0.6 / L.
    const gap = (L: number) => {
      const scores = new Array<number>(L).fill(0.7);
      const of = (grade: typeof right) => rewardOf("released-orm", { grade, scores, key }, 0.1).reward;
      return of(right) - of(wrong);
    };
    [3, 5, 10].forEach((L) => expect(gap(L)).toBeCloseTo(0.6 / L, 6));
    for (let i = 0; i < 50; i++) {
      expect(rewardOf("released-normal", { grade: right, key: `${i}` }, 0.1).reward).toBeGreaterThanOrEqual(0.8);
      expect(rewardOf("released-normal", { grade: wrong, key: `${i}` }, 0.1).reward).toBeLessThanOrEqual(0.25);
    }
  });
});

test.each([
  [{ stepCredit: 1 }, /need a process reward model/],
  [{ reward: "released-orm" }, /need a process reward model/],
  [{ search: "none", advantages: "tree" }, /needs search = "tree"/],
  [{ reward: "released-prm", processReward: { url: "http://a/b" } }, /needs advantages = "whiten"/],
  [{ topP: 0.95 }, /allowTruncated/],
  [{ prompts: 6, minibatches: 4 }, /divide prompts evenly/],
  [{ search: "none", texts: 2 }, /so texts would count for nothing; take search = "tree" or leave it out/],
  [{ search: "none", without: ["verify"] }, /so without would count for nothing/],
  [{ without: ["output"] }, /nothing may follow|no path ends in output/],
  [{ processLr: 1e-3 }, /there is no head, so processLr would count for nothing/],
  [{ reward: "released-normal" }, /another scale than the reward's/],
  [{ reward: "released-normal", searchTokens: "paper", advantages: "tree" }, /steps would not get that reward/],
  [{ reward: "released-normal", searchTokens: "paper", partialReward: 0 }, /has no such part/],
  [{ advantages: "tree", normalize: "sequence" }, /a token of a step counts once/],
  [{ advantages: "whiten", scaleByStd: false }, /a deviation of its own/],
])("settings that contradict each other are refused: %o", (settings, message) => {
  const messages = rfttSettings
    .safeParse(settings)
    .error?.issues.map((issue) => issue.message)
    .join("\n");
  expect(messages).toMatch(message);
});

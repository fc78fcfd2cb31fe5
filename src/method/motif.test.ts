import fc from "fast-check";
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { letters, problems, repeats, vocabulary } from "../../test/letters.ts";
import { memoryStage } from "../../test/stage.ts";
import { LocalEngine } from "../engine/local/index.ts";
import type { Model } from "../engine/types.ts";
import type { Segment, Tree } from "../forest/types.ts";
import { createTask } from "../task/create.ts";
import type { Problem, Reward, RoundsDefinition } from "../task/types.ts";
import { groupAdvantages } from "./advantages.ts";
import { credit, motif } from "./motif.ts";
import { checkMotif, type MotifSettings, motifSettings } from "./motif-settings.ts";
import { objective, setFields } from "./parts.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());
afterEach(() => void vi.restoreAllMocks());

const words = [...vocabulary, ">"];
const tiny = () => engine.create({ base: "tiny", train: "full", vocabulary: words, seed: 3 });

/** The first round sees the question and hands on a letter; the others see that letter alone. */
const rounds: RoundsDefinition = {
  prompt: (problem, round, _, progress) => ({ text: round === 1 ? `${problem.answer}?` : `${progress ?? ""}>` }),
  progress: (response) => letters.find((letter) => response.startsWith(letter)),
  final: (response) => response.includes("!"),
};

const small = { prompts: 4, samples: 4, continuations: 2, rounds: 2, maxTokens: 2, maxGradNorm: 1 };

async function run(
  steps: number,
  settings: Partial<MotifSettings>,
  o: {
    reward?: (problem: Problem, response: string) => Reward;
    model?: Model;
    lr?: number;
    rounds?: RoundsDefinition;
  } = {},
) {
  const task = createTask({
    name: "letters",
    splits: { train: problems },
    reward: o.reward ?? repeats,
    rounds: o.rounds ?? rounds,
  });
  const model = o.model ?? (await tiny());
  const { stage, recorded } = await memoryStage({ model, task, steps, lr: o.lr ?? 3e-3 });
  await motif(stage, motifSettings.parse({ ...small, ...settings }));
  return recorded;
}

const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
/** Some letters right, and more: outcomes differ. */
const graded = (problem: Problem, response: string) =>
  repeats(problem, response) + response.length / 10 + (response.includes("?") ? 0.25 : 0);

describe("training", () => {
  test("all rounds: the first learns to hand on what the second turns into the answer", async () => {
    const recorded = await run(40, { trainRounds: "all", laterTemperature: 1 });
    const rewards = recorded.map(({ metrics }) => metrics.reward);
    expect(mean(rewards.slice(0, 3))).toBeLessThan(0.4);
    expect(mean(rewards.slice(-5))).toBeGreaterThan(0.8);
    const last = recorded[recorded.length - 1].metrics;
    expect(last["accuracy/round2"]).toBe(last.solveRate);
    // Any letter will do that the second round reads as the right one.
    expect(last.rightFromRound1).toBeLessThanOrEqual(1);
  });

  test("the first round alone: later trees carry no gradient, their tokens are not trained", async () => {
    const model = await tiny();
    const before = model.counts.trained;
    const [{ kept, metrics }] = await run(1, { normalize: "sequence" }, { model, reward: graded });
    const firsts = kept.slice(0, 4).flatMap(({ segments }) => segments.slice(1));
    const later = kept.slice(4).flatMap(({ segments }) => segments.slice(1));
    expect(firsts).toHaveLength(16);
    expect(later).toHaveLength(32);
    expect(
      later.every(
        ({ fields, truncated, temperature }) => !("advantages" in fields) && truncated && temperature === 0.8,
      ),
    ).toBe(true);
    expect(
      firsts.every(
        ({ fields, truncated, temperature }) => "advantages" in fields && !truncated && temperature === undefined,
      ),
    ).toBe(true);
    expect(metrics.trainedResponses).toBe(16);
    expect(metrics.cutMass).toBeGreaterThan(0);
    expect(metrics.cutMass).toBeLessThan(0.05);
    const rows = kept
      .slice(0, 4)
      .flatMap(({ segments }) => segments)
      .reduce((sum, { tokens }) => sum + tokens.length, 0);
    expect(model.counts.trained - before).toBeLessThanOrEqual(rows);
    expect(metrics.ratio).toBeCloseTo(1, 5);
    expect(metrics["mismatch/max"]).toBeLessThan(1e-3);
  });

  test("all rounds: each is sampled from the whole distribution at its own temperature, and is on-policy", async () => {
    const [{ kept, metrics }] = await run(1, { trainRounds: "all", laterTemperature: 0.7 }, { reward: graded });
    const later = kept.slice(4).flatMap(({ segments }) => segments.slice(1));
    expect(
      later.every(({ truncated, temperature }) => truncated === undefined && Math.abs((temperature ?? 1) - 0.7) < 1e-6),
    ).toBe(true);
    expect(metrics.ratio).toBeCloseTo(1, 5);
    expect(metrics.mismatch).toBeLessThan(1e-5);
  });

  test.each<Partial<MotifSettings>>([
    { trainRounds: "all", credit: "siblings", dropFlatGroups: true },
    { trainRounds: "all", beta: 0.1, kl: "k3", minibatches: 2 },
    { trainRounds: "all", beta: 0.1, kl: "k1", ratio: "sequence", innerPasses: 2 },
    { normalize: "max-tokens", scale: "none" },
  ])("micro-batches do not change the result: %o", async (settings) => {
    const [whole] = await run(1, settings, { reward: graded });
    const [split] = await run(1, { ...settings, microBatch: 1 }, { reward: graded });
    expect(split.metrics.loss).toBeCloseTo(whole.metrics.loss, 5);
    expect(split.metrics.gradNorm / whole.metrics.gradNorm).toBeCloseTo(1, 4);
    expect(split.metrics.reward).toBe(whole.metrics.reward);
  });

  test("one round is GRPO; one continuation is a chain", async () => {
    const [one] = await run(1, { rounds: 1, continuations: 4 }, { reward: graded });
    expect(one.kept).toHaveLength(4);
    expect(one.metrics.rounds).toBe(1);
    const [chain] = await run(1, { continuations: 1, trainRounds: "all" }, { reward: graded });
    expect(chain.kept.slice(4).every(({ segments }) => segments.length === 2)).toBe(true);
    expect(chain.metrics.trainedResponses).toBe(32);
  });

  test("outcomes that are all equal, or not numbers, move no weight", async () => {
    const model = await tiny();
    const before = await model.snapshot("before");
    const recorded = await run(1, { trainRounds: "all" }, { model, reward: () => 1 });
    const broken = await run(1, {}, { model, reward: () => NaN });
    for (const { metrics } of [...recorded, ...broken]) {
      expect(metrics.flatGroups).toBe(1);
      expect(metrics).not.toHaveProperty("gradNorm");
    }
    // 16 first responses and 32 continuations.
    expect(broken[0].metrics.gradeErrors).toBe(32);
    expect(await model.forward(recorded[0].kept)).toEqual(await model.forward(recorded[0].kept, before));
  });

  test("the frozen base answers the later rounds where it is asked to", async () => {
    const model = await tiny();
    const sample = vi.spyOn(model, "sample");
    await run(1, { continuationPolicy: "frozenBase" }, { model, reward: graded });
    expect(sample.mock.calls.map(([requests]) => new Set(requests.map(({ policy }) => policy)))).toEqual([
      new Set([undefined]),
      new Set(["base"]),
    ]);
  });
});

describe("the calls of a step", () => {
  test("1 + (n - 1) batched calls; m k (n - 1) continuations a question", async () => {
    const model = await tiny();
    const sample = vi.spyOn(model, "sample");
    const trained = vi.spyOn(model, "forwardBackward");
    const [{ metrics }] = await run(
      1,
      { prompts: 1, samples: 8, continuations: 4, rounds: 3 },
      { model, reward: graded },
    );
    const asked = sample.mock.calls.map(([requests]) => requests.reduce((sum, { n }) => sum + n, 0));
    expect(asked).toEqual([8, 32, 32]);
    // In round 2 the four chains of a response share its prompt.
    expect(sample.mock.calls.map(([requests]) => requests.length)).toEqual([1, 8, 32]);
    expect(trained.mock.calls).toHaveLength(1);
    expect(metrics.rounds).toBe(3);
  });

  test("every response is graded once, as the one of its chain and round; with gradeRounds = false the last alone", async () => {
    const task = createTask({ name: "letters", splits: { train: problems }, reward: graded, rounds });
    for (const gradeRounds of [true, false]) {
      const { stage } = await memoryStage({ model: await tiny(), task, steps: 1, lr: 1e-3 });
      const keys: string[] = [];
      const { steps } = stage;
      stage.steps = async function* () {
        for await (const step of steps()) {
          const { grade } = step;
          yield {
            ...step,
            grade: (items) => (keys.push(...items.map((i) => `${i.problem.id} ${i.turn} ${i.sample}`)), grade(items)),
          };
        }
      };
      await motif(stage, motifSettings.parse({ ...small, gradeRounds }));
      expect(new Set(keys).size).toBe(keys.length);
      expect(keys.filter((key) => key.startsWith("a 2"))).toEqual(Array.from({ length: 8 }, (_, c) => `a 2 ${c}`));
      expect(keys.filter((key) => key.startsWith("a 1"))).toEqual(
        gradeRounds ? [0, 1, 2, 3].map((i) => `a 1 ${i}`) : [],
      );
    }
  });

  test("adaptive: a response that states its answer ends its question", async () => {
    const own = { ...rounds, final: (response: string) => response.startsWith("a") };
    const [{ kept, metrics }] = await run(1, { adaptive: true, early: 0.5 }, { rounds: own });
    const texts = kept.slice(0, 4).flatMap(({ segments }) => segments.slice(1));
    const going = texts.length - kept.slice(4).length;
    expect(going).toBeGreaterThan(0);
    expect(metrics.rounds).toBeCloseTo(1 + kept.slice(4).length / 16, 10);
    expect(metrics["reward/early"]).toBeGreaterThanOrEqual(0);
  });

  test("each later tree names the response that it goes on from", async () => {
    const [{ kept }] = await run(1, { rounds: 3 });
    const byId = new Map(kept.map((tree) => [tree.id, tree]));
    expect(byId.size).toBe(4 + 16 + 32);
    for (const { cause, problem } of kept.slice(4)) {
      const before = byId.get(cause?.tree ?? "");
      expect(before?.segments[cause?.segment ?? 0].source).toBe("policy");
      expect(before?.problem).toBe(problem);
    }
  });
});

const bare = (length = 1): Segment => ({
  parent: 0,
  tokens: new Int32Array(length),
  source: "policy",
  logprobs: new Float32Array(length),
  fields: {},
});
const tree = { id: "t" };

describe("credit", () => {
  test("the paper's: the vector of the group's advantages", () => {
    const rewards = [2.5, 0.5, 1.5, 0.5, 2, 0.5, 1, 0.5];
    const firsts = rewards.map(() => bare());
    const chains = rewards.flatMap((reward) => [-0.25, 0.25].map((d) => ({ outcome: reward + d, later: [bare()] })));
    const settings = { trainRounds: "first", credit: "question", scale: "group", continuations: 2 } as const;
    const found = credit({ tree, firsts, chains }, settings).map(({ advantage }) => advantage);
    [1.739, -0.7905, 0.4743, -0.7905, 1.1067, -0.7905, -0.1581, -0.7905].forEach((expected, i) =>
      expect(found[i]).toBeCloseTo(expected, 4),
    );
  });

  const outcome = fc.constantFrom(0, 0.25, 1, 1.2);
  const question = fc
    .record({ m: fc.integer({ min: 1, max: 4 }), k: fc.integer({ min: 1, max: 4 }), n: fc.integer({ min: 1, max: 3 }) })
    .chain(({ m, k, n }) =>
      fc.record({
        k: fc.constant(k),
        outcomes: fc.array(fc.array(outcome, { minLength: k, maxLength: k }), { minLength: m, maxLength: m }),
        // Rounds after the first, fewer where a chain ended.
        lengths: fc.array(fc.array(fc.integer({ min: 0, max: n }), { minLength: k, maxLength: k }), {
          minLength: m,
          maxLength: m,
        }),
      }),
    );
  const z = (value: number, among: number[], scale: string) => {
    const average = mean(among);
    const std =
      among.length < 2 ? 0 : Math.sqrt(among.reduce((sum, one) => sum + (one - average) ** 2, 0) / (among.length - 1));
    return among.every((one) => one === among[0]) ? 0 : (value - average) / (scale === "group" ? std + 1e-4 : 1);
  };

  test.each([
    ["first", "question"],
    ["all", "siblings"],
    ["all", "question"],
  ] as const)("trainRounds %s, credit %s: the definition, response by response", (trainRounds, by) => {
    fc.assert(
      fc.property(question, fc.constantFrom("group", "none"), ({ k, outcomes, lengths }, scale) => {
        const firsts = outcomes.map(() => bare());
        const chains = outcomes.flatMap((own, i) =>
          own.map((one, j) => ({ outcome: one, later: Array.from({ length: lengths[i][j] }, () => bare()) })),
        );
        const found = new Map(
          credit({ tree, firsts, chains }, { trainRounds, credit: by, scale, continuations: k }).map((one) => [
            one.response,
            one,
          ]),
        );
        const means = outcomes.map(mean);
        const every = outcomes.flat();
        outcomes.forEach((own, i) => {
          const first =
            trainRounds === "all" && by === "question" && lengths.flat().some((length) => length > 0)
              ? mean(own.map((one) => z(one, every, scale)))
              : z(means[i], means, scale);
          expect(found.get(firsts[i])?.advantage).toBeCloseTo(first, 9);
          own.forEach((one, j) =>
            chains[i * k + j].later.forEach((later) => {
              if (trainRounds === "first") return expect(found.has(later)).toBe(false);
              const among = by === "siblings" ? own : every;
              expect(found.get(later)?.advantage).toBeCloseTo(z(one, among, scale), 9);
              expect(found.get(later)?.flat).toBe(among.every((other) => other === among[0]));
            }),
          );
        });
      }),
    );
  });

  test.each(["group", "none"] as const)("one round, all trained: GRPO's advantages, scale %s", (scale) => {
    const rewards = [0, 1, 0.25, 1, 0];
    const firsts = rewards.map(() => bare());
    const chains = rewards.flatMap((outcome) => Array.from({ length: 4 }, () => ({ outcome, later: [] })));
    const settings = { trainRounds: "all", credit: "question", scale, continuations: 4 } as const;
    const found = credit({ tree, firsts, chains }, settings);
    expect(found.map(({ response }) => response)).toEqual(firsts);
    const expected = groupAdvantages(rewards, tree.id, scale === "group");
    expect(found.map(({ advantage }) => advantage)).toEqual(Array.from(expected));
  });

  test.each(["first", "all"] as const)(
    "the same outcomes in another order are the same mean, trained %s",
    (trainRounds) => {
      expect((1.2 + 0.2 + 0.2 + 0.2) / 4).not.toBe((0.2 + 0.2 + 0.2 + 1.2) / 4);
      const firsts = [bare(), bare()];
      const chains = [1.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 1.2].map((outcome) => ({ outcome, later: [] }));
      const settings = { trainRounds, credit: "siblings", scale: "group", continuations: 4 } as const;
      for (const { advantage, flat } of credit({ tree, firsts, chains }, settings)) {
        expect([advantage, flat]).toEqual([0, true]);
      }
    },
  );

  test("the loss and its gradient against a direct sum over every response and finite differences", () => {
    const outcomes = [1, 0, 0.25, 1, 1, 0];
    const lengths = [3, 1, 2, 4, 2, 1];
    const firsts = [bare(2), bare(5), bare(3)];
    const chains = outcomes.map((one, c) => ({ outcome: one, later: [bare(lengths[c])] }));
    const settings = { trainRounds: "all", credit: "question", scale: "group", continuations: 2 } as const;
    const responses = credit({ tree, firsts, chains }, settings).map(({ response, advantage }) => ({
      response,
      advantages_T: new Float64Array(response.tokens.length).fill(advantage),
    }));
    setFields(responses, { normalize: "token", ratio: "token", kl: "k3", beta: 0 });
    const loss = objective({ ratio: "token", clip: "surrogate", clipLow: 0.2, clipHigh: 0.2, kl: "k3", beta: 0 });
    const trees = responses.map(({ response }, i): Tree => ({ id: `${i}`, problem: "p", segments: [response] }));
    // Log-probs now: some inside of the clips, some outside on either side.
    const now = responses.map(({ response }, i) =>
      Float32Array.from(response.tokens, (_, t) => [0.05, -0.5, 0.5, -0.1][(i + t) % 4]),
    );
    const scores = (at = now) => at.map((logprobs) => ({ logprobs: [logprobs], entropy: [], heads: {} }));
    const direct = (at: Float32Array[]) => {
      const tokens = at.reduce((sum, { length }) => sum + length, 0);
      return -responses.reduce((sum, { advantages_T: [a] }, i) => {
        return (
          sum +
          Array.from(at[i]).reduce(
            (s, lp) => s + Math.min(Math.exp(lp) * a, Math.min(Math.max(Math.exp(lp), 0.8), 1.2) * a),
            0,
          ) /
            tokens
        );
      }, 0);
    };
    const { loss: found, grads } = loss.fn(trees, scores());
    expect(found).toBeCloseTo(direct(now), 6);
    now.forEach((logprobs, i) =>
      logprobs.forEach((_, t) => {
        const moved = (by: number) =>
          direct(now.map((one, o) => (o === i ? one.map((lp, u) => (u === t ? lp + by : lp)) : one)));
        expect(grads[i].logprobs?.[0][t]).toBeCloseTo((moved(1e-3) - moved(-1e-3)) / 2e-3, 4);
      }),
    );
  });
});

describe("settings that cannot stand beside each other", () => {
  test.each<[Partial<MotifSettings>, RegExp]>([
    [{ trainRounds: "all", laterTopP: 0.95 }, /allowTruncated/],
    [{ trainRounds: "all", continuationPolicy: "frozenBase" }, /frozen base/],
    [{ samples: 1 }, /nothing to be compared with/],
    [{ samples: 1, trainRounds: "all", continuations: 1 }, /nothing to be compared with/],
    [{ trainRounds: "all", credit: "siblings", continuations: 1 }, /compares the continuations of one response/],
    [{ maxTokens: [5, 6] }, /one for each of 3 rounds/],
    [{ early: 0.1 }, /adaptive = true/],
    [{ reward: "reference", formatWeight: 1 }, /no such part/],
    [{ prompts: 3, minibatches: 2 }, /divide prompts evenly, which is 3/],
    [{ credit: "siblings" }, /trains no later response, so that credit counts for nothing/],
    [{ allowTruncated: true }, /so that allowTruncated counts for nothing/],
    [{ rounds: 1, continuations: 2 }, /nothing comes after the first response, so that continuations counts/],
    [{ rounds: 1, laterTemperature: 1 }, /so that laterTemperature counts/],
    [{ rounds: 1, laterTopP: 1 }, /so that laterTopP counts/],
    [{ rounds: 1, continuationPolicy: "frozenBase" }, /so that continuationPolicy counts/],
    [{ rounds: 1, adaptive: true }, /so that adaptive counts/],
    [{ rounds: 1, progressTokens: 8 }, /so that progressTokens counts/],
    [{ rounds: 1, formatRounds: "all" }, /so that formatRounds counts/],
    [{ reward: "paper", outsideTags: 0 }, /reward = "paper" does not ask where .* outsideTags counts/],
    [{ reward: "reference", formatRounds: "all" }, /first responses alone, so that formatRounds counts/],
    [{ formatWeight: 0, formatRounds: "all" }, /pays for no layout, so that formatRounds counts/],
    [{ kl: "k1" }, /no KL penalty, so that kl counts/],
    [{ reference: "base" }, /no KL penalty, so that reference counts/],
  ])("%o", (settings, why) => {
    const parsed = motifSettings.safeParse(settings);
    expect(parsed.success).toBe(false);
    expect(parsed.error?.issues.map(({ message }) => message).join()).toMatch(why);
  });

  test("defaults, and what counts for something", () => {
    for (const settings of [{}, { rounds: 1 }, { beta: 0.1, kl: "k1", reference: "base" }, { reward: "reference" }]) {
      expect(motifSettings.safeParse(settings).error?.issues).toBeUndefined();
    }
    const settings = { trainRounds: "all", credit: "siblings", laterTopP: 0.9, allowTruncated: true };
    expect(motifSettings.safeParse(settings).success).toBe(true);
  });

  test("one response with several continuations can be compared", () => {
    expect(motifSettings.safeParse({ samples: 1, trainRounds: "all" }).success).toBe(true);
  });
});

describe("tasks that settings do not go with", () => {
  const grading = { strict: ["hashes" as const] };
  const usual = createTask({ name: "usual", splits: {}, grading });
  const own = createTask({ name: "own", splits: {}, grading, rounds });
  const check =
    (settings: Partial<MotifSettings>, task = usual) =>
    () =>
      checkMotif(motifSettings.parse(settings), task);
  test.each<[Partial<MotifSettings>, typeof usual, RegExp]>([
    [{ reward: "reference" }, usual, /looks for \\boxed\{\}, and the rounds of task usual ask .*strict: hashes/],
    [{ style: "reference" }, usual, /task usual looks for the answer elsewhere/],
    [{ adaptive: true }, createTask({ name: "any", splits: {}, grading: { strict: ["auto"] } }), /ends no question/],
    [{ reward: "reference" }, own, /task own words its own rounds; take another reward/],
    [{ style: "reference" }, own, /task own words its own rounds/],
    [{ outsideTags: 1 }, own, /task own words its own rounds.*outsideTags counts for nothing/],
    [{ formatRounds: "all" }, own, /formatRounds counts for nothing/],
    [{ formatWeight: 1 }, own, /task own words its own rounds/],
  ])("%o", (settings, task, why) => expect(check(settings, task)).toThrow(why));

  test("the authors' rewards go with a box", () => {
    const boxed = createTask({ name: "boxed", splits: {}, grading: { strict: ["boxed"] } });
    for (const style of ["default", "reference"] as const) check({ reward: "reference", style }, boxed)();
    for (const task of [usual, own]) check({ adaptive: true, early: 0.1 }, task)();
  });
});

import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import {
  expectSameGradients,
  lora,
  numbers,
  pathsOf,
  plannedModel,
  randomise,
  randomTokens,
  segmentOf,
  takeGradients,
  treeOf,
} from "../../test/local.ts";
import { createLocalEngine, type LocalModel } from "../engine/local/index.ts";
import type { Loss, Scores } from "../engine/types.ts";
import type { Forest, Tree } from "../forest/types.ts";
import { FAMILY, groupSettings, type GroupSettings } from "./family.ts";
import { klRewards, objective, setFields, tokenAdvantages } from "./parts.ts";

type Name = keyof typeof FAMILY;
const names = ["grpo", "dr-grpo", "dapo", "gspo", "cispo", "rloo", "reinforce++", "reinforce"] as const;

/** A response as numbers: its reward, and of each token q (old log-prob), ref (reference's), lp (now), and lp where a definition stops the gradient. */
interface Response {
  reward: number;
  q: number[];
  ref: number[];
  lp: number[];
  stopped: number[];
}
type Batch = Response[][];

const MAX_TOKENS = 6;
const RUNNING = 0.3;
const sum = (xs: number[]) => xs.reduce((total, x) => total + x, 0);
const mean = (xs: number[]) => sum(xs) / xs.length;
const deviation = (xs: number[]) => Math.sqrt(sum(xs.map((x) => (x - mean(xs)) ** 2)) / (xs.length - 1));
const clip = (x: number, low: number, high: number) => Math.min(Math.max(x, low), high);
const rho = ({ lp, q }: Response, t: number) => Math.exp(lp[t] - q[t]);
const each = (response: Response, term: (t: number) => number) => sum(response.lp.map((_, t) => term(t)));
const total = (batch: Batch, term: (response: Response, group: Response[]) => number) =>
  sum(batch.flatMap((group) => group.map((response) => term(response, group))));
const tokens = (batch: Batch) => total(batch, ({ lp }) => lp.length);
const responses = (batch: Batch) => total(batch, () => 1);

const groupMean = (group: Response[]) => mean(group.map(({ reward }) => reward));
const standardised = ({ reward }: Response, group: Response[]) => {
  const spread = deviation(group.map((one) => one.reward));
  return spread === 0 ? 0 : (reward - groupMean(group)) / (spread + 1e-4);
};
const surrogate = (ratio: number, A: number, low: number, high: number) =>
  Math.min(ratio * A, clip(ratio, low, high) * A);
const klSum = ({ q, ref }: Response, from = 0) => sum(q.map((lp, t) => (t < from ? 0 : lp - ref[t])));

/** What each paper maximises, written out for one step's samples. */
const papers: Record<Name | "grpo with k3" | "rloo with kl" | "reinforce++ baseline", (batch: Batch) => number> = {
  grpo: (batch) =>
    total(batch, (y, group) => each(y, (t) => surrogate(rho(y, t), standardised(y, group), 0.8, 1.2))) / tokens(batch),
  "grpo with k3": (batch) =>
    total(batch, (y, group) => {
      const penalty = (t: number) => Math.exp(y.ref[t] - y.lp[t]) - (y.ref[t] - y.lp[t]) - 1;
      const term = (t: number) => surrogate(rho(y, t), standardised(y, group), 0.8, 1.2) - 0.04 * penalty(t);
      return each(y, term) / y.lp.length;
    }) / responses(batch),
  "dr-grpo": (batch) =>
    total(batch, (y, group) => each(y, (t) => surrogate(rho(y, t), y.reward - groupMean(group), 0.8, 1.2))) /
    (MAX_TOKENS * responses(batch)),
  dapo: (batch) => {
    const useful = batch.filter((group) => new Set(group.map(({ reward }) => reward)).size > 1);
    const term = (y: Response, group: Response[]) =>
      each(y, (t) => surrogate(rho(y, t), standardised(y, group), 0.8, 1.28));
    return useful.length === 0 ? 0 : total(useful, term) / tokens(useful);
  },
  gspo: (batch) =>
    total(batch, (y, group) => {
      const likelihoods = y.lp.map((_, t) => rho(y, t));
      const s = likelihoods.reduce((product, one) => product * one, 1) ** (1 / y.lp.length);
      return surrogate(s, standardised(y, group), 1 - 3e-4, 1 + 4e-4);
    }) / responses(batch),
  cispo: (batch) => {
    const useful = batch.filter((group) => new Set(group.map(({ reward }) => reward)).size > 1);
    const term = (y: Response, group: Response[]) =>
      each(y, (t) => clip(Math.exp(y.stopped[t] - y.q[t]), 0, 5) * standardised(y, group) * y.lp[t]);
    return useful.length === 0 ? 0 : total(useful, term) / tokens(useful);
  },
  rloo: (batch) =>
    total(batch, (y, group) => {
      const others = group.filter((one) => one !== y).map(({ reward }) => reward);
      return each(y, (t) => rho(y, t) * (y.reward - mean(others)));
    }) / responses(batch),
  "rloo with kl": (batch) =>
    total(batch, (y, group) => {
      const R = (one: Response) => one.reward - 0.1 * klSum(one);
      return each(y, (t) => rho(y, t) * (R(y) - mean(group.filter((one) => one !== y).map(R))));
    }) / responses(batch),
  "reinforce++": (batch) => {
    const A = (y: Response, t: number) => y.reward - 0.01 * klSum(y, t);
    const all = batch.flat().flatMap((y) => y.lp.map((_, t) => A(y, t)));
    const scale = all.length < 2 ? 1 : Math.sqrt(deviation(all) ** 2 + 1e-8);
    return total(batch, (y) => each(y, (t) => surrogate(rho(y, t), (A(y, t) - mean(all)) / scale, 0.8, 1.2))) / tokens(batch); // prettier-ignore
  },
  "reinforce++ baseline": (batch) => {
    const A = (y: Response, group: Response[]) => y.reward - groupMean(group);
    const all = batch.flatMap((group) => group.flatMap((y) => y.lp.map(() => A(y, group))));
    if (all.every((a) => a === 0)) return 0;
    const scale = Math.sqrt(deviation(all) ** 2 + 1e-8);
    return total(batch, (y, g) => each(y, (t) => surrogate(rho(y, t), (A(y, g) - mean(all)) / scale, 0.8, 1.2))) / tokens(batch); // prettier-ignore
  },
  reinforce: (batch) => total(batch, (y) => each(y, (t) => rho(y, t) * (y.reward - RUNNING))) / responses(batch),
};

const settingsOf = (name: Name, changes: object = {}) =>
  groupSettings(FAMILY[name]).parse({ maxTokens: MAX_TOKENS, minibatches: 1, ...changes });
const variants: [keyof typeof papers, GroupSettings][] = [
  ...names.map((name): [Name, GroupSettings] => [name, settingsOf(name)]),
  ["grpo with k3", settingsOf("grpo", { beta: 0.04, normalize: "sequence" })],
  ["rloo with kl", settingsOf("rloo", { beta: 0.1 })],
  ["reinforce++ baseline", settingsOf("reinforce++", { baseline: "group", beta: 0 })],
];

const single = fc.float({ min: -4, max: 0, noNaN: true });
const change = fc.oneof(
  fc.float({ min: -0.5, max: 0.5, noNaN: true }),
  fc.float({ min: Math.fround(-4e-4), max: Math.fround(4e-4), noNaN: true }),
);
const responseArbitrary = fc
  .array(fc.record({ q: single, ref: single, change }), { minLength: 1, maxLength: 4 })
  .chain((list) =>
    fc.record({
      reward: fc.integer({ min: 0, max: 4 }).map((quarters) => quarters / 4),
      q: fc.constant(list.map(({ q }) => q)),
      ref: fc.constant(list.map(({ ref }) => ref)),
      lp: fc.constant(list.map(({ q, change }) => Math.fround(q + change))),
    }),
  )
  .map((one): Response => ({ ...one, stopped: one.lp }));
const batchArbitrary = fc.array(fc.array(responseArbitrary, { minLength: 2, maxLength: 4 }), {
  minLength: 1,
  maxLength: 3,
});

/** The batch as a forest with a method's fields, and what a pass gave for it. */
function credited(batch: Batch, settings: GroupSettings): { forest: Forest; now: Scores[] } {
  const forest = batch.map((group, g) =>
    treeOf(
      `t/${g}`,
      segmentOf(-1, new Int32Array(2)),
      ...group.map(({ q, ref }) =>
        segmentOf(0, new Int32Array(q.length), {
          logprobs: Float32Array.from(q),
          fields: { refLogprobs: Float32Array.from(ref) },
        }),
      ),
    ),
  );
  credit(forest, batch, settings);
  const now = batch.map((group): Scores => {
    const logprobs = [new Float32Array(2), ...group.map(({ lp }) => Float32Array.from(lp))];
    return { logprobs, entropy: [], heads: {} };
  });
  return { forest, now };
}

/** As the method does it, in one minibatch. */
function credit(forest: Forest, rewards: { reward: number }[][], settings: GroupSettings): void {
  const flat = (g: number) => rewards[g].every(({ reward }) => reward === rewards[g][0].reward);
  const kept = forest.map((tree, g) => ({ tree, g })).filter(({ g }) => !(settings.dropFlatGroups && flat(g)));
  const groups = kept.map(({ tree, g }) => {
    const responses_G = tree.segments.slice(1);
    const rewards_G = rewards[g].map(({ reward }) => reward);
    const { kl, beta } = settings;
    return { tree: tree.id, rewards_G: kl === "reward" ? klRewards(rewards_G, responses_G, beta) : rewards_G, responses_G }; // prettier-ignore
  });
  const advantages = tokenAdvantages(groups, settings, RUNNING);
  const all = groups.flatMap(({ responses_G }, g) =>
    responses_G.map((response, i) => ({ response, advantages_T: advantages[g][i] })),
  );
  setFields(all, settings, settings.maxTokens);
}

describe.each(variants)("%s", (name, settings) => {
  test("is its paper's objective, value and gradient by finite differences", () => {
    const J = papers[name];
    const bounds = [0.8, 1.2, 1.28, 5, 1 - 3e-4, 1 + 4e-4];
    fc.assert(
      fc.property(batchArbitrary, (batch) => {
        // At a threshold the two sides have different slopes.
        const ratios = batch.flat().flatMap((y) => {
          const each = y.lp.map((_, t) => rho(y, t));
          return [...each, Math.exp(mean(each.map(Math.log)))];
        });
        fc.pre(ratios.every((ratio) => bounds.every((bound) => Math.abs(ratio - bound) > 4e-6)));
        const { forest, now } = credited(batch, settings);
        const found = objective(settings).fn(forest, now);
        const size = 1 + Math.abs(J(batch));
        // CISPO's value depends on where its gradient is stopped; the rest is what is maximised.
        expect(Math.abs(found.loss + J(batch)) / size).toBeLessThan(2e-6);
        const h = 1e-6;
        batch.forEach((group, g) =>
          group.forEach((y, i) => {
            y.lp.forEach((_, t) => {
              const at = (by: number) => {
                const lp = y.lp.map((x, u) => (u === t ? x + by : x));
                return J(
                  batch.map((other, k) => (k === g ? other.map((one) => (one === y ? { ...y, lp } : one)) : other)),
                );
              };
              const slope = (at(h) - at(-h)) / (2 * h);
              const gradient = -(found.grads[g].logprobs?.[i + 1][t] ?? 0);
              expect(Math.abs(gradient - slope) / (1 + Math.abs(slope))).toBeLessThan(3e-6);
            });
          }),
        );
      }),
      { numRuns: 60 },
    );
  });
});

test("groups of the papers' vectors: GRPO's advantages by TRL, RLOO's by hand", () => {
  const rewards_G = [2.5, 0.5, 1.5, 0.5, 2.0, 0.5, 1.0, 0.5];
  const responses_G = rewards_G.map(() => segmentOf(0, new Int32Array(1)));
  const advantagesOf = (name: Name) =>
    tokenAdvantages([{ tree: "t", rewards_G, responses_G }], settingsOf(name))[0].map(([advantage]) =>
      Number(advantage.toFixed(4)),
    );
  expect(advantagesOf("grpo")).toEqual([1.739, -0.7905, 0.4743, -0.7905, 1.1067, -0.7905, -0.1581, -0.7905]);
  // The sum is 9: 2.5 - 6.5 / 7, 0.5 - 8.5 / 7, ...
  expect(advantagesOf("rloo")).toEqual([1.5714, -0.7143, 0.4286, -0.7143, 1, -0.7143, -0.1429, -0.7143]);
  expect(advantagesOf("dr-grpo")).toEqual([1.375, -0.625, 0.375, -0.625, 0.875, -0.625, -0.125, -0.625]);
});

describe("through the engine no member depends on", () => {
  const engine = createLocalEngine();
  const models: LocalModel[] = [];
  afterAll(async () => {
    for (const model of models) await model.close();
    await engine.close();
  });
  const modelOf = async (plan: { rows?: number } = {}) => {
    const model = randomise(await plannedModel(engine, "qwen2", { train: lora }, plan));
    models.push(model);
    return model;
  };
  const lengths = [
    [5, 9, 1, 7],
    [12, 3],
    [4, 4, 6],
  ];
  const rewards = [
    [1, 0, 0, 1],
    [0.5, 1],
    [0, 0, 0],
  ].map((group) => group.map((reward) => ({ reward })));

  /** Groups as they stand after an update: the old policy's log-probs are near what the model gives, some beyond the bounds. */
  async function forestOf(model: LocalModel, settings: GroupSettings): Promise<Tree[]> {
    const forest = lengths.map((group, g) =>
      treeOf(
        `t/${g}`,
        segmentOf(-1, randomTokens(`prompt ${g}`, 11)),
        ...group.map((length, i) => segmentOf(0, randomTokens(`response ${g} ${i}`, length))),
      ),
    );
    const scores = await model.forward(forest);
    const near = settings.ratio === "sequence" ? 5e-4 : 0.3;
    forest.forEach((tree, g) =>
      tree.segments.slice(1).forEach((segment, i) => {
        const own = scores[g].logprobs[i + 1];
        const [noise, other] = [numbers(`old ${g} ${i}`, own.length), numbers(`ref ${g} ${i}`, own.length)];
        segment.logprobs = own.map((lp, t) => lp + near * noise[t]);
        segment.fields.refLogprobs = own.map((lp, t) => lp + 0.3 * other[t]);
      }),
    );
    credit(forest, rewards, settings);
    return forest;
  }

  async function gradientsOf(model: LocalModel, calls: Forest[], loss: Loss) {
    for (const forest of calls) await model.forwardBackward(forest, loss);
    return takeGradients(model);
  }

  test.each(variants)("micro-batches, packing, cutting, order: %s", async (_, settings) => {
    const model = await modelOf();
    const cut = await modelOf({ rows: 24 });
    const loss = objective(settings);
    const forest = await forestOf(model, settings);
    const whole = await gradientsOf(model, [forest], loss);
    const reversed = forest
      .map(({ id, segments: [prompt, ...leaves] }) => treeOf(id, prompt, ...leaves.reverse()))
      .reverse();
    for (const calls of [forest.map((tree) => [tree]), [forest.flatMap(pathsOf)], [reversed]]) {
      expectSameGradients(await gradientsOf(model, calls, loss), whole, 2e-5);
    }
    expectSameGradients(await gradientsOf(cut, [forest], loss), whole, 2e-5);
  });
});

test("a response in two segments has no ratio of its own, and one without weights none at all", () => {
  const loss = objective(settingsOf("gspo"));
  const one = () => ({
    logprobs: Float32Array.of(-1),
    fields: { weights: Float32Array.of(1), advantages: Float32Array.of(1) },
  });
  const now: Scores[] = [{ logprobs: [0, 1, 2].map(() => Float32Array.of(-1)), entropy: [], heads: {} }];
  const prompt = segmentOf(-1, new Int32Array(1));
  const chain = treeOf("t", prompt, segmentOf(0, new Int32Array(1), one()), segmentOf(1, new Int32Array(1), one()));
  expect(() => loss.fn([chain], now)).toThrow("tree t: a ratio of whole responses needs each of them in one segment");
  const bare = { ...one(), fields: { advantages: Float32Array.of(1) } };
  const tree = treeOf("t", prompt, segmentOf(0, new Int32Array(1), bare));
  expect(() => loss.fn([tree], now)).toThrow("needs the field weights on all of their tokens");
});

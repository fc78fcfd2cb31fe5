import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectSameGradients, numbers, takeGradients, treeOf } from "../../test/local.ts";
import { LocalEngine, LocalModel } from "../engine/local/index.ts";
import type { Loss } from "../engine/types.ts";
import type { Forest, Segment } from "../forest/types.ts";
import { SEARCH_DEFAULTS, type SearchLeaf, type SearchNode, searchTrees } from "../rollout/search.ts";
import { taggedModel, WORDS } from "../rollout/testing.ts";
import { G2 } from "../tags/index.ts";
import { meanAndStd } from "./advantages.ts";
import { ppo } from "./losses.ts";
import {
  carriesWeight,
  creditOf,
  type CreditSettings,
  type Explored,
  isChoice,
  nodeValues,
  type Path,
  setFields,
  stepDifferences,
} from "./tree-credit.ts";
import { allActions, renormalised } from "./tree-losses.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());

const settings = (more: Partial<CreditSettings> = {}): CreditSettings => ({
  advantages: "group",
  values: "policy",
  searchTokens: "expected",
  beta: 0.05,
  scaleByStd: true,
  dropFlatGroups: true,
  stepCredit: 0,
  ...more,
});

let model: LocalModel;
/** Two searches of a real policy whose leaves have values of their own; old and reference log-probs stand off, so that ratios clip and KL costs. */
async function explore(off = 0.3): Promise<Explored[]> {
  const questions = WORDS.slice(0, 2).map((word) => ({
    id: `tree ${word}`,
    problem: word,
    prompt: model.tokenizer.encode(`${word}?`),
    key: `credit/${word}`,
  }));
  const value = (leaves: SearchLeaf[]) =>
    leaves.map(({ finished, text }) => (finished ? (text.includes("#### 1") ? 1 : 0.1) : 0));
  const { forest, trees } = await searchTrees(
    model,
    questions,
    {
      ...SEARCH_DEFAULTS,
      rollouts: 10,
      floor: 0.25,
      stepTokens: 8,
      answerTokens: 8,
      maxTokens: 40,
      grammar: G2,
      without: [],
    },
    { value },
  );
  return forest.map((tree, q): Explored => {
    tree.segments.forEach((segment, s) => {
      const length = segment.tokens.length;
      segment.fields.refLogprobs = numbers(`reference ${q} ${s}`, length).map(
        (x, i) => (segment.logprobs?.[i] ?? 0) + 0.3 * x,
      );
      const old = numbers(`old ${q} ${s}`, length);
      if (segment.logprobs) segment.logprobs = segment.logprobs.map((lp, i) => lp + off * old[i]);
    });
    const { nodes, leaves } = trees[q];
    const paths = [...new Set(leaves)].map((leaf): Path => {
      const segments: number[] = [];
      for (let node = nodes[leaf]; node.parent >= 0; node = nodes[node.parent])
        segments.unshift(node.choice, node.segment);
      return { segments, count: nodes[leaf].rollouts, reward: nodes[leaf].value ?? 0 };
    });
    return { tree, nodes, paths, scores: new Map() };
  });
}

beforeAll(async () => {
  const made = await taggedModel(engine);
  if (!(made instanceof LocalModel)) throw new Error("a local model was expected");
  model = made;
});

/** Each path by itself and as often as it counts, with advantages written out: what training on flat samples would see. */
function flat(explored: Explored[], { advantages, searchTokens, beta }: CreditSettings): Forest {
  const isTrained = (segment: Segment) => !isChoice(segment) || searchTokens === "paper";
  const rows = explored.flatMap(({ tree, paths }, q) => {
    const repeats = paths.flatMap((path) => Array.from({ length: path.count }, () => path));
    const { mean, std } = meanAndStd(repeats.map(({ reward }) => reward));
    return repeats.map(({ segments, reward }, r) => {
      const own = segments.map((s): Segment => ({ ...tree.segments[s], fields: { ...tree.segments[s].fields } }));
      const costs = own.map((segment) =>
        isTrained(segment)
          ? Array.from(segment.tokens, (_, i) => beta * (segment.logprobs![i] - segment.fields.refLogprobs[i]))
          : [],
      );
      const A = own.map((_, k) =>
        costs[k].map((_, i) => {
          const rest = costs.flatMap((part, j) => (j < k ? [] : j === k ? part.slice(i) : part));
          const toCome = rest.reduce((sum, cost) => sum + cost, 0);
          return (advantages === "group" ? (reward - mean) / (std + 1e-4) : reward) - toCome;
        }),
      );
      const prompt = { ...tree.segments[0], fields: {} };
      const chain = [prompt, ...own.map((segment, i) => ({ ...segment, parent: i }))];
      return { tree: treeOf(`${q} ${r}`, ...chain), A };
    });
  });
  const all = rows.flatMap(({ A }) => A.flat());
  const mean = all.reduce((sum, a) => sum + a, 0) / all.length;
  const std = Math.sqrt(all.reduce((sum, a) => sum + (a - mean) ** 2, 0) / all.length);
  for (const { tree, A } of rows) {
    tree.segments.slice(1).forEach((segment, k) => {
      segment.fields = { advantages: new Float32Array(segment.tokens.length) };
      A[k].forEach(
        (a, i) => (segment.fields.advantages[i] = (advantages === "whiten" ? (a - mean) / std : a) / all.length),
      );
    });
  }
  return rows.map(({ tree }) => tree);
}

async function gradients(forest: Forest, loss: Loss) {
  const result = await model.forwardBackward(forest, loss);
  return { loss: result.loss, gradients: await takeGradients(model), metrics: result.metrics };
}

const clip = { low: 0.8, high: 1.2 };

describe("training on the tree", () => {
  test.each<Partial<CreditSettings>>([
    { advantages: "group", searchTokens: "paper" },
    { advantages: "group", searchTokens: "masked" },
    { advantages: "whiten", searchTokens: "paper" },
    { advantages: "whiten", searchTokens: "masked" },
  ])("has the gradient of flat training on the paths with all repeats: %o", async (more) => {
    const explored = await explore();
    const shared = explored.flatMap(({ paths }) => paths);
    expect(shared.some(({ count }) => count > 1)).toBe(true);
    const credits = creditOf(explored, settings(more));
    setFields(credits, "token");
    const packed = await gradients(
      explored.map(({ tree }) => tree),
      ppo(clip),
    );
    const rows = flat(explored, settings(more));
    expect(rows).toHaveLength(20);
    const unpacked = await gradients(rows, ppo(clip));
    expect(unpacked.metrics.clipped).toBeGreaterThan(0);
    expect(packed.metrics.tokens).toBeLessThan(unpacked.metrics.tokens);
    expect(packed.loss).toBeCloseTo(unpacked.loss, 5);
    expectSameGradients(
      packed.gradients,
      unpacked.gradients,
      1e-5,
      (name) => !unpacked.gradients.get(name)?.some((g) => g !== 0),
    );
  });

  test("on the policy that searched the ratio is 1", async () => {
    const explored = await explore(0);
    for (const searchTokens of ["paper", "expected"] as const) {
      setFields(creditOf(explored, settings({ searchTokens, advantages: "tree" })), "token");
      const { metrics } = await gradients(
        explored.map(({ tree }) => tree),
        ppo(clip),
      );
      expect(Math.abs(metrics.ratio / metrics.tokens - 1)).toBeLessThan(1e-5);
    }
  });

  test("steps are worth what they change of V, each token once", async () => {
    const explored = await explore(0);
    const credits = creditOf(
      explored,
      settings({ advantages: "tree", searchTokens: "paper", beta: 0, scaleByStd: false }),
    );
    explored.forEach(({ nodes, tree }, t) => {
      const values = nodeValues(nodes, "policy");
      for (const { id, parent, segment, choice, N } of nodes.slice(1)) {
        if (N === 0) continue;
        const expected = (values.get(id) ?? NaN) - (values.get(parent) ?? NaN);
        for (const s of [segment, choice]) {
          expect(credits[t].once.get(s)).toHaveLength(tree.segments[s].tokens.length);
          credits[t].once.get(s)?.forEach((a) => expect(a).toBeCloseTo(expected, 10));
        }
      }
    });
  });
});

describe("the gradient over all actions", () => {
  test("is that of sum pi(a) (Q(a) - V), through the masked functions of the engine, by finite differences", async () => {
    const explored = await explore(0);
    const credits = creditOf(explored, settings({ beta: 0 }));
    setFields(credits, "token");
    const trees = explored.map(({ tree }) => tree);
    expect(credits.some(({ decisions }) => decisions.length > 0)).toBe(true);
    // Only the functions: what is sampled has gradients of its own.
    for (const { segments } of trees)
      for (const { fields } of segments) {
        delete fields.advantagesUp;
        delete fields.advantagesDown;
      }
    const { parameters } = model;
    const start = parameters.values.slice();
    for (const seed of [1, 2, 3]) {
      const direction = numbers(`direction ${seed}`, start.length);
      const at = async (step: number) => {
        parameters.values.set(start.map((x, i) => x + step * direction[i]));
        return (await model.forwardBackward(trees, allActions())).loss;
      };
      const numeric = ((await at(1e-3)) - (await at(-1e-3))) / 2e-3;
      await model.discard();
      await at(0);
      const analytic = parameters.grads().reduce((sum, g, i) => sum + g * direction[i], 0);
      await model.discard();
      expect(Math.abs(analytic)).toBeGreaterThan(1e-5);
      expect(Math.abs(numeric - analytic) / Math.abs(analytic)).toBeLessThan(0.02);
    }
    parameters.values.set(start);
  });

  test("weighs a decision by the paths that go on from it", () => {
    const logprobs = [Math.log(0.6), Math.log(0.3)];
    const choice = (q: number, i: number): Segment => ({
      parent: 0,
      tokens: Int32Array.of(i),
      source: "search",
      logprobs: Float32Array.of(logprobs[i]),
      allowed: [Int32Array.of(0, 1, 2)],
      fields: { actionValues: Float32Array.of(q), weights: Float32Array.of(3) },
    });
    const prompt: Segment = { parent: -1, tokens: Int32Array.of(9), source: "prompt", fields: {} };
    const tree = treeOf("t", prompt, choice(1, 0), choice(0, 1));
    const now = {
      logprobs: [new Float32Array(1), ...logprobs.map((lp) => Float32Array.of(lp))],
      entropy: [],
      heads: {},
    };
    const { loss, grads } = allActions().fn([tree], [now]);
    expect(loss).toBeCloseTo(-3 * (2 / 3), 6);
    // -w pi (Q - V): pi = 2/3, 1/3; V = 2/3.
    expect(grads[0].logprobs?.[1][0]).toBeCloseTo(-3 * (2 / 3) * (1 / 3), 6);
    expect(grads[0].logprobs?.[2][0]).toBeCloseTo(3 * (1 / 3) * (2 / 3), 6);
  });
});

/** A question with paths of so many steps of `tokens` tokens each, every path apart from the others from the first step on. */
function separate(
  paths: { steps: number; reward: number; placed?: number[] }[],
  tokens: number,
  kl?: number[],
): Explored {
  const segments: Segment[] = [{ parent: -1, tokens: Int32Array.of(0), source: "prompt", fields: {} }];
  const nodes: SearchNode[] = [];
  const own = paths.map(({ steps, reward, placed }): Path => {
    const of: number[] = [];
    for (let step = 0; step < steps; step++) {
      of.push(segments.length);
      segments.push({
        parent: step === 0 ? 0 : segments.length - 1,
        tokens: new Int32Array(tokens),
        source: "policy",
        logprobs: Float32Array.from({ length: tokens }, (_, i) => -1 + (kl?.[i] ?? 0)),
        fields: { refLogprobs: new Float32Array(tokens).fill(-1) },
      });
    }
    return { segments: of, count: 1, reward, placed: placed?.map((reward, i) => ({ segment: of[i], reward })) };
  });
  return { tree: { id: "t", problem: "p", segments }, nodes, paths: own, scores: new Map() };
}

test("returns: KL costs of 0.02, -0.01 and 0.03 at beta 0.01 under a reward of 1", () => {
  // Two paths, so that whitening has something to undo: mean and deviation are known.
  const one = separate(
    [
      { steps: 1, reward: 1 },
      { steps: 1, reward: 0 },
    ],
    3,
    [0.02, -0.01, 0.03],
  );
  const [{ paths }] = creditOf([one], settings({ advantages: "whiten", beta: 0.01 }));
  const G = [0.9996, 0.9998, 0.9997];
  const all = [...G, ...G.map((g) => g - 1)];
  const mean = all.reduce((sum, g) => sum + g, 0) / 6;
  const std = Math.sqrt(all.reduce((sum, g) => sum + (g - mean) ** 2, 0) / 6);
  const found = [...paths[0].advantages.values()][0];
  G.forEach((g, i) => expect(found[i] * std + mean).toBeCloseTo(g, 6));
});

describe("length is not paid for", () => {
  const long = { steps: 10, reward: 0, placed: [...Array.from({ length: 9 }, () => 0.7), 0.28] };
  const short = { steps: 3, reward: 1, placed: [0.7, 0.7, 0.88] };
  const meanOf = (advantages: ReadonlyMap<number, Float64Array>) =>
    meanAndStd([...advantages.values()].flatMap((values) => [...values])).mean;

  test("the released sums of scores rank the long wrong path above the short right one", () => {
    const [{ paths }] = creditOf([separate([long, short], 50)], settings({ advantages: "whiten", beta: 0 }));
    expect(meanOf(paths[0].advantages)).toBeCloseTo(0.22, 2);
    expect(meanOf(paths[1].advantages)).toBeCloseTo(-0.73, 2);
  });

  test("group advantages rank the short right one above", () => {
    const [{ paths }] = creditOf([separate([long, short], 50)], settings({ beta: 0 }));
    expect(meanOf(paths[1].advantages)).toBeGreaterThan(0.5);
    expect(meanOf(paths[0].advantages)).toBeLessThan(-0.5);
  });

  test("differences of scores add up to the last score less the first, however many steps there are", () => {
    const node = (id: number, depth: number): SearchNode => ({
      id,
      parent: id - 1,
      fn: "next_step",
      text: 0,
      depth,
      prior: 1,
      N: 1,
      Q: 0,
      choice: -1,
      segment: -1,
      rollout: 0,
      allowed: [],
      logprobs: [],
      rollouts: 0,
    });
    const nodes = Array.from({ length: 11 }, (_, id) => node(id, id));
    const differences = stepDifferences(nodes, new Map(nodes.slice(1).map(({ id }) => [id, 0.7])));
    expect([...differences.values()].reduce((sum, difference) => sum + difference, 0)).toBe(0);
  });
});

test("V by the policy: values of functions weighed by their probability among the expanded ones", async () => {
  const [{ nodes }] = await explore(0);
  const values = nodeValues(nodes, "policy");
  const visits = nodeValues(nodes, "visits");
  const root = nodes[0];
  expect(visits.get(0)).toBeCloseTo(root.Q / root.N, 12);
  const children = nodes.filter(({ parent, N }) => parent === 0 && N > 0);
  const policy = renormalised(children.map(({ prior }) => Math.log(prior)));
  const expected = children.reduce((sum, { id }, i) => sum + policy[i] * (values.get(id) ?? NaN), 0);
  expect(values.get(0)).toBeCloseTo(expected, 6);
});

describe("functions are on the scale of the texts around them", () => {
  const raw = async (more: Partial<CreditSettings>) => {
    const explored = await explore(0);
    const credits = creditOf(explored, settings({ beta: 0, ...more }));
    return { explored, credits };
  };
  const gap = ({ actions: [a, b] }: { actions: { value: number }[] }) => a.value - b.value;

  test("whitened ones are divided by the whitening's deviation", async () => {
    const plain = await raw({ scaleByStd: false });
    const whitened = await raw({ advantages: "whiten" });
    const { paths } = whitened.credits.find(({ flat }) => !flat)!;
    const other = paths.findIndex(({ path }) => path.reward !== paths[0].path.reward);
    const last = (i: number) => [...paths[i].advantages.values()][0][0];
    const deviation = (paths[0].path.reward - paths[other].path.reward) / (last(0) - last(other));
    expect(deviation).toBeGreaterThan(0);
    expect(deviation).not.toBeCloseTo(1, 1);
    const pairs = plain.credits.flatMap(({ decisions }, t) =>
      decisions.map((decision, d) => [gap(decision), gap(whitened.credits[t].decisions[d])]),
    );
    expect(pairs.some(([plainly]) => plainly !== 0)).toBe(true);
    for (const [plainly, white] of pairs) expect(white).toBeCloseTo(plainly / deviation, 6);
  });

  test("of a question with equal rewards that is kept only the KL cost is left", async () => {
    const explored = await explore(0);
    for (const { paths } of explored) for (const path of paths) path.reward = 0.5;
    for (const { nodes } of explored) for (const node of nodes) if (node.end !== undefined) node.value = 0.5;
    const credits = creditOf(explored, settings({ dropFlatGroups: false }));
    const values = credits.flatMap(({ decisions }) => decisions.flatMap(({ actions }) => actions));
    expect(values.length).toBeGreaterThan(0);
    for (const { value } of values) expect(Math.abs(value)).toBeLessThan(0.1);
  });

  test("stepCredit goes to the function as to the text of its step", async () => {
    const before = await raw({});
    const { explored } = before;
    for (const one of explored) one.scores = new Map(one.nodes.map(({ id }) => [id, (id % 7) / 7]));
    const credits = creditOf(explored, settings({ beta: 0, stepCredit: 0.5 }));
    const shifts = credits.flatMap(({ decisions }, t) => {
      const { nodes, scores } = explored[t];
      const differences = stepDifferences(nodes, scores);
      return decisions.flatMap(({ actions }, d) =>
        actions.map(({ segment, value }, a) => {
          const texts = nodes
            .filter(({ choice, N }) => choice === segment && N > 0)
            .map(({ id }) => differences.get(id)!);
          return [value - before.credits[t].decisions[d].actions[a].value, 0.5 * meanAndStd(texts).mean];
        }),
      );
    });
    expect(shifts.some(([, expected]) => expected !== 0)).toBe(true);
    for (const [shift, expected] of shifts) expect(shift).toBeCloseTo(expected, 6);
  });
});

test("whitening leaves out the questions that are not trained", async () => {
  const explored = await explore(0);
  for (const path of explored[1].paths) path.reward = 0;
  const found = (more: Partial<CreditSettings>) =>
    creditOf(explored, settings({ advantages: "whiten", searchTokens: "paper", beta: 0, ...more }))[0].paths;
  const mean = (paths: ReturnType<typeof found>) =>
    meanAndStd(
      paths.flatMap(({ path, advantages }) =>
        Array.from({ length: path.count }, () => [...advantages.values()].flatMap((values) => [...values])).flat(),
      ),
    ).mean;
  expect(mean(found({}))).toBeCloseTo(0, 6);
  expect(Math.abs(mean(found({ dropFlatGroups: false })))).toBeGreaterThan(0.01);
});

test("equal rewards and no KL cost teach nothing", async () => {
  const explored = await explore(0);
  for (const { paths } of explored) for (const path of paths) path.reward = 0.5;
  const credits = creditOf(explored, settings({ beta: 0 }));
  setFields(credits, "sequence");
  expect(credits.every(({ flat }) => flat)).toBe(true);
  expect(explored.some(({ tree }) => carriesWeight(tree))).toBe(false);
});

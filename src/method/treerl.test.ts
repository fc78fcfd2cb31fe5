import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { memoryStage } from "../../test/stage.ts";
import { LocalEngine } from "../engine/local/index.ts";
import type { Segment, Tree } from "../forest/types.ts";
import { taggedModel, WORDS } from "../rollout/testing.ts";
import { TAG_TOKENS } from "../tags/index.ts";
import { createTask } from "../task/create.ts";
import type { Problem } from "../task/types.ts";
import { forkCredit, stepAdvantages } from "./fork-credit.ts";
import { type Path, setFields } from "./tree-credit.ts";
import { treerl, type TreerlSettings, treerlSettings } from "./treerl.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());

const path = (segments: number[], reward: number): Path => ({ segments, count: 1, reward });

describe("step advantages", () => {
  test("by hand: a trajectory that forks once in two, beside one that does not", () => {
    // 1 is shared by 2, 3 and 4; 5 stands alone. Means: root 3/4, step 1: 2/3.
    const advantages = stepAdvantages([path([1, 2], 1), path([1, 3], 0), path([1, 4], 1), path([5], 1)]);
    const expected: [number, number][] = [
      [1, (2 * (2 / 3 - 3 / 4)) / Math.sqrt(3)],
      [2, 1 - 3 / 4 + 1 - 2 / 3],
      [3, 0 - 3 / 4 + 0 - 2 / 3],
      [4, 1 - 3 / 4 + 1 - 2 / 3],
      [5, 2 * (1 - 3 / 4)],
    ];
    for (const [s, advantage] of expected) expect(advantages.get(s)).toBeCloseTo(advantage, 12);
    expect(advantages.size).toBe(5);
  });

  /** Random trees: each segment's parent stands before it; every leaf has a reward. */
  const trees = fc
    .array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 3 })), { minLength: 2, maxLength: 14 })
    .map((drawn) => {
      const parents = [-1, ...drawn.map(([nat], i) => nat % (i + 1))];
      const paths = parents.flatMap((_, leaf) => {
        if (leaf === 0 || parents.includes(leaf)) return [];
        const segments: number[] = [];
        for (let s = leaf; s > 0; s = parents[s]) segments.unshift(s);
        return [path(segments, drawn[leaf - 1][1] / 3)];
      });
      return { parents, paths };
    });

  test("by brute force: from whole responses, without the tree", () => {
    fc.assert(
      fc.property(trees, ({ paths }) => {
        const advantages = stepAdvantages(paths);
        const mean = (prefix: number[]) => {
          const through = paths.filter(({ segments }) => prefix.every((s, i) => segments[i] === s));
          return { V: through.reduce((sum, { reward }) => sum + reward, 0) / through.length, L: through.length };
        };
        for (const { segments } of paths) {
          segments.forEach((s, i) => {
            const { V, L } = mean(segments.slice(0, i + 1));
            const expected = (V - mean([]).V + V - mean(segments.slice(0, i)).V) / Math.sqrt(L);
            expect(advantages.get(s)).toBeCloseTo(expected, 10);
          });
        }
      }),
    );
  });

  test("every response trains all of its steps: what the packed tree carries is the sum over responses", () => {
    fc.assert(
      fc.property(trees, ({ parents, paths }) => {
        const segments = parents.map((parent, s): Segment => ({
          parent,
          tokens: Int32Array.of(s, s),
          source: s === 0 ? "prompt" : "policy",
          logprobs: Float32Array.of(-1, -2),
          fields: { refLogprobs: Float32Array.of(-1.5, -2) },
        }));
        const tree: Tree = { id: "t", problem: "p", segments };
        const credits = forkCredit([{ tree, nodes: [], paths, scores: new Map() }], 0.1);
        setFields(credits, "token");
        const advantages = stepAdvantages(paths);
        const tokens = paths.reduce((sum, one) => sum + 2 * one.segments.length, 0);
        segments.forEach(({ fields }, s) => {
          if (s === 0) return;
          const through = paths.filter((one) => one.segments.includes(s)).length;
          // KL costs 0.1 * 0.5 at the first token, nothing at the second.
          [0.05, 0].forEach((kl, i) => {
            const expected = (through * ((advantages.get(s) ?? 0) - kl)) / tokens;
            expect(fields.advantagesUp[i] - fields.advantagesDown[i]).toBeCloseTo(expected, 6);
          });
        });
      }),
    );
  });
});

const dir = mkdtempSync(join(tmpdir(), "rifft-treerl-"));
beforeAll(async () => {
  const model = await taggedModel(engine);
  await model.save(dir);
  await model.close();
});

const problems = WORDS.slice(0, 4).map((word): Problem => ({ id: word, prompt: { text: `${word}?` }, answer: "1" }));
const task = createTask({
  name: "ones",
  splits: { train: problems },
  reward: (_, response) => Number(response.includes("#### 1")),
  stop: ["</output>"],
});

async function run(steps: number, settings: Partial<TreerlSettings>, lr = 1e-3) {
  const model = await engine.create({
    base: "tiny",
    train: "full",
    vocabulary: WORDS,
    addTokens: TAG_TOKENS,
    seed: 1,
    from: { dir, optimizer: false },
  });
  const { stage, recorded } = await memoryStage({ model, task, steps, lr });
  await treerl(stage, treerlSettings.parse({ prompts: 4, trajectories: 2, maxTokens: 32, ...settings }));
  return recorded;
}

describe("TreeRL", () => {
  test("the first pass is on-policy, and micro-batches do not change the result", async () => {
    const [{ metrics, kept }] = await run(1, {});
    const [{ metrics: split }] = await run(1, { microBatch: 1 });
    expect(metrics.ratio).toBeCloseTo(1, 5);
    expect(metrics["mismatch/max"]).toBeLessThan(1e-3);
    expect(metrics.kl).toBeLessThan(1e-8);
    expect(metrics.gradNorm).toBeGreaterThan(0);
    expect(split.gradNorm / metrics.gradNorm).toBeCloseTo(1, 4);
    expect(metrics.paths).toBe(10);
    expect(metrics.sharing).toBeGreaterThan(1);
    expect(kept).toHaveLength(4);
  });

  test("raises the reward", async () => {
    const recorded = await run(10, { minibatches: 2 });
    const mean = (part: typeof recorded) => part.reduce((sum, { metrics }) => sum + metrics.solveRate, 0) / part.length;
    expect(mean(recorded.slice(-3))).toBeGreaterThan(mean(recorded.slice(0, 3)) + 0.1);
  });

  test("a response that was cut off earns nothing", async () => {
    const [{ kept }] = await run(1, { maxTokens: 6 });
    const cut = kept.flatMap(({ segments }) => segments).filter(({ stop }) => stop === "length");
    expect(cut.length).toBeGreaterThan(0);
    for (const { outcome } of cut) expect(outcome).toMatchObject({ reward: 0, finished: 0 });
  });

  test.each([
    [{ prompts: 6, minibatches: 4 }, /divide prompts evenly/],
    [{ trajectories: 1, iterations: 0 }, /two responses or more/],
  ])("settings that contradict each other are refused: %o", (settings, message) => {
    expect(treerlSettings.safeParse(settings).error?.issues[0].message).toMatch(message);
  });
});

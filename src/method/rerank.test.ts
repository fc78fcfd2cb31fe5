import { afterAll, describe, expect, test } from "vitest";
import { memoryStage } from "../../test/stage.ts";
import { LocalEngine } from "../engine/local/index.ts";
import type { Tree } from "../forest/types.ts";
import { createTask } from "../task/create.ts";
import type { Problem } from "../task/types.ts";
import {
  classification,
  rerank,
  type RerankSettings,
  rerankSettings,
  SCORE,
  solutionScore,
  solutionTree,
  withoutDuplicates,
} from "./rerank.ts";
import type { StoredSample } from "./stage.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());

const letters = ["a", "b", "c", "d", "e", "f"];
const problems = letters.map((letter): Problem => ({ id: letter, prompt: { text: `${letter}?` }, answer: letter }));
const task = createTask({ name: "letters", splits: { train: problems }, reward: () => 0 });
const make = () =>
  engine.create({ base: "tiny", train: "full", vocabulary: [...letters, "?", "!"], seed: 3, heads: [SCORE] });

function sampleOf(problem: string, text: string, solved: boolean, answered = true): StoredSample {
  return { problem, text, tokens: new Int32Array(), solved, answered };
}

/** Every letter as an answer to every question: right where it repeats the question. */
const stored = letters.flatMap((problem) =>
  letters.map((letter): StoredSample => sampleOf(problem, `${letter}!`, letter === problem)),
);

async function run(steps: number, settings: Partial<RerankSettings> = {}, samples = stored, model = make()) {
  const { stage, recorded } = await memoryStage({ model: await model, task, steps, lr: 3e-3, stored: samples });
  await rerank(stage, rerankSettings.parse({ samples: "stored.jsonl", batch: 12, dev: 0, ...settings }));
  return recorded;
}

describe("the reranker", () => {
  test("learns which solutions are right; a score is the probability of that", async () => {
    const model = await make();
    const recorded = await run(120, {}, stored, Promise.resolve(model));
    expect(recorded[0].metrics).toMatchObject({ examples: 36, right: expect.any(Number) });
    expect(recorded[0].metrics.loss).toBeCloseTo(Math.log(2), 0);
    expect(recorded.at(-1)?.metrics.loss).toBeLessThan(0.05);
    const trees = ["a!", "b!"].map((text, i) => solutionTree(model, `${i}`, problems[0], text));
    const scores = await model.forward(trees, "current", { logprobs: false });
    expect(solutionScore(trees[0], scores[0])).toBeGreaterThan(0.9);
    expect(solutionScore(trees[1], scores[1])).toBeLessThan(0.1);
    await model.close();
  });

  test("micro-batches do not change the result", async () => {
    const [whole] = await run(1);
    const [split] = await run(1, { microBatch: 5 });
    expect(split.metrics.loss).toBeCloseTo(whole.metrics.loss, 5);
    expect(split.metrics.gradNorm / whole.metrics.gradNorm).toBeCloseTo(1, 4);
  });

  test("whole questions are held out to measure it", async () => {
    const recorded = await run(4, { dev: 1 / 3, devEvery: 2 });
    expect(recorded[0].metrics.examples).toBe(24);
    expect(recorded.map(({ metrics }) => "devLoss" in metrics)).toEqual([false, true, false, true]);
    const { devLoss, devAccuracy, devRerank } = recorded[3].metrics;
    expect(devLoss).toBeGreaterThan(0);
    expect(devAccuracy * 12).toBeCloseTo(Math.round(devAccuracy * 12), 9);
    expect([0, 0.5, 1]).toContain(devRerank);
  });

  test("what states no answer is no candidate, and a question without candidates counts 0", async () => {
    const silent = stored.map((sample) => ({ ...sample, answered: false }));
    const [{ metrics }] = await run(1, { dev: 0.34, devEvery: 1 }, silent);
    expect(metrics.devRerank).toBe(0);
  });

  test("which questions are held out does not depend on the file's order", async () => {
    const measured = async (samples: StoredSample[]) => {
      const [{ metrics }] = await run(1, { dev: 0.34, devEvery: 1, batch: 24 }, samples);
      return metrics.devLoss;
    };
    expect(await measured([...stored].reverse())).toBeCloseTo(await measured(stored), 5);
  });

  test("duplicates of the same question go, the first stays", () => {
    const of = (id: string, text: string, right: boolean) => ({ problem: { id }, text, right });
    const kept = withoutDuplicates([
      of("p", "x", true),
      of("q", "x", false),
      of("p", "x", false),
      of("p", " x", false),
    ]);
    expect(kept).toEqual([of("p", "x", true), of("q", "x", false), of("p", " x", false)]);
  });

  test("an empty solution is scored at the prompt's end", async () => {
    const model = await make();
    const tree = solutionTree(model, "0", problems[0], "");
    const [scores] = await model.forward([tree], "current", { logprobs: false });
    expect(solutionScore(tree, scores)).toBeGreaterThan(0);
    tree.segments[0].fields.weights = Float32Array.of(0, 1);
    tree.segments[0].outcome = { right: 1 };
    const { loss } = await model.forwardBackward([tree], classification());
    expect(loss).toBeCloseTo(-Math.log(solutionScore(tree, scores)), 4);
    await model.close();
  });

  test("what cannot teach is refused: one class alone, and samples of other problems", async () => {
    await expect(
      run(
        1,
        {},
        stored.filter(({ solved }) => solved),
      ),
    ).rejects.toThrow("stored.jsonl: all 6 solutions to train on are right: there is nothing to tell apart");
    await expect(run(1, {}, [sampleOf("z", "a", true)])).rejects.toThrow(
      "problem z is not in the training split of task letters",
    );
    await expect(run(1, {}, [])).rejects.toThrow("stored.jsonl: no solutions to train on (0 are held out by `dev`)");
  });
});

test("the loss is softmax cross-entropy, its gradient that of finite differences", () => {
  const tree: Tree = {
    id: "t",
    problem: "p",
    segments: [
      { parent: -1, tokens: Int32Array.of(1, 2), source: "prompt", fields: {} },
      {
        parent: 0,
        tokens: Int32Array.of(3, 4),
        source: "data",
        fields: { weights: Float32Array.of(0, 0.25) },
        outcome: { right: 1 },
      },
    ],
  };
  const at = (wrong: number, right: number) => ({
    logprobs: [],
    entropy: [],
    heads: { score: [new Float32Array(4).fill(7), Float32Array.of(5, 5, wrong, right)] },
  });
  const loss = classification();
  const { loss: value, grads } = loss.fn([tree], [at(0.5, -0.25)]);
  expect(value).toBeCloseTo(-0.25 * Math.log(Math.exp(-0.25) / (Math.exp(0.5) + Math.exp(-0.25))), 6);
  const h = 1e-2;
  const slope = (dw: number, dr: number) =>
    (loss.fn([tree], [at(0.5 + dw, -0.25 + dr)]).loss - loss.fn([tree], [at(0.5 - dw, -0.25 - dr)]).loss) / (2 * h);
  const [prompt, response] = grads[0].heads?.score ?? [];
  expect(Array.from(prompt)).toEqual([0, 0, 0, 0]);
  expect(response[2]).toBeCloseTo(slope(h, 0), 4);
  expect(response[3]).toBeCloseTo(slope(0, h), 4);
  expect(Array.from(response.subarray(0, 2))).toEqual([0, 0]);
  // Far from the boundary nothing overflows.
  expect(loss.fn([tree], [at(800, -800)]).loss).toBeCloseTo(400, 3);
});

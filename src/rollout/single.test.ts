import { afterAll, describe, expect, test } from "vitest";
import { LocalEngine } from "../engine/local/index.ts";
import { validateForest } from "../forest/validate.ts";
import { responseRoom, sampleGroups } from "./single.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());
const tiny = () => engine.create({ base: "tiny", train: "none", vocabulary: ["a", "b", "c"], seed: 1 });

const question = (id: string, ...prompt: number[]) => ({
  id,
  problem: `p-${id}`,
  prompt: Int32Array.from(prompt),
  key: `k-${id}`,
});
const settings = { samples: 3, temperature: 0.5, maxTokens: 5, topP: 1, topK: 0, stop: [] };

describe("one-turn rollouts", () => {
  test("each question becomes a tree of its own samples, scored as the model scores them", async () => {
    const model = await tiny();
    const { forest, responses } = await sampleGroups(model, [question("x", 1, 2), question("y", 3)], settings);
    validateForest(forest);
    expect(forest.map(({ id, problem }) => [id, problem])).toEqual([
      ["x", "p-x"],
      ["y", "p-y"],
    ]);
    const scores = await model.forward(forest);
    forest.forEach((tree, t) => {
      expect(tree.segments).toHaveLength(4);
      tree.segments.slice(1).forEach((leaf, i) => {
        expect(leaf).toMatchObject({ parent: 0, source: "policy", temperature: 0.5 });
        expect(leaf.truncated).toBeUndefined();
        expect(model.tokenizer.decode(leaf.tokens)).toBe(responses[t][i]);
        leaf.logprobs?.forEach((lp, j) => expect(scores[t].logprobs[i + 1][j]).toBeCloseTo(lp, 4));
      });
    });
  });

  test("a question's samples do not depend on its company", async () => {
    const model = await tiny();
    const [alone, together] = [
      await sampleGroups(model, [question("y", 3)], settings),
      await sampleGroups(model, [question("x", 1, 2), question("y", 3)], settings),
    ];
    expect(together.responses[1]).toEqual(alone.responses[0]);
  });

  test("samples of a truncated distribution are marked", async () => {
    const cut = await sampleGroups(await tiny(), [question("x", 1)], { ...settings, topK: 2 });
    expect(cut.forest[0].segments[1].truncated).toBe(true);
  });

  test("a response ends where the context does", () => {
    expect(responseRoom("p", new Int32Array(10), 16, 4)).toBe(4);
    expect(responseRoom("p", new Int32Array(10), 12, 4)).toBe(2);
    expect(() => responseRoom("p7", new Int32Array(10), 10, 4)).toThrow(/problem p7: its prompt of 10 tokens/);
  });
});

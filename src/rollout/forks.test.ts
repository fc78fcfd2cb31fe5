import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LocalEngine } from "../engine/local/index.ts";
import type { Model, SampleRequest } from "../engine/types.ts";
import { validateForest } from "../forest/validate.ts";
import { type ForkSettings, sampleForks } from "./forks.ts";
import { taggedModel, WORDS } from "./testing.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());
let model: Model;
beforeAll(async () => {
  model = await taggedModel(engine);
});

const settings = (more: Partial<ForkSettings> = {}): ForkSettings => ({
  trajectories: 3,
  forks: 2,
  branches: 2,
  iterations: 2,
  temperature: 1,
  maxTokens: 30,
  stop: ["</output>"],
  ...more,
});
const question = (word: string) => ({
  id: `tree ${word}`,
  problem: word,
  prompt: model.tokenizer.encode(`${word}?`),
  key: `forks/${word}`,
});

async function recorded(words: string[], more: Partial<ForkSettings> = {}) {
  const calls: SampleRequest[][] = [];
  const { tokenizer, info } = model;
  const sample: Model["sample"] = (requests) => {
    calls.push(requests);
    return model.sample(requests);
  };
  const rollout = await sampleForks({ tokenizer, info, sample }, words.map(question), settings(more));
  return { ...rollout, calls };
}

describe("forks", () => {
  test("as many responses as the paper counts, in one call an iteration; every one is the tokens of its path", async () => {
    const { forest, leaves, calls } = await recorded(["a", "b"]);
    validateForest(forest);
    expect(calls).toHaveLength(3);
    forest.forEach((tree, q) => {
      expect(leaves[q]).toHaveLength(3 * (1 + 2 * 2 * 2));
      expect(new Set(leaves[q].map(({ segments }) => segments.at(-1))).size).toBe(leaves[q].length);
      for (const { segments, text, stop } of leaves[q]) {
        const ids = segments.flatMap((s) => Array.from(tree.segments[s].tokens));
        expect(ids.length).toBeLessThanOrEqual(30);
        const whole = model.tokenizer.decode(ids);
        expect(whole.startsWith(text)).toBe(true);
        if (stop === "stop") expect(whole.slice(text.length)).toBe("</output>");
        else if (stop === "length") expect(whole).toBe(text);
      }
    });
  });

  test("fork at the tokens that the policy was least sure of, with exactly the tokens before them", async () => {
    const { forest, leaves, calls } = await recorded(["a"], { iterations: 1 });
    const [tree] = forest;
    const ofPath = (segments: number[]) => segments.flatMap((s) => Array.from(tree.segments[s].tokens));
    const [, forks] = calls;
    expect(forks).toHaveLength(6);
    leaves[0].slice(0, 3).forEach(({ segments }, m) => {
      const tokens = ofPath(segments);
      const logprobs = segments.flatMap((s) => Array.from(tree.segments[s].logprobs ?? []));
      const places = logprobs.map((logprob, at) => ({ logprob, at })).sort((a, b) => a.logprob - b.logprob);
      const expected = places.slice(0, 2).map(({ at }) => [...model.tokenizer.encode("a?"), ...tokens.slice(0, at)]);
      expect(forks.slice(2 * m, 2 * m + 2).map(({ prefix }) => Array.from(prefix))).toEqual(expected);
    });
    // Branches stand in the order of their requests.
    leaves[0].slice(3).forEach(({ segments }, i) => {
      const prefix = Array.from(forks[Math.floor(i / 2)].prefix).slice(2);
      expect(ofPath(segments).slice(0, prefix.length)).toEqual(prefix);
    });
  });

  test("log-probs are the policy's own, on every path", async () => {
    const { forest } = await recorded(["a", "c"], { temperature: 0.8 });
    const scores = await model.forward(forest);
    forest.forEach(({ segments }, t) =>
      segments.forEach(({ logprobs, temperature }, s) => {
        if (logprobs === undefined) return;
        expect(temperature).toBe(0.8);
        logprobs.forEach((logprob, i) => expect(logprob).toBeCloseTo(scores[t].logprobs[s][i], 4));
      }),
    );
  });

  test("a tree is the same alone and among others", async () => {
    const [alone, among] = [await recorded(["b"]), await recorded(["a", "b", "c"])];
    expect(among.leaves[1]).toEqual(alone.leaves[0]);
    expect(among.forest[1].segments.map(({ tokens }) => tokens)).toEqual(
      alone.forest[0].segments.map(({ tokens }) => tokens),
    );
  });

  test("a response too short for so many forks has fewer; without iterations they are plain samples", async () => {
    const short = await recorded(["a"], { maxTokens: 2, forks: 5, iterations: 3 });
    for (const { segments } of short.leaves[0]) expect(segments.length).toBeGreaterThan(0);
    validateForest(short.forest);
    const plain = await recorded([WORDS[0]], { iterations: 0 });
    expect(plain.forest[0].segments).toHaveLength(4);
    expect(plain.calls).toHaveLength(1);
  });
});

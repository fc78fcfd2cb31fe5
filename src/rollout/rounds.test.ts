import { beforeAll, describe, expect, test } from "vitest";
import { fixture } from "../../test/local.ts";
import type { Model, Sample, SampleRequest } from "../engine/types.ts";
import { validateForest } from "../forest/validate.ts";
import { loadTokenizer } from "../model/load.ts";
import type { Tokenizer } from "../model/types.ts";
import type { RoundTask } from "../task/rounds.ts";
import type { Problem } from "../task/types.ts";
import { answerInRounds, checkRoundBudgets, continueRounds, encodeRound, type RoundsSettings } from "./rounds.ts";

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await loadTokenizer(fixture("llama"));
});

const task: RoundTask = { name: "t", grading: { strict: ["boxed"] } };
const problemOf = (id: string): Problem => ({
  id,
  prompt: { messages: [{ role: "user", content: `Question ${id}?` }] },
});
const settings: RoundsSettings = { rounds: 3, style: "default", maxTokens: 20, adaptive: false };
const sampling = { temperature: 0.8, topP: 0.95, topK: 0, stop: [] };

/** A model that answers by a rule, and remembers what it was asked in each call. */
function scripted(say: (prompt: string, index: number, key: string) => string, maxContext = 2000) {
  const calls: SampleRequest[][] = [];
  const sample = async (requests: SampleRequest[]): Promise<Sample[]> => {
    calls.push(requests);
    return requests.flatMap(({ prefix, n, key }) =>
      Array.from({ length: n }, (_, i): Sample => {
        const text = say(tokenizer.decode(prefix), i, key);
        const tokens = Int32Array.of(...tokenizer.encode(text), 0);
        return { tokens, logprobs: new Float32Array(tokens.length), stop: "eos", text };
      }),
    );
  };
  const model = { info: { maxContext }, tokenizer, sample } as unknown as Model;
  const prompts = (call: number) => calls[call].map(({ prefix }) => tokenizer.decode(prefix));
  return { model, calls, prompts };
}

const firsts = (problems: string[], m: number) =>
  problems.flatMap(
    (id) =>
    Array.from({ length: m }, (_, i) => ({ problem: problemOf(id), tree: `tree-${id}`, segment: i + 1, text: `<answer>${id}${i}</answer>`, key: `${id}/${i}` })), // prettier-ignore
  );

describe("continueRounds", () => {
  test("n - 1 calls; m x k x (n - 1) continuations of each question; chains of one first response share the prompt of round 2", async () => {
    const { model, calls } = scripted((_, i) => `<answer>then ${i}</answer>`);
    const { forest, chains } = await continueRounds(model, task, firsts(["a", "b"], 8), 4, {
      ...settings,
      ...sampling,
    });
    expect(calls.map((requests) => requests.reduce((sum, { n }) => sum + n, 0))).toEqual([64, 64]);
    expect(calls.map((requests) => requests.length)).toEqual([16, 64]);
    expect(chains).toHaveLength(64);
    expect(chains.map(({ first }) => first)).toEqual(Array.from({ length: 64 }, (_, c) => Math.floor(c / 4)));
    expect(forest).toHaveLength(16 + 64);
    // Every draw has a random stream of its own.
    expect(new Set(calls.flat().map(({ key }) => key)).size).toBe(80);
  });

  test("each round is handed the progress of the one before alone; causes lead back to the first response", async () => {
    const { model, prompts } = scripted((prompt, i) => `<answer>${/> (\S+)/.exec(prompt)?.[1]}.${i}</answer>`);
    const { forest, chains } = await continueRounds(model, task, firsts(["a"], 2), 2, { ...settings, ...sampling });
    expect(prompts(0).map((prompt) => /> (\S+)/.exec(prompt)?.[1])).toEqual(["a0", "a1"]);
    expect(prompts(1).map((prompt) => /> (\S+)/.exec(prompt)?.[1])).toEqual(["a0.0", "a0.1", "a1.0", "a1.1"]);
    expect(chains[3].rounds.map(({ progress, sample }) => [progress, sample.text])).toEqual([
      ["a1", "<answer>a1.1</answer>"],
      ["a1.1", "<answer>a1.1.0</answer>"],
    ]);
    const byId = new Map(forest.map((tree) => [tree.id, tree]));
    expect(byId.size).toBe(forest.length);
    for (const { first, rounds } of chains) {
      let cause = { tree: "tree-a", segment: first + 1 };
      for (const { tree, segment, sample, prompt } of rounds) {
        const found = byId.get(tree);
        expect(found?.cause).toEqual(cause);
        expect(found?.problem).toBe("a");
        expect(found?.segments[0].tokens).toHaveLength(prompt);
        expect(found?.segments[segment].tokens).toEqual(sample.tokens);
        // How it was sampled, for the loss.
        expect(found?.segments[segment]).toMatchObject({ temperature: 0.8, truncated: true });
        cause = { tree, segment };
      }
    }
    validateForest(forest);
  });

  test("what is drawn does not depend on which other questions are asked", async () => {
    const say = (_: string, i: number, key: string) => `<answer>${key} ${i}</answer>`;
    const texts = async (problems: string[]) => {
      const { chains } = await continueRounds(scripted(say).model, task, firsts(problems, 2), 2, { ...settings, ...sampling }); // prettier-ignore
      return chains.map(({ rounds }) => rounds.map(({ sample }) => sample.text));
    };
    expect((await texts(["a", "b"])).slice(4)).toEqual(await texts(["b"]));
  });

  test("adaptive: a stated answer ends the question, in round 1 too; the others go on", async () => {
    const { model, calls } = scripted((prompt) => (prompt.includes("> a0") ? "\\boxed{1}" : "<answer>on</answer>"));
    const first = firsts(["a"], 3);
    first[2].text = "<answer>\\boxed{7}</answer>";
    const { chains, forest } = await continueRounds(model, task, first, 2, {
      ...settings,
      ...sampling,
      adaptive: true,
    });
    expect(chains.map(({ rounds }) => rounds.length)).toEqual([1, 1, 2, 2, 0, 0]);
    expect(calls.map((requests) => requests.length)).toEqual([2, 2]);
    expect(forest).toHaveLength(4);
    const all = await continueRounds(model, task, first, 2, { ...settings, ...sampling });
    expect(all.chains.map(({ rounds }) => rounds.length)).toEqual([2, 2, 2, 2, 2, 2]);
  });

  test("when every question has ended nothing more is asked; one round asks nothing", async () => {
    const { model, calls } = scripted(() => "\\boxed{1}");
    await continueRounds(model, task, firsts(["a"], 2), 1, { ...settings, ...sampling, rounds: 9, adaptive: true });
    expect(calls).toHaveLength(1);
    const { chains } = await continueRounds(model, task, firsts(["a"], 2), 3, { ...settings, ...sampling, rounds: 1 });
    expect(calls).toHaveLength(1);
    expect(chains).toHaveLength(6);
  });

  test("a response without progress hands on what it was handed", async () => {
    const { model, prompts } = scripted(() => "<answer></answer>");
    await continueRounds(model, task, firsts(["a"], 1), 1, { ...settings, ...sampling });
    expect(prompts(1)[0]).toContain("> a0");
  });

  test("the policy that is named answers; top-p 1 leaves no mark", async () => {
    const { model, calls } = scripted(() => "x");
    const { forest } = await continueRounds(model, task, firsts(["a"], 1), 1, { ...settings, ...sampling, topP: 1, policy: "base" }); // prettier-ignore
    expect(calls[0][0]).toMatchObject({ policy: "base", temperature: 0.8 });
    expect(calls[0][0].topP).toBeUndefined();
    expect(forest[0].segments[1].truncated).toBeUndefined();
  });
});

describe("budgets", () => {
  const long = "One sentence of progress. ".repeat(60).trim();
  /** Tokens of the last round's prompt without progress. */
  const bare = () => encodeRound(scripted(() => "").model, task, problemOf("a"), 3, settings).prompt.length;
  const within = (room: number) => scripted(() => "", bare() + room).model;

  test("progress is cut so that the response has its room", () => {
    const { prompt, progress = "" } = encodeRound(within(80), task, problemOf("a"), 3, settings, long);
    expect(prompt.length).toBeLessThanOrEqual(bare() + 60);
    expect(prompt.length).toBeGreaterThan(bare() + 20);
    expect(progress).toMatch(/^(One sentence of progress\. ?)+(?<=\.)$/);
    expect(encodeRound(within(80), task, problemOf("a"), 3, settings, "short")).toMatchObject({ progress: "short" });
    // No room for any of it: the round goes without.
    expect(encodeRound(within(20), task, problemOf("a"), 3, settings, long).progress).toBeUndefined();
  });

  test("progressTokens caps it anyway; a budget for each round", () => {
    const { progress = "" } = encodeRound(
      within(900),
      task,
      problemOf("a"),
      3,
      { ...settings, progressTokens: 25 },
      long,
    );
    expect(tokenizer.encode(progress).length).toBeLessThanOrEqual(25);
    const rounds = { ...settings, maxTokens: [10, 20, 30] };
    expect(encodeRound(within(80), task, problemOf("a"), 3, rounds, long).prompt.length).toBeLessThanOrEqual(
      bare() + 50,
    );
  });

  test("what cannot fit is said before anything is sampled, with the numbers", () => {
    const check = (room: number, rest: Partial<RoundsSettings>) =>
      checkRoundBudgets(within(room), task, problemOf("a"), { ...settings, ...rest });
    expect(() => check(100, { maxTokens: 140 })).toThrow(
      /problem a: round 1 needs \d+ tokens \(prompt \d+, progress 0, response 140\), and the context holds \d+/,
    );
    expect(() => check(100, { progressTokens: 90 })).toThrow(/round 2 needs .*progress 90/);
    expect(() => check(0, {})).toThrow(/problem a: its prompt of \d+ tokens fills the context/);
    check(100, {});
  });
});

test("answerInRounds: samples in order, each with its responses from the first on", async () => {
  const { model, calls } = scripted((_, i, key) => `<answer>${key} ${i}</answer>`);
  const answered = await answerInRounds(model, task, [problemOf("a"), problemOf("b")], 2, {
    ...settings,
    ...sampling,
    key: ({ id }) => id,
  });
  expect(answered.map(({ problem, sample }) => [problem.id, sample])).toEqual([["a", 0], ["a", 1], ["b", 0], ["b", 1]]); // prettier-ignore
  expect(answered.map(({ responses }) => responses.length)).toEqual([3, 3, 3, 3]);
  expect(answered[3].responses[0].sample.text).toBe("<answer>b 1</answer>");
  expect(calls.map((requests) => requests.length)).toEqual([2, 4, 4]);
});

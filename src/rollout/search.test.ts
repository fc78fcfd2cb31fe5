import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LocalEngine } from "../engine/local/index.ts";
import type { Model, Sample, SampleRequest } from "../engine/types.ts";
import { validateForest } from "../forest/validate.ts";
import { pathTo } from "../forest/walk.ts";
import { closeTag, type Fn, G2, isFn, openTag, parseStrict, TAG_TOKENS, validate } from "../tags/index.ts";
import {
  checkSearch,
  countEnds,
  ENDS,
  parseFunctions,
  SEARCH_DEFAULTS,
  type SearchLeaf,
  type SearchSettings,
  type SearchTree,
  searchTrees,
} from "./search.ts";
import { taggedModel, WORDS } from "./testing.ts";

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());

const settings = (more: Partial<SearchSettings> = {}): SearchSettings => ({
  ...SEARCH_DEFAULTS,
  rollouts: 8,
  stepTokens: 12,
  answerTokens: 16,
  maxTokens: 80,
  grammar: G2,
  without: [],
  ...more,
});

/** Right where the output states 1. */
const gold = (leaves: SearchLeaf[]) => leaves.map(({ finished, text }) => Number(finished && text.includes("#### 1")));
const question = (model: Pick<Model, "tokenizer">, text: string) => ({
  id: `tree ${text}`,
  problem: text,
  prompt: model.tokenizer.encode(`${text}?`),
  key: `seed/${text}`,
});
const functionsOf = ({ nodes }: SearchTree, node: number): string[] => {
  const path: string[] = [];
  for (let id = node; id > 0; id = nodes[id].parent) path.push(nodes[id].fn);
  return path.reverse();
};

/** A model of which only the tokenizer is real: `say` gives a step's text (with its end), `prefer` its order of functions. */
async function scripted(
  say: (fn: Fn, steps: number) => string,
  prefer: (steps: number) => Fn[] = () => [],
): Promise<Pick<Model, "sample" | "tokenizer" | "info"> & { calls: SampleRequest[][] }> {
  const { tokenizer, info } = await engine.create({
    base: "tiny",
    train: "none",
    vocabulary: WORDS,
    addTokens: TAG_TOKENS,
  });
  const calls: SampleRequest[][] = [];
  const functionAt = (id: number): Fn => {
    const name = tokenizer.decode([id]).slice(1, -1);
    if (!isFn(name)) throw new Error(`${name} opens nothing`);
    return name;
  };
  const scores = (ids: Int32Array | undefined, steps: number) =>
    ids &&
    Float32Array.from(ids, (id) => {
      const rank = prefer(steps).indexOf(functionAt(id));
      return -1 - (rank < 0 ? 5 : rank);
    });
  const sample = async (requests: SampleRequest[]): Promise<Sample[]> => {
    calls.push(requests);
    return requests.map(({ prefix, maxTokens, scoreIds, scoreNext }) => {
      const opened = tokenizer.decode(prefix).match(/<[a-z_]+>/g) ?? [];
      if (maxTokens === 0) {
        const none = { tokens: new Int32Array(0), logprobs: new Float32Array(0), stop: "length" as const, text: "" };
        return { ...none, idLogprobs: scores(scoreIds, 0) };
      }
      const fn = functionAt(prefix[prefix.length - 1]);
      const words = say(fn, opened.length);
      const whole = tokenizer.encode(words, { added: true });
      const tokens = whole.subarray(0, maxTokens);
      const stop = tokens.length < whole.length || !words.endsWith(">") ? ("length" as const) : ("stop" as const);
      const text = words.replace(/<\/?[a-z_]+>$/, "");
      const nextLogprobs = stop === "stop" ? scores(scoreNext, opened.length) : undefined;
      return {
        tokens,
        logprobs: new Float32Array(tokens.length).fill(-1),
        stop,
        text,
        ...(nextLogprobs && { nextLogprobs }),
      };
    });
  };
  return { tokenizer, info, sample, calls };
}

const closed = (fn: Fn) => `${fn === "output" ? "#### 1" : "ab"}${closeTag(fn)}`;

describe("token-guided search with a policy that is known", () => {
  const order: Fn[] = [
    "next_step",
    "verify",
    "output",
    "analysis",
    "subquestion",
    "direct_answer",
    "refine",
    "clarify",
  ];

  test("rollout 1 is the policy's first choice all along, rollout 2 begins with its second; children stand in its order", async () => {
    const model = await scripted(closed, (steps) => (steps < 2 ? order : ["output", ...order]));
    const { trees } = await searchTrees(model, [question(model, "a")], settings({ rollouts: 4, floor: 0 }), {
      value: gold,
    });
    const [tree] = trees;
    expect(functionsOf(tree, tree.leaves[0])).toEqual(["next_step", "next_step", "output"]);
    expect(tree.nodes[0].allowed).toEqual(["next_step", "analysis", "subquestion", "clarify"]);
    expect(tree.leaves.slice(1).map((leaf) => functionsOf(tree, leaf)[0])).toEqual([
      "analysis",
      "subquestion",
      "clarify",
    ]);
    const children = tree.nodes.filter(({ parent }) => parent === 0);
    expect(children.map(({ fn }) => fn)).toEqual(tree.nodes[0].allowed);
    children.forEach(({ prior }, i) => expect(prior).toBeCloseTo(Math.exp(tree.nodes[0].logprobs[i]), 12));
    expect(tree.nodes[0].logprobs.reduce((sum, logprob) => sum + Math.exp(logprob), 0)).toBeCloseTo(1, 6);
    expect(tree.nodes[0]).toMatchObject({ N: 4, Q: 4 });
  });

  test("a path as long as may be is worth what the callback says of an unfinished one, and is not finished", async () => {
    const model = await scripted(closed, () => ["next_step"]);
    const { trees, forest } = await searchTrees(
      model,
      [question(model, "a")],
      settings({ rollouts: 1, depth: 18, maxTokens: 8192 }),
      { value: gold },
    );
    const leaf = trees[0].nodes[trees[0].leaves[0]];
    expect(leaf).toMatchObject({ depth: 18, end: "depth", value: 0, Q: 0 });
    expect(forest[0].segments.at(-1)?.outcome).toMatchObject({ reward: 0, finished: 0, rollouts: 1 });
  });

  test("no path stands twice in the forest: a leaf that is reached again counts its rollouts", async () => {
    const model = await scripted(closed, () => ["next_step", "output"]);
    const { trees, forest } = await searchTrees(
      model,
      [question(model, "a")],
      settings({ rollouts: 16, floor: 0.25, depth: 3 }),
      { value: gold },
    );
    const [tree] = trees;
    const leaves = tree.nodes.filter(({ rollouts }) => rollouts > 0);
    expect(new Set(leaves.map(({ id }) => functionsOf(tree, id).join())).size).toBe(leaves.length);
    expect(leaves.length).toBeLessThan(16);
    expect(leaves.reduce((sum, { rollouts }) => sum + rollouts, 0)).toBe(16);
    const outcomes = forest[0].segments.flatMap(({ outcome }) => outcome?.rollouts ?? []);
    expect(outcomes.reduce((sum, count) => sum + count, 0)).toBe(16);
  });

  test("functions below the floor have a prior and no node; those left out are not allowed at all", async () => {
    const model = await scripted(closed, (steps) => (steps < 2 ? order : ["output", ...order]));
    const { trees } = await searchTrees(
      model,
      [question(model, "a")],
      settings({ rollouts: 12, floor: 0.2, without: ["verify", "refine"] }),
      { value: gold },
    );
    const [{ nodes }] = trees;
    expect(nodes.some(({ fn }) => fn === "verify" || fn === "refine")).toBe(false);
    expect(nodes[0].allowed).toHaveLength(4);
    expect(nodes.filter(({ parent }) => parent === 0).map(({ fn }) => fn)).toEqual(
      ["next_step", "analysis"].slice(0, 1 + Number(Math.exp(nodes[0].logprobs[1]) >= 0.2)),
    );
    for (const { allowed } of nodes) expect(allowed).not.toContain("verify");
  });

  test("one call a wave for all trees; with eight rollouts in flight fewer of them", async () => {
    const waves = async (inFlight: number) => {
      const model = await scripted(closed, () => order);
      const asked = ["a", "b", "c", "d"].map((text) => question(model, text));
      const found = await searchTrees(model, asked, settings({ inFlight, depth: 6 }), { value: gold });
      expect(model.calls).toHaveLength(found.waves);
      for (const { nodes, leaves } of found.trees) {
        expect(leaves).toHaveLength(8);
        expect(nodes[0].N).toBe(8);
      }
      return found.waves;
    };
    expect(await waves(8)).toBeLessThan((await waves(1)) / 2);
  });

  test("several texts of a function share its token", async () => {
    const model = await scripted(closed, () => order);
    const { trees, forest } = await searchTrees(
      model,
      [question(model, "a")],
      settings({ rollouts: 6, texts: 2, floor: 0.3, depth: 2 }),
      { value: gold },
    );
    const first = trees[0].nodes.filter(({ parent, N }) => parent === 0 && N > 0);
    expect(first.map(({ fn, text }) => [fn, text])).toEqual([
      ["next_step", 0],
      ["next_step", 1],
    ]);
    expect(first[0].choice).toBe(first[1].choice);
    expect(first[0].segment).not.toBe(first[1].segment);
    expect(forest[0].segments.filter(({ parent, source }) => parent === 0 && source === "policy")).toHaveLength(1);
  });
});

describe("steps that go wrong end their paths, are counted, and nothing is made up for them", () => {
  const cases: [string, (fn: Fn) => string, keyof ReturnType<typeof countEnds>][] = [
    ["a model that never closes a tag", () => "abcd".repeat(100), "length"],
    ["one that closes a wrong one", () => `ab${closeTag("refine")}`, "tag"],
    ["one that opens another inside", () => `ab${openTag("verify")}`, "tag"],
    ["an empty step", (fn) => closeTag(fn), "empty"],
    ["a step of blanks", (fn) => ` ${closeTag(fn)}`, "empty"],
  ];
  test.each(cases)("%s", async (_, say, end) => {
    const model = await scripted(say, () => ["next_step"]);
    const { trees, forest } = await searchTrees(model, [question(model, "a")], settings(), { value: gold });
    expect(countEnds(trees)).toEqual({ ...Object.fromEntries(ENDS.map((name) => [name, 0])), [end]: 8 });
    validateForest(forest);
    expect(forest[0].segments.every(({ source }) => source !== "forced")).toBe(true);
    expect(trees[0].nodes[0]).toMatchObject({ N: 8, Q: 0 });
  });

  test("a question that leaves no room is a tree of its prompt, whose rollouts all end there", async () => {
    const model = await scripted(closed);
    const long = { ...question(model, "a"), prompt: new Int32Array(model.info.maxContext).fill(3) };
    const asked = [long, question(model, "b")];
    const { trees, forest } = await searchTrees(model, asked, settings(), { value: gold });
    expect(forest[0].segments).toHaveLength(1);
    expect(trees[0].leaves).toEqual(new Array(8).fill(0));
    expect(trees[0].nodes[0]).toMatchObject({ end: "budget", value: 0, N: 8 });
    expect(trees[1].nodes[0].N).toBe(8);
  });

  test("interrupted, it gives what has ended", async () => {
    const model = await scripted(closed, () => ["next_step", "output"]);
    let waves = 0;
    const hooks = { interrupted: () => waves++ > 4 };
    const { trees, forest } = await searchTrees(
      model,
      [question(model, "a")],
      settings({ depth: 5 }),
      { value: gold },
      hooks,
    );
    const { nodes, leaves } = trees[0];
    expect(leaves.length).toBeGreaterThan(0);
    expect(leaves.length).toBeLessThan(8);
    expect(nodes[0].N).toBe(leaves.length);
    validateForest(forest);
    for (const { segment, N } of nodes) expect(segment >= 0).toBe(N > 0);
  });

  test("settings that cannot be searched with are refused", () => {
    expect(() => checkSearch(settings({ without: ["output"] }))).toThrow(
      /without output nothing may follow direct_answer|without output no path ends/,
    );
    expect(() => checkSearch(settings({ without: ["next_step", "direct_answer"] }))).toThrow(
      /nothing may follow (analysis|subquestion)/,
    );
    expect(() => checkSearch(settings({ rollouts: 0 }))).toThrow(/rollouts to be a whole number above 0, found 0/);
    expect(() => checkSearch(settings({ floor: 1 }))).toThrow(/floor/);
    expect(() => checkSearch(settings({ texts: 2, temperature: 0 }))).toThrow(/texts to be 1 at temperature 0/);
    expect(() => parseFunctions(["verfy"])).toThrow(/did you mean verify/);
  });

  test("a model whose tags are not tokens is told what to change", async () => {
    const model = await engine.create({ base: "tiny", train: "none", vocabulary: WORDS });
    await expect(searchTrees(model, [question(model, "a")], settings(), { value: gold })).rejects.toThrow(
      /has no token <clarify>.*functions = "tokens"/,
    );
  });
});

describe("token-guided search with a real policy", () => {
  let model: Model;
  beforeAll(async () => {
    model = await taggedModel(engine);
  });
  const search = async (texts: string[], more: Partial<SearchSettings> = {}) => {
    await model.discard();
    return searchTrees(
      model,
      texts.map((text) => question(model, text)),
      settings(more),
      { value: gold },
    );
  };

  test("log-probs are the policy's own, of functions among the allowed ones, whoever chose them", async () => {
    for (const temperature of [1, 0.7]) {
      const { forest } = await search(["ab", "c", "dd"], { temperature, texts: 2, rollouts: 16 });
      validateForest(forest);
      const scores = await model.forward(forest);
      let searched = 0;
      forest.forEach(({ segments }, t) =>
        segments.forEach(({ logprobs, source }, s) => {
          if (source === "search") searched++;
          logprobs?.forEach((logprob, i) => expect(scores[t].logprobs[s][i]).toBeCloseTo(logprob, 4));
        }),
      );
      expect(searched).toBeGreaterThan(10);
    }
  });

  test("every path that the search makes is one of the grammar; finished ones read as their steps", async () => {
    const { forest, trees } = await search(["ab", "c", "dd", "ba"], { rollouts: 16 });
    const ends = countEnds(trees);
    expect(ends.output).toBeGreaterThan(16);
    forest.forEach((tree, t) => {
      for (const leaf of new Set(trees[t].leaves)) {
        const { segment, end } = trees[t].nodes[leaf];
        const ids = pathTo(tree, segment)
          .slice(1)
          .flatMap((s) => [...tree.segments[s].tokens]);
        if (end !== "output") continue;
        const parsed = parseStrict(model.tokenizer.decode(ids), "tokens");
        if ("fault" in parsed) throw new Error(JSON.stringify(parsed));
        expect(validate(parsed.steps, G2, { complete: true })).toBeUndefined();
        expect(parsed.steps.map(({ fn }) => fn)).toEqual(functionsOf(trees[t], leaf));
      }
    });
  });

  test("a tree is the same alone and among others, in any order", async () => {
    const shape = ({ nodes, leaves }: SearchTree) => [
      nodes.map(({ fn, parent, N, Q, end }) => [fn, parent, N, Q, end]),
      leaves,
    ];
    const texts = ["ab", "c", "dd", "ba", "cc", "d", "bc", "a"];
    for (const inFlight of [1, 4]) {
      const together = await search(texts, { inFlight });
      const reversed = await search(texts.toReversed(), { inFlight });
      for (const [i, text] of texts.entries()) {
        const alone = await search([text], { inFlight });
        expect(shape(together.trees[i])).toEqual(shape(alone.trees[0]));
        expect(shape(reversed.trees[texts.length - 1 - i])).toEqual(shape(alone.trees[0]));
        const tokens = ({ segments }: (typeof together.forest)[number]) => segments.map((one) => [...one.tokens]);
        expect(tokens(together.forest[i])).toEqual(tokens(alone.forest[0]));
      }
    }
  });

  test("the same search, again, is the same to the last bit", async () => {
    expect(await search(["ab", "c", "dd"])).toEqual(await search(["ab", "c", "dd"]));
  });

  test("prefixes are found in the engine's cache: no token is prefilled but the prompts'", async () => {
    const before = model.counts.prefilled;
    const { forest } = await search(["ab", "c", "dd"], { rollouts: 16 });
    const prompts = forest.reduce((sum, { segments }) => sum + segments[0].tokens.length, 0);
    const choices = forest.flatMap(({ segments }) => segments.filter(({ allowed }) => allowed)).length;
    expect(choices).toBeGreaterThan(30);
    expect(model.counts.prefilled - before).toBeLessThanOrEqual(prompts);
  });

  test("values that depend on the other leaves are given again, and the tree holds the last ones", async () => {
    const given: number[][] = [];
    const { trees } = await searchTrees(model, [question(model, "ab")], settings(), {
      value: (leaves) => leaves.map(() => 1),
      revalue: (leaves) => {
        given.push(leaves.map(({ value = -1 }) => value));
        return leaves.map(() => 1 / leaves.length);
      },
    });
    const [{ nodes, leaves }] = trees;
    const distinct = new Set(leaves).size;
    expect(given).toHaveLength(distinct);
    expect(given[0]).toEqual([1]);
    expect(nodes[0].Q).toBeCloseTo(8 / distinct, 9);
    for (const { N, Q, value, rollouts, end } of nodes)
      if (end && N > 0) expect(Q).toBeCloseTo((value ?? 0) * rollouts, 9);
  });
});

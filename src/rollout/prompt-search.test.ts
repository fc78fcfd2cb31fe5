import { describe, expect, test } from "vitest";
import { RandomStream } from "../engine/random.ts";
import type { Model } from "../engine/types.ts";
import { validateForest } from "../forest/validate.ts";
import { G1, validate } from "../tags/index.ts";
import { scriptedModel, type Script } from "../../test/scripted-model.ts";
import { type Action, ACTION_STOPS, actionPrompt, actionText, answerLength } from "./prompt-actions.ts";
import {
  harvest,
  promptQuestion,
  type PromptQuestion,
  promptSearch,
  type PromptSearchSettings,
} from "./prompt-search.ts";

const settings: PromptSearchSettings = {
  rollouts: 16,
  c: 2,
  schedule: "const",
  maxDepth: 6,
  temperature: 0.7,
  maxTokens: { clarify: 64, analysis: 64, subquestion: 64, next_step: 64, direct_answer: 128 },
  longAnswer: 4,
  inFlight: 1,
};

const question = (id: string): PromptQuestion => {
  const stream = new RandomStream(id);
  const numbers = new Map<string, number>();
  return {
    id,
    problem: `p-${id}`,
    question: `What is ${id}?`,
    chat: true,
    answerForm: "#### ...",
    answerOf: (text) => /#### (\d+)/.exec(text)?.[1],
    key: `key-${id}`,
    random: (rollout, depth) => {
      const place = `${rollout}/${depth}`;
      const number = numbers.get(place) ?? stream.uniform();
      numbers.set(place, number);
      return number;
    },
  };
};

const judge = (answers: { answer: string }[]) => Promise.resolve(answers.map(({ answer }) => answer === "5"));

/** Which action a prompt asks for. */
function actionOf(prompt: string): Action {
  if (prompt.startsWith("Say the question again")) return "clarify";
  if (prompt.includes("In one or two sentences, say which way")) return "analysis";
  if (prompt.includes("Name one smaller problem")) return "subquestion";
  if (prompt.includes("Finish the solution")) return "direct_answer";
  return "next_step";
}

const LONG = "One. Two. Three. Four.\n#### 5";

/** A model whose texts are a function of the request: the answers are 5 and 6 by turns, every fourth step is a last one. */
const script: Script = (prompt, index, { key }) => {
  const random = new RandomStream(`${key}/${index}`);
  const answer = `#### ${5 + random.below(2)}`;
  switch (actionOf(prompt)) {
    case "clarify":
      return `It asks this ${random.below(1000)}.`;
    case "analysis":
      return `Analysis: take away ${random.below(1000)}.`;
    case "subquestion":
      return `Let's find ${random.below(1000)} now`;
    case "direct_answer":
      return `Take ${random.below(1000)}.\n${answer}`;
    case "next_step":
      return random.below(4) === 0
        ? `Final step: done ${random.below(1000)}.\n${answer}`
        : `Next step: do ${random.below(1000)}.`;
  }
};

describe("search by prompts", () => {
  test("the root's expansion asks for exactly nine texts", async () => {
    const { model, requests } = scriptedModel(script);
    await promptSearch(model, [question("a")], { ...settings, rollouts: 1, maxDepth: 1 }, judge);
    expect(requests.map(({ n }) => n)).toEqual([2, 2, 2, 1, 2]);
    expect(requests.reduce((sum, { n }) => sum + n, 0)).toBe(9);
    expect(requests.map(({ maxTokens }) => maxTokens)).toEqual([64, 64, 64, 128, 64]);
  });

  test("a direct answer of five sentences is never visited and is harvested; every rollout passes the root", async () => {
    const { model } = scriptedModel((prompt, index, request) =>
      actionOf(prompt) === "direct_answer" ? LONG : script(prompt, index, request),
    );
    const { trees } = await promptSearch(model, [question("a")], settings, judge);
    const [tree] = trees;
    const direct = tree.nodes.flatMap((node, id) => (node.step?.fn === "direct_answer" ? [id] : []));
    expect(direct.length).toBeGreaterThan(3);
    for (const id of direct) {
      expect(tree.nodes[id].length).toBe(5);
      expect(tree.search.nodes[id]).toMatchObject({ N: 0, Q: 0 });
    }
    const leaves = harvest(tree).map(({ trajectory }) => trajectory.at(-1));
    for (const id of direct) expect(leaves).toContain(id);
    expect(tree.search.nodes[0].N).toBe(settings.rollouts);
    expect(tree.search.nodes.every(({ pending }) => pending === 0)).toBe(true);
  });

  test("a short direct answer may end a simulation, and is never selected", async () => {
    const { model } = scriptedModel(script);
    const { trees } = await promptSearch(model, [question("b")], { ...settings, rollouts: 40 }, judge);
    const [tree] = trees;
    const visited = tree.nodes.flatMap((node, id) =>
      node.step?.fn === "direct_answer" ? [tree.search.nodes[id].N] : [],
    );
    expect(Math.max(...visited)).toBe(1);
  });

  test("every path is one of the grammar, values are what was judged and visits add up", async () => {
    const { model } = scriptedModel(script);
    const { trees, forest } = await promptSearch(model, ["a", "b", "c"].map(question), settings, judge);
    validateForest(forest);
    for (const tree of trees) {
      const solutions = harvest(tree);
      expect(solutions.length).toBeGreaterThan(5);
      for (const { steps, answer, right } of solutions) {
        expect(validate(steps, G1)).toBeUndefined();
        expect(right).toBe(answer === "5");
      }
      for (const { children, N } of tree.search.nodes) {
        const below = (children ?? []).reduce((sum, id) => sum + tree.search.nodes[id].N, 0);
        if (children !== undefined && children.length > 0) expect(N).toBe(below);
      }
    }
  });

  test.each([1, 3])("a tree is the same alone and among others, %i rollouts in flight", async (inFlight) => {
    const run = async (ids: string[]) => {
      const { model } = scriptedModel(script);
      const { trees } = await promptSearch(model, ids.map(question), { ...settings, inFlight }, judge);
      return trees.map(({ nodes, search, counts }) => ({ nodes, search: search.nodes, counts }));
    };
    const together = await run(["a", "b", "c", "d"]);
    expect(await run(["c"])).toEqual([together[2]]);
    expect(await run(["d", "a"])).toEqual([together[3], together[0]]);
  });

  test("all trees share a wave's call of the model: as many calls as the longest search makes alone", async () => {
    const { model } = scriptedModel(script);
    const callsFor = async (ids: string[]) => {
      let calls = 0;
      const sample: Model["sample"] = (asked) => {
        calls++;
        return model.sample(asked);
      };
      await promptSearch({ ...model, sample }, ids.map(question), settings, judge);
      return calls;
    };
    const ids = ["a", "b", "c", "d", "e", "f"];
    const alone = [];
    for (const id of ids) alone.push(await callsFor([id]));
    expect(await callsFor(ids)).toBe(Math.max(...alone));
  });

  test("empty texts, tags and texts that are cut off are counted; a tree of which nothing is left ends", async () => {
    const { model } = scriptedModel((prompt, index) => {
      const action = actionOf(prompt);
      if (action === "clarify") return { text: "It asks", stop: "length" };
      if (action === "analysis") return index === 0 ? "  \n" : "Analysis: <verify> no";
      return action === "direct_answer" ? "</output>" : "";
    });
    const [tree] = (await promptSearch(model, [question("a")], settings, judge)).trees;
    expect(tree.counts).toEqual({ texts: 9, cut: 2, empty: 7, tagged: 2, overlong: 0 });
    expect(harvest(tree)).toEqual([]);
    expect(tree.search.nodes[0].N).toBe(settings.rollouts);
  });

  test("a question that fills the context is counted, and asked for nothing", async () => {
    const { model, requests } = scriptedModel(script, 40);
    const [tree] = (await promptSearch(model, [question("a")], settings, judge)).trees;
    expect(requests).toEqual([]);
    expect(tree.counts).toEqual({ texts: 0, cut: 0, empty: 0, tagged: 0, overlong: 9 });
    expect(tree.search.nodes[0].N).toBe(settings.rollouts);
  });

  test("values may change as solutions come in: visits and values still add up; what was written counts for the rollout that waited", async () => {
    const { model } = scriptedModel(script);
    const given: string[][] = [];
    const share = (answers: string[]) =>
      answers.map((answer) => answers.filter((other) => other === answer).length / answers.length);
    const revalue = (_: number, answers: string[]) => {
      given.push(answers);
      return share(answers);
    };
    const { trees, forest } = await promptSearch(model, ["a", "b"].map(question), settings, judge, { revalue });
    for (const [t, { nodes, search, leaves, written }] of trees.entries()) {
      const answers = nodes.flatMap(({ answer }) => answer ?? []);
      expect(new Set(answers).size).toBe(2);
      const values = nodes.flatMap(({ answer, value }) => (answer === undefined ? [] : value));
      expect(values).toEqual(share(answers));
      const ended = leaves.flatMap((leaf) => leaf ?? []);
      expect(ended).toHaveLength(settings.rollouts);
      const through = (id: number) =>
        ended.filter((leaf) => {
          for (let at = leaf; at >= 0; at = search.nodes[at].parent) if (at === id) return true;
          return false;
        });
      for (const { id, N, Q } of search.nodes) {
        expect(N).toBe(through(id).length);
        expect(Q).toBeCloseTo(
          through(id).reduce((sum, leaf) => sum + nodes[leaf].value, 0),
          9,
        );
      }
      const own = forest.filter(({ problem }) => problem === `p-${"ab"[t]}`);
      const tokens = own.flatMap(({ segments }) => segments.slice(1)).reduce((sum, one) => sum + one.tokens.length, 0);
      expect(written.reduce((sum, count) => sum + count, 0)).toBe(tokens);
      expect(written[0]).toBeGreaterThan(0);
    }
    expect(given.length).toBeGreaterThan(2);
  });

  test("interrupted, the rollouts that have ended stand and those in flight are taken back", async () => {
    const { model } = scriptedModel(script);
    let waves = 0;
    const interrupted = () => waves++ >= 4;
    const [tree] = (await promptSearch(model, [question("a")], settings, judge, { interrupted })).trees;
    const ended = tree.leaves.filter((leaf) => leaf !== undefined);
    expect(ended.length).toBeLessThan(settings.rollouts);
    expect(tree.search.nodes[0]).toMatchObject({ N: ended.length, pending: 0 });
    expect(tree.search.nodes.every(({ pending }) => pending === 0)).toBe(true);
  });
});

describe("what ends a path, in a task whose answers stand behind ####", () => {
  const problem = { id: "p", prompt: { messages: [] }, question: "How many?", answer: "12" };
  const asked = { ...question("a"), ...promptQuestion(problem, { mode: "math", strict: ["hashes"] }) };
  /** The first node that an action made of a text. */
  async function nodeOf(action: Action, text: ReturnType<Script>) {
    const { model } = scriptedModel((prompt) => (actionOf(prompt) === action ? text : "Something."));
    const [tree] = (await promptSearch(model, [asked], { ...settings, rollouts: 1, maxDepth: 1 }, judge)).trees;
    return tree.nodes.find(({ step }) => step?.fn === action);
  }

  test.each([
    ["Next step: Add both. The result is 12."],
    ["Next step: the answer to this part is 12."],
    ["Next step: it is \\boxed{12}."],
    ["#### Step 2\nAdd 5 and 7."],
    ["#### Step 2: add 5 and 7"],
  ])("a step that goes on: %j", async (text) => {
    const node = await nodeOf("next_step", text);
    expect(node).toMatchObject({ solution: false });
    expect(node?.answer).toBeUndefined();
  });

  test.each([
    ["Next step: done.\n#### 12"],
    ["Final step: Add both. The result is 12."],
    ["Final step: Add.\n#### Step 2\nSo it is \\boxed{12}."],
    ["Next step: Add. So the answer is 12."],
  ])("a step that is the last: %j", async (text) => {
    expect(await nodeOf("next_step", text)).toMatchObject({ solution: true, answer: "12" });
  });

  test("a direct answer may state it anyhow, in its label too; what was cut off states nothing", async () => {
    expect(await nodeOf("direct_answer", "Add both. The result is 12.")).toMatchObject({ answer: "12" });
    expect(await nodeOf("direct_answer", "**Answer:** 12")).toMatchObject({ answer: "12", step: { text: "12" } });
    const cut = await nodeOf("direct_answer", { text: "Add both. Answer: 1", stop: "length" });
    expect(cut?.step?.text).toBe("Add both.");
    expect(cut?.answer).toBeUndefined();
  });
});

describe("actions", () => {
  test("a question may hold the word that its prompt begins with", () => {
    expect(actionPrompt("clarify", { question: "How many?", answerForm: "", steps: [] })).toContain(
      ACTION_STOPS.clarify[0],
    );
    for (const stop of ACTION_STOPS.clarify)
      expect("It asks for the price.\nOriginal prices count.").not.toContain(stop);
  });

  test("a text that begins the prompt again is ended there", () => {
    for (const action of ["next_step", "direct_answer"] as const) {
      expect(ACTION_STOPS[action]).toEqual(expect.arrayContaining(["\nQuestion:", "\nExisting steps"]));
      const prompt = actionPrompt(action, { question: "How many?", answerForm: "#### ...", steps: [] });
      // The stops are what the prompt's own parts begin with.
      for (const stop of ["\nQuestion:", "\nExisting steps"]) expect(`\n${prompt}`).toContain(stop);
    }
  });

  test("a prompt holds the question and the steps, without tags or numbers", () => {
    const context = { question: "How many?", answerForm: "#### ..." };
    const first = actionPrompt("next_step", { ...context, steps: [] });
    expect(first).toContain("first step");
    expect(first).toMatch(/Existing steps:\nNone\n\n/);
    const steps = [
      { fn: "analysis" as const, text: "Subtract." },
      { fn: "next_step" as const, text: "8 - 3 = 5." },
    ];
    const later = actionPrompt("direct_answer", { ...context, steps });
    expect(later).toMatch(/^Question: How many\?\n\nExisting steps:\nSubtract\.\n8 - 3 = 5\.\n\nFinish/);
    expect(later).toContain("#### ...");
    const asked = actionPrompt("next_step", {
      ...context,
      steps: [...steps, { fn: "subquestion", text: "Let's add now" }],
    });
    expect(asked).toMatch(/8 - 3 = 5\.\n\nTo be solved now: Let's add now\n\n/);
  });

  test.each<[Action, string, boolean, string]>([
    ["analysis", "Analysis: Add both.", false, "Add both."],
    ["next_step", "**Next step**: Add.\n3 + 4 = 7", false, "Add.\n3 + 4 = 7"],
    ["next_step", "**Next step:** Add.\n3 + 4 = 7", false, "Add.\n3 + 4 = 7"],
    ["next_step", "**Next step: Add**\n3 + 4 = 7", false, "**Add**\n3 + 4 = 7"],
    ["next_step", "Next step: **Add**\n3 + 4 = 7", false, "**Add**\n3 + 4 = 7"],
    ["analysis", "**Analysis:** **Add** both.", false, "**Add** both."],
    ["next_step", "Next step: Add 3.5 and 2. Then we tak", true, "Add 3.5 and 2."],
    ["next_step", "Next step: never done", true, ""],
    ["clarify", "Clarified Question: One. Two. Three. Four.", false, "One. Two. Three."],
    ["direct_answer", "Solution: 3 + 4 = 7\n#### 7", false, "3 + 4 = 7\n#### 7"],
  ])("what is kept of %s: %j", (action, text, cut, kept) => {
    expect(actionText(action, text, cut)).toBe(kept);
  });

  test("a direct answer is as long as its sentences or its paragraphs", () => {
    expect(answerLength("One. Two.\nThree 3.5 is less.")).toBe(3);
    expect(answerLength("a\n\nb\n\nc")).toBe(3);
    expect(answerLength("8 - 3 = 5\n5 + 1 = 6\n6 + 1 = 7\n#### 7")).toBe(1);
    expect(answerLength(LONG)).toBe(5);
  });
});

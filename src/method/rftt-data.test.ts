import { afterAll, describe, expect, test } from "vitest";
import { createServer } from "node:http";
import { memoryStage } from "../../test/stage.ts";
import { scriptedModel, type Script } from "../../test/scripted-model.ts";
import { LocalEngine } from "../engine/local/index.ts";
import type { Solution } from "../rollout/prompt-search.ts";
import { G2, parseStrict, type Step, TAG_TOKENS, validate } from "../tags/index.ts";
import { createTask } from "../task/create.ts";
import { findLeaks } from "../task/leaks.ts";
import type { Problem } from "../task/types.ts";
import { demonstrationTree } from "./demonstrations.ts";
import { parseRecords, recordProblems, type TaggedRecord } from "./records.ts";
import { rfttData, rfttDataSettings, yieldTable } from "./rftt-data.ts";
import {
  affirms,
  mergedSteps,
  plainSteps,
  recordFault,
  repeatsFault,
  verifyFault,
  verifyPrompt,
} from "./rftt-merge.ts";
import { programSteps } from "./rftt-program.ts";
import { selectPaths, SORT_KEYS, treeDistance } from "./rftt-select.ts";
import { sft, sftSettings } from "./sft.ts";

/** A solution whose steps are named by their nodes; the last holds the answer. */
const path = (trajectory: number[], right: boolean, more: Partial<Solution> = {}): Solution => ({
  trajectory,
  steps: trajectory.map((id, i): Step => ({
    fn: i === trajectory.length - 1 ? "direct_answer" : "next_step",
    text: `node ${id}`,
  })),
  answer: right ? "5" : "6",
  right,
  ...more,
});

describe("selection", () => {
  const settings = { maxTreeDistance: 3, order: SORT_KEYS };

  test("distance vectors", () => {
    expect(treeDistance([1, 73, 80], [1, 73, 82, 86, 92])).toEqual({ distance: 4, shared: 2 });
    expect(treeDistance([1, 73, 82, 86, 94, 95], [1, 73, 82, 86, 92])).toEqual({ distance: 3, shared: 4 });
    expect(treeDistance([1], [2])).toEqual({ distance: 2, shared: 0 });
  });

  test("the first pair that is near enough, right paths in the outer loop", () => {
    const far = path([1, 73, 80], true);
    const near = path([1, 73, 82, 86, 94, 95], true);
    const wrong = path([1, 73, 82, 86, 92], false);
    expect(selectPaths([far, wrong, near], settings).pair).toEqual({ right: near, wrong, shared: 4 });
    expect(selectPaths([far, wrong], settings)).toMatchObject({ missing: "no intersecting pair" });
    expect(selectPaths([far, wrong], { ...settings, maxTreeDistance: 4 }).pair?.shared).toBe(2);
  });

  test("keys: no repeats, then the longest, then the shortest last step, then the process reward", () => {
    const best = (solutions: Solution[], order: readonly ("repeat" | "len" | "finalLen" | "prm")[] = SORT_KEYS) =>
      selectPaths(solutions, { ...settings, order }).plain[0];
    const short = path([1, 2], true);
    const long = path([3, 4, 5], true);
    expect(best([short, long])).toBe(long);
    const repeating = path([6, 7, 8, 9], true);
    repeating.steps[1].text = repeating.steps[0].text;
    expect(best([repeating, short])).toBe(short);
    const wordy = path([10, 11, 12], true);
    wordy.steps[2].text = "a long last step";
    expect(best([wordy, long])).toBe(long);
    const low = path([1, 2], true, { scores: [0.9, 0.1] });
    const high = path([3, 4], true, { scores: [0.8, 0.7] });
    expect(best([low, high])).toBe(high);
    expect(best([path([20, 21, 22], true, { scores: [0, 0, 0] }), high], ["prm"])).toBe(high);
    const right = path([1, 30], true);
    const worst = path([1, 31], false, { scores: [0.9, 0] });
    const better = path([1, 32], false, { scores: [0.9, 0.5] });
    expect(selectPaths([right, better, worst], settings).pair?.wrong).toBe(worst);
  });

  test("fallbacks: no wrong path, no right path, no two right paths apart, no answer", () => {
    const a = path([1, 2], true);
    const b = path([1, 3], true);
    expect(selectPaths([a, b], settings)).toEqual({ missing: "no wrong path", plain: [a] });
    expect(selectPaths([path([1, 2], false)], settings)).toEqual({ missing: "no right path", plain: [] });
    const c = path([4, 5], true);
    expect(selectPaths([a, b, c], settings).plain).toEqual([a, c]);
    const silent = path([1, 9], false, { answer: undefined });
    expect(selectPaths([a, silent], settings).missing).toBe("no wrong path");
  });
});

describe("merging", () => {
  const pair = {
    right: path([1, 2, 5, 6], true),
    wrong: path([1, 2, 3], false),
    shared: 2,
  };
  const right = (text: string) => text.includes("#### 5");

  test("the shared beginning, the wrong branch, verify, refine, the rest, output; the wrong branch is out of the loss", () => {
    const steps = mergedSteps(pair, "The mistake is in node 3.", "#### 5");
    expect(steps.map(({ fn, text, learned }) => `${fn}:${text}:${learned}`)).toEqual([
      "next_step:node 1:true",
      "next_step:node 2:true",
      "direct_answer:node 3:false",
      "verify:The mistake is in node 3.:true",
      "refine:node 5:true",
      "direct_answer:node 6:true",
      "output:#### 5:true",
    ]);
    expect(validate(steps, G2)).toBeUndefined();
    expect(recordFault(steps, right)).toBeUndefined();
    expect(recordFault(mergedSteps(pair, "No.", "#### 6"), right)).toBe("the output is not right");
    expect(recordFault([...steps, steps[6]], right)).toMatch(/output cannot follow output/);
    expect(recordFault(steps.slice(0, -1), right)).toMatch(/ends with output/);
  });

  test("a right branch of one step is refine and then output; a direct answer at the beginning is a step", () => {
    const roots = { right: path([8], true), wrong: path([9], false), shared: 0 };
    const steps = mergedSteps(roots, "The mistake is there.", "#### 5");
    expect(steps.map(({ fn }) => fn)).toEqual(["next_step", "verify", "refine", "output"]);
    expect(steps.map(({ learned }) => learned)).toEqual([false, true, true, true]);
    expect(recordFault(steps, right)).toBeUndefined();
  });

  test("plain paths end in an output, with or without a verify", () => {
    expect(
      plainSteps(pair.right, "#### 5")
        .map(({ fn }) => fn)
        .slice(-2),
    ).toEqual(["direct_answer", "output"]);
    const affirmed = plainSteps(pair.right, "#### 5", "Checking the sum: it holds.");
    expect(affirmed.map(({ fn }) => fn).slice(-3)).toEqual(["direct_answer", "verify", "output"]);
    expect(recordFault(affirmed, right)).toBeUndefined();
  });

  test("the comparison never sees an answer", () => {
    const stating: Solution = path([1, 2], true);
    stating.steps[1].text = "8 - 3 = 5\n#### 5\nSo the answer is 5. Or \\boxed{5}, <answer>5</answer>.";
    const prompt = verifyPrompt("How many?", { right: stating, wrong: path([1, 3], false), shared: 1 });
    expect(prompt).not.toMatch(/####|boxed|answer is 5|<answer>5/);
    expect(prompt).toContain("node 3");
    expect(prompt).toContain("8 - 3 = 5");
  });

  test("what is refused as a verify", () => {
    const states = (text: string) => text.includes("\\boxed{5}");
    expect(verifyFault("The mistake is adding 3.", states)).toBeUndefined();
    expect(verifyFault("", states)).toBe("empty verify");
    expect(verifyFault("The mistake: it is \\boxed{5}.", states)).toBe("verify states the answer");
    expect(verifyFault("The steps that do it right subtract.", states)).toBe("verify speaks of the other branch");
    expect(verifyFault("There is no mistake.", states)).toBe("verify affirms");
    expect(affirms("The sum is not correct.")).toBe(false);
    expect(repeatsFault(pair)).toBe(false);
    const same = { ...pair, right: path([1, 2, 3], true) };
    expect(repeatsFault(same)).toBe(true);
  });
});

describe("gold chains by program", () => {
  test("a planted mistake is out of the loss, named, and mended; the answer is stated in the output alone", () => {
    const chain = "8 + 4 = 12\n12 - 3 = 9\n#### 9";
    for (let i = 0; i < 40; i++) {
      const steps = programSteps(chain, "#### 9", { key: `k${i}`, planted: true });
      expect(steps).toBeDefined();
      if (steps === undefined) return;
      expect(validate(steps, G2)).toBeUndefined();
      const wrong = steps.findIndex(({ learned }) => !learned);
      expect(steps.filter(({ learned }) => !learned)).toHaveLength(1);
      expect(
        steps
          .slice(wrong + 1)
          .map(({ fn }) => fn)
          .slice(0, 2),
      ).toEqual(["verify", "refine"]);
      const lines = ["8 + 4 = 12", "12 - 3 = 9"];
      expect(lines).toContain(steps[wrong + 2].text);
      expect(lines).not.toContain(steps[wrong].text);
      expect(steps[wrong + 1].text).toMatch(/^The mistake is/);
    }
    const holding = programSteps(chain, "#### 9", { key: "k", planted: false });
    expect(holding?.map(({ fn }) => fn)).toEqual(["next_step", "next_step", "verify", "output"]);
    expect(programSteps("No numbers here.", "#### 9", { key: "k", planted: true })).toBeUndefined();
  });
});

const number = (id: string, a: number, b: number): Problem => ({
  id,
  prompt: { messages: [{ role: "user", content: `Question ${id}: ${a} - ${b}? Answer after ####.` }] },
  question: `Tom has ${a} plums named ${id} and eats ${b} of them. How many are left?`,
  answer: String(a - b),
  demonstrations: [`${a} - ${b} = ${a - b}\n#### ${a - b}`],
});
const problems = [number("a", 8, 3), number("b", 9, 4), number("c", 7, 2), number("d", 6, 1)];
const task = () => createTask({ name: "plums", splits: { train: problems }, grading: { strict: ["hashes"] } });

const settings = rfttDataSettings.parse({ prompts: 2, rollouts: 8, maxDepth: 4, affirm: 1 });

/** All golds are 5. Direct answers are wrong, last steps are right. */
const script: Script = (prompt, index, { key }) => {
  if (prompt.startsWith("Below is a question and steps")) {
    return index === 0 ? "The mistake: the answer is 5." : "The mistake is adding where plums are eaten.";
  }
  if (prompt.startsWith("Below is a question and a right"))
    return "Checking the numbers against the question, all are used.";
  if (prompt.includes("Finish the")) return `Add them up, ${key}.\n#### 6`;
  if (prompt.includes("Write the")) return `Final step: take them away, ${key}/${index}.\n#### 5`;
  return `Something of ${key}/${index}.`;
};

async function produce(
  model = scriptedModel(script).model,
  more: Partial<Parameters<typeof memoryStage>[0]> = {},
  own = settings,
) {
  const made = await memoryStage({ model, task: task(), steps: 2, lr: 0, ...more });
  await rfttData(made.stage, own);
  const records = [...made.files].flatMap(([name, lines]) => (name === "yield" ? [] : lines));
  return { ...made, records: parseRecords(records.map((value, i) => ({ place: `line ${i}`, value }))) };
}

describe("warm-up data", () => {
  test("each question gives a merged record and plain ones, all of the grammar, and the yield adds up", async () => {
    const { records, recorded, files, notes } = await produce();
    const kinds = (kind: TaggedRecord["kind"]) => records.filter((record) => record.kind === kind);
    expect(kinds("merged").map(({ id }) => id)).toEqual(["a", "b", "c", "d"]);
    expect(kinds("plain")).toHaveLength(8);
    for (const { steps, response, kind } of records) {
      const path = steps.map(({ tag: fn, text }) => ({ fn, text }));
      expect(validate(path, G2)).toBeUndefined();
      expect(parseStrict(response, "tokens")).toEqual({ steps: path });
      expect(steps.at(-1)).toEqual({ tag: "output", text: "#### 5", lossMask: 1 });
      const masked = steps.filter(({ lossMask }) => lossMask === 0);
      if (kind === "merged") expect(masked.map(({ text }) => text).join()).toContain("Add them up");
      else expect(masked).toEqual([]);
      expect(steps.filter(({ tag }) => tag === "verify")).toHaveLength(1);
    }
    expect(kinds("merged")[0].steps.find(({ tag }) => tag === "verify")?.text).toBe(
      "The mistake is adding where plums are eaten.",
    );
    expect(recorded.map(({ metrics }) => metrics.questions)).toEqual([2, 2]);
    expect(files.get("yield")).toMatchObject([{ questions: 4, pairs: 4, merged: 4, plain: 8, program: 0, leaked: 0 }]);
    expect(notes.join()).toMatch(/merged records +4/);
    expect(recorded.every(({ updates }) => updates === 0)).toBe(true);
  });

  test("questions that are evaluated are left out, and counted; no record's question is among them", async () => {
    const evaluated = [{ ...problems[1], id: "test-1", question: `  ${problems[1].question?.toUpperCase()}` }];
    const { records, files } = await produce(undefined, { evaluated });
    expect(new Set(records.map(({ id }) => id))).toEqual(new Set(["a", "c", "d"]));
    expect(files.get("yield")).toMatchObject([{ questions: 3, leaked: 1 }]);
    const asked = records.map(({ id, problem }) => ({ id, prompt: { text: problem } }));
    expect(findLeaks(asked, evaluated).filter(({ exact }) => exact)).toEqual([]);
  });

  test("why records are missing is counted", async () => {
    const { model } = scriptedModel((prompt, index, request) =>
      prompt.startsWith("Below is a question and steps") ? "The mistake: #### 5" : script(prompt, index, request),
    );
    const { records, files, notes } = await produce(model);
    expect(records.filter(({ kind }) => kind === "merged")).toEqual([]);
    expect(files.get("yield")).toMatchObject([{ pairs: 4, "rejected: verify states the answer": 4 }]);
    expect(notes.join()).toMatch(/rejected: verify states the answer +4/);
  });

  test("a model that writes nothing of use leaves the set to the program", async () => {
    const { model } = scriptedModel(() => "<nested><verify>");
    const { records, files } = await produce(model, {}, { ...settings, merged: 3, affirm: 0.25 });
    expect(records.map(({ kind }) => kind)).toEqual(["program", "program", "program", "program"]);
    expect(records.filter(({ steps }) => steps.some(({ lossMask }) => lossMask === 0))).toHaveLength(3);
    expect(files.get("yield")).toMatchObject([{ solutions: 0, merged: 0, program: 4, "rejected: no right path": 4 }]);
  });

  test("a process reward server orders paths; one that is down, slow or answers nonsense stops the run with the reason", async () => {
    let answer = (body: { states: { steps: unknown[] }[] }): unknown => ({
      scores: body.states.map(({ steps }) => steps.map(() => 0.5)),
    });
    let raw: string | undefined;
    let delay = 0;
    const server = createServer((request, response) => {
      let text = "";
      request.on("data", (chunk: Buffer) => (text += chunk.toString()));
      request.on("end", () => {
        const said = raw ?? JSON.stringify(answer(JSON.parse(text)));
        if (delay === 0) response.end(said);
        else setTimeout(() => response.end(said), delay).unref();
      });
    });
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const scored = rfttDataSettings.parse({
      ...settings,
      order: ["prm"],
      processReward: { url: `http://127.0.0.1:${port}/`, retries: 0, timeout: 5 },
    });
    try {
      expect((await produce(undefined, {}, scored)).records.length).toBeGreaterThan(4);
      // Slower than it may be: counted as slow, and said.
      const hurried = { ...scored, processReward: { url: `http://127.0.0.1:${port}/`, retries: 1, timeout: 0.05 } };
      delay = 2000;
      await expect(produce(undefined, {}, rfttDataSettings.parse(hurried))).rejects.toThrow(
        /process reward server .*no answer within 0.05 s; raise `timeout` or lower `batch` \(2 tries\)/,
      );
      delay = 0;
      // No JSON, and one score too few.
      raw = "<html>busy</html>";
      await expect(produce(undefined, {}, scored)).rejects.toThrow(/expected JSON, found <html>busy/);
      raw = undefined;
      answer = (body) => ({ scores: body.states.map(({ steps }) => steps.slice(1).map(() => 0.5)) });
      await expect(produce(undefined, {}, scored)).rejects.toThrow(
        /expected \d+ scores for state 0, one for each step/,
      );
      answer = () => ({ scores: "none" });
      await expect(produce(undefined, {}, scored)).rejects.toThrow(/process reward server .*found/);
    } finally {
      await new Promise((closed) => server.close(closed));
    }
    await expect(produce(undefined, {}, scored)).rejects.toThrow(/cannot be reached/);
  });

  test("settings and tasks that cannot work are refused", async () => {
    expect(() => rfttDataSettings.parse({ order: ["prm"] })).toThrow(/needs `processReward`/);
    const own = createTask({ name: "own", splits: { train: problems }, reward: () => 1 });
    await expect(produce(undefined, { task: own })).rejects.toThrow(/own has a reward of its own/);
  });

  test("the table has a line for each count and each reason", () => {
    expect(yieldTable({ questions: 3, "rejected: no wrong path": 2 }).split("\n").at(-1)).toMatch(/no wrong path +2$/);
  });
});

const engine = new LocalEngine({ threads: 1 });
afterAll(() => engine.close());

describe("SFT on records", () => {
  const vocabulary = ["x", " ", "#### 5", "w", "v", "r", ...TAG_TOKENS];
  const simple: Problem[] = [{ id: "p", prompt: { text: "x" }, answer: "5" }];
  const record: TaggedRecord = {
    id: "p",
    problem: "x",
    response: "",
    steps: [
      { tag: "next_step", text: "w", lossMask: 0 },
      { tag: "verify", text: "v", lossMask: 1 },
      { tag: "refine", text: "r", lossMask: 1 },
      { tag: "output", text: "#### 5", lossMask: 1 },
    ],
    kind: "merged",
  };
  const tiny = () => engine.create({ base: "tiny", train: "full", vocabulary, addTokens: TAG_TOKENS, seed: 1 });
  const source = { size: 1, at: () => simple[0] };

  test("the wrong branch, its tags too, is in the row and out of the loss", async () => {
    const model = await tiny();
    const [problem] = recordProblems([record], source, "tokens");
    const [text] = problem.demonstrations ?? [];
    const tree = demonstrationTree(model, "t", problem, text);
    const [, target] = tree.segments;
    expect(model.tokenizer.decode(target.tokens)).toContain("<next_step>w</next_step><verify>v</verify>");
    expect([...target.fields.weights]).toEqual([0, 0, 0, ...Array.from({ length: 10 }, () => 1)]);
    await model.close();
  });

  test("trains verify, refine and output, and teaches no mistake", async () => {
    const model = await tiny();
    const simpleTask = createTask({ name: "t", splits: { train: simple }, grading: { strict: ["hashes"] } });
    const records = [{ place: "r:1", value: record }];
    const { stage, recorded } = await memoryStage({ model, task: simpleTask, steps: 30, lr: 5e-3, records });
    const row = () => {
      const [problem] = recordProblems([record], source, "tokens");
      return demonstrationTree(model, "t", problem, problem.demonstrations?.[0] ?? "");
    };
    const before = (await model.forward([row()]))[0].logprobs[1];
    await sft(stage, sftSettings.parse({ batch: 1, lr: 5e-3, records: "r" }));
    const after = (await model.forward([row()]))[0].logprobs[1];
    expect(recorded[29].metrics.loss).toBeLessThan(0.3 * recorded[0].metrics.loss);
    for (let i = 3; i < after.length; i++) expect(after[i]).toBeGreaterThan(before[i]);
    expect(after[1]).toBeLessThan(-1);
    await model.close();
  });

  test("records of other problems, none, and lines that are no records are refused", () => {
    expect(() => recordProblems([{ ...record, id: "q" }], source, "tokens")).toThrow(/problem q is not in/);
    expect(() => parseRecords([{ place: "f:3", value: { ...record, kind: "own" } }])).toThrow(/f:3: expected a record/);
  });
});

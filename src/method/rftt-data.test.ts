import { afterAll, describe, expect, test } from "vitest";
import { createServer } from "node:http";
import { memoryStage } from "../../test/stage.ts";
import { scriptedModel, type Script } from "../../test/scripted-model.ts";
import { LocalEngine } from "../engine/local/index.ts";
import { G2, parseStrict, TAG_TOKENS, validate } from "../tags/index.ts";
import { createTask } from "../task/create.ts";
import { findLeaks } from "../task/leaks.ts";
import type { Problem } from "../task/types.ts";
import { demonstrationTree } from "./demonstrations.ts";
import { parseRecords, recordProblems, type TaggedRecord } from "./records.ts";
import { rfttData, rfttDataSettings, yieldTable } from "./rftt-data.ts";
import { sft, sftSettings } from "./sft.ts";

const number = (id: string, a: number, b: number): Problem => ({
  id,
  prompt: { messages: [{ role: "user", content: `Question ${id}: ${a} - ${b}? Answer after ####.` }] },
  question: `Tom has ${a} plums named ${id} and eats ${b} of them. How many are left?`,
  answer: String(a - b),
  demonstrations: [`${a} - ${b} = ${a - b}\n#### ${a - b}`],
});
const problems = [number("a", 8, 3), number("b", 9, 4), number("c", 7, 2), number("d", 6, 1)];
const task = () => createTask({ name: "plums", splits: { train: problems }, grading: { strict: ["hashes"] } });

const withMistake = ({ steps }: TaggedRecord) => steps.some(({ lossMask }) => lossMask === 0);

const settings = rfttDataSettings.parse({ prompts: 2, rollouts: 8, maxDepth: 4, affirm: 1 });

/** All golds are 5. Direct answers are wrong, last steps are right. */
const script: Script = (prompt, index, { key }) => {
  if (prompt.startsWith("Below is a question and steps")) {
    return index === 0 ? "The mistake: the answer is 5." : "The mistake is adding where plums are eaten.";
  }
  if (prompt.startsWith("Below is a question and a right"))
    return "Checking the numbers against the question: it holds.";
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
    const { records, files, notes } = await produce(model, {}, { ...settings, merged: 4, affirm: 0.25 });
    expect(records.map(({ kind }) => kind)).toEqual(["program", "program", "program", "program"]);
    expect(records.filter(withMistake)).toHaveLength(3);
    expect(files.get("yield")).toMatchObject([{ solutions: 0, merged: 0, program: 4, "rejected: no right path": 4 }]);
    expect(notes).toHaveLength(1);
  });

  test("of fewer program records than were asked for the same share affirms, and that is said", async () => {
    const { model } = scriptedModel(() => "");
    const made = async (affirm: number) => produce(model, {}, { ...settings, merged: 9, affirm });
    const { records, notes } = await made(0.5);
    expect(records).toHaveLength(4);
    expect(records.filter(withMistake)).toHaveLength(2);
    expect(notes.at(-1)).toMatch(/4 of 9; the other chains hold no calculation/);
    expect((await made(1)).records.filter(withMistake)).toHaveLength(0);
    expect((await made(0)).records.filter(withMistake)).toHaveLength(4);
  });

  test("an affirmation that failed is counted, and its path stands without one", async () => {
    const { model } = scriptedModel((prompt, index, request) =>
      prompt.startsWith("Below is a question and a right") ? "There is an error." : script(prompt, index, request),
    );
    const { records, files } = await produce(model);
    const plain = records.filter(({ kind }) => kind === "plain");
    expect(plain).toHaveLength(8);
    expect(plain.flatMap(({ steps }) => steps.filter(({ tag }) => tag === "verify"))).toEqual([]);
    expect(files.get("yield")).toMatchObject([{ plain: 8, "rejected: affirmation does not affirm": 8 }]);
  });

  test("a record that no row holds is left out and counted", async () => {
    const long: Script = (prompt, index, request) =>
      prompt.includes("Write the") ? `Final step: ${"on and on ".repeat(300)}\n#### 5` : script(prompt, index, request);
    const { records, files } = await produce(scriptedModel(long, 2500).model);
    expect(records).toEqual([]);
    expect(files.get("yield")).toMatchObject([
      { "rejected: plain: longer than the context": 8, "rejected: the affirm prompt fills the context": 8 },
    ]);
  });

  test("a program needs a split with an end, which is said before any search", async () => {
    const endless = createTask({
      name: "endless",
      splits: { train: { size: Infinity, at: (i) => ({ ...problems[i % 4], id: `e${i}` }) } },
      grading: { strict: ["hashes"] },
    });
    const { model, requests } = scriptedModel(script);
    const asked = produce(model, { task: endless }, { ...settings, merged: 1 });
    await expect(asked).rejects.toThrow(/`merged`: .* and endless makes its problems without one/);
    expect(requests).toEqual([]);
  });

  test("a process reward server orders paths; one that is down, slow or answers nonsense stops the run with the reason", async () => {
    let answer = (body: { states: { steps: unknown[]; question: string }[] }): unknown => ({
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
      // The question comes with its options.
      const asked = new Set<string>();
      answer = (body) => {
        for (const { question } of body.states) asked.add(question);
        return { scores: body.states.map(({ steps }) => steps.map(() => 0.5)) };
      };
      const choice = problems.map((problem) => ({ ...problem, options: ["four", "five"] }));
      const optional = createTask({ name: "o", splits: { train: choice }, grading: { strict: ["hashes"] } });
      await produce(undefined, { task: optional }, scored);
      expect([...asked].filter((question) => question.endsWith("\nA. four\nB. five"))).toHaveLength(4);
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
    const unused = { order: ["len"], processReward: { url: "http://localhost:1/" } };
    expect(() => rfttDataSettings.parse(unused)).toThrow(/the scores would count for nothing; add/);
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

  test("records that the context does not hold are said together, before any is trained on", async () => {
    const model = await tiny();
    const long = (words: number) => ({
      ...record,
      steps: [{ tag: "next_step", text: "w".repeat(words), lossMask: 1 }, ...record.steps.slice(1)],
    });
    const { maxContext } = model.info;
    const records = [record, long(maxContext), long(maxContext + 1)].map((value, i) => ({
      place: `r:${i}`,
      value,
    }));
    const simpleTask = createTask({ name: "t", splits: { train: simple }, grading: { strict: ["hashes"] } });
    const { stage, recorded } = await memoryStage({ model, task: simpleTask, steps: 3, lr: 5e-3, records });
    await expect(sft(stage, sftSettings.parse({ batch: 1, lr: 5e-3, records: "r" }))).rejects.toThrow(
      new RegExp(
        `holds ${maxContext} tokens, and 2 of 3 records need more .*, up to ${maxContext + 14} \\(problem p\\)`,
      ),
    );
    expect(recorded).toEqual([]);
    await model.close();
  });

  test("records of other problems, none, and lines that are no records are refused", () => {
    expect(() => recordProblems([{ ...record, id: "q" }], source, "tokens")).toThrow(/problem q is not in/);
    expect(() => parseRecords([{ place: "f:3", value: { ...record, kind: "own" } }])).toThrow(/f:3: expected a record/);
  });
});

import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { questionKey } from "./dataset.ts";
import { gradeResponse } from "./grading.ts";
import { loadTask } from "./load.ts";
import type { Problem, Split, Task } from "./types.ts";

const shared = resolve(process.env.RIFFT_SHARED ?? "../shared", "data");
const published = (name: string) => join(shared, name);
const folder = mkdtempSync(join(tmpdir(), "rifft-questions-"));
afterAll(() => rmSync(folder, { recursive: true }));

function load(name: string, options: Record<string, unknown> = {}): Promise<Task> {
  return loadTask({ name, ...options }, { baseDir: folder, seed: 1 });
}

async function all(task: Task, split: Split): Promise<Problem[]> {
  const source = await task.problems(split);
  return Array.from({ length: source.size }, (_, i) => source.at(i));
}

function questionOf({ prompt }: Problem): string {
  return questionKey("text" in prompt ? prompt.text : prompt.messages[0].content);
}

async function rewards(task: Task, items: { problem: Problem; response: string }[]): Promise<number[]> {
  const grades = await task.grade(items);
  expect(grades.filter(({ error }) => error !== undefined)).toEqual([]);
  return grades.map(({ reward }) => reward);
}

function flexible(task: Task, problem: Problem, response: string): boolean {
  return gradeResponse(problem, response, task.grading ?? { strict: [] }).flexible.equal;
}

function write(name: string, content: string): string {
  const path = join(folder, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, content);
  return path;
}

const fixtures = resolve(import.meta.dirname, "fixtures");

describe("gsm8k", () => {
  test("reads the Hub's layout: sharded parquet in main/", async () => {
    const task = await load("gsm8k", { path: join(fixtures, "gsm8k"), dev: 0 });
    const train = await all(task, "train");
    expect(train.map(({ answer }) => answer)).toEqual(["7", "2000", "4.5"]);
    expect(train[0].demonstrations).toEqual(["Ann has 3+4=7 pens.\n#### 7"]);
    expect((await all(task, "test")).map(({ answer }) => answer)).toEqual(["-3"]);
  });

  test.each<[string | string[] | undefined, string]>([
    [undefined, "#### 7"],
    ["boxed", "\\boxed{7}"],
    [["auto", "phrase"], "The answer is 7."],
    ["reft", "Therefore, the answer is: 7"],
    ["last-number", "#### 7"],
  ])("demonstrations state the answer where `strict` looks: %s", async (strict, stated) => {
    const task = await load("gsm8k", { path: join(fixtures, "gsm8k"), dev: 0, ...(strict && { strict }) });
    const train = await all(task, "train");
    expect(train[0].demonstrations).toEqual([`Ann has 3+4=7 pens.\n${stated}`]);
    const shown = train.map((problem) => ({ problem, response: problem.demonstrations?.[0] ?? "" }));
    expect(await rewards(task, shown)).toEqual([1, 1, 1]);
  });

  test.each(["whole", "letter"])("a demonstration cannot state it for %s", async (strict) => {
    const task = await load("gsm8k", { path: join(fixtures, "gsm8k"), dev: 0, strict });
    await expect(all(task, "train")).rejects.toThrow(
      `task gsm8k: expected demonstrations whose answers \`strict\` finds, and ${strict} does not find "#### ..."`,
    );
  });

  test("finds the data beside the recipe, in the Hub's folders", async () => {
    cpSync(join(fixtures, "gsm8k"), join(folder, "data", "openai", "gsm8k"), { recursive: true });
    expect((await (await load("gsm8k")).problems("test")).size).toBe(1);
  });

  test("a missing shard is noticed", async () => {
    cpSync(join(fixtures, "gsm8k"), join(folder, "partial"), { recursive: true });
    rmSync(join(folder, "partial", "main", "train-00001-of-00002.parquet"));
    const task = await load("gsm8k", { path: "partial" });
    await expect(task.problems("train")).rejects.toThrow(/partial.main: 1 of 2 train files/);
  });

  test("says how to get data that is not there", async () => {
    await expect(load("gsm8k", { path: "nowhere" })).rejects.toThrow(
      /nowhere: no such folder.*rifft pull openai\/gsm8k/,
    );
    await expect(load("svamp")).rejects.toThrow(/svamp is not here.*rifft pull ChilleD\/SVAMP/);
  });

  test("names file and line of a bad record", async () => {
    const good = JSON.stringify({ question: "2 + 2?", answer: "2+2=4\n#### 4" });
    const cases: [string, RegExp][] = [
      [
        JSON.stringify({ question: "2 + 2?" }),
        /train\.jsonl:2: expected the texts question and answer.*found the fields question/,
      ],
      [JSON.stringify({ question: "2 + 2?", answer: "4" }), /train\.jsonl:2: the answer lacks its last line/],
      [
        JSON.stringify({ question: "2 + 2?", answer: "#### four" }),
        /train\.jsonl:2: expected the answer to be one number, found "four"/,
      ],
    ];
    for (const [line, message] of cases) {
      write("bad/train.jsonl", `${good}\n${line}\n`);
      await expect((await load("gsm8k", { path: "bad" })).problems("train")).rejects.toThrow(message);
    }
    await expect((await load("gsm8k", { path: "bad" })).problems("test")).rejects.toThrow(
      /no test data here; expected test\.jsonl/,
    );
  });

  test("ReFT's prompt and target, byte for byte", async () => {
    write("reft/train.jsonl", JSON.stringify({ question: " How many? ", answer: "2+2=<<2+2=4>>4\n#### 4" }));
    const [problem] = await all(await load("gsm8k", { path: "reft", prompt: "reft", dev: 0 }), "train");
    expect(problem.prompt).toEqual({ text: "Question:\nHow many?\nAnswer reasoning:\n" });
    expect(problem.demonstrations).toEqual(["2+2=4\nTherefore, the answer is: 4"]);
  });

  test.skipIf(!existsSync(published("gsm8k")))("every published answer grades as itself, and no other", async () => {
    const task = await load("gsm8k", { path: published("gsm8k"), dev: 0 });
    const train = await all(task, "train");
    const problems = [...train, ...(await all(task, "test"))];
    expect(problems.length).toBe(7473 + 1319);
    const own = problems.map((problem) => ({ problem, response: problem.demonstrations?.[0] ?? "" }));
    expect(own.some(({ response }) => response.includes("<<") || response === "")).toBe(false);
    expect(new Set(await rewards(task, own))).toEqual(new Set([1]));
    for (const form of ["\\boxed{?}", "The answer is ?.", "Therefore, the answer is: ?"]) {
      const items = problems.map((problem) => ({ problem, response: form.replace("?", problem.answer ?? "") }));
      // Not where the prompt asks for it: right to the flexible verdict alone.
      expect(items.every(({ problem, response }) => flexible(task, problem, response))).toBe(true);
      expect(new Set(await rewards(task, items))).toEqual(new Set([0]));
    }
    const wrong = problems.map((problem) => ({ problem, response: `#### ${Number(problem.answer) + 1}` }));
    expect(new Set(await rewards(task, wrong))).toEqual(new Set([0]));
  });

  test.skipIf(!existsSync(published("gsm8k")))(
    "dev is held out of train by question; prompts do not say the answer",
    async () => {
      const task = await load("gsm8k", { path: published("gsm8k") });
      const [train, dev] = await Promise.all([all(task, "train"), all(task, "dev")]);
      expect(train.length + dev.length).toBe(7473);
      expect(dev.length).toBeGreaterThan(650);
      expect(dev.length).toBeLessThan(850);
      const trained = new Set(train.map(questionOf));
      expect(dev.filter((problem) => trained.has(questionOf(problem)))).toEqual([]);
      expect(train.filter(({ prompt }) => JSON.stringify(prompt).includes("<<"))).toEqual([]);
    },
  );

  test.skipIf(!existsSync(published("gsm8k")))("a file of ReFT's test set is a test split", async () => {
    const task = await load("gsm8k", { path: join(published("gsm8k"), "reft_test_set.json") });
    const reft = await all(task, "test");
    const plain = await all(await load("gsm8k", { path: published("gsm8k") }), "test");
    expect(reft.map(({ answer }) => answer)).toEqual(plain.map(({ answer }) => answer));
  });
});

describe("svamp", () => {
  test("reads the published fields; a demonstration comes from the equation", async () => {
    const row = {
      ID: "chal-1",
      Body: "Ann had 8 pens",
      Question: "How many are left?",
      Equation: "( 8.0 - 2.0 )",
      Answer: "6.0",
    };
    write(
      "svamp/train.json",
      JSON.stringify([row, { ...row, ID: "chal-2", Body: "", Equation: "( 2.0 * ( 3.0 + 4.0 ) )", Answer: 14 }]),
    );
    const [first, second] = await all(await load("svamp", { path: "svamp", dev: 0 }), "train");
    expect(first).toMatchObject({ id: "chal-1", answer: "6", demonstrations: ["8 - 2 = 6\n#### 6"] });
    expect(questionOf(first)).toMatch(/^ann had 8 pens\. how many are left\?/);
    expect(second.demonstrations).toEqual(["(2 * (3 + 4)) = 14\n#### 14"]);
  });

  test("two records of one id are refused", async () => {
    const row = { item_id: "svamp_1", question: "?", answer_value: "6.0" };
    write("twice/train.json", JSON.stringify([row, row]));
    const task = await load("svamp", { path: "twice", dev: 0 });
    await expect(task.problems("train")).rejects.toThrow(/problems 0 and 1 have the same id "svamp_1"/);
  });

  test.skipIf(!existsSync(published("svamp")))("every published answer grades as itself", async () => {
    const task = await load("svamp", { path: published("svamp"), dev: 0 });
    const train = await all(task, "train");
    const test = await all(task, "test");
    expect([train.length, test.length]).toEqual([3076, 1000]);
    const items = train.map((problem) => ({ problem, response: problem.demonstrations?.[0] ?? "" }));
    expect(new Set(await rewards(task, items))).toEqual(new Set([1]));
    expect(items.filter(({ response }) => response.includes("Therefore, the answer is <"))).toEqual([]);
    const gold = test.map((problem) => ({ problem, response: `#### ${problem.answer}.0` }));
    expect(new Set(await rewards(task, gold))).toEqual(new Set([1]));
    const seen = new Set(train.map(questionOf));
    expect(test.filter((problem) => seen.has(questionOf(problem)))).toEqual([]);
  });

  test.skipIf(!existsSync(published("svamp")))("ReFT's targets state the answer as the file writes it", async () => {
    const task = await load("svamp", { path: published("svamp"), dev: 0, prompt: "reft" });
    const train = await all(task, "train");
    const trigger = "\nTherefore, the answer is: ";
    const [chains, answers] = [0, 1].map((part) =>
      train.map(({ demonstrations }) => demonstrations?.[0]?.split(trigger)[part] ?? ""),
    );
    expect(train.every(({ demonstrations }) => demonstrations?.[0]?.split(trigger).length === 2)).toBe(true);
    expect(chains.filter((chain) => /Therefore, the answer is <-?[\d.]+>\.$/.test(chain.trim()))).toHaveLength(3060);
    expect(answers.filter((answer) => !/^-?\d+\.0$/.test(answer))).toHaveLength(399);
    expect(train[0].demonstrations?.[0]).toMatch(/Therefore, the answer is <203>\.\nTherefore, the answer is: 203\.0$/);
    const items = train.map((problem) => ({ problem, response: problem.demonstrations?.[0] ?? "" }));
    expect(new Set(await rewards(task, items))).toEqual(new Set([1]));
  });

  test.skipIf(!existsSync(published("svamp")))("programs are refused as demonstrations", async () => {
    const task = await load("svamp", { path: join(published("svamp"), "svamp_python_sdp.json") });
    await expect(task.problems("train")).rejects.toThrow(
      /svamp_python_sdp\.json:2: the demonstrations are Python programs/,
    );
  });
});

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { createTask } from "./create.ts";
import { loadTask } from "./load.ts";
import type { Problem, TaskDefinition } from "./types.ts";

const folder = mkdtempSync(join(tmpdir(), "rifft-load-"));
afterAll(() => rmSync(folder, { recursive: true }));

const options = { baseDir: folder, seed: 1 };

function write(name: string, content: string): void {
  writeFileSync(join(folder, name), content);
}

const refused: [string, string | Record<string, unknown>, RegExp][] = [
  ["an unknown task", "gsm8", /^unknown task "gsm8" \(did you mean gsm8k\?\)$/],
  ["nothing like a task", "zzzzzzzz", /built-in tasks: gsm8k, svamp, wordproblems, tagged, arithmetic/],
  ["a table without a name", { path: "x" }, /`name` is missing: expected a built-in task/],
  [
    "an unknown option",
    { name: "wordproblems", hastey: 0.5 },
    /^task wordproblems: unknown key `hastey` \(did you mean `hasty`\?\)$/,
  ],
  ["an option out of range", { name: "wordproblems", hasty: 2 }, /^task wordproblems: `hasty`: .*found 2$/],
  ["an unknown prompt", { name: "svamp", prompt: "refd" }, /^task svamp: `prompt`: .*"chat".*"reft".*found "refd"$/],
  ["a file that is not there", "./none.ts", /none\.ts: no such task file$/],
  ["options for a task file", { name: "./none.ts", hasty: 1 }, /unknown key `hasty`/],
  ["JSON lines without a grader", "./none.jsonl", /`grader`.*expected a grader: number, math, choice or exact/],
  ["JSON lines that are not there", { name: "./none.jsonl", grader: "exact" }, /none\.jsonl: no such task file/],
];

describe("loadTask refuses", () => {
  test.each(refused)("%s", async (_, spec, message) => {
    await expect(loadTask(spec, options)).rejects.toThrow(
      expect.objectContaining({ name: "UserError", message: expect.stringMatching(message) }),
    );
  });
});

describe("a JSON-lines task", () => {
  const line = (record: object) => `${JSON.stringify(record)}\n`;

  test("dev may be a number of questions; equal ones stay together; the seed plays no part", async () => {
    const questions = Array.from({ length: 50 }, (_, i) => ({ question: `What is ${i >> 1} + 1?`, answer: "1" }));
    write("pairs.jsonl", questions.map(line).join(""));
    const split = async (dev: number, seed = 1) => {
      const task = await loadTask({ name: "./pairs.jsonl", grader: "number", dev }, { ...options, seed });
      const ids = async (name: "train" | "dev") => {
        const source = await task.problems(name);
        return Array.from({ length: source.size }, (_, i) => Number(source.at(i).id.slice(5)) - 1);
      };
      return { train: await ids("train"), dev: await ids("dev") };
    };
    const seven = await split(7);
    expect(seven.dev).toHaveLength(8);
    expect([...seven.train, ...seven.dev].sort((a, b) => a - b)).toEqual(questions.map((_, i) => i));
    for (const i of seven.dev) expect(seven.dev).toContain(i ^ 1);
    expect(await split(7, 2)).toEqual(seven);
    // A smaller one is part of a larger one.
    for (const i of (await split(2)).dev) expect(seven.dev).toContain(i);
    await expect(split(50)).rejects.toThrow("`dev` = 50 of 50 training questions leaves none for the split train");
    await expect(split(0.001)).rejects.toThrow("`dev` = 0.001 of 50 training questions leaves none for the split dev");
    await expect(split(1.5)).rejects.toThrow(
      "`dev`: expected a share up to 0.5, or a whole number of questions, found 1.5",
    );
    await expect(split(0)).rejects.toThrow(
      "task pairs has no split dev; it has train (published sets and data files make one of training questions with task.dev = 200)",
    );
  });

  test("number: fields by name, dev held out, gold in any notation", async () => {
    const records = Array.from({ length: 300 }, (_, i) =>
      line({ q: `What is ${i} + 1000?`, a: `${i + 1},000`, cot: `#### ${i + 1},000` }),
    );
    write("sums.jsonl", records.join(""));
    const fields = { question: "q", answer: "a", demonstration: "cot" };
    const task = await loadTask({ name: "./sums.jsonl", grader: "number", fields, test: "sums.jsonl" }, options);
    const [train, dev, test] = await Promise.all([task.problems("train"), task.problems("dev"), task.problems("test")]);
    expect(train.size + dev.size).toBe(300);
    expect(dev.size).toBeGreaterThan(10);
    expect(test.size).toBe(300);
    const problem = test.at(7);
    expect(problem).toMatchObject({ id: "line-8", answer: "8000", demonstrations: ["#### 8,000"] });
    const grades = await task.grade([
      { problem, response: "#### 8000" },
      { problem, response: "8,001" },
    ]);
    expect(grades.map(({ reward }) => reward)).toEqual([1, 0]);
  });

  test("exact: the marked text or the whole response", async () => {
    write("capitals.jsonl", line({ id: 7, question: "Capital of Peru?", answer: "Lima" }));
    const task = await loadTask({ name: "capitals.jsonl", grader: "exact", prompt: "text", dev: 0 }, options);
    const problem = (await task.problems("train")).at(0);
    expect(problem).toEqual({ id: "7", prompt: { text: "Capital of Peru?" }, answer: "Lima" });
    const responses = [" Lima\n", "I think\n#### Lima", "\\boxed{Lima}", "lima", "Lima is it"];
    const grades = await task.grade(responses.map((response) => ({ problem, response })));
    expect(grades.map(({ reward }) => reward)).toEqual([1, 1, 1, 0, 0]);
  });

  test.each([
    [{ question: "?" }, /bad\.jsonl:2: expected a text in the field answer, found the fields question/],
    [{ question: "?", answer: "four" }, /bad\.jsonl:2: expected the answer to be one number, found "four"/],
    [{ question: "?", answer: 4, demonstration: 4 }, /bad\.jsonl:2: expected the field demonstration to be a text/],
  ])("names file and line of %j", async (record, message) => {
    write("bad.jsonl", line({ question: "1 + 1?", answer: 2 }) + line(record));
    const task = await loadTask({ name: "bad.jsonl", grader: "number", dev: 0 }, options);
    await expect(task.problems("train")).rejects.toThrow(message);
  });

  test("an empty file, and ids that stand twice", async () => {
    write("empty.jsonl", "\n");
    const empty = await loadTask({ name: "empty.jsonl", grader: "number" }, options);
    await expect(empty.problems("train")).rejects.toThrow(/empty\.jsonl: the data file is empty/);
    write("twice.jsonl", line({ id: "a", question: "?", answer: 1 }).repeat(2));
    const twice = await loadTask({ name: "twice.jsonl", grader: "number", dev: 0 }, options);
    await expect(twice.problems("train")).rejects.toThrow(/problems 0 and 1 have the same id "a"/);
  });
});

describe("createTask", () => {
  const problem: Problem = { id: "a", prompt: { text: "?" } };
  const task = (parts: Partial<TaskDefinition>) =>
    createTask({ name: "t", splits: { train: [problem] }, reward: () => 1, ...parts });

  async function grade(reward: TaskDefinition["reward"], more: Partial<TaskDefinition> = {}) {
    return (await task({ reward, ...more }).grade([{ problem, response: "my response" }]))[0];
  }

  test("sums named parts with their weights", async () => {
    expect(await grade(() => 0.5)).toEqual({ reward: 0.5, parts: {} });
    const reward = async () => ({ correct: 1, format: 0.5, length: -1 });
    expect(await grade(reward, { weights: { format: 0.2, length: 0 } })).toEqual({
      reward: 1.1,
      parts: { correct: 1, format: 0.5, length: -1 },
    });
  });

  test("a failed grade names problem, response and reason, and costs only itself", async () => {
    const prefix = 'problem a, response "my response": ';
    const cases: [TaskDefinition["reward"], string, Partial<TaskDefinition>?][] = [
      [() => NaN, "the reward is NaN"],
      [() => ({ a: 1, b: Infinity }), "expected a number, the reward's part b is Infinity"],
      [() => ({}), "the reward has no parts"],
      [() => ({ formal: 1 }), "weights name the part format, the reward has formal", { weights: { format: 1 } }],
      [
        () => new Promise<number>(() => {}),
        "the reward passed its deadline of 0.05 s (the task's `deadline`)",
        { deadline: 0.05 },
      ],
    ];
    for (const [reward, reason, more] of cases) {
      expect(await grade(reward, more)).toEqual({ reward: 0, parts: {}, error: prefix + reason });
    }
    const thrown = await grade(() => {
      throw new RangeError("two\nlines");
    });
    expect(thrown.error).toMatch(
      /^problem a, response "my response": the reward threw RangeError: two lines \(.*load\.test\.ts:\d+:\d+\)$/,
    );
    const some = task({ reward: ({ id }) => (id === "a" ? NaN : 1) });
    const grades = await some.grade(["a", "b", "a"].map((id) => ({ problem: { ...problem, id }, response: "" })));
    expect(grades.map(({ error }) => error === undefined)).toEqual([false, true, false]);
  });

  test("splits that are missing, empty or malformed", async () => {
    await expect(task({}).problems("dev")).rejects.toThrow("task t has no split dev; it has train");
    await expect(task({ splits: { train: [] } }).problems("train")).rejects.toThrow("task t, split train is empty");
    await expect(task({ splits: { train: async () => [problem, problem] } }).problems("train")).rejects.toThrow(
      /same id "a"/,
    );
    const mistyped = { ...problem, demonstation: ["x"] };
    await expect(task({ splits: { train: [problem, mistyped] } }).problems("train")).rejects.toThrow(
      "task t, split train, problem 1: unknown key `demonstation` (did you mean `demonstrations`?)",
    );
  });

  test("a source is asked for what is wanted, and checked", async () => {
    const at = (index: number): Problem => ({ id: String(index), prompt: { text: index === 9 ? "" : "?" } });
    const source = await task({ splits: { train: async () => ({ size: Infinity, at }) } }).problems("train");
    expect(source.at(1e9).id).toBe("1000000000");
    expect(() => source.at(9)).toThrow(/split train, problem 9: `prompt/);
    expect(() => source.at(-1)).toThrow(RangeError);
  });
});

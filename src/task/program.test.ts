import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { gradeSample, regradeSample } from "../eval/regrade.ts";
import { validateGolds } from "../eval/validate.ts";
import { createTask } from "./create.ts";
import { gradeProgram } from "./grading.ts";
import { loadTask } from "./load.ts";
import { checkPrograms, programBody, programHead, programResult, programText } from "./program.ts";
import type { Problem, Split, Task } from "./types.ts";

const folder = mkdtempSync(join(tmpdir(), "rifft-programs-"));
const tasks: Task[] = [];
afterAll(async () => {
  await Promise.all(tasks.map((task) => task.close()));
  rmSync(folder, { recursive: true });
});

async function load(name: string, options: Record<string, unknown> = {}): Promise<Task> {
  const table = { name, format: "program", dev: 0, programs: { workers: 1 }, ...options };
  const task = await loadTask(table, { baseDir: folder, seed: 1 });
  tasks.push(task);
  return task;
}

async function all(task: Task, split: Split = "train"): Promise<Problem[]> {
  const source = await task.problems(split);
  return Array.from({ length: source.size }, (_, i) => source.at(i));
}

function write(path: string, rows: object[]): void {
  mkdirSync(join(folder, path, ".."), { recursive: true });
  writeFileSync(join(folder, path), JSON.stringify(rows));
}

const gold = (id: number, question: string, body: string, answer: string, docstring = question) => ({
  item_id: `svamp_${id}`,
  question,
  answer_value: answer,
  answer_cot: `def solution():\n    """${docstring}"""\n${body}\n    return result`,
});

describe("the program of a response", () => {
  test.each([
    ["runs on", "def solution():\n    return 1\n\nQuestion: more", "def solution():\n    return 1"],
    ["blanks count as an empty line", "def solution():\n    return 1\n   \nx", "def solution():\n    return 1"],
    ["text before it", "Sure:\ndef solution():\n    return 1", "Sure:\ndef solution():\n    return 1"],
    ["text and a blank line before it", "Sure:\n\ndef solution():\n    return 1", "Sure:"],
    ["blank lines around it", "\n\ndef solution():\n    return 1\n\n", "def solution():\n    return 1"],
    ["sys.exit", "def solution():\n    sys.exit(1); sys.exit", "def solution():\n    print(1); print"],
    ["line ends of another system", "def solution():\r\n    return 1\r\n\r\nx", "def solution():\n    return 1"],
  ])("as ReFT takes it: %s", (_, response, expected) => {
    expect(programText(response, "reft")).toBe(expected);
  });

  test.each([
    [
      "in a fence",
      "Here:\n```python\ndef solution():\n\n    return 1\n```\nDone.",
      "def solution():\n\n    return 1\n",
    ],
    ["in the last fence", "```\nx\n```\n\n```py\ny\n```", "y\n"],
    ["in a fence that is cut off", "```python\ndef solution():\n    return 1", "def solution():\n    return 1"],
    ["without a fence", "def solution():\n\n    return 1", "def solution():\n\n    return 1"],
  ])("plain: %s", (_, response, expected) => {
    expect(programText(response, "plain")).toBe(expected);
  });

  test("the prompt's beginning and the rest make the program", () => {
    const question = 'He said "hi" \\ then """ left.\n\nHow many ?"';
    const head = programHead(question);
    expect(head).toBe('def solution():\n    """He said "hi" \\\\ then \\"\\"\\" left.\nHow many ?\\""""\n');
    expect(programBody('def solution():\n    """a\n    b"""\n    x = 1\n    return x')).toBe("    x = 1\n    return x");
    expect(programBody("def solution():\n    return 1")).toBe("    return 1");
  });

  test.each([
    [{ number: 14, text: "14" }, "14"],
    [{ number: 14, text: "14.0" }, "14"],
    [{ number: 1, text: "True" }, "1"],
    [{ number: 1e22, text: "1e+22" }, "1e+22"],
    [{ number: NaN, text: "nan" }, "nan"],
    [{ number: -Infinity, text: "-inf" }, "-inf"],
    [{ text: "None" }, undefined],
    [{ text: "1,234" }, undefined],
    [{}, undefined],
    [{ failure: "x" }, undefined],
  ])("a number of %j", (outcome, answer) => {
    expect(programResult(outcome, "number").answer).toBe(answer);
  });

  test("a text, and why there is no answer", () => {
    expect(programResult({ text: "a" }, "text")).toEqual({ answer: "a" });
    expect(programResult({ text: "None" }, "number").failure).toBe("its result is no number: None");
    expect(programResult({}, "number").failure).toMatch(/cannot be printed/);
    const { strict } = gradeProgram({ id: "1", answer: "1" }, { failure: "why" }, { strict: ["whole"] });
    expect(strict).toMatchObject({ equal: false, rule: "no answer", reason: "the program gives no answer: why" });
  });
});

describe("tasks of programs", () => {
  write("svamp/svamp_python_sdp.json", [
    gold(0, "29 and 7 ?", "    result = 29 * 7", "203.0"),
    gold(1, "Bob ’ s 2 ?", "    result = 4 / 3 + 0.004", "1.3333", "Bob’s 2 ?"),
  ]);
  write("svamp/svamp_test_set.json", [{ item_id: "svamp_9", question: "1 + 1 ?", answer_value: "2.0" }]);

  test("ReFT's prompt, plain and with its beginning; golds are right", async () => {
    const plain = await load("svamp", { path: "svamp", prompt: "reft" });
    const [first] = await all(plain);
    expect(first.prompt).toEqual({ text: "Question:\n29 and 7 ?\nAnswer reasoning:\n" });
    expect(first.demonstrations).toEqual([gold(0, "29 and 7 ?", "    result = 29 * 7", "").answer_cot]);
    expect(plain).toMatchObject({ prompt: "reft, program", programs: true, grading: { mode: "reft-svamp" } });
    expect(await validateGolds(plain, await all(plain))).toMatchObject({ problems: 2, unreadable: [] });

    const prefilled = await load("svamp", { path: "svamp", prompt: "reft", prefill: true });
    const problems = await all(prefilled);
    expect(problems[1].prompt.prefill).toBe('def solution():\n    """Bob ’ s 2 ?"""\n');
    expect(problems[1].demonstrations).toEqual(["    result = 4 / 3 + 0.004\n    return result"]);
    await checkPrograms(prefilled, problems);
  });

  test("responses are run together; a failure costs its own sample; verdicts say what came out", async () => {
    const task = await load("svamp", { path: "svamp" });
    const [problem] = await all(task, "test");
    expect(problem.prompt).toEqual({
      messages: [
        { role: "user", content: expect.stringMatching(/^1 \+ 1 \?\n\nWrite a Python function solution\(\)/) },
      ],
    });
    const responses = [
      "```python\ndef solution():\n    return 1 + 1\n```",
      "def solution():\n    while True: pass",
      "def solution():\n    return '2.009'",
      "def solution():\n    return 2.02",
      "def solution():\n    import os\n    os._exit(0)",
      "2",
    ];
    const grades = await task.grade(responses.map((response) => ({ problem, response })));
    expect(grades.map(({ reward }) => reward)).toEqual([1, 0, 1, 0, 0, 0]);
    expect(grades.map(({ program }) => program?.answer)).toEqual([
      "2",
      undefined,
      "2.009",
      "2.02",
      undefined,
      undefined,
    ]);
    expect(grades[1].program?.failure).toBe("the program takes longer than 2 s");

    const graded = await gradeSample(task, problem, responses[2]);
    expect(graded).toMatchObject({
      solved: true,
      program: { answer: "2.009" },
      strict: { answer: "2.009", verdict: "equal" },
    });
    const sample = {
      problem: problem.id,
      sample: 0,
      gold: "2",
      text: responses[2],
      tokens: [],
      logprobs: [],
      stop: "eos" as const,
      ...graded,
    };
    expect(regradeSample(sample, { mode: "math", strict: ["hashes"] })).toMatchObject({ solved: false, reward: 0 });
    expect(regradeSample(sample, { mode: "reft-svamp", strict: ["hashes"] })).toMatchObject({
      solved: true,
      reward: 1,
    });
  });

  test("MathQA with options: the text of the result, in lower case", async () => {
    const row = { item_id: "mathqa_1", question: "how many ?\na ) 1 , b ) 2", answer_value: "b" };
    write("mathqa/mathqa_python_sdp.json", [{ ...row, answer_cot: "def solution():\n    return 'B'" }]);
    const task = await load("mathqa", { path: "mathqa", prompt: "reft", prefill: true });
    const [problem] = await all(task);
    expect(problem.prompt.prefill).toBe('def solution():\n    """how many ?\na ) 1 , b ) 2"""\n');
    const grades = await task.grade(
      ["    return 'B'", "    return '\"b\"'", "    return 'a'", "    return 1 / 0"].map((response) => ({
        problem,
        response,
      })),
    );
    expect(grades.map(({ reward, answered }) => [reward, answered])).toEqual([
      [1, true],
      [1, true],
      [0, true],
      [0, true],
    ]);
    const own = await load("mathqa", { path: "mathqa", prompt: "reft", prefill: true, mode: "math" });
    const [failed] = await own.grade([{ problem, response: "    return 1 / 0" }]);
    expect(failed).toMatchObject({ reward: 0, answered: false });
  });

  test("a gold program that does not give its gold is named, and all are listed", async () => {
    write("bad/svamp_python_sdp.json", [
      gold(0, "1 ?", "    result = 1", "1.0"),
      gold(1, "2 ?", "    result = 3", "2.0"),
      gold(2, "3 ?", "    result = x", "3.0"),
    ]);
    const task = await load("svamp", { path: "bad", prompt: "reft" });
    const problems = await all(task);
    await expect(checkPrograms(task, problems)).rejects.toThrow(
      /^task svamp, problem svamp_1: the gold program gives 3, the gold is 2 \(and 1 more\): .*--validate --split train/,
    );
    expect((await validateGolds(task, problems)).unreadable).toMatchObject([
      { problem: "svamp_1", rule: "program" },
      { problem: "svamp_2", reason: expect.stringMatching(/NameError: name 'x' is not defined \(line 3\)/) },
    ]);
  });

  test("text and programs are not taken for each other", async () => {
    write("text/svamp_nl.json", [{ item_id: "svamp_0", question: "?", answer_value: "1.0", answer_cot: "So 1." }]);
    await expect(load("svamp", { path: "text/svamp_nl.json" }).then(all)).rejects.toThrow(
      /chains of thought; .*_python_sdp/,
    );
    await expect(
      load("svamp", { path: "svamp/svamp_python_sdp.json", format: "text", programs: undefined }).then(all),
    ).rejects.toThrow(/Python programs; set `format = "program"`/);
    await expect(load("svamp", { path: "svamp", format: "text" })).rejects.toThrow(/need `format = "program"`/);
    await expect(load("gsm8k", { path: "svamp", programs: { second: 1 } })).rejects.toThrow(/did you mean|second/);
  });

  test("a task of one's own", async () => {
    const definition = {
      name: "own",
      splits: { train: [{ id: "1", prompt: { text: "?" }, answer: "5" }] },
      programs: { answer: "number" as const, style: "plain" as const, workers: 1 },
    };
    const task = createTask({ ...definition, grading: { mode: "math", strict: ["whole"] } });
    tasks.push(task);
    const [problem] = await all(task);
    expect(await task.grade([{ problem, response: "def solution(): return 5.0" }])).toEqual([
      { reward: 1, parts: {}, answered: true, program: { answer: "5" } },
    ]);
    expect(() => createTask(definition)).toThrow(/`programs` needs a `grading`/);
  });

  const shared = resolve(process.env.RIFFT_SHARED ?? "../shared", "data", "svamp");
  test.skipIf(!existsSync(shared))("SVAMP's programs as ReFT's files have them", async () => {
    const task = await load("svamp", { path: shared, prompt: "reft", prefill: true });
    const problems = await all(task);
    expect(problems).toHaveLength(3043);
    const demonstrations = problems.map((problem) => problem.demonstrations?.[0] ?? "");
    expect(demonstrations.every((text) => text.endsWith("    return result") && !text.includes("\n\n"))).toBe(true);
    expect(demonstrations.some((text) => /import|"""/.test(text))).toBe(false);
    const asWritten = (await all(await load("svamp", { path: shared, prompt: "reft" }))).map(
      ({ demonstrations }) => demonstrations?.[0] ?? "",
    );
    // The others differ from their question in blanks before punctuation.
    expect(problems.filter(({ prompt }, i) => asWritten[i].startsWith(prompt.prefill ?? "-"))).toHaveLength(3006);
    await checkPrograms(task, problems.slice(0, 300));
  });
});

import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { gradeGold, gradeResponse, stateAnswer } from "./grading.ts";
import { loadTask } from "./load.ts";
import type { Problem, Split, Task } from "./types.ts";

const shared = resolve(process.env.RIFFT_SHARED ?? "../shared", "data");
const folder = mkdtempSync(join(tmpdir(), "rifft-benchmarks-"));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, content: string): string {
  const path = join(folder, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, content);
  return path;
}

const lines = (...rows: object[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

const load = (name: string, options: Record<string, unknown> = {}): Promise<Task> =>
  loadTask({ name, ...options }, { baseDir: folder, seed: 1 });

async function all(task: Task, split: Split = "test"): Promise<Problem[]> {
  const source = await task.problems(split);
  return Array.from({ length: source.size }, (_, i) => source.at(i));
}

const content = ({ prompt }: Problem): string =>
  "text" in prompt ? prompt.text : (prompt.messages.at(-1)?.content ?? "");

function verdicts(task: Task, problem: Problem, response: string): { strict: boolean; flexible: boolean } {
  const { strict, flexible } = gradeResponse(problem, response, task.grading ?? { strict: [] });
  return { strict: strict.equal, flexible: flexible.equal };
}

describe("MathQA", () => {
  const row = (options: string, answer = "c") => ({
    item_id: "mathqa_7",
    question: `how many ?\n${options}`,
    answer_value: answer,
  });

  test.each([
    ["a ) 1 , 5 , b ) 2 , c ) 3 km", ["1 , 5", "2", "3 km"]],
    ["[ 'a ) 1' , 'b ) 15 / 8 ohms', 'c ) 3']", ["1", "15 / 8 ohms", "3"]],
    ["a ) a ) 1 , b ) b ) 2 , c ) c ) none of these", ["1", "2", "none of these"]],
  ])("options as published: %s", async (options, texts) => {
    write("mathqa/mathqa_test_set.json", JSON.stringify([row(options)]));
    const task = await load("mathqa", { path: "mathqa" });
    const [problem] = await all(task);
    expect(problem).toMatchObject({ id: "mathqa_7", answer: "C", options: texts, question: "how many ?" });
    expect(content(problem)).toMatch(/^how many \?\n\nA\. .*\nB\. .*\nC\. .*\n\nReason/);
    expect(verdicts(task, problem, "3 it is. The answer is (C).")).toEqual({ strict: true, flexible: true });
    expect(verdicts(task, problem, "\\boxed{C}")).toEqual({ strict: false, flexible: true });
    expect(verdicts(task, problem, "The answer is (A).")).toEqual({ strict: false, flexible: false });
    expect(verdicts(task, problem, `The answer is ${texts[2]}.`).strict).toBe(true);
  });

  test("the published schema, and ReFT's prompt with the question as it was", async () => {
    const published = {
      Problem: "how many ?",
      Rationale: '"explanation"',
      options: "a ) 1 , b ) 2",
      correct: "b",
      category: "gain",
    };
    write("published/test.json", JSON.stringify([published]));
    const [problem] = await all(await load("mathqa", { path: "published" }));
    expect(problem).toMatchObject({
      answer: "B",
      tags: { category: "gain" },
      demonstrations: ["explanation\nThe answer is (B)."],
    });
    const reft = await load("mathqa", { path: "published", prompt: "reft" });
    const [asked] = await all(reft);
    expect(content(asked)).toBe("Question:\nhow many ?\na ) 1 , b ) 2\nAnswer reasoning:\n");
    expect(reft.grading?.strict).toEqual(["reft"]);
    expect(verdicts(reft, asked, "\nTherefore, the answer is: b").strict).toBe(true);
  });

  test.each([
    [row("1 or 2"), /mathqa_test_set\.json:1: expected options such as/],
    [row("a ) 1 , b ) 2", "e"), /the correct option "e" is none of A, B/],
  ])("a bad row is named", async (bad, message) => {
    write("bad/mathqa_test_set.json", JSON.stringify([bad]));
    await expect((await load("mathqa", { path: "bad" })).problems("test")).rejects.toThrow(message);
  });
});

describe("MATH, AIME, AMC, OlympiadBench", () => {
  test("MATH: levels and subjects, the solution is the demonstration", async () => {
    const row = {
      problem: "What is $1+1$?",
      solution: "It is $\\boxed{2}$.",
      answer: "2",
      subject: "Algebra",
      level: 3,
    };
    write(
      "math/train.jsonl",
      lines(
        { ...row, unique_id: "train/1" },
        { ...row, problem: "?", level: "Level 5", type: "Geometry", subject: undefined },
      ),
    );
    write("math/test.jsonl", lines(row));
    const train = await all(await load("math", { path: "math", dev: 0 }), "train");
    expect(train[0]).toMatchObject({
      id: "train/1",
      tags: { level: "3", subject: "Algebra" },
      demonstrations: [row.solution],
    });
    expect(train[1].tags).toEqual({ level: "5", subject: "Geometry" });
    await expect((await load("math500", { path: "math" })).problems("train")).rejects.toThrow(
      /math500 has no split train; it has test/,
    );
  });

  test("AIME: golds keep their zeros, the contest is a tag", async () => {
    const url = "https://artofproblemsolving.com/wiki/index.php/2024_AIME_II_Problems/Problem_4";
    write("aime/train.jsonl", lines({ id: 63, problem: "?", answer: "033", url }));
    const task = await load("aime2024", { path: "aime" });
    const [problem] = await all(task);
    expect(problem).toMatchObject({ id: "63", answer: "033", tags: { contest: "2024 AIME II" } });
    expect(verdicts(task, problem, "\\boxed{33}").strict).toBe(true);
    expect(verdicts(task, problem, "\\boxed{330}").strict).toBe(false);
  });

  test("AMC: golds are floats", async () => {
    write(
      "amc/train.json",
      `[{"id": 0, "problem": "?", "answer": 142.0}, {"id": 1, "problem": "!", "answer": "27.0"}]`,
    );
    const task = await load("amc", { path: "amc" });
    const [first, second] = await all(task);
    expect(verdicts(task, first, "\\boxed{142}").strict).toBe(true);
    expect(verdicts(task, second, "\\boxed{27}").strict).toBe(true);
    expect(verdicts(task, second, "\\boxed{28}").strict).toBe(false);
  });

  test("OlympiadBench: several answers, units, tolerances; proofs are refused", async () => {
    const row = { id: 1, question: "?", context: "Let $x$ be.", subfield: "Algebra", error: null };
    const file = write(
      "olympiad/OE_TO_maths_en_COMP.json",
      JSON.stringify([
        { ...row, final_answer: ["$2$", "$-3$"], unit: null },
        { ...row, id: 2, final_answer: ["$5$"], unit: "cm" },
        { ...row, id: 3, final_answer: ["0.32"], error: "1e-2" },
      ]),
    );
    const task = await load("olympiadbench", { path: "olympiad" });
    const [several, unit, near] = await all(task);
    expect(content(several)).toMatch(/^Let \$x\$ be\.\n\n\?\n\n/);
    expect(several.tags).toEqual({ subfield: "Algebra" });
    expect(verdicts(task, several, "\\boxed{-3, 2}").strict).toBe(true);
    expect(verdicts(task, several, "\\boxed{2}").strict).toBe(false);
    for (const [answer, right] of [
      ["5", true],
      ["5\\text{ cm}", true],
      ["5\\text{ kg}", false],
    ] as const) {
      expect(verdicts(task, unit, `\\boxed{${answer}}`).strict).toBe(right);
    }
    expect([verdicts(task, near, "\\boxed{0.326}").strict, verdicts(task, near, "\\boxed{0.34}").strict]).toEqual([
      true,
      false,
    ]);
    writeFileSync(file, JSON.stringify([{ ...row, final_answer: null }]));
    await expect((await load("olympiadbench", { path: "olympiad" })).problems("test")).rejects.toThrow(
      /:1: no final answer \(a proof\?\)/,
    );
  });
});

describe("multiple choice", () => {
  test("MMLU-Pro: up to ten options, those that only fill up are left out", async () => {
    const options = ["Lima", "Quito", "Cuzco", "N/A"];
    const row = {
      question_id: 70,
      question: "Capital of Peru?",
      options,
      answer: "A",
      answer_index: 0,
      category: "geography",
    };
    write("mmlu/test.jsonl", lines(row));
    const task = await load("mmlu-pro", { path: "mmlu" });
    const [problem] = await all(task);
    expect(problem).toMatchObject({
      id: "mmlu-pro-70",
      answer: "A",
      options: options.slice(0, 3),
      tags: { category: "geography" },
    });
    expect(verdicts(task, problem, "The answer is (A)")).toEqual({ strict: true, flexible: true });
    expect(verdicts(task, problem, "I take B.").flexible).toBe(false);
  });

  test("GPQA: the options are shuffled by the question alone", async () => {
    const head =
      "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,High-level domain,Record ID\n";
    const rows = Array.from(
      { length: 40 },
      (_, i) => `"Question ${i}, or\nnot?",right,w1,w2,"w ""3""",Physics,rec${i}\n`,
    );
    write("gpqa/gpqa_diamond.csv", head + rows.join(""));
    const task = await load("gpqa", { path: "gpqa" });
    const problems = await all(task);
    expect(problems).toHaveLength(40);
    for (const { options = [], answer = "" } of problems) {
      expect(options["ABCD".indexOf(answer)]).toBe("right");
      expect([...options].sort()).toEqual(["right", 'w "3"', "w1", "w2"].sort());
    }
    expect(new Set(problems.map(({ answer }) => answer)).size).toBe(4);
    write("again/gpqa_diamond.csv", head + [...rows].reverse().join(""));
    const again = await all(await load("gpqa", { path: "again" }));
    expect(new Map(again.map(({ id, answer }) => [id, answer]))).toEqual(
      new Map(problems.map(({ id, answer }) => [id, answer])),
    );
  });

  test("CommonsenseQA in both schemas; the validation file is the test split", async () => {
    const choices = { label: ["A", "B"], text: ["bank", "library"] };
    write(
      "csqa/validation.jsonl",
      lines({ id: "x", question: "Where are books?", question_concept: "book", choices, answerKey: "B" }),
    );
    const own = choices.label.map((label, i) => ({ label, text: choices.text[i] }));
    write("csqa/train.jsonl", lines({ id: "y", question: { stem: "Where is money?", choices: own }, answerKey: "A" }));
    const task = await load("commonsenseqa", { path: "csqa", dev: 0 });
    expect((await all(task))[0]).toMatchObject({ id: "x", answer: "B", options: choices.text });
    expect((await all(task, "train"))[0]).toMatchObject({ id: "y", answer: "A", question: "Where is money?" });
    const hidden = { id: "x", question: "?", choices, answerKey: "" };
    const path = write("csqa-test.jsonl", lines(hidden));
    await expect((await load("commonsenseqa", { path })).problems("test")).rejects.toThrow(/take the validation file/);
  });
});

describe("a data file", () => {
  const rows = [{ q: "1+1?", a: ["2", "3"], level: 4, cat: "x" }];

  test("several answers, tags, and a test file by its name", async () => {
    write("my-test.jsonl", lines(...rows));
    const fields = { question: "q", answer: "a", tags: ["level", "cat"] };
    const task = await load("./my-test.jsonl", { grader: "math", fields });
    const [problem] = await all(task);
    expect(problem).toMatchObject({ answer: "2, 3", tags: { level: "4", cat: "x" } });
    expect(verdicts(task, problem, "\\boxed{3, 2}").strict).toBe(true);
    await expect(task.problems("train")).rejects.toThrow(/has no split train; it has test/);
  });

  test.each(["B", "b", "blue", 1])("choice: the gold %s is a letter, an option's text or its index", async (answer) => {
    write("choice-test.json", JSON.stringify([{ question: "Sky?", answer, choices: ["red", "blue"] }]));
    const [problem] = await all(await load("./choice-test.json", { grader: "choice", fields: { options: "choices" } }));
    expect(problem).toMatchObject({ answer: "B", options: ["red", "blue"] });
  });

  test("choice: a gold that is no option", async () => {
    write("choice-test.json", JSON.stringify([{ question: "Sky?", answer: "green", options: ["red", "blue"] }]));
    await expect((await load("./choice-test.json", { grader: "choice" })).problems("test")).rejects.toThrow(
      /choice-test\.json:1: the field answer is "green"; expected a letter \(A, B\)/,
    );
  });

  test("mode and strategies of one's own; a slip names the nearest", async () => {
    const task = await load("./my-test.jsonl", {
      grader: "math",
      strict: ["tag", "boxed"],
      fields: { question: "q", answer: "a" },
    });
    expect(task.grading).toMatchObject({ strict: ["tag", "boxed"], flexible: ["auto"] });
    await expect(load("./my-test.jsonl", { grader: "math", strict: "boxd" })).rejects.toThrow(/`strict`/);
  });
});

test("a published grader by name decides both verdicts in its own way", async () => {
  write("modes-test.jsonl", lines({ question: "?", answer: "1,000" }));
  const judged = async (mode: string, response: string) => {
    const task = await load("./modes-test.jsonl", { grader: "math", mode });
    const [problem] = await all(task);
    const { strict, flexible } = gradeResponse(problem, response, task.grading ?? { strict: [] });
    expect(flexible).toEqual(strict);
    return { equal: strict.equal, rule: strict.rule, answer: strict.extracted?.text };
  };
  const reft = "so\nTherefore, the answer is: 1000.01";
  expect(await judged("reft-gsm8k", reft)).toEqual({ equal: true, rule: "reft-gsm8k", answer: "1000.01" });
  expect(await judged("reference", "\\boxed{1000}")).toMatchObject({ equal: false, rule: "reference" });
  expect(await judged("motif-math", "\\boxed{1,000}")).toMatchObject({ equal: true, rule: "motif-math" });
  await expect(load("./modes-test.jsonl", { grader: "math", mode: "refrence" })).rejects.toThrow(/`mode`/);
});

describe("worked examples", () => {
  const examples = [
    { question: "1+1?", response: "1+1=2\n#### 2" },
    { question: "2+2?", response: "2+2=4\n#### 4" },
  ];

  test("stand before the question, as turns or as text", async () => {
    write("examples.jsonl", lines(...examples));
    write("gsm/test.jsonl", lines({ question: "3+3?", answer: "#### 6" }));
    const chat = await load("gsm8k", { path: "gsm", examples: "examples.jsonl" });
    const [{ prompt }] = await all(chat);
    expect("messages" in prompt && prompt.messages.map(({ role }) => role)).toEqual([
      "user",
      "assistant",
      "user",
      "assistant",
      "user",
    ]);
    expect(chat.prompt).toBe("chat, 2 shots from examples.jsonl");
    const text = await load("gsm8k", { path: "gsm", examples: "examples.jsonl", shots: 1, prompt: "completion" });
    const [asked] = await all(text);
    expect(content(asked)).toMatch(
      /^Reason .*\n\nQuestion: 1\+1\?\nAnswer: 1\+1=2\n#### 2\n\nQuestion: 3\+3\?\nAnswer:$/,
    );
    expect([text.stop, text.prompt]).toEqual([["\nQuestion:"], "completion, 1 shots from examples.jsonl"]);
  });

  test.each([
    [{ shots: 3 }, lines(...examples), /expected 3 examples .* found 2/],
    [
      {},
      lines({ question: "?", response: "It is 2." }),
      /:1: the response does not state its answer as the prompt asks \(hashes\): expected "#### \.\.\."/,
    ],
    [
      {},
      lines({ question: "?", answer: "2" }),
      /:1: expected the texts question and response, found the fields question, answer/,
    ],
  ])("mistakes are named: %j", async (options, text, message) => {
    write("bad-examples.jsonl", text);
    await expect(load("gsm8k", { path: "gsm", examples: "bad-examples.jsonl", ...options })).rejects.toThrow(message);
  });
});

describe("every published gold grades equal to itself, in the prompt's format", () => {
  test.skipIf(!existsSync(shared)).each([
    ["gsm8k", 1319, 0],
    ["svamp", 1000, 0],
    ["mathqa", 1605, 0],
    ["mathqa-numeric", 1605, 0],
    ["math500", 500, 5],
    ["aime2024", 30, 0],
  ])("%s: %i golds, %i of them plain text", async (name, size, asText) => {
    const path = join(shared, name.replace("-numeric", ""));
    const task = await load(name, { path });
    const problems = await all(task);
    expect(problems).toHaveLength(size);
    const { grading = { strict: [] } } = task;
    const grades = problems.map((problem) => gradeGold(problem, grading));
    expect(grades.filter(({ equal }) => !equal)).toEqual([]);
    expect(grades.filter(({ rule }) => rule === "text")).toHaveLength(asText);
    // The flexible verdict finds what is stated in the prompt's format, too.
    const stated = problems.map((problem) =>
      verdicts(task, problem, stateAnswer(grading.strict[0], problem.answer ?? "")),
    );
    expect(stated.filter(({ flexible }) => !flexible)).toEqual([]);
  });

  test.skipIf(!existsSync(shared))("the box of each MATH-500 solution is right", async () => {
    const task = await load("math500", { path: join(shared, "math500") });
    const problems = await all(task);
    const wrong = problems.filter((problem) => !verdicts(task, problem, problem.demonstrations?.[0] ?? "").strict);
    expect(wrong.map(({ id }) => id)).toEqual([]);
  });
});

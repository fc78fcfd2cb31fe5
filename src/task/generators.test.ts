import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { tinyFiles } from "../model/tiny.ts";
import { loadTask } from "./load.ts";
import { encodePrompt, encodeResponse } from "./prompt.ts";
import type { Problem, ProblemSource, Split, Task } from "./types.ts";
import { wordProblemVocabulary } from "./wordproblems.ts";

function load(name: string, options: Record<string, unknown> = {}, seed = 1): Promise<Task> {
  return loadTask({ name, ...options }, { baseDir: ".", seed });
}

function first(source: ProblemSource, count: number): Problem[] {
  return Array.from({ length: Math.min(count, source.size) }, (_, i) => source.at(i));
}

async function take(task: Task, split: Split, count = Infinity): Promise<Problem[]> {
  return first(await task.problems(split), count);
}

const textOf = (problem: Problem) => String(problem.data?.text);

/** Does what a problem's sentences say, from its text alone. */
function solve(text: string): number {
  const [opening, ...events] = text.split(/(?<=[.?]) /);
  const boxes = /has (\d+) \w+ with (\d+) \w+ in each\.$/.exec(opening);
  let value = boxes ? Number(boxes[1]) * Number(boxes[2]) : Number(/\d+/.exec(opening)?.[0]);
  for (const event of events.slice(0, -1)) {
    const n = Number(/\d+/.exec(event)?.[0]);
    if (/times as many/.test(event)) value *= n;
    else if (/equally/.test(event)) value /= n;
    else if (/loses|sells|gives|fewer/.test(event)) value -= n;
    else if (/finds|buys|gets|more than/.test(event)) value += n;
    else throw new Error(`unknown event: ${event}`);
  }
  return value;
}

describe("wordproblems", () => {
  test("the answer is what the text says; values keep to the range", async () => {
    const train = await (await load("wordproblems")).problems("train");
    expect(train.size).toBe(Infinity);
    fc.assert(
      fc.property(fc.nat(1e9), (index) => {
        const { answer, data, demonstrations, prompt } = train.at(index);
        expect(String(solve(textOf({ id: "", prompt, data })))).toBe(answer);
        const numbers = (demonstrations?.[0].match(/\d+/g) ?? []).map(Number);
        expect(numbers.every((n) => n >= 1 && n <= 60)).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });

  test("demonstrations in full grade as correct, hasty ones as wrong, at the rate asked for", async () => {
    const task = await load("wordproblems", { demonstrations: 2000, hasty: 0.6 });
    const train = await take(task, "train");
    expect(new Set(train.map(textOf)).size).toBe(2000);
    const grades = await task.grade(train.map((problem) => ({ problem, response: problem.demonstrations?.[0] ?? "" })));
    for (const [i, { data }] of train.entries())
      expect(grades[i]).toEqual({ answered: true, reward: data?.hasty ? 0 : 1, parts: {} });
    const long = train.filter(({ data }) => Number(data?.steps) > 1);
    const hasty = train.filter(({ data }) => data?.hasty).length / long.length;
    expect(Math.abs(hasty - 0.6)).toBeLessThan(0.05);
    for (const { demonstrations, data } of train) {
      expect(demonstrations?.[0].split("\n").length).toBe(Number(data?.steps) + (data?.hasty ? 0 : 1));
    }
  });

  test("hasty may differ by the number of steps; the problems are the same", async () => {
    const train = await take(await load("wordproblems", { demonstrations: 1000, hasty: [0.3, 1] }), "train");
    const share = (steps: number) => {
      const own = train.filter(({ data }) => Number(data?.steps) === steps);
      return own.filter(({ data }) => data?.hasty === true).length / own.length;
    };
    expect(share(1)).toBe(0);
    expect(Math.abs(share(2) - 0.3)).toBeLessThan(0.1);
    expect(share(3)).toBe(1);
    const plain = await take(await load("wordproblems", { demonstrations: 1000 }), "train");
    expect(train.map(textOf)).toEqual(plain.map(textOf));
  });

  test("every line of a demonstration is true", async () => {
    for (const { demonstrations } of await take(await load("wordproblems"), "train", 500)) {
      for (const [, a, operator, b, c] of demonstrations?.[0].matchAll(/: (\d+) ([-+*/]) (\d+) = (\d+)\./g) ?? []) {
        const [x, y] = [Number(a), Number(b)];
        expect({ "+": x + y, "-": x - y, "*": x * y, "/": x / y }[operator]).toBe(Number(c));
      }
    }
  });

  test("no text is in two splits; held-out problems are the same for every seed and not demonstrated", async () => {
    const task = await load("wordproblems", { demonstrations: 4000 });
    const other = await load("wordproblems", {}, 2);
    const [train, dev, test] = [await take(task, "train"), await take(task, "dev"), await take(task, "test")];
    const elsewhere = new Set([...train, ...(await take(other, "train", 4000))].map(textOf));
    expect([dev.length, test.length]).toEqual([1000, 1000]);
    expect(new Set([...dev, ...test].map(textOf)).size).toBe(2000);
    expect([...dev, ...test].filter((problem) => elsewhere.has(textOf(problem)))).toEqual([]);
    expect(await take(other, "test")).toEqual(test);
    expect(dev.concat(test).every(({ demonstrations }) => demonstrations === undefined)).toBe(true);
  });

  test("a seed repeats, another differs; the task's own seed goes before the run's", async () => {
    const texts = async (options: object, seed: number) =>
      (await take(await load("wordproblems", { ...options }, seed), "train", 20)).map(textOf);
    expect(await texts({}, 1)).toEqual(await texts({}, 1));
    expect(await texts({}, 1)).not.toEqual(await texts({}, 2));
    expect(await texts({ seed: 2 }, 1)).toEqual(await texts({}, 2));
  });

  test("levels are steps", async () => {
    const problems = await take(await load("wordproblems", { levels: [2], hasty: 0 }), "train", 50);
    expect(problems.every(({ demonstrations }) => demonstrations?.[0].split("\n").length === 3)).toBe(true);
  });

  test("the vocabulary covers every prompt and demonstration without loss, and stays short", async () => {
    const { tokenizer } = tinyFiles({ vocabulary: wordProblemVocabulary() }, () => 0);
    const problems = await take(await load("wordproblems", { max: 999 }), "train", 3000);
    const lengths = { prompt: 0, response: 0, longest: 0 };
    const used = new Set<number>();
    for (const problem of problems) {
      const response = problem.demonstrations?.[0] ?? "";
      const ids = [encodePrompt(tokenizer, problem), encodeResponse(tokenizer, response)];
      expect(tokenizer.decode(ids[0])).toBe("text" in problem.prompt ? problem.prompt.text : "");
      expect(tokenizer.decode(ids[1])).toBe(response);
      for (const id of [...ids[0], ...ids[1]]) used.add(id);
      lengths.prompt += ids[0].length / problems.length;
      lengths.response += ids[1].length / problems.length;
      lengths.longest = Math.max(lengths.longest, ids[0].length + ids[1].length);
    }
    expect(wordProblemVocabulary().length).toBe(used.size);
    expect(lengths.prompt).toBeLessThan(32);
    expect(lengths.response).toBeLessThan(28);
    expect(lengths.longest).toBeLessThan(110);
  });

  test.each(["text", "chat"])(
    "with choices the answer is a letter, hasty values are among the options (%s)",
    async (prompt) => {
      const task = await load("wordproblems", { demonstrations: 500, hasty: 0.5, choices: 4, prompt });
      const train = await take(task, "train");
      const responses = train.map((problem) => problem.demonstrations?.[0] ?? "");
      const grades = await task.grade(train.map((problem, i) => ({ problem, response: responses[i] })));
      const places = new Set<string>();
      for (const [i, { data, options = [], answer = "", prompt: asked }] of train.entries()) {
        expect(grades[i]).toEqual({ answered: true, reward: data?.hasty ? 0 : 1, parts: {} });
        expect(new Set(options).size).toBe(4);
        expect(options[answer.charCodeAt(0) - 65]).toBe(String(solve(textOf(train[i]))));
        const shown = "text" in asked ? asked.text : asked.messages[0].content;
        expect(shown).toContain(options.map((option, at) => `${"ABCD"[at]}: ${option}`).join(" "));
        places.add(answer);
      }
      expect([...places].sort()).toEqual(["A", "B", "C", "D"]);
      if (prompt === "chat") return;
      const { tokenizer } = tinyFiles({ vocabulary: task.vocabulary ?? [] }, () => 0);
      for (const [i, problem] of train.entries()) {
        expect(tokenizer.decode(encodePrompt(tokenizer, problem))).toBe(
          "text" in problem.prompt && problem.prompt.text,
        );
        expect(tokenizer.decode(encodeResponse(tokenizer, responses[i]))).toBe(responses[i]);
      }
    },
  );

  test("only an answer that is marked as the prompt asks counts", async () => {
    const text = await load("wordproblems");
    const chat = await load("wordproblems", { prompt: "chat" });
    const problem = (await text.problems("train")).at(0);
    for (const task of [text, chat]) {
      const responses = [`It is ${problem.answer}.`, `So:\n#### ${problem.answer}`];
      const grades = await task.grade(responses.map((response) => ({ problem, response })));
      expect(grades.map(({ reward }) => reward)).toEqual([0, 1]);
    }
    const [message] = await take(chat, "train", 1);
    expect("messages" in message.prompt && message.prompt.messages[0].content.startsWith(textOf(message))).toBe(true);
  });

  test("more demonstrations than there are problems is an error that says how many there are", async () => {
    const task = await load("arithmetic", { levels: [3], demonstrations: 500 });
    await expect(task.problems("train")).rejects.toThrow(
      /only \d+ distinct train problems within its options, 500 are needed/,
    );
  });
});

describe("arithmetic", () => {
  test("answers are right at every level, and never negative", async () => {
    for (const level of [1, 2, 3, 4, 5]) {
      const task = await load("arithmetic", { levels: [level] });
      const problems = await take(task, "train", 300);
      for (const problem of problems) {
        const [a, first, b, second, c] = textOf(problem).split(" ");
        const operate = (x: number, operator: string, y: number) =>
          operator === "+" ? x + y : operator === "-" ? x - y : x * y;
        const value =
          second === undefined
            ? operate(Number(a), first, Number(b))
            : second === "*"
              ? Number(a) + Number(b) * Number(c)
              : operate(operate(Number(a), first, Number(b)), second, Number(c));
        expect(problem.answer).toBe(String(value));
        expect(value).toBeGreaterThanOrEqual(0);
      }
      const grades = await task.grade(
        problems.map((problem) => ({ problem, response: problem.demonstrations?.[0] ?? "" })),
      );
      expect(new Set(grades.map(({ reward }) => reward))).toEqual(new Set([1]));
    }
  });

  test("no calculation is in two splits, however it is put; a small space gives what it has", async () => {
    const task = await load("arithmetic", { levels: [1, 3] });
    const texts = async (split: Split, count: number) => new Set((await take(task, split, count)).map(textOf));
    const [train, dev, test] = [await texts("train", 3000), await texts("dev", 1000), await texts("test", 1000)];
    expect([...dev, ...test].filter((text) => train.has(text))).toEqual([]);
    expect([...dev].filter((text) => test.has(text))).toEqual([]);
    expect(dev.size).toBeGreaterThan(40);
    expect(dev.size).toBeLessThan(100);
  });
});

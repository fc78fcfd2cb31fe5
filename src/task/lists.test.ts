import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { tinyFiles } from "../model/tiny.ts";
import { loadTask } from "./load.ts";
import { encodePrompt, encodeResponse } from "./prompt.ts";
import type { Prompt, Task } from "./types.ts";

const load = (options: Record<string, unknown> = {}, seed = 1): Promise<Task> =>
  loadTask({ name: "lists", ...options }, { baseDir: ".", seed });
const textOf = (prompt: Prompt) => ("text" in prompt ? prompt.text : "");

/** Reads a round's prompt, does its steps as written, and gives the state that it ends in; undefined where something is wrong. */
function follow(prompt: string, response: string): { steps: number; end: string } | undefined {
  const [, list, state] = /^[A-Z]((?:[a-z]\d\d)+)(.*)$/.exec(prompt) ?? [];
  const items = [...list.matchAll(/([a-z])(\d\d)/g)].map(([, letter, number]) => ({ letter, number: Number(number) }));
  const [, next, sumText] = /^>([a-z])(\d{3})$/.exec(state) ?? [];
  let at = state.startsWith("#") ? items.length : items.findIndex(({ letter }) => letter === next);
  let sum = Number(sumText ?? state.slice(-3));
  const parts = response.split(";");
  for (const step of parts.slice(0, -1)) {
    const [, letter, number, before, units, tens, hundreds] =
      /^([a-z])(\d\d)\+(\d{3})=(\d\d)(\d\d)(\d)$/.exec(step) ?? [];
    if (letter !== items[at]?.letter || Number(number) !== items[at].number || Number(before) !== sum) return undefined;
    sum += items[at].number;
    if (Number(hundreds) * 100 + (Number(tens) % 10) * 10 + (Number(units) % 10) !== sum) return undefined;
    at++;
  }
  const padded = String(sum).padStart(3, "0");
  const end = at === items.length ? `#### ${padded}` : `>${items[at].letter}${padded}`;
  return parts.at(-1) === end ? { steps: parts.length - 1, end } : undefined;
}

describe("lists", () => {
  test("the answer is the sum; a demonstration works it out, and is graded as right", async () => {
    const task = await load();
    const train = await task.problems("train");
    fc.assert(
      fc.property(fc.nat(1e9), (index) => {
        const { question = "", answer, demonstrations = [], prompt, tags } = train.at(index);
        const numbers = question.split(" + ").map(Number);
        expect(numbers.reduce((sum, n) => sum + n, 0)).toBe(Number(answer));
        expect(Number(answer)).toBeLessThanOrEqual(999);
        expect(numbers.length).toBeGreaterThanOrEqual(3);
        expect(numbers.length).toBeLessThanOrEqual(12);
        expect(tags?.items).toBe(String(numbers.length));
        expect(follow(textOf(prompt), demonstrations[0])).toEqual({
          steps: numbers.length,
          end: `#### ${answer?.padStart(3, "0")}`,
        });
      }),
      { numRuns: 500 },
    );
    const problem = train.at(7);
    const [grade] = await task.grade([{ problem, response: problem.demonstrations?.[0] ?? "" }]);
    expect(grade.reward).toBe(1);
  });

  test("rounds hand on what the next is asked, fit the context, and end in the answer", async () => {
    const task = await load();
    const { rounds } = task;
    const train = await task.problems("train");
    const { tokenizer } = tinyFiles({ vocabulary: task.vocabulary ?? [] }, () => 0);
    for (let index = 0; index < 300; index++) {
      const problem = train.at(index);
      const shown = rounds?.demonstrate?.(problem, 5) ?? [];
      expect(shown).toHaveLength(5);
      shown.forEach(({ prompt, response }, i) => {
        expect(textOf(prompt)[0]).toBe("EDCBA"[i]);
        const done = follow(textOf(prompt), response);
        expect(done).toBeDefined();
        expect(rounds?.progress(response)).toBe(done?.end);
        expect(rounds?.final(response)).toBe(done?.end.startsWith("#"));
        const tokens =
          encodePrompt(tokenizer, { ...problem, prompt }).length + encodeResponse(tokenizer, response).length;
        expect(tokens + 1).toBeLessThanOrEqual(90);
        // What a response hands on is worded as the demonstrations' own prompts are.
        const next = rounds?.prompt(problem, i + 1, 5, done?.end);
        expect(textOf(next ?? { text: "" })).toBe(textOf(prompt).replace(/(>[a-z]|#### )\d{3}$/, done?.end ?? ""));
      });
      // First rounds begin at the beginning.
      expect(textOf(shown[0].prompt)).toMatch(/>a000$/);
    }
  });

  test("the pace is that of the weights; the last round does what there is room for", async () => {
    const task = await load({ items: [12, 12] });
    const train = await task.problems("train");
    const counts = [0, 0, 0];
    for (let index = 0; index < 2000; index++) {
      const shown = task.rounds?.demonstrate?.(train.at(index), 2) ?? [];
      counts[shown[0].response.split(";").length - 2]++;
      const [, left] = shown;
      const state = /(?:>([a-z])|#### )\d{3}$/.exec(textOf(left.prompt))?.[1];
      const rest = state === undefined ? 0 : 12 - (state.charCodeAt(0) - 97);
      expect(left.response.split(";").length - 1).toBe(Math.min(3, rest));
    }
    expect(counts.map((count) => Math.round(count / 100) / 20)).toEqual([0.75, 0.2, 0.05]);
  });

  test("progress is the last state that is written in full", async () => {
    const { rounds } = await load();
    const found = [
      "a47+000=07040;>b047",
      ">b047>c1",
      ">b047>c100",
      "#### 123",
      "#### 12",
      "",
      "junk >Z999",
      "#### 123>d456",
    ];
    expect(found.map((text) => rounds?.progress(text))).toEqual([">b047", undefined, ">c100", "#### 123", undefined, undefined, undefined, ">d456"]); // prettier-ignore
  });

  test("how far a list is, by what a response states", async () => {
    const { rounds } = await load();
    const problem = { id: "p", prompt: { text: "" }, question: "47 + 12 + 33" };
    const found = [">a000", "a47+000=07040;>b047", ">c059", ">z999", "#### 092", "a47+000=07040;", ""];
    expect(found.map((text) => rounds?.done?.(problem, text))).toEqual([0, 1, 2, 25, 3, undefined, undefined]);
  });

  test("the same dev and test problems whatever the seed, the pace and the context", async () => {
    const [a, b] = await Promise.all([load({}, 1), load({ pace: [1], roundLength: 200 }, 2)]);
    const [dev, other] = await Promise.all([a.problems("dev"), b.problems("dev")]);
    expect(dev.size).toBe(1000);
    for (let i = 0; i < 50; i++) expect(other.at(i)).toEqual(dev.at(i));
    expect((await b.problems("train")).at(0).question).not.toBe((await a.problems("train")).at(0).question);
    expect(dev.at(0).demonstrations).toBeUndefined();
  });

  test.each([
    [{ items: [9, 3] }, /the least must not be above the most/],
    [
      { items: [20, 26], numbers: [10, 40], roundLength: 90 },
      /a round of the longest list needs 104 characters for a single step/,
    ],
    [{ items: [20, 26], roundLength: 150 }, /most sums would be larger than 999/],
    [{ pace: [0, 0] }, /a weight above 0/],
    [{ numbers: [5, 20] }, /10/],
    [{ item: [3, 4] }, /items/],
  ])("refuses %j", async (options, message) => {
    await expect(load(options)).rejects.toThrow(message);
  });

  test("a question of another form is refused by name", async () => {
    const { rounds } = await load();
    const problem = { id: "prompt", prompt: { text: "x" }, question: "7 + 12" };
    expect(() => rounds?.prompt(problem, 1, 5)).toThrow(
      /expected two-digit numbers such as 47 \+ 12 \+ 33, found "7 \+ 12"/,
    );
  });
});

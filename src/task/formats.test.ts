import { describe, expect, test } from "vitest";
import { addTokens } from "../model/add-tokens.ts";
import { tinyFiles } from "../model/tiny.ts";
import { G2, parseStrict, serialize, type Step, TAG_TOKENS, validate } from "../tags/index.ts";
import { inFormat, sourceInFormat } from "./formats.ts";
import { loadTask } from "./load.ts";
import { encodePrompt, encodeResponse } from "./prompt.ts";
import type { Problem, Task } from "./types.ts";

const load = (spec: Record<string, unknown> & { name: string }): Promise<Task> =>
  loadTask({ formats: true, ...spec }, { baseDir: ".", seed: 1 });
const words = () => load({ name: "wordproblems", hasty: 0.5, max: 30 });
const lists = () => load({ name: "lists", items: [3, 12], roundLength: 120 });

async function take(task: Task, count: number): Promise<Problem[]> {
  const source = await task.problems("train");
  return Array.from({ length: count }, (_, i) => source.at(i));
}

const textOf = ({ prompt }: Pick<Problem, "prompt">) => ("text" in prompt ? prompt.text : "");
const answerOf = (response: string) => /#### (\d+)/.exec(response)?.[1];

function stepsOf({ demonstrations = [] }: Problem): Step[] {
  const parsed = parseStrict(demonstrations[0], "tokens");
  if ("fault" in parsed) throw new Error(`${demonstrations[0]}: ${parsed.fault.reason}`);
  return parsed.steps;
}

/** The tokenizer of a tiny model that has the tags as tokens. */
function tokenizerOf(task: Task) {
  const files = tinyFiles({ vocabulary: task.vocabulary ?? [], without: TAG_TOKENS }, () => 0);
  return addTokens(files, TAG_TOKENS, { normal: () => 0 }).tokenizer;
}

/** Plays the demonstrated rounds of a question by hand: the response whose prompt is asked, until one states the answer. */
function chain(task: Task, problem: Problem, count: number): string | undefined {
  const { rounds } = task;
  if (rounds?.demonstrate === undefined) throw new Error("no rounds");
  const shown = rounds.demonstrate(problem, count);
  let progress: string | undefined;
  for (let round = 1; round <= count; round++) {
    const asked = rounds.prompt(problem, round, count, progress);
    const found = shown.find(({ prompt }) => textOf({ prompt }) === textOf({ prompt: asked }));
    if (found === undefined) return undefined;
    progress = rounds.progress(found.response);
    if (rounds.final(found.response)) return answerOf(found.response);
  }
  return undefined;
}

describe("a question in another format", () => {
  const problem: Problem = {
    id: "p",
    prompt: { text: "a?" },
    demonstrations: ["a"],
    masks: [[[0, 1]]],
    answer: "a",
    formats: { loud: { prompt: { text: "A?" } } },
  };

  test("has that format's prompt and demonstrations, none where it has none, and the same answer", () => {
    const loud = inFormat(problem, "loud");
    expect(loud).toEqual({ id: "p", prompt: { text: "A?" }, answer: "a", formats: problem.formats });
    expect(inFormat(problem, undefined)).toBe(problem);
    expect(sourceInFormat({ size: 1, at: () => problem }, "loud").at(0)).toEqual(loud);
  });

  test("one that it does not have is refused, with the nearest", () => {
    expect(() => inFormat(problem, "lout")).toThrow(
      '`format`: problem p has no format "lout" beside its own (it has loud, did you mean that?)',
    );
    expect(() => inFormat({ id: "q", prompt: { text: "a?" } }, "x")).toThrow("(it has none)");
  });
});

describe("word problems in three formats", () => {
  test("a demonstration states the same answer in all of them, hasty or not, and the grader reads each", async () => {
    const task = await words();
    let hasty = 0;
    for (const problem of await take(task, 500)) {
      const [plain] = problem.demonstrations ?? [];
      const tagged = inFormat(problem, "tagged");
      const steps = stepsOf(tagged);
      expect(validate(steps, G2)).toBeUndefined();
      expect(steps.at(-1)).toEqual({ fn: "output", text: `#### ${answerOf(plain)}` });
      const played = chain(task, problem, 3);
      if (played !== undefined) expect(played).toBe(answerOf(plain));
      hasty += Number(answerOf(plain) !== problem.answer);
      const responses = [plain, tagged.demonstrations?.[0] ?? ""];
      const grades = await task.grade(responses.map((response) => ({ problem, response })));
      const right = Number(answerOf(plain) === problem.answer);
      expect(grades.map(({ reward }) => reward)).toEqual([right, right]);
    }
    // Half of the two thirds with several steps, but for those where the value before happens to be the answer.
    expect(hasty / 500).toBeGreaterThan(0.25);
    expect(hasty / 500).toBeLessThan(0.4);
  });

  test("the vocabulary covers prompts, rounds and responses", async () => {
    const task = await words();
    const tokenizer = tokenizerOf(task);
    for (const problem of await take(task, 200)) {
      const rounds = task.rounds?.demonstrate?.(problem, 3) ?? [];
      const shown = [problem, inFormat(problem, "tagged")].map(({ prompt, demonstrations = [] }) => ({
        prompt,
        response: demonstrations[0],
      }));
      for (const { prompt, response } of [...shown, ...rounds]) {
        expect(tokenizer.decode(encodePrompt(tokenizer, { ...problem, prompt }))).toBe(textOf({ prompt }));
        expect(tokenizer.decode(encodeResponse(tokenizer, response))).toBe(response);
      }
    }
  });

  test("the prompt's beginning says which; without the option nothing changes", async () => {
    const task = await words();
    const [problem] = await take(task, 1);
    const plainTask = await loadTask({ name: "wordproblems", hasty: 0.5, max: 30 }, { baseDir: ".", seed: 1 });
    const [alone] = await take(plainTask, 1);
    const { formats, ...rest } = problem;
    expect(rest).toEqual(alone);
    expect(Object.keys(formats ?? {})).toEqual(["tagged"]);
    expect(textOf(inFormat(problem, "tagged"))).toBe(`With tags: ${textOf(problem)}`);
    expect(textOf({ prompt: task.rounds?.prompt(problem, 2, 3, "> 1: 9") ?? problem.prompt })).toBe(
      `2 rounds left: ${textOf(problem)}> 1: 9\n`,
    );
    await expect(load({ name: "wordproblems", choices: 4 })).rejects.toThrow(/`formats`: only plain texts/);
  });
});

describe("lists in three formats", () => {
  test("every row fits `roundLength`; what does not is left, and the end says how far it got", async () => {
    const task = await lists();
    const tokenizer = tokenizerOf(task);
    const length = (asked: Problem, response: string) =>
      encodePrompt(tokenizer, asked).length + encodeResponse(tokenizer, response).length + 1;
    const fits = { plain: 0, tagged: 0, slips: 0 };
    const problems = await take(task, 500);
    for (const problem of problems) {
      const tagged = inFormat(problem, "tagged");
      const [plain] = problem.demonstrations ?? [];
      const [path] = tagged.demonstrations ?? [];
      const steps = stepsOf(tagged);
      expect(validate(steps, G2)).toBeUndefined();
      expect(length(problem, plain)).toBeLessThanOrEqual(120);
      expect(length(tagged, path)).toBeLessThanOrEqual(120);
      for (const response of [plain, path]) {
        const stated = answerOf(response);
        if (stated === undefined) expect(response).toMatch(/>[a-z]\d{3}/);
        else expect(Number(stated)).toBe(Number(problem.answer));
      }
      fits.plain += Number(answerOf(plain) !== undefined);
      fits.tagged += Number(answerOf(path) !== undefined);
      // Out of the loss is each wrong block, and a check and the right one follow.
      for (const [start, end] of tagged.masks?.[0] ?? []) {
        const at = steps.findIndex((_, i) => serialize(steps.slice(0, i), "tokens").length === start);
        expect(path.slice(start, end)).toBe(serialize([steps[at]], "tokens"));
        expect([steps[at + 1].fn, steps[at + 2].fn]).toEqual(["verify", "refine"]);
        expect(steps[at].text).not.toBe(steps[at + 2].text);
        expect(steps[at].text).toHaveLength(steps[at + 2].text.length);
        expect(steps[at + 1].text).toBe(`${steps[at + 2].text.slice(-6, -1)}!`);
        fits.slips++;
      }
    }
    // Lists of up to six items fit in one go, of up to five with tags: of ten lengths.
    expect(fits.plain / 500).toBeGreaterThan(0.3);
    expect(fits.tagged / 500).toBeGreaterThan(0.2);
    expect(fits.tagged).toBeLessThan(fits.plain);
    expect(fits.slips).toBeGreaterThan(20);
  });

  test("held-out questions can be asked in it, and show no demonstration", async () => {
    const source = await (await lists()).problems("test");
    const tagged = inFormat(source.at(0), "tagged");
    expect(textOf(tagged)).toBe(`@${textOf(source.at(0)).slice(1)}`);
    expect([tagged.demonstrations, tagged.masks]).toEqual([undefined, undefined]);
  });
});

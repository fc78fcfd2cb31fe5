import { describe, expect, test } from "vitest";
import { addTokens } from "../model/add-tokens.ts";
import { tinyFiles } from "../model/tiny.ts";
import { G2, parseStrict, serialize, type Step, TAG_TOKENS, validate } from "../tags/index.ts";
import { loadTask } from "./load.ts";
import { encodePrompt, encodeResponse } from "./prompt.ts";
import type { Problem } from "./types.ts";

async function take(count: number, options: Record<string, unknown> = {}): Promise<Problem[]> {
  const task = await loadTask({ name: "tagged", ...options }, { baseDir: ".", seed: 1 });
  const source = await task.problems("train");
  return Array.from({ length: count }, (_, i) => source.at(i));
}

function stepsOf({ demonstrations = [] }: Problem): Step[] {
  const parsed = parseStrict(demonstrations[0], "tokens");
  if ("fault" in parsed) throw new Error(`${demonstrations[0]}: ${parsed.fault.reason}`);
  return parsed.steps;
}

/** Positions of the blocks that are out of the loss. */
function wrongOf(problem: Problem): number[] {
  const steps = stepsOf(problem);
  return (problem.masks?.[0] ?? []).map(([start]) =>
    steps.findIndex((_, i) => serialize(steps.slice(0, i), "tokens").length === start),
  );
}

const operations: Record<string, (a: number, b: number) => number> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
};

/** Whether an equation such as `4 + 5 = 9` holds. */
function holds(equation: string): boolean {
  const [, a, operator, b, value] = /^(?:\w+: )?(\d+) (.) (\d+) = (\d+)\.?$/.exec(equation) ?? [];
  return operations[operator](Number(a), Number(b)) === Number(value);
}

describe("demonstrations with functional tokens", () => {
  test("are paths of G2 that end with the right answer; all functions occur", async () => {
    const problems = await take(2000);
    const task = await loadTask("tagged", { baseDir: ".", seed: 1 });
    const grades = await task.grade(
      problems.map((problem) => ({ problem, response: problem.demonstrations?.[0] ?? "" })),
    );
    const functions = new Set<string>();
    for (const [i, problem] of problems.entries()) {
      const steps = stepsOf(problem);
      expect(validate(steps, G2)).toBeUndefined();
      expect(grades[i].reward).toBe(1);
      for (const { fn } of steps) functions.add(fn);
      const [text] = problem.demonstrations ?? [];
      // Out of the loss is each wrong block, with its tags.
      const masked = problem.masks?.[0].map(([start, end]) => text.slice(start, end)) ?? [];
      expect(masked).toEqual(wrongOf(problem).map((at) => serialize([steps[at]], "tokens")));
    }
    expect(functions.size).toBe(8);
  });

  test("what is wrong is checked, found and done again; what is right is found right", async () => {
    const counts = { right: 0, wrong: 0, operation: 0, arithmetic: 0 };
    for (const problem of await take(2000)) {
      const steps = stepsOf(problem);
      const wrong = wrongOf(problem);
      for (const [i, { fn, text }] of steps.entries()) {
        if (fn === "refine") expect(text.split("\n").every(holds)).toBe(true);
        if (fn !== "verify") continue;
        const checked = steps[i - 1];
        const [expected, found] = text.replace(/\.$/, "").split(/, right|, not /);
        expect(holds(expected)).toBe(true);
        const refuted = text.includes(", not ");
        expect(wrong.includes(i - 1)).toBe(refuted);
        counts[refuted ? "wrong" : "right"]++;
        if (!refuted) {
          expect(checked.text.split("\n").every(holds)).toBe(true);
          continue;
        }
        expect(checked.text).toContain(found);
        expect(steps[i + 1].fn).toBe("refine");
        expect(steps[i + 1].text).toContain(expected);
        expect(found).not.toBe(expected);
        counts[holds(found) ? "operation" : "arithmetic"]++;
      }
      // A block that nobody checks is right.
      for (const i of wrong) expect(steps[i + 1].fn).toBe("verify");
    }
    expect(counts.right / (counts.right + counts.wrong)).toBeGreaterThan(0.45);
    expect(counts.right / (counts.right + counts.wrong)).toBeLessThan(0.55);
    expect(Math.min(counts.operation, counts.arithmetic)).toBeGreaterThan(200);
  });

  test("tags and lengths do not tell what is wrong before it is checked", async () => {
    // Of each block that is checked: what a reader sees who cannot read, and whether it is wrong.
    const examples = (await take(6000)).flatMap((problem) => {
      const steps = stepsOf(problem);
      const wrong = wrongOf(problem);
      return steps.flatMap(({ fn }, i) => {
        if (fn !== "verify") return [];
        const before = steps.slice(0, i);
        const { text } = steps[i - 1];
        const count = (name: string) => before.filter((step) => step.fn === name).length;
        const functions = ["clarify", "analysis", "subquestion", "next_step", "direct_answer", "verify", "refine"];
        const length = before.reduce((sum, step) => sum + step.text.length, 0);
        const features = [1, text.length / 20, (text.length / 20) ** 2, length / 100, i / 5, ...functions.map(count)];
        return [{ features, label: Number(wrong.includes(i - 1)) }];
      });
    });
    const half = Math.floor(examples.length / 2);
    const [train, test] = [examples.slice(0, half), examples.slice(half)];
    expect(test.length).toBeGreaterThan(2000);
    const weights = fitLogistic(train);
    const right = test.filter(({ features, label }) => Number(dot(weights, features) > 0) === label).length;
    // 2.6 standard errors.
    expect(Math.abs(right / test.length - 0.5)).toBeLessThan(1.3 / Math.sqrt(test.length));
  });

  test("shares of checks", async () => {
    const all = await take(300, { verify: 1, affirm: 1 });
    expect(all.every((problem) => wrongOf(problem).length === 0)).toBe(true);
    expect(all.every((problem) => stepsOf(problem).some(({ fn }) => fn === "verify"))).toBe(true);
    const none = await take(300, { verify: 0 });
    expect(none.flatMap(stepsOf).some(({ fn }) => fn === "verify" || fn === "refine")).toBe(false);
  });

  test("hasty ones end a step too early, with a plan that is whole; the others as before", async () => {
    const problems = await take(600, { hasty: [1, 0], verify: 0 });
    for (const problem of problems) {
      const steps = stepsOf(problem);
      expect(validate(steps, G2)).toBeUndefined();
      const lines = steps.flatMap(({ fn, text }) => (/^(next_step|direct_answer)$/.test(fn) ? text.split("\n") : []));
      const level = Number(problem.tags?.level);
      expect(lines).toHaveLength(level === 2 ? 1 : level);
      const values = lines.map((line) => /(\d+)\.$/.exec(line)?.[1]);
      expect(steps.at(-1)?.text).toBe(`\\boxed{${values.at(-1)}}`);
      const plan = steps.find(({ fn }) => fn === "analysis")?.text;
      if (plan !== undefined) expect(plan.match(/ [-+*/] /g)).toHaveLength(level);
      if (level !== 2) expect(values.at(-1)).toBe(problem.answer);
    }
  });

  test("what demonstrations are like changes no question", async () => {
    const held = async (options: Record<string, unknown>) => {
      const task = await loadTask({ name: "tagged", max: 30, ...options }, { baseDir: ".", seed: 1 });
      const source = await task.problems("dev");
      return Array.from({ length: 200 }, (_, i) => source.at(i));
    };
    const plain = await held({});
    for (const options of [{ verify: 0 }, { refine: false }, { hasty: [0.9, 0.4] }]) {
      expect(await held(options)).toEqual(plain);
    }
  });

  test("without refine a wrong block is done again in one of its own kind", async () => {
    const problems = await take(600, { refine: false, affirm: 0 });
    const again = problems.flatMap((problem) => {
      const steps = stepsOf(problem);
      expect(validate(steps, G2)).toBeUndefined();
      return wrongOf(problem).map((at) => [steps[at].fn, steps[at + 1].fn, steps[at + 2].fn]);
    });
    expect(again.length).toBeGreaterThan(100);
    for (const [wrong, verify, redo] of again) expect([verify, redo]).toEqual(["verify", wrong]);
  });

  test("a tiny model reads and writes them without loss, its tags as words or as tokens", async () => {
    const task = await loadTask("tagged", { baseDir: ".", seed: 1 });
    const vocabulary = task.vocabulary ?? [];
    const words = tinyFiles({ vocabulary }, () => 0).tokenizer;
    const files = tinyFiles({ vocabulary, without: TAG_TOKENS }, () => 0);
    const { tokenizer: tokens } = addTokens(files, TAG_TOKENS, { normal: () => 0 });
    for (const problem of await take(1000)) {
      const response = problem.demonstrations?.[0] ?? "";
      for (const tokenizer of [words, tokens]) {
        expect(tokenizer.decode(encodeResponse(tokenizer, response))).toBe(response);
        expect(tokenizer.decode(encodePrompt(tokenizer, problem))).toBe(
          "text" in problem.prompt && problem.prompt.text,
        );
      }
      const tags = Array.from(encodeResponse(tokens, response)).filter((id) => [...tokens.added.values()].includes(id));
      expect(tags.length).toBe(2 * stepsOf(problem).length);
      expect(encodeResponse(tokens, response).length).toBe(encodeResponse(words, response).length);
      expect(encodePrompt(tokens, problem).length + encodeResponse(tokens, response).length).toBeLessThan(250);
    }
  });
});

interface Labelled {
  features: number[];
  label: number;
}

const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i], 0);

/** Logistic regression by gradient descent. */
function fitLogistic(examples: Labelled[]): number[] {
  const weights = examples[0].features.map(() => 0);
  for (let pass = 0; pass < 300; pass++) {
    const gradient = weights.map(() => 0);
    for (const { features, label } of examples) {
      const error = 1 / (1 + Math.exp(-dot(weights, features))) - label;
      features.forEach((x, i) => (gradient[i] += (error * x) / examples.length));
    }
    gradient.forEach((g, i) => (weights[i] -= 0.5 * g));
  }
  return weights;
}

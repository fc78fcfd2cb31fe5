import { describe, expect, test } from "vitest";
import { scriptedModel, type Script } from "../../test/scripted-model.ts";
import { RandomStream } from "../engine/random.ts";
import { createTask } from "../task/create.ts";
import type { Problem } from "../task/types.ts";
import { evaluate } from "./evaluate.ts";
import { gradingSettings, reportOf } from "./report.ts";
import type { EvaluatedSample } from "./samples.ts";

/** Says the right answer, 5, in three of five solutions, and other ones else. */
const script: Script = (prompt, index, { key }) => {
  const random = new RandomStream(`${key}/${index}`);
  const answer = random.below(5) < 3 ? 5 : 10 + random.below(90);
  if (prompt.includes("Finish the solution")) return `Take ${random.below(1000)}.\n#### ${answer}`;
  if (prompt.includes("the first step") || prompt.includes("the one step"))
    return random.below(3) === 0 ? `Final step: done.\n#### ${answer}` : `Next step: do ${random.below(1000)}.`;
  return `Something ${random.below(1000)}.`;
};

const problems: Problem[] = Array.from({ length: 40 }, (_, i) => ({
  id: `p${i}`,
  prompt: { messages: [{ role: "user", content: `What is ${i}? Answer after ####.` }] },
  question: `What is ${i}?`,
  answer: "5",
}));
const taskOf = (test: Problem[]) => createTask({ name: "t", splits: { test }, grading: { strict: ["hashes"] } });

async function search(asked: Problem[], n: number, more: Partial<Parameters<typeof evaluate>[0]> = {}) {
  const { model, requests } = scriptedModel(script);
  const samples = await evaluate({
    model,
    tokenizer: model.tokenizer,
    task: taskOf(asked),
    problems: asked,
    maxTokens: 64,
    temperature: 0.8,
    n,
    search: { by: "prompts", value: "consistency", texts: 1 },
    ...more,
  });
  return { samples, requests };
}

describe("a search by prompts", () => {
  test("rollouts vote; of several the vote is right more often than one; tokens are all that was written", async () => {
    const { samples, requests } = await search(problems, 8);
    expect(samples).toHaveLength(320);
    for (const { search: found, text, tokens, strict } of samples) {
      expect(found?.weight).toBe(1);
      if (found?.end !== "output") continue;
      expect(tokens.length).toBeGreaterThan(0);
      if (text.includes("####")) expect(strict.answer).toMatch(/^\d+$/);
    }
    const report = reportOf(
      { ...gradingSettings(taskOf(problems)), n: 8, search: { by: "prompts", value: "consistency", texts: 1 } },
      samples,
    );
    const value = (name: string, k: number) =>
      report.measures.find((m) => m.name === name && m.k === k && m.grading === "strict")?.value ?? NaN;
    expect(value("vote@r", 8)).toBeGreaterThan(value("vote@r", 1) + 0.1);
    expect(value("oracle@r", 8)).toBeGreaterThanOrEqual(value("vote@r", 8));
    // The prompts are the searched question's own, not the task's.
    expect(requests.length).toBeGreaterThan(100);
    const fresh = samples.reduce((sum, sample) => sum + (sample.search?.fresh ?? 0), 0);
    expect(report.tokensPerProblem).toBeCloseTo(fresh / problems.length, 9);
  });

  test("the gold is not seen; the first rollouts do not depend on how many there are", async () => {
    const drawn = (samples: EvaluatedSample[]) => samples.map(({ text, search: found }) => ({ text, found }));
    const few = problems.slice(0, 6);
    const { samples } = await search(few, 6);
    const other = await search(
      few.map((problem) => ({ ...problem, answer: "7" })),
      6,
    );
    expect(drawn(other.samples)).toEqual(drawn(samples));
    const three = await search(few, 3);
    expect(three.samples).toEqual(samples.filter(({ sample }) => sample < 3));
  });

  test("interrupted, the rollouts that have ended are handed over apart", async () => {
    let waves = 0;
    const partial: EvaluatedSample[] = [];
    const whole: EvaluatedSample[] = [];
    const { samples } = await search(problems.slice(0, 3), 8, {
      interrupted: () => waves++ > 6,
      onPartial: (some) => partial.push(...some),
      onSample: (sample) => whole.push(sample),
    });
    expect([samples, whole]).toEqual([[], []]);
    expect(partial.length).toBeGreaterThan(0);
    expect(partial.length).toBeLessThan(24);
    const { samples: all } = await search(problems.slice(0, 3), 8);
    // Values of leaves may have changed since; the paths are those of the whole search.
    for (const { problem, sample, text } of partial)
      expect(all.find((one) => one.problem === problem && one.sample === sample)?.text).toBe(text);
  });

  test("a task that asks in plain text is refused", async () => {
    const plain = [{ id: "p", prompt: { text: "1 + 1?" }, answer: "2" }];
    await expect(search(plain, 2)).rejects.toThrow(/asks in plain text: a search by prompts tells a chat model/);
  });
});

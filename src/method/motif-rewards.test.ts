import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { loadTask } from "../task/load.ts";
import type { Grade } from "../task/types.ts";
import {
  chainReward,
  formatReward,
  referenceAccuracy,
  referenceFormat,
  type RoundRewardSettings,
} from "./motif-rewards.ts";

/** A response of `length` characters in the lines that the authors' prompt asks for. */
function inLines(length: number, end = ""): string {
  const around = "<reasoning>\n\n</reasoning>\n<answer>\n\\boxed{72}\n</answer>" + end;
  return around.replace("<reasoning>\n", `<reasoning>\n${"so\n".repeat(2)}${"x".repeat(length - around.length - 6)}`);
}
const short = "<reasoning>\nx\n</reasoning>\n<answer>\n72\n</answer>";

describe("the authors' format rewards", () => {
  const padded = short.replace("x", "x".repeat(354 - short.length + 1));
  test.each([
    ["lines, no newline at the end, 669 characters", inLines(669), { tags: -0.168, soft: 0, strict: 0 }],
    ["the same with a newline", inLines(669) + "\n", { tags: 0.5, soft: 0, strict: 0 }],
    ["one line each, and a newline", short + "\n", { tags: 0.5, soft: 0, strict: 0.5 }],
    ["the same without it, 354 characters", padded, { tags: 0.147, soft: 0, strict: 0 }],
    ["all on one line", "<reasoning>x</reasoning> <answer>72</answer>", { tags: 0, soft: 0.5, strict: 0 }],
    ["no tags", "72", { tags: 0, soft: 0, strict: 0 }],
  ])("%s", (_, response, expected) => {
    const { tags, ...formats } = referenceFormat(response);
    expect(tags).toBeCloseTo(expected.tags, 12);
    expect(formats).toEqual({ soft: expected.soft, strict: expected.strict });
  });

  test("lengths are those of the table; a character counts once, whatever its width", () => {
    expect(inLines(669)).toHaveLength(669);
    expect(padded).toHaveLength(354);
    const wide = referenceFormat(inLines(669).replace("xxxx", "𝑥𝑥𝑥𝑥")).tags;
    expect(wide).toBe(referenceFormat(inLines(669)).tags);
  });

  test("the same sums as in Python, to the last bit", () => {
    // python3 -c 'c=.125*3; c-=669*.001; c+=.125; c-=(0-1)*.001; print(c.hex())'
    expect(referenceFormat(inLines(669)).tags).toBe(0.125 * 3 - 669 * 0.001 + 0.125 - -1 * 0.001);
  });

  test("two newlines at the end are the last that strict lets pass", () => {
    expect(referenceFormat(`${short}\n\n`).strict).toBe(0.5);
    expect(referenceFormat(`${short}\n\n\n`).strict).toBe(0);
  });
});

test("the authors' accuracy looks for the gold as a text", () => {
  const inside = "<reasoning>\n\\boxed{5}\n</reasoning>\n<answer>\n\\boxed{72}\n</answer>";
  expect(referenceAccuracy(inside, "72", 3)).toBe(2);
  expect(referenceAccuracy(inside, "5", 3)).toBe(1);
  expect(referenceAccuracy(inside, "5", 1)).toBe(2);
  expect(referenceAccuracy(inside, "7", 3)).toBe(0);
  expect(referenceAccuracy("\\boxed{72.0}", "72", 3)).toBe(0);
  // A response without tags is its own answer part.
  expect(referenceAccuracy("so \\boxed{72}", "72", 3)).toBe(2);
  expect(referenceAccuracy("\\boxed{1,080}", "1,080", 3)).toBe(2);
});

test("the format reward: 1 for the layout over several lines, with or without a newline at the end", () => {
  expect(formatReward(inLines(300))).toBe(1);
  expect(formatReward(inLines(300, "\n"))).toBe(1);
  expect(formatReward("<reasoning>a</reasoning><answer>b</answer>")).toBe(1);
  expect(formatReward("a <reasoning>a</reasoning><answer>b</answer>")).toBe(0);
  expect(formatReward("<reasoning>a</reasoning><answer>b</answer> and so")).toBe(0);
  expect(formatReward("<reasoning>a</reasoning><answer>b</answer><answer>c</answer>")).toBe(0);
  expect(formatReward("<answer>b</answer><reasoning>a</reasoning>")).toBe(0);
  expect(formatReward("")).toBe(0);
});

describe("what a chain earns", () => {
  const task = { name: "t", programs: false, grading: { strict: ["boxed" as const] } };
  const settings: RoundRewardSettings = {
    reward: "default",
    rounds: 3,
    formatRounds: "first",
    outsideTags: 0.5,
    early: 0,
  };
  const tagged = (answer: string) => `<reasoning>\nr\n</reasoning>\n<answer>\n${answer}\n</answer>`;
  const right: Grade = { reward: 1, parts: {} };
  const problem = { id: "p", prompt: { text: "?" }, answer: "7" };
  const earn = (
    responses: string[],
    grade: Grade,
    own: Partial<RoundRewardSettings> = {},
    t: Parameters<typeof chainReward>[0] = task,
  ) => chainReward(t, { problem, responses, grade }, { ...settings, ...own });

  test("default: the task's reward, half of it outside of the tags, and the first response's layout", () => {
    expect(earn([tagged("a"), tagged("b"), tagged("\\boxed{7}")], right)).toEqual({ accuracy: 1, format: 0.2 });
    expect(earn(["a", tagged("b"), "so \\boxed{7}"], right)).toEqual({ accuracy: 0.5, format: 0 });
    expect(earn(["a", "b", `\\boxed{7} ${tagged("seven")}`], right)).toEqual({ accuracy: 0.5, format: 0 });
    expect(earn(["a", "b", `${tagged("\\boxed{8}")} \\boxed{7}`], right, { outsideTags: 0 }).accuracy).toBe(0);
    expect(earn([tagged("a"), "b"], { reward: 0, parts: {} }, { formatRounds: "all" })).toEqual({
      accuracy: 0,
      format: 0.1,
    });
  });

  test("paper: 1 or 0 for the answer, wherever it stands, and 1 or 0 for the layout", () => {
    expect(
      earn([tagged("a"), "so \\boxed{7}"], { reward: 1.2, parts: { correct: 1, unit: 1 } }, { reward: "paper" }),
    ).toEqual({
      accuracy: 1,
      format: 1,
    });
  });

  test("reference: accuracy, tag count, soft and strict; the gold as its data set writes it", () => {
    const own = { ...problem, data: { writtenAnswer: "1,080" } };
    expect(
      chainReward(
        task,
        { problem: own, responses: [short + "\n", tagged("\\boxed{1,080}")], grade: right },
        { ...settings, reward: "reference" },
      ),
    ).toEqual({ accuracy: 2, tags: 0.5, soft: 0, strict: 0.5 });
    const bare = { id: "q", prompt: { text: "?" } };
    expect(() =>
      chainReward(task, { problem: bare, responses: ["a"], grade: right }, { ...settings, reward: "reference" }),
    ).toThrow(/problem q has no answer.*take another reward/);
  });

  test("early: a right answer earns it for the rounds that it saved", () => {
    expect(earn([tagged("\\boxed{7}")], right, { early: 0.4 }).early).toBe(0.4);
    expect(earn(["a", tagged("\\boxed{7}")], right, { early: 0.4 }).early).toBe(0.2);
    expect(earn(["a", "b", tagged("\\boxed{7}")], right, { early: 0.4 }).early).toBe(0);
    expect(earn(["a"], { reward: 0, parts: {} }, { early: 0.4 }).early).toBe(0);
  });

  test("a task that words its own rounds has no tags to reward", () => {
    const words = { prompt: () => ({ text: "" }), progress: () => undefined, final: () => false };
    expect(earn(["a", "7"], right, {}, { ...task, rounds: words })).toEqual({ accuracy: 1 });
    expect(() => earn(["a"], right, { formatWeight: 1 }, { ...task, rounds: words })).toThrow(
      /task t words its own rounds/,
    );
  });
});

test("AIME's golds of three digits are compared as numbers, never as parts of one", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rifft-aime-"));
  mkdirSync(join(folder, "aime"));
  const rows = ["025", "104"].map((answer, id) => JSON.stringify({ id, problem: "?", answer }));
  writeFileSync(join(folder, "aime", "train.jsonl"), `${rows.join("\n")}\n`);
  const task = await loadTask({ name: "aime2024", path: "aime" }, { baseDir: folder, seed: 1 });
  const problems = await task.problems("test");
  const accuracy = async (index: number, answer: string, reward: "default" | "paper") => {
    const response = `<reasoning>\nx\n</reasoning>\n<answer>\n\\boxed{${answer}}\n</answer>`;
    const problem = problems.at(index);
    const [grade] = await task.grade([{ problem, response }]);
    const settings = { reward, rounds: 3, formatRounds: "first", outsideTags: 0.5, early: 0 } as const;
    return chainReward(task, { problem, responses: [response], grade }, settings).accuracy;
  };
  for (const reward of ["default", "paper"] as const) {
    for (const same of ["25", "025", "25.0"]) expect(await accuracy(0, same, reward), same).toBe(1);
    for (const other of ["1025", "0250", "2.5", "5"]) expect(await accuracy(0, other, reward), other).toBe(0);
    expect(await accuracy(1, "104", reward)).toBe(1);
    for (const other of ["1104", "1040", "10 4"]) expect(await accuracy(1, other, reward), other).toBe(0);
  }
  await task.close();
  rmSync(folder, { recursive: true });
});

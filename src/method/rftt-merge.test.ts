import { describe, expect, test } from "vitest";
import type { Solution } from "../rollout/prompt-search.ts";
import { G2, type Step, validate } from "../tags/index.ts";
import {
  affirmFault,
  affirms,
  mergedSteps,
  plainSteps,
  recordFault,
  repeatsFault,
  verifyFault,
  verifyPrompt,
} from "./rftt-merge.ts";
import { selectPaths, SORT_KEYS, treeDistance } from "./rftt-select.ts";

/** A solution whose steps are named by their nodes; the last holds the answer. */
const path = (trajectory: number[], right: boolean, more: Partial<Solution> = {}): Solution => ({
  trajectory,
  steps: trajectory.map((id, i): Step => ({
    fn: i === trajectory.length - 1 ? "direct_answer" : "next_step",
    text: `node ${id}`,
  })),
  answer: right ? "5" : "6",
  right,
  ...more,
});

describe("selection", () => {
  const settings = { maxTreeDistance: 3, order: SORT_KEYS };

  test("distance vectors", () => {
    expect(treeDistance([1, 73, 80], [1, 73, 82, 86, 92])).toEqual({ distance: 4, shared: 2 });
    expect(treeDistance([1, 73, 82, 86, 94, 95], [1, 73, 82, 86, 92])).toEqual({ distance: 3, shared: 4 });
    expect(treeDistance([1], [2])).toEqual({ distance: 2, shared: 0 });
  });

  test("the first pair that is near enough, right paths in the outer loop", () => {
    const far = path([1, 73, 80], true);
    const near = path([1, 73, 82, 86, 94, 95], true);
    const wrong = path([1, 73, 82, 86, 92], false);
    expect(selectPaths([far, wrong, near], settings).pair).toEqual({ right: near, wrong, shared: 4 });
    expect(selectPaths([far, wrong], settings)).toMatchObject({ missing: "no intersecting pair" });
    expect(selectPaths([far, wrong], { ...settings, maxTreeDistance: 4 }).pair?.shared).toBe(2);
  });

  test("keys: no repeats, then the longest, then the shortest last step, then the process reward", () => {
    const best = (solutions: Solution[], order: readonly ("repeat" | "len" | "finalLen" | "prm")[] = SORT_KEYS) =>
      selectPaths(solutions, { ...settings, order }).plain[0];
    const short = path([1, 2], true);
    const long = path([3, 4, 5], true);
    expect(best([short, long])).toBe(long);
    const repeating = path([6, 7, 8, 9], true);
    repeating.steps[1].text = repeating.steps[0].text;
    expect(best([repeating, short])).toBe(short);
    const wordy = path([10, 11, 12], true);
    wordy.steps[2].text = "a long last step";
    expect(best([wordy, long])).toBe(long);
    const low = path([1, 2], true, { scores: [0.9, 0.1] });
    const high = path([3, 4], true, { scores: [0.8, 0.7] });
    expect(best([low, high])).toBe(high);
    expect(best([path([20, 21, 22], true, { scores: [0, 0, 0] }), high], ["prm"])).toBe(high);
    const right = path([1, 30], true);
    const worst = path([1, 31], false, { scores: [0.9, 0] });
    const better = path([1, 32], false, { scores: [0.9, 0.5] });
    expect(selectPaths([right, better, worst], settings).pair?.wrong).toBe(worst);
  });

  test("fallbacks: no wrong path, no right path, no two right paths apart, no answer", () => {
    const a = path([1, 2], true);
    const b = path([1, 3], true);
    expect(selectPaths([a, b], settings)).toEqual({ missing: "no wrong path", plain: [a] });
    expect(selectPaths([path([1, 2], false)], settings)).toEqual({ missing: "no right path", plain: [] });
    const c = path([4, 5], true);
    expect(selectPaths([a, b, c], settings).plain).toEqual([a, c]);
    const silent = path([1, 9], false, { answer: undefined });
    expect(selectPaths([a, silent], settings).missing).toBe("no wrong path");
  });
});

describe("merging", () => {
  const pair = {
    right: path([1, 2, 5, 6], true),
    wrong: path([1, 2, 3], false),
    shared: 2,
  };
  const right = (text: string) => text.includes("#### 5");

  test("the shared beginning, the wrong branch, verify, refine, the rest, output; the wrong branch is out of the loss", () => {
    const steps = mergedSteps(pair, "The mistake is in node 3.", "#### 5");
    expect(steps.map(({ fn, text, learned }) => `${fn}:${text}:${learned}`)).toEqual([
      "next_step:node 1:true",
      "next_step:node 2:true",
      "direct_answer:node 3:false",
      "verify:The mistake is in node 3.:true",
      "refine:node 5:true",
      "direct_answer:node 6:true",
      "output:#### 5:true",
    ]);
    expect(validate(steps, G2)).toBeUndefined();
    expect(recordFault(steps, right)).toBeUndefined();
    expect(recordFault(mergedSteps(pair, "No.", "#### 6"), right)).toBe("the output is not right");
    expect(recordFault([...steps, steps[6]], right)).toMatch(/output cannot follow output/);
    expect(recordFault(steps.slice(0, -1), right)).toMatch(/ends with output/);
  });

  test("a right branch of one step is refine and then output; a direct answer at the beginning is a step", () => {
    const roots = { right: path([8], true), wrong: path([9], false), shared: 0 };
    const steps = mergedSteps(roots, "The mistake is there.", "#### 5");
    expect(steps.map(({ fn }) => fn)).toEqual(["next_step", "verify", "refine", "output"]);
    expect(steps.map(({ learned }) => learned)).toEqual([false, true, true, true]);
    expect(recordFault(steps, right)).toBeUndefined();
  });

  test("plain paths end in an output, with or without a verify", () => {
    expect(
      plainSteps(pair.right, "#### 5")
        .map(({ fn }) => fn)
        .slice(-2),
    ).toEqual(["direct_answer", "output"]);
    const affirmed = plainSteps(pair.right, "#### 5", "Checking the sum: it holds.");
    expect(affirmed.map(({ fn }) => fn).slice(-3)).toEqual(["direct_answer", "verify", "output"]);
    expect(recordFault(affirmed, right)).toBeUndefined();
  });

  test("the comparison never sees an answer", () => {
    const stating: Solution = path([1, 2], true);
    stating.steps[1].text = "8 - 3 = 5\n#### 5\nSo the answer is 5. Or \\boxed{5}, <answer>5</answer>.";
    const prompt = verifyPrompt("How many?", { right: stating, wrong: path([1, 3], false), shared: 1 });
    expect(prompt).not.toMatch(/####|boxed|answer is 5|<answer>5/);
    expect(prompt).toContain("node 3");
    expect(prompt).toContain("8 - 3 = 5");
  });

  test("what is refused as a verify", () => {
    const states = (text: string) => text.includes("\\boxed{5}");
    expect(verifyFault("The mistake is adding 3.", states)).toBeUndefined();
    expect(verifyFault("", states)).toBe("empty verify");
    expect(verifyFault("The mistake: it is \\boxed{5}.", states)).toBe("verify states the answer");
    expect(verifyFault("The steps that do it right subtract.", states)).toBe("verify speaks of the other branch");
    expect(verifyFault("There is no mistake.", states)).toBe("verify affirms");
    expect(verifyFault("The mistake: there is no mistake.", states)).toBe("verify affirms");
    expect(verifyFault("The first two steps are correct, but there is an error in the third.", states)).toBeUndefined();
    expect(verifyFault("The mistake is that it holds 12, which is right for one box alone.", states)).toBeUndefined();
    expect(affirms("The sum is not correct.")).toBe(false);
    expect(repeatsFault(pair)).toBe(false);
    const same = { ...pair, right: path([1, 2, 3], true) };
    expect(repeatsFault(same)).toBe(true);
  });
});

describe("what is refused as an affirmation", () => {
  const states = (text: string) => text.includes("\\boxed{5}");
  test.each([
    ["Checking the sum: it holds.", undefined],
    ["Checking the steps, they are all correct.", undefined],
    ["Checking each step, I do not find any mistakes.", undefined],
    ["", "empty affirmation"],
    ["Checking: \\boxed{5} is right.", "affirmation states the answer"],
    ["Checking that each box holds 12, so adding 3 is wrong.", "affirmation does not affirm"],
    ["Each box holds 12 plums.", "affirmation does not affirm"],
    ["The first two steps are correct, but there is an error.", "affirmation does not affirm"],
    ["There is no mistake in the sum, but the product is incorrect.", "affirmation does not affirm"],
    ["Checking the numbers against the question.", "affirmation does not affirm"],
  ])("%j", (text, fault) => expect(affirmFault(text, states)).toBe(fault));
});

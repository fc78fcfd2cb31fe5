import { expect, test } from "vitest";
import { UserError } from "../errors.ts";
import { marksBudget, passedMarks } from "./marks.ts";
import { fractionUsed, isOver, learningRateFactor } from "./schedule.ts";

const constant = { kind: "constant" as const, warmup: 0 };
const usage = (generatedTokens: number, engineSeconds: number, steps = 0) => ({
  steps,
  problems: 0,
  generatedTokens,
  engineSeconds,
});
const online = { method: "grpo", atEnd: false, schedule: constant };
const offline = { method: "selftrain", atEnd: true, schedule: constant };
const both = { generatedTokens: 1000, engineSeconds: 10 };

test("a stage ends when the later mark is passed, and each is passed by its own measure", () => {
  const budget = marksBudget(both, undefined, online, "r", []);
  const at = (tokens: number, seconds: number) => ({
    passed: passedMarks(both, usage(tokens, seconds), { atEnd: false, over: false }),
    over: isOver(budget, undefined, usage(tokens, seconds), Infinity),
  });
  expect(at(999, 9.9)).toEqual({ passed: [], over: false });
  expect(at(1000, 9.9)).toEqual({ passed: ["generatedTokens"], over: false });
  expect(at(0, 10)).toEqual({ passed: ["engineSeconds"], over: false });
  expect(at(5000, 10)).toEqual({ passed: ["generatedTokens", "engineSeconds"], over: true });
  expect(fractionUsed(budget, usage(500, 9), Infinity)).toBe(0.5);
});

test("a method that samples first keeps its mark of tokens at the end, which something else decides", () => {
  const budget = marksBudget(both, undefined, offline, "r", []);
  expect(isOver(budget, undefined, usage(1, 10), Infinity)).toBe(true);
  expect(passedMarks(both, usage(2000, 9), { atEnd: true, over: false })).toEqual([]);
  expect(passedMarks(both, usage(2000, 10), { atEnd: true, over: true })).toEqual(["generatedTokens", "engineSeconds"]);
  const steps = marksBudget({ generatedTokens: 1000 }, { kind: "steps", amount: 5 }, offline, "r", []);
  expect([4, 5].map((done) => isOver(steps, undefined, usage(0, 0, done), 10))).toEqual([false, true]);
  const alone = () => marksBudget({ generatedTokens: 1000 }, undefined, offline, "r.toml", ["stage", 0]);
  expect(alone).toThrow(UserError);
  expect(alone).toThrow("r.toml: `stage.1.marks`: selftrain generates nothing while it trains");
});

test("the learning rate is that of a run that ended at the mark: constant after a warm-up in steps", () => {
  const schedule = { kind: "constant" as const, warmup: 4 };
  const budget = marksBudget(both, undefined, { ...online, schedule }, "r", []);
  const factors = [0, 1, 2, 3, 9].map((step) => learningRateFactor(schedule, budget, { step, before: 0.9, now: 0.99 }));
  expect(factors).toEqual([0.25, 0.5, 0.75, 1, 1]);
});

test("where one thing alone ends a stage, its schedule may be any and evaluations may end it earlier", () => {
  const schedule = { kind: "cosine" as const, warmup: 0.1, final: 0 };
  const tokens = marksBudget({ generatedTokens: 1000 }, undefined, { ...online, schedule }, "r", []);
  expect(tokens).toEqual({ kind: "generatedTokens", amount: 1000 });
  const own = { kind: "steps" as const, amount: 50 };
  const sft = { method: "sft", atEnd: true, schedule, patience: 3 };
  expect(marksBudget({ generatedTokens: 1000 }, own, sft, "r", [])).toEqual(own);
  const several = () => marksBudget({ engineSeconds: 9 }, own, { ...sft, patience: undefined }, "r", []);
  expect(several).toThrow("`schedule`: several marks need a constant learning rate");
  const early = () => marksBudget({ engineSeconds: 9 }, undefined, sft, "r", []);
  expect(early).toThrow("`patience`: a stage with marks ends when the last is passed");
});

import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { UserError } from "../errors.ts";
import { checkpointState, modelFolder } from "./models.ts";
import { readCurve } from "./curve.ts";
import { type Progress, silentProgress } from "./progress.ts";
import { parseRecipe } from "./recipe.ts";
import { resume, train } from "./train.ts";

/** Bytes of samples of evaluations until the disk is full. */
let room = Infinity;
vi.mock("./disk.ts", async (original) => {
  const disk = await original<typeof import("./disk.ts")>();
  return {
    ...disk,
    writeAll: (fd: number, data: Uint8Array) => {
      // Only they name a strategy.
      if (Buffer.from(data).includes('"strict":{')) room -= data.length;
      if (room < 0) throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
      disk.writeAll(fd, data);
    },
  };
});

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "rifft-evaluator-"));
  room = Infinity;
});

const recipe = (top: string, stages: string) =>
  parseRecipe(
    `model = "tiny"\ntask = { name = "wordproblems", demonstrations = 60, levels = [1] }\n${top}\n${stages}`,
    { source: "recipe.toml", baseDir: dir },
  );
const sft = (rest: string) => `[[stage]]\nmethod = "sft"\nbatch = 8\nlr = 5e-3\n${rest}\n`;
const grpo = (rest: string) =>
  `[[stage]]\nmethod = "grpo"\nprompts = 2\nsamples = 4\nmaxTokens = 8\nlr = 1e-3\n${rest}\n`;
const evaluation = "eval = { every = 2, limit = 12, maxTokens = 8 }";

test("a disk that fills during an evaluation is an error that says so; nothing is lost, and the run goes on", async () => {
  const text = recipe(`${evaluation}\ncheckpoint = { every = 1, keepBest = "dev accuracy" }`, sft("steps = 4"));
  const whole = await train(text, { run: join(dir, "whole") });
  const [first] = readCurve(whole.run);
  const { length } = readFileSync(join(whole.run, first.file));
  const run = join(dir, "full");
  room = 1.5 * length;
  const failed = train(text, { run });
  await expect(failed).rejects.toThrow(UserError);
  await expect(failed).rejects.toThrow(
    /the disk is full: .*evals\/1-sft-000002\.jsonl could not be written; free some space and resume \(kept in .*full up to the last checkpoint/,
  );
  expect(readCurve(run)).toHaveLength(1);
  expect((await checkpointState(run)).step).toBe(1);
  room = Infinity;
  const resumed = await resume(run);
  expect({ ...resumed, run: "", engineSeconds: 0 }).toEqual({ ...whole, run: "", engineSeconds: 0 });
  for (const name of ["metrics.jsonl", "evals.jsonl", ...readCurve(run).map(({ file }) => file)]) {
    expect(readFileSync(join(run, name), "utf8")).toBe(readFileSync(join(whole.run, name), "utf8"));
  }
});

test("a split that the task lacks, and too long a prompt, are refused before the run folder is made", async () => {
  const run = join(dir, "never");
  writeFileSync(join(dir, "q.jsonl"), '{"question":"1 + 1?","answer":"2"}\n');
  const task = 'task = { name = "./q.jsonl", grader = "number", dev = 0 }';
  const text = `model = "tiny"\n${task}\n${evaluation}\n${sft("steps = 1")}`;
  await expect(train(parseRecipe(text, { source: "recipe.toml", baseDir: dir }), { run })).rejects.toThrow(
    "`eval.split`: task q has no split dev; it has train (published sets and data files make one",
  );
  const long = recipe(`${evaluation}\ncontext = 12`, grpo("steps = 1"));
  await expect(train(long, { run })).rejects.toThrow(/needs \d+ tokens|fills the context of 12/);
  expect(existsSync(run)).toBe(false);
});

describe("the best by what a method logs", () => {
  test("the lowest loss among the checkpoints, whose older ones go", async () => {
    const text = recipe('checkpoint = { every = 2, keep = 1, keepBest = "loss" }', sft("steps = 6"));
    const notes: string[] = [];
    const progress: Progress = { ...silentProgress, best: ({ step }) => void notes.push(`best at ${step}`) };
    const { run, best } = await train(text, { run: join(dir, "run"), progress });
    const lines = readFileSync(join(run, "metrics.jsonl"), "utf8").trimEnd().split("\n");
    const losses = lines.map((line): number => JSON.parse(line).loss);
    const [step, value] = [2, 4, 6].map((s) => [s, losses[s - 1]]).sort(([, a], [, b]) => a - b)[0];
    expect(best).toMatchObject({ metric: "loss", value, step, stage: "1-sft" });
    expect(notes.at(-1)).toBe(`best at ${step}`);
    expect(readdirSync(join(run, "checkpoints"))).toEqual([...new Set([best?.checkpoint, "step-00000006"])].sort());
    expect(await modelFolder(run, "best")).toContain(best?.checkpoint);
  });

  test("a stage from the best of the one before begins with its weights", async () => {
    // At this rate the loss rises again, so that the end is not the best.
    const wild = sft("steps = 6").replace("5e-3", "0.3");
    // A second stage whose steps are too small to change a weight.
    const still = sft('steps = 1\nfrom = "previous-best"').replace("5e-3", "1e-30");
    const text = recipe('checkpoint = { every = 1, keep = 9, keepBest = "loss" }', wild + still);
    const { run } = await train(text, { run: join(dir, "run") });
    const lines = readFileSync(join(run, "metrics.jsonl"), "utf8").trimEnd().split("\n");
    const losses = lines.map((line): number => JSON.parse(line).loss).slice(0, 6);
    const best = losses.indexOf(Math.min(...losses)) + 1;
    expect(best).toBeLessThan(6);
    const log = readFileSync(join(run, "log.txt"), "utf8");
    expect(log).toContain(`2-sft begins with step-0000000${best}, the best of 1-sft`);
    const weights = (step: number) =>
      readFileSync(join(run, "checkpoints", `step-0000000${step}`, "model", "weights.safetensors"));
    expect(weights(7).equals(weights(best))).toBe(true);
    expect(weights(7).equals(weights(6))).toBe(false);
  });
});

test("marks are kept at the first step that passes each, and the run ends with the later", async () => {
  const text = recipe(
    "checkpoint = { every = 100, keep = 1 }",
    grpo("marks = { generatedTokens = 200, engineSeconds = 1e-6 }") + sft("steps = 3"),
  );
  const { run, marks } = await train(text, { run: join(dir, "run") });
  const lines = readFileSync(join(run, "metrics.jsonl"), "utf8").trimEnd().split("\n");
  const generated = lines.map((line): number => JSON.parse(line).generated);
  const step = generated.findIndex((tokens) => tokens >= 200) + 1;
  expect(step).toBeGreaterThan(1);
  expect(marks).toEqual([
    { stage: "1-grpo", mark: "engineSeconds", step: 1, checkpoint: "step-00000001" },
    { stage: "1-grpo", mark: "generatedTokens", step, checkpoint: `step-0000000${step}` },
  ]);
  expect(generated).toHaveLength(step + 3);
  expect(await checkpointState(run, "engineSeconds")).toMatchObject({
    totalSteps: 1,
    counts: { generated: generated[0] },
  });
  expect(await checkpointState(run, "generatedTokens")).toMatchObject({ counts: { generated: generated[step - 1] } });
  expect(await checkpointState(run, "step-00000001")).toMatchObject({ totalSteps: 1 });
  expect(await checkpointState(run)).toMatchObject({ totalSteps: step + 3 });
  await expect(modelFolder(run, "best")).rejects.toThrow("its recipe has no checkpoint.keepBest, which says by what");
  await expect(modelFolder(run, "step-0000001")).rejects.toThrow("did you mean step-00000001?");
  await expect(modelFolder(join(run, "rollouts"), "best")).rejects.toThrow(/is not a run folder/);
});

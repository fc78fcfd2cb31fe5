import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { UserError } from "../errors.ts";
import { decodeTree } from "../forest/json.ts";
import type { Tree } from "../forest/types.ts";
import { tinyFiles } from "../model/tiny.ts";
import { currentEnvironment, environmentDifference } from "./environment.ts";
import { isRunFolder, RunFolder } from "./folder.ts";
import { VerdictJournal } from "./journal.ts";
import { lockFolder } from "./lock.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "rifft-run-"));
});

const record = { environment: currentEnvironment("plan"), baseDir: "/recipes", recipe: { seed: 1 } };
const create = () => RunFolder.create(dir, "seed = 1\n", record);
const linesOf = (name: string) => readFileSync(join(dir, name), "utf8").split("\n").slice(0, -1);
const { tokenizer } = tinyFiles({ vocabulary: ["a", "b", " "] }, () => 0);

function tree(id: string): Tree {
  return {
    id,
    problem: "p1",
    segments: [
      { parent: -1, tokens: Int32Array.of(1, 2), source: "prompt", fields: {} },
      {
        parent: 0,
        tokens: Int32Array.of(2, 0),
        source: "policy",
        logprobs: Float32Array.of(-0.1, -1.5),
        fields: {},
        outcome: { reward: 1 },
        stop: "eos",
      },
    ],
  };
}

describe("RunFolder", () => {
  test("a new run is recorded, and a second one in the same folder refused", () => {
    const folder = create();
    expect(isRunFolder(dir)).toBe(true);
    expect(folder.record()).toEqual(record);
    folder.close();
    expect(readFileSync(join(dir, "recipe.toml"), "utf8")).toBe("seed = 1\n");
    expect(create).toThrow(/holds a run already; continue it with `rifft resume/);
    expect(() => RunFolder.open(join(dir, "rollouts"))).toThrow(/is not a run folder/);
  });

  test("cutBack brings metrics, timings and rollouts back to the checkpoint; verdicts and the log stay", () => {
    const folder = create();
    for (let step = 0; step < 4; step++) {
      folder.append("metrics", { stage: "2-grpo", step });
      folder.append("timings", { stage: "2-grpo", step });
      folder.append("verdicts", { step });
      folder.writeRollouts("2-grpo", step, [tree(`t${step}`)], tokenizer, false);
      if (step === 1) folder.writeRollouts("1-sft", 9, [tree("old")], tokenizer, false);
      if (step === 1) writeFileSync(join(dir, "sizes"), JSON.stringify(folder.sync()));
    }
    folder.writeRollouts("3-grpo", 0, [tree("late")], tokenizer, false);
    folder.log("something happened");
    folder.close();
    // A kill tears the last line.
    writeFileSync(join(dir, "verdicts.jsonl"), '{"step":4,"rew', { flag: "a" });

    const again = RunFolder.open(dir);
    again.cutBack(JSON.parse(readFileSync(join(dir, "sizes"), "utf8")), ["1-sft", "2-grpo", "3-grpo"], 1, 2);
    again.append("metrics", { stage: "2-grpo", step: 2, redone: true });
    expect(linesOf("metrics.jsonl").map((line) => JSON.parse(line))).toEqual([
      { stage: "2-grpo", step: 0 },
      { stage: "2-grpo", step: 1 },
      { stage: "2-grpo", step: 2, redone: true },
    ]);
    expect(again.lastMetrics().get("2-grpo")).toEqual({ step: 2, metrics: { redone: true } });
    expect(linesOf("timings.jsonl")).toHaveLength(2);
    expect(again.verdictLines()).toHaveLength(4);
    expect(readdirSync(join(dir, "rollouts", "2-grpo"))).toEqual(["000000.jsonl", "000001.jsonl"]);
    expect(readdirSync(join(dir, "rollouts", "1-sft"))).toHaveLength(1);
    expect(readdirSync(join(dir, "rollouts", "3-grpo"))).toEqual([]);
    expect(readFileSync(join(dir, "log.txt"), "utf8")).toContain("something happened");
    again.close();
  });

  test("files shorter than the checkpoint counts are an error, not a silent gap", () => {
    const folder = create();
    folder.append("metrics", { stage: "1-sft", step: 0 });
    expect(() => folder.cutBack({ metrics: 10_000 }, [], 0, 0)).toThrow(/metrics\.jsonl has \d+ bytes where .* 10000/);
    folder.close();
  });

  test("rollouts are trees that can be read back, with their text", () => {
    const folder = create();
    folder.writeRollouts("1-grpo", 0, [tree("t")], tokenizer, false);
    folder.close();
    const [line] = linesOf(join("rollouts", "1-grpo", "000000.jsonl"));
    expect(decodeTree(line, "here")).toEqual(tree("t"));
    expect(line).toContain('"text":"ab"');
  });

  test.skipIf(!existsSync("/dev/full"))("a full disk while metrics are written is a UserError", async () => {
    const { symlinkSync } = await import("node:fs");
    create().close();
    rmSync(join(dir, "metrics.jsonl"));
    symlinkSync("/dev/full", join(dir, "metrics.jsonl"));
    const folder = RunFolder.open(dir);
    expect(() => folder.append("metrics", { step: 0 })).toThrow(
      /the disk is full: .*metrics\.jsonl could not be written/,
    );
    folder.close();
  });
});

describe("the lock", () => {
  test("keeps a second opener out, and lets go", () => {
    const release = lockFolder(dir);
    expect(() => lockFolder(dir)).toThrow(new RegExp(`is in use by process ${process.pid} since`));
    release();
    lockFolder(dir)();
  });

  test("keeps another process out while it lives, and is taken over when it is dead", async () => {
    const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]);
    const lock = { pid: child.pid, host: hostname(), since: "then" };
    writeFileSync(join(dir, "lock"), JSON.stringify(lock));
    expect(() => lockFolder(dir)).toThrow(UserError);
    child.kill("SIGKILL");
    await new Promise((resolve) => child.on("exit", resolve));
    lockFolder(dir)();
    expect(readdirSync(dir)).toEqual([]);
  });

  test("a torn lock, and one that bears this process's id from before a restart, are stale", () => {
    writeFileSync(join(dir, "lock"), '{"pid":');
    lockFolder(dir)();
    writeFileSync(join(dir, "lock"), JSON.stringify({ pid: process.pid, host: hostname(), since: "then" }));
    lockFolder(dir)();
  });

  test("another machine's lock is respected", () => {
    writeFileSync(join(dir, "lock"), JSON.stringify({ pid: 1, host: "elsewhere", since: "then" }));
    expect(() => lockFolder(dir)).toThrow(/on elsewhere since then; stop that run first, or delete/);
  });
});

describe("VerdictJournal", () => {
  const key = (sample: number, step = 0) => ({ stage: "1-grpo", step, problem: "p", sample, turn: 0 });
  let asked: number;
  const grader = (reward: number) => async (missing: number[]) => {
    asked += missing.length;
    return missing.map(() => ({ reward, parts: { correct: reward } }));
  };

  test("a verdict is written before it is used, and read when the step is done again", async () => {
    asked = 0;
    const folder = create();
    const journal = new VerdictJournal(folder);
    const items = [0, 1].map((sample) => ({ key: key(sample), response: `r${sample}` }));
    await journal.grade(items, grader(1));
    expect(linesOf("verdicts.jsonl")).toHaveLength(2);
    folder.close();

    const again = RunFolder.open(dir);
    const redone = new VerdictJournal(again, { stage: "1-grpo", step: 0 });
    const grades = await redone.grade([...items, { key: key(2), response: "new" }], grader(0));
    expect(grades.map((grade) => grade.reward)).toEqual([1, 1, 0]);
    expect(asked).toBe(3);
    expect(again.verdictLines()).toHaveLength(3);
    again.close();
  });

  test("what a program came to is kept: it is not run again", async () => {
    const folder = create();
    const results = [{ answer: "7" }, { failure: "the program takes longer than 2 s" }];
    const items = results.map((_, sample) => ({ key: key(sample), response: `r${sample}` }));
    const first = await new VerdictJournal(folder).grade(items, async () =>
      results.map((program) => ({ reward: 0, parts: {}, program })),
    );
    const again = await new VerdictJournal(folder).grade(items, () => Promise.reject(new Error("run again")));
    expect(again).toEqual(first);
    expect(again.map(({ program }) => program)).toEqual(results);
    folder.close();
  });

  test("a verdict is not read for another response", async () => {
    asked = 0;
    const folder = create();
    await new VerdictJournal(folder).grade([{ key: key(0), response: "one" }], grader(1));
    const [grade] = await new VerdictJournal(folder).grade([{ key: key(0), response: "other" }], grader(0));
    expect(grade.reward).toBe(0);
    expect(asked).toBe(2);
    // The newest verdict counts.
    const [read] = await new VerdictJournal(folder).grade([{ key: key(0), response: "other" }], grader(1));
    expect(read.reward).toBe(0);
    folder.close();
  });
});

test("environmentDifference names what changed", () => {
  const now = currentEnvironment("plan");
  expect(environmentDifference(now, { ...now })).toBeUndefined();
  expect(environmentDifference(now, { ...now, threads: now.threads + 1 })).toBe(
    `threads was ${now.threads}, is ${now.threads + 1}`,
  );
});

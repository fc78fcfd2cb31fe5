import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { UserError } from "../errors.ts";
import { bytes } from "./format.ts";
import { parseRecipe } from "./recipe.ts";
import { checkSpace, estimateSpace, freeSpace, spaceText } from "./space.ts";

const read = (text: string) => parseRecipe(`model = "tiny"\ntask = "t"\n${text}`, { source: "r", baseDir: "/r" });
const grpo = "[[stage]]\nmethod = 'grpo'\nprompts = 4\nsamples = 8\nmaxTokens = 100\n";

test("counts every checkpoint that can be there at once, the snapshot and the samples", () => {
  const plain = estimateSpace(read(`checkpoint = { every = 10, keep = 2 }\n${grpo}steps = 10`), 1000, 100);
  expect(plain).toEqual({ checkpoint: 12_000, checkpoints: 3, snapshots: 0, samples: 50 * 10 * 3200 });
  const full = read(
    `checkpoint = { every = 10, keep = 2, keepBest = "dev accuracy" }\neval = { every = 5, limit = 20, maxTokens = 10 }\n` +
      `${grpo}epochs = 2\nbeta = 0.1\n${grpo}from = "1-grpo"\nmarks = { generatedTokens = 5000, engineSeconds = 9 }`,
  );
  expect(estimateSpace(full, 1000, 100)).toEqual({
    checkpoint: 12_000,
    // The two newest and the new one, the end of the first stage, two marks, the best of the run and of the stage.
    checkpoints: 3 + 1 + 2 + 2,
    snapshots: 4000,
    // 50 steps with 12 evaluations; then the tokens of the mark, and an evaluation at either end.
    samples: 50 * (50 * 3200 + 12 * 200 + 5000 + 2 * 200),
  });
});

test("a stage that stops early or has no reference needs less", () => {
  const stopped = estimateSpace(read(`${grpo}steps = 100\nstopAt = 0.1\nbeta = 0.1\nreference = "base"`), 10, 100);
  expect(stopped).toMatchObject({ snapshots: 0, samples: 50 * 10 * 3200 });
  // One sample a question, with what a critic says of each token.
  const reft = read("[[stage]]\nmethod = 'reft'\nprompts = 8\nmaxTokens = 100\nsteps = 10");
  expect(estimateSpace(reft, 10, 100)).toMatchObject({ snapshots: 40, samples: 110 * 10 * 800 });
  expect(estimateSpace(read("[[stage]]\nmethod = 'sft'\nepochs = 3"), 10, 100).samples).toBe(0);
});

test("what does not fit is refused with the estimate and the knob; samples alone only warn", () => {
  const estimate = { checkpoint: 12_000_000, checkpoints: 3, snapshots: 4_000_000, samples: 1e9 };
  expect(() => checkSpace(estimate, 39_999_999, "runs/a")).toThrow(UserError);
  expect(() => checkSpace(estimate, 39_999_999, "runs/a")).toThrow(
    "runs/a: the run needs 40 MB of disk (3 checkpoints of 12 MB, a snapshot of 4 MB) and 40 MB are free; free some, lower checkpoint.keep",
  );
  checkSpace(estimate, 40_000_000, "runs/a");
  expect(spaceText(estimate, 5e8)).toBe(
    "disk: 3 checkpoints of 12 MB, a snapshot of 4 MB, samples of 1 GB at most; 500 MB are free; long responses may fill the disk",
  );
  expect(spaceText({ ...estimate, snapshots: 0, samples: 0 }, 5e9)).toBe("disk: 3 checkpoints of 12 MB; 5 GB are free");
});

test("free space is that of the folder that will hold the run", () => {
  const missing = join(tmpdir(), "no", "such", "folder");
  expect(existsSync(missing)).toBe(false);
  expect(freeSpace(missing)).toBeGreaterThan(0);
});

test("bytes for people", () => {
  expect([0, 0.4, 999, 1000, 12_345_678, 2.5e9, 3e15].map(bytes)).toEqual([
    "0 B",
    "0.4 B",
    "999 B",
    "1 kB",
    "12.3 MB",
    "2.5 GB",
    "3000 TB",
  ]);
});

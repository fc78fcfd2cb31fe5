import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { EvaluationSettings } from "../eval/report.ts";
import type { EvaluatedSample } from "../eval/samples.ts";
import type { Problem } from "../task/types.ts";
import { EvaluationFile, modelDigest, recordedSettings } from "./evaluation.ts";

const root = mkdtempSync(join(tmpdir(), "rifft-evaluation-"));
afterAll(() => rmSync(root, { recursive: true }));

const settings: EvaluationSettings = {
  model: "m",
  task: "t",
  split: "test",
  prompt: "chat",
  mode: "math",
  strict: ["hashes"],
  flexible: ["auto"],
  n: 64,
  temperature: 1,
  maxTokens: 8,
  seed: 0,
};
// Chunks of two problems.
const problems = ["a", "b", "c", "d", "e"].map((id): Problem => ({ id, prompt: { text: id }, answer: "1" }));

const line = (i: number): EvaluatedSample => ({
  problem: problems[Math.floor(i / settings.n)].id,
  sample: i % settings.n,
  text: `text ${i}`,
  tokens: [i],
  logprobs: [-i],
  stop: "eos",
  strict: { verdict: "different", rule: "number", reason: "different numbers" },
  reward: 0,
  parts: {},
  solved: false,
});
const total = problems.length * settings.n;

let count = 0;
const folder = (): string => join(root, String(count++));

function sampleAll(dir: string, changes: Partial<EvaluationSettings> = {}, weights = "w"): string {
  const file = new EvaluationFile(dir, { ...settings, ...changes }, weights, problems);
  file.begin("plan");
  for (let i = file.kept.length; i < total; i++) file.append(line(i));
  file.close();
  return join(dir, file.file);
}

describe("an evaluation's samples", () => {
  test("wherever the file was cut off, whole chunks are kept and it ends with the same bytes", () => {
    const dir = folder();
    const path = sampleAll(dir);
    const whole = readFileSync(path);
    const chunk = 2 * settings.n;
    const ends = [0, 1, 2].map(
      (c) =>
        Buffer.byteLength(
          whole
            .toString()
            .split("\n")
            .slice(0, c * chunk)
            .join("\n"),
        ) + Number(c > 0),
    );
    for (const [size, kept] of [
      [0, 0],
      [1, 0],
      [ends[1] - 1, 0],
      [ends[1], chunk],
      [ends[1] + 50, chunk],
      [ends[2] - 1, chunk],
      [ends[2], 2 * chunk],
      [whole.length - 1, 2 * chunk],
      [whole.length, total],
    ]) {
      truncateSync(path, size);
      const file = new EvaluationFile(dir, settings, "w", problems);
      expect(file.kept).toHaveLength(kept);
      expect(file.begin("plan")).toBeUndefined();
      for (let i = kept; i < total; i++) file.append(line(i));
      file.close();
      expect(readFileSync(path).equals(whole)).toBe(true);
    }
  });

  test("other settings, weights or problems are another evaluation; the model's name is not", () => {
    const dir = folder();
    const path = sampleAll(dir);
    expect(sampleAll(dir, { model: "elsewhere" })).toBe(path);
    const others = [sampleAll(dir, { seed: 1 }), sampleAll(dir, { strict: ["boxed"] }), sampleAll(dir, {}, "w2")];
    const asked = new EvaluationFile(dir, settings, "w", [{ ...problems[0], answer: "2" }]);
    asked.close();
    expect(new Set([path, ...others, join(dir, asked.file)]).size).toBe(5);
    expect(recordedSettings(path)).toEqual({ ...settings, model: "elsewhere" });
    expect(recordedSettings(join(dir, "none.jsonl"))).toBeUndefined();
  });

  test("another place is noticed where samples are kept", () => {
    const dir = folder();
    const path = sampleAll(dir);
    truncateSync(path, readFileSync(path).length - 1);
    const file = new EvaluationFile(dir, settings, "w", problems);
    expect(file.begin("another plan")).toMatch(/^memoryPlan was "plan", is "another plan"$/);
    file.close();
    writeFileSync(path, "");
    const fresh = new EvaluationFile(dir, settings, "w", problems);
    expect(fresh.begin("another plan")).toBeUndefined();
    fresh.close();
  });

  test("a line that is broken or out of order is named and nothing is lost", () => {
    const dir = folder();
    const path = sampleAll(dir);
    const whole = readFileSync(path, "utf8");
    const open = () => new EvaluationFile(dir, settings, "w", problems).close();
    const lines = whole.split("\n");
    const spoil = (index: number, text: string) => writeFileSync(path, lines.with(index, text).join("\n"));
    spoil(6, "{");
    expect(open).toThrow(/\.jsonl:7: expected a sample as JSON/);
    expect(readFileSync(path, "utf8").length).toBe(whole.length - lines[6].length + 1);
    spoil(6, JSON.stringify({ ...line(6), sample: 99 }));
    expect(open).toThrow(/\.jsonl:7: expected sample 6 of problem a, found sample 99 of problem a/);
    writeFileSync(path, whole);
    expect(open).not.toThrow();
  });

  test("two processes do not write one file", () => {
    const dir = folder();
    const file = new EvaluationFile(dir, settings, "w", problems);
    expect(() => new EvaluationFile(dir, settings, "w", problems)).toThrow(/is in use by process/);
    new EvaluationFile(dir, { ...settings, seed: 1 }, "w", problems).close();
    file.close();
    expect(existsSync(join(dir, file.file.replace(".jsonl", ".lock")))).toBe(false);
  });
});

test("a model's digest follows its content, not its name", async () => {
  const [a, b] = ["a.gguf", "b/a.gguf"].map((name) => join(root, name));
  const bytes = Buffer.alloc(1_000_000, 7);
  writeFileSync(a, bytes);
  const before = await modelDigest(a);
  expect(await modelDigest(a)).toBe(before);
  const other = Buffer.from(bytes);
  other.fill(8, 0, 500_000);
  writeFileSync(a, other);
  expect(await modelDigest(a)).not.toBe(before);
  appendFileSync(a, "x");
  expect(await modelDigest(b)).not.toBe(before);
  expect(await modelDigest("tiny")).toBe(await modelDigest("tiny"));
});

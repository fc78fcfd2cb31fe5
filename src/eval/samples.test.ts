import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { UserError } from "../errors.ts";
import { byProblem, type EvaluatedSample, readSamples } from "./samples.ts";

const folder = mkdtempSync(join(tmpdir(), "rifft-samples-"));
afterAll(() => rmSync(folder, { recursive: true }));

const path = join(folder, "s.jsonl");
const written = (text: string): string => {
  writeFileSync(path, text);
  return path;
};
const one = (problem: string, sample: number, text = "é"): EvaluatedSample => ({
  problem,
  sample,
  text,
  tokens: [1, 2],
  logprobs: [-0.5, -1],
  stop: "eos",
  strict: { verdict: "different", rule: "number", reason: "different numbers" },
  reward: 0,
  parts: {},
  solved: false,
});
const line = (value: unknown): string => `${JSON.stringify(value)}\n`;

test("samples and where their lines end; a line that was cut off is left out", () => {
  const samples = [one("a", 0), one("a", 1, "x")];
  const text = samples.map(line).join("");
  expect(readSamples(written(text))).toMatchObject({ samples, cut: false });
  expect(readSamples(written(text)).ends.at(-1)).toBe(Buffer.byteLength(text));
  for (const cut of [1, 20, 60]) {
    const found = readSamples(written(text + line(one("b", 0)).slice(0, cut)));
    expect(found).toMatchObject({ samples, cut: true });
  }
  // A last line that lacks its end alone.
  expect(readSamples(written(text.trimEnd())).samples).toEqual(samples);
});

test.each([
  [`${line(one("a", 0))}{"problem": \n${line(one("b", 0))}`, /s\.jsonl:2: expected a sample as JSON, found .*not lost/],
  [line(one("a", 0)) + line({ ...one("b", 0), stop: "eof" }), /s\.jsonl:2: `stop`: /],
  [line({ ...one("a", 0), txet: "" }), /s\.jsonl:1: unknown key `txet` \(did you mean `text`\?\)/],
  [line(one("a", 0)) + line(one("a", 0)), /s\.jsonl:2: sample 0 of problem a is on line 1 already/],
])("a bad line is named", (text, message) => {
  const read = () => readSamples(written(text));
  expect(read).toThrow(UserError);
  expect(read).toThrow(message);
});

test("a file that is not there", () => {
  expect(() => readSamples(join(folder, "none.jsonl"))).toThrow(/none\.jsonl: cannot read the samples \(ENOENT\)/);
});

test("by problem, samples by number", () => {
  const groups = byProblem([one("b", 1), one("a", 0), one("b", 0)]);
  expect(groups.map((group) => group.map(({ problem, sample }) => problem + sample))).toEqual([["b0", "b1"], ["a0"]]);
});

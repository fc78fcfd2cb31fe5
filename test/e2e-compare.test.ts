import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { EvaluatedSample } from "../src/eval/samples.ts";
import { rifft } from "./helpers/cli.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-compare-"));

/** An evaluation folder as `rifft eval --out` leaves it: problem i of 40 is right where `right(i)`. */
function evaluation(name: string, seed: number, right: (i: number) => boolean, maxTokens = 512): string {
  const folder = join(dir, name);
  mkdirSync(join(folder, "evals"), { recursive: true });
  const lines = Array.from({ length: 40 }, (_, i): EvaluatedSample => {
    const grade = {
      answer: right(i) ? "7" : "8",
      verdict: right(i) ? ("equal" as const) : ("different" as const),
      rule: "number",
      reason: "",
    };
    const question = `what is ${i}?`;
    const rest = { tokens: [1], logprobs: [-0.5], stop: "eos" as const, reward: Number(right(i)), parts: {} };
    return { problem: `p${i}`, sample: 0, question, gold: "7", text: "", strict: grade, flexible: grade, solved: right(i), ...rest }; // prettier-ignore
  });
  writeFileSync(join(folder, "evals", "t.jsonl"), `${lines.map((line) => JSON.stringify(line)).join("\n")}\n`);
  const record = {
    model: name,
    task: "t",
    split: "test",
    prompt: "chat",
    mode: "math",
    strict: ["hashes"],
    flexible: ["auto"],
    n: 1,
    temperature: 0,
    maxTokens,
    seed,
    weights: "",
    problems: "",
  };
  writeFileSync(join(folder, "evals", "t.json"), JSON.stringify(record));
  writeFileSync(join(folder, "evals.jsonl"), `{"file":"evals/gone.jsonl"}\n{"file":"evals/t.jsonl"}\n{"fi`);
  return folder;
}

const methods: { a: string[]; b: string[] } = { a: [], b: [] };
let first = "";
let second = "";
let longer = "";
beforeAll(() => {
  first = evaluation("first", 0, (i) => i < 10);
  second = evaluation("second", 0, (i) => i < 25);
  longer = evaluation("longer", 0, (i) => i < 25, 1024);
  for (let seed = 1; seed <= 6; seed++) {
    methods.a.push(evaluation(`a-${seed}`, seed, (i) => i < 10 + seed));
    methods.b.push(evaluation(`b-${seed}`, seed, (i) => i < 18 + 2 * seed));
  }
});

describe("rifft compare", () => {
  test("two folders: the newest evaluation of each that is there", async () => {
    const { code, stdout } = await rifft(["compare", first, second]);
    expect(code).toBe(0);
    expect(stdout).toContain("B is better by 37.5 points, 95 % interval ");
    expect(stdout).toContain("McNemar's exact test: p < 0.001; B does better on 15, A on 0");
    expect(stdout).toContain("p10  gold 7  A 8  B 7");
  });

  test("a samples file against a folder, as JSON", async () => {
    const ended = await rifft(["compare", join(second, "evals", "t.jsonl"), first, "--json"]);
    expect(JSON.parse(ended.stdout)).toMatchObject({
      comparisons: [{ problems: 40, difference: -0.375, test: { name: "McNemar", aBetter: 15, bBetter: 0 } }],
    });
  });

  test("methods over six seeds, and no claim over four", async () => {
    const six = await rifft(["compare", "--a", ...methods.a, "--b", ...methods.b.toReversed()]);
    expect(six.stdout).toMatch(/ 6 {3}40\.0 {3}75\.0 {3}\+35\.0/);
    expect(six.stdout).toContain("method B is better by 28.8 points over 6 seeds, 95 % t interval");
    expect(six.stdout).toContain("exact sign-flip test: p = 0.031");
    const four = await rifft(["compare", "--a", ...methods.a.slice(0, 5), "--b", ...methods.b.slice(1), "--json"]);
    expect(four.stderr).toBe("left out, on one side only: seed 1, 6\n");
    expect(JSON.parse(four.stdout)).toMatchObject({ claim: false, signFlip: 0.125, seeds: [{ seed: 2 }, {}, {}, {}] });
  });

  test.each<[string, () => string[], RegExp]>([
    ["other settings", () => [first, longer], /differ in maxTokens \(512 and 1024\).*--allow maxTokens/],
    [
      "a setting nobody knows",
      () => [first, longer, "--allow", "max-tokens"],
      /unknown setting "max-tokens" \(did you mean maxTokens\?\)/,
    ],
    ["one evaluation", () => [first], /expected two evaluations or more, found 1/],
    ["one method", () => ["--a", first], /with --a and --b/],
    [
      "nothing there",
      () => [first, join(dir, "nowhere")],
      /nowhere does not exist: expected a samples file or a run folder/,
    ],
    ["no evaluation", () => [first, dir], /holds no evaluation: run `rifft eval/],
    ["a seed twice", () => ["--a", first, second, "--b", longer], /both have seed 0: name one run a seed/],
    ["no seed in common", () => ["--a", first, "--b", methods.b[0]], /no seed in common \(--a has 0; --b has 1\)/],
  ])("%s: one clear line", async (_, args, message) => {
    const ended = await rifft(["compare", ...args()]);
    expect(ended).toMatchObject({ code: 1, stdout: "" });
    expect(ended.stderr).toMatch(/^error: [^\n]*\n$/);
    expect(ended.stderr).toMatch(message);
  });
});

import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { type Ended, rifft, startRifft } from "./helpers/cli.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-commands-"));
const run = join(dir, "run");

const recipe = `
model = "tiny"
task = { name = "wordproblems", demonstrations = 64 }
[[stage]]
method = "sft"
steps = 3
batch = 4
lr = 1e-3
`;

beforeAll(async () => {
  writeFileSync(join(dir, "r.toml"), recipe);
  const ended = await rifft(["train", join(dir, "r.toml"), "--run", run]);
  expect(ended.stderr).not.toContain("error");
  expect(ended.code).toBe(0);
});

/** One clear line on standard error, nothing on standard output. */
function expectError(ended: Ended, message: string | RegExp, code = 1): void {
  expect(ended.stderr.trimEnd().split("\n")).toHaveLength(1);
  expect(ended.stderr).toMatch(/^error: /);
  expect(ended.stderr).toMatch(message);
  expect(ended.code).toBe(code);
  expect(ended.stdout).toBe("");
}

const scoresSchema = z.object({ logprobs: z.array(z.array(z.number().nullable())) });

describe("commands on a run", () => {
  test("score gives one log-prob an id, null for the first", async () => {
    const file = join(dir, "tokens.json");
    writeFileSync(file, "[[5, 6, 7, 8], [], [9], [5, 6]]");
    const ended = await rifft(["score", "--model", run, "--tokens", file]);
    const { logprobs } = scoresSchema.parse(JSON.parse(ended.stdout));
    expect(logprobs.map((row) => row.length)).toEqual([4, 0, 1, 2]);
    expect([logprobs[0][0], logprobs[2][0]]).toEqual([null, null]);
    expect(logprobs[0].slice(1).every((value) => value !== null && value < 0)).toBe(true);
    expect(logprobs[0][1]).toBeCloseTo(logprobs[3][1] ?? NaN, 5);
  });

  test("sample prints text, or samples as JSON; the same seed gives the same", async () => {
    const args = ["sample", "--model", run, "--prompt", "Tom has 3 pens.", "-n", "2", "--max-tokens", "8", "--json"];
    const [one, two, other] = await Promise.all([rifft(args), rifft(args), rifft([...args, "--seed", "1"])]);
    const schema = z.object({
      samples: z.array(
        z.object({ text: z.string(), tokens: z.array(z.int()), logprobs: z.array(z.number()), stop: z.string() }),
      ),
    });
    const { samples } = schema.parse(JSON.parse(one.stdout));
    expect(samples).toHaveLength(2);
    expect(samples[0].tokens).toHaveLength(samples[0].logprobs.length);
    expect(two.stdout).toBe(one.stdout);
    expect(other.stdout).not.toBe(one.stdout);
  });

  test("eval keeps every sample and appends to evals.jsonl", async () => {
    const ended = await rifft(["eval", "--model", run, "--limit", "12", "--max-tokens", "16", "--json"]);
    expect(ended.stderr).toBe("");
    const schema = z.looseObject({
      accuracy: z.number(),
      interval: z.object({ low: z.number(), high: z.number() }),
      problems: z.literal(12),
      file: z.string(),
    });
    const result = schema.parse(JSON.parse(ended.stdout));
    expect(result.interval.low).toBeLessThanOrEqual(result.accuracy);
    expect(readFileSync(join(run, result.file), "utf8").trimEnd().split("\n")).toHaveLength(12);
    const lines = readFileSync(join(run, "evals.jsonl"), "utf8").trimEnd().split("\n");
    expect(JSON.parse(lines[lines.length - 1])).toMatchObject({ accuracy: result.accuracy, task: "wordproblems" });
  });
});

describe("mistakes", () => {
  test.each([
    [["trian"], /unknown command 'trian' \(Did you mean train\?\)/],
    [["train"], /missing required argument 'recipe'/],
    [["train", "r.toml", "--nope"], /unknown option '--nope'/],
    [["sample", "--model", "x"], /required option '--prompt <text>' not specified/],
    [["sample", "--model", "x", "--prompt", "y", "-n", "0"], /expected a whole number above 0/],
    [["export", "--run", "x", "--format", "ggfu", "--out", "y"], /expected hf, .*did you mean gguf\?/],
    [["export", "--run", "x", "--format", "gguf", "--dtype", "q8-0", "--out", "y"], /did you mean q8_0\?/],
  ])("on the command line exit with 2: %j", async (args, message) => {
    expectError(await rifft(args), message, 2);
  });

  const write = (name: string, text: string) => {
    writeFileSync(join(dir, name), text);
    return join(dir, name);
  };

  test.each([
    ["broken TOML", () => ["train", write("b.toml", 'model = "tiny"\ntask = \n')], /b\.toml:2:\d+: not valid TOML/],
    [
      "an unknown key",
      () => ["train", write("u.toml", `sede = 1\n${recipe}`)],
      /unknown key `sede` \(did you mean `seed`\?\)/,
    ],
    [
      "an unknown task",
      () => ["train", write("t.toml", recipe.replace("wordproblems", "wordproblem"))],
      /wordproblems/,
    ],
    ["a missing model", () => ["train", join(dir, "r.toml"), "--set", "model=./nowhere"], /nowhere/],
    ["a missing recipe", () => ["train", join(dir, "none.toml")], /cannot read the recipe/],
    [
      "too many problems a step",
      () => ["train", join(dir, "r.toml"), "--set", "sft.batch=65"],
      /takes 65 problems a step, and .* has 64/,
    ],
    ["a context too short", () => ["train", join(dir, "r.toml"), "--set", "context=10"], /the context holds 10/],
    ["too little memory", () => ["train", join(dir, "r.toml"), "--set", "memory=0.1"], /not enough memory/],
    ["no run to resume", () => ["resume", dir], /is not a run folder/],
    [
      "no run to export",
      () => ["export", "--run", dir, "--format", "hf", "--out", join(dir, "o")],
      /is not a run folder/,
    ],
    [
      "the wrong format",
      () => ["export", "--run", run, "--format", "peft", "--out", join(dir, "o")],
      /export it with --format hf/,
    ],
    [
      "tokens that are none",
      () => ["score", "--model", run, "--tokens", write("x.json", "[[1, -2]]")],
      /expected an array of arrays of token ids, found something else at \[0\]\[1\]/,
    ],
    [
      "tokens outside the vocabulary",
      () => ["score", "--model", run, "--tokens", write("v.json", "[[1, 99999]]")],
      /99999/,
    ],
    ["no task", () => ["eval", "--model", "somewhere"], /name a task with --task/],
  ])("%s: one line, exit code 1, no folder left behind", async (_, args, message) => {
    const out = join(dir, "fresh");
    const line = args();
    expectError(await rifft(line[0] === "train" ? [...line, "--run", out] : line), message);
    expect(readdirSync(dir)).not.toContain("fresh");
  });

  test("a reader that leaves is no error", async () => {
    const { child, end } = startRifft(["--help"]);
    child.stdout?.destroy();
    const ended = await end;
    expect(ended.stderr).toBe("");
    expect(ended.code).toBe(0);
  });
});

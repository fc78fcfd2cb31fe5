import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { RandomStream } from "../src/engine/random.ts";
import { rifft } from "./helpers/cli.ts";
import { stopAgainAndAgain } from "./helpers/kill.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-warmup-"));
const file = join(dir, "warmup.toml");
const whole = join(dir, "whole");

const recipe = `
model = "tiny"
task = ${JSON.stringify(resolve("test/fixtures/plums.ts"))}
seed = 2
functions = "tokens"
checkpoint = { every = 1, keep = 2 }
[[stage]]
method = "rftt-data"
steps = 5
prompts = 1
rollouts = 2
maxDepth = 2
maxTokens = { clarify = 6, analysis = 6, subquestion = 6, next_step = 6, direct_answer = 6 }
verifyTokens = 6
merged = 4
[[stage]]
method = "sft"
records = "1-rftt-data"
steps = 4
batch = 2
lr = 1e-3
`;

/** Everything of a run that must not depend on whether it was interrupted. */
function traces(run: string): Record<string, string> {
  const folders = ["rollouts/1-rftt-data", "records/1-rftt-data"];
  const checkpoint = readdirSync(join(run, "checkpoints")).sort().at(-1) ?? "";
  folders.push(join("checkpoints", checkpoint, "model"));
  const files = [
    "metrics.jsonl",
    ...folders.flatMap((one) => readdirSync(join(run, one)).map((name) => join(one, name))),
  ];
  return Object.fromEntries(files.map((name) => [name, readFileSync(join(run, name)).toString("base64")]));
}

const steps = (run: string) =>
  existsSync(join(run, "run.json")) ? readFileSync(join(run, "metrics.jsonl"), "utf8").split("\n").length - 1 : 0;

beforeAll(async () => {
  writeFileSync(file, recipe);
  const ended = await rifft(["train", file, "--run", whole]);
  expect(ended.stderr).not.toContain("error:");
  expect(ended.code).toBe(0);
});

test("a question that is evaluated is left out, the program completes the set, and SFT reads it", () => {
  const yielded: unknown = JSON.parse(readFileSync(join(whole, "records/1-rftt-data/yield.json"), "utf8"));
  expect(yielded).toMatchObject({ program: 4 });
  const lines = readFileSync(join(whole, "records/1-rftt-data/program.jsonl"), "utf8").trimEnd().split("\n");
  const ids = lines.map((line) => String(JSON.parse(line).id));
  expect(ids).not.toContain("p3");
  expect(readFileSync(join(whole, "log.txt"), "utf8")).toMatch(/records made by program +4/);
});

test("killed at four moments and resumed, data and weights end with the same bytes", async () => {
  const run = join(dir, "killed");
  const random = new RandomStream("kill/warm-up");
  const ended = await stopAgainAndAgain(4, () => {
    const before = steps(run);
    const target = Math.max(1, before + random.below(3));
    return {
      args: before > 0 ? ["resume", run] : ["train", file, "--run", run],
      due: () => steps(run) >= target,
      delay: 60 * random.uniform(),
    };
  });
  expect(ended.stderr).not.toContain("error:");
  expect(ended.code).toBe(0);
  expect(traces(run)).toEqual(traces(whole));
});

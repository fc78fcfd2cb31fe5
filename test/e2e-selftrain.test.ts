import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { RandomStream } from "../src/engine/random.ts";
import { readCurve } from "../src/run/curve.ts";
import { rifft, startRifft } from "./helpers/cli.ts";
import { stopAgainAndAgain } from "./helpers/kill.ts";

/** Eleven steps of sampling, the last with fewer problems than the others, then training from the base. */
const recipe = (lora: string) => `
model = "tiny"
task = { name = "wordproblems", demonstrations = 63, levels = [1], hasty = 0, max = 20 }
seed = 3
${lora}
checkpoint = { every = 3, keep = 2 }
eval = { every = 40, limit = 30, maxTokens = 24 }
[[stage]]
method = "sft"
steps = 45
batch = 16
accepted = true
lr = 5e-3
maxGradNorm = 1
[[stage]]
method = "selftrain"
steps = 14
marks = { generatedTokens = 5000 }
prompts = 6
samples = 8
maxTokens = 24
keep = 4
batch = 16
lr = 5e-3
`;

const dir = mkdtempSync(join(tmpdir(), "rifft-selftrain-"));
const stateMarks = z.looseObject({
  marks: z.array(z.looseObject({ stage: z.string(), mark: z.string(), step: z.number() })),
});
const metricsLine = z.looseObject({ stage: z.string(), step: z.number(), kept: z.number().optional() });

/** Everything of a run that must not depend on whether it was interrupted. */
function traces(run: string): Record<string, string> {
  const checkpoint = readdirSync(join(run, "checkpoints")).sort().at(-1) ?? "";
  const model = join(run, "checkpoints", checkpoint, "model");
  const rollouts = join(run, "rollouts", "2-selftrain");
  const files = [
    join(run, "metrics.jsonl"),
    join(run, "evals.jsonl"),
    ...readdirSync(model).map((name) => join(model, name)),
    ...readdirSync(rollouts).map((name) => join(rollouts, name)),
  ];
  return Object.fromEntries(files.map((file) => [file.slice(run.length), readFileSync(file).toString("base64")]));
}

const metricsOf = (run: string) =>
  readFileSync(join(run, "metrics.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => metricsLine.parse(JSON.parse(line)));

/** The marks that the last checkpoint notes. */
function listMarks(run: string) {
  const last = readdirSync(join(run, "checkpoints")).sort().at(-1) ?? "";
  const state = stateMarks.parse(JSON.parse(readFileSync(join(run, "checkpoints", last, "state.json"), "utf8")));
  return state.marks.map(({ stage, mark, step }) => [stage, mark, step]);
}

const stepsDone = (run: string) =>
  existsSync(join(run, "run.json")) ? readFileSync(join(run, "metrics.jsonl"), "utf8").split("\n").length - 1 : 0;

/** After so many steps of the run a kill (in sampling, between sampling and training, in training) or Ctrl-C in sampling. */
const everywhere = [45 + 2, -(45 + 5), 45 + 11, 45 + 13, 45 + 20];

describe.each([
  ["full", "", everywhere],
  ["lora", "lora = { rank = 4, alpha = 8 }", [45 + 7, 45 + 15]],
])("self-training, %s", (name, lora, kills) => {
  const file = join(dir, `${name}.toml`);
  const whole = join(dir, `${name}-whole`);

  beforeAll(async () => {
    writeFileSync(file, recipe(lora));
    const ended = await rifft(["train", file, "--run", whole, "--json"]);
    expect(ended.stderr).not.toContain("error");
    expect(JSON.parse(ended.stdout)).toMatchObject({
      complete: true,
      stages: [
        { name: "1-sft", steps: 45 },
        { name: "2-selftrain", steps: 11 + 14 },
      ],
    });
  });

  test("its steps of sampling stand outside of the stage's steps, and their samples are kept", () => {
    expect(readdirSync(join(whole, "rollouts", "2-selftrain"))).toHaveLength(11);
    const lines = metricsOf(whole).filter(({ stage }) => stage === "2-selftrain");
    const kept = lines.slice(0, 11).reduce((sum, line) => sum + (line.kept ?? NaN), 0);
    expect(kept).toBeGreaterThan(0);
    expect(lines[11].kept).toBe(kept);
    // The weights of a stage that only samples are those it began with.
    expect(readCurve(whole).map(({ stage, step }) => [stage, step])).toEqual([
      ["1-sft", 0],
      ["1-sft", 40],
      ["1-sft", 45],
      ["2-selftrain", 25],
    ]);
    expect(listMarks(whole)).toEqual([["2-selftrain", "generatedTokens", 25]]);
    // The samples of both kinds of weights, and every accepted demonstration once.
    expect(readFileSync(join(whole, "verdicts.jsonl"), "utf8").trimEnd().split("\n")).toHaveLength(63 + 63 * 8);
  });

  test("killed while it samples and while it trains, and resumed, it ends with the same bytes", async () => {
    const run = join(dir, `${name}-killed`);
    const random = new RandomStream(`kill/${name}`);
    const ended = await stopAgainAndAgain(kills.length, (stopped) => ({
      args: existsSync(join(run, "run.json")) ? ["resume", run] : ["train", file, "--run", run],
      due: () => stepsDone(run) >= Math.abs(kills[stopped]),
      delay: 40 * random.uniform(),
      signal: kills[stopped] < 0 ? "SIGINT" : "SIGKILL",
    }));
    expect(ended.stderr).not.toContain("error");
    expect(ended.code).toBe(0);
    expect(ended.stopped).toBe(kills.length);
    expect(traces(run)).toEqual(traces(whole));
  });
});

test("samples that are gone are an error that names them", async () => {
  const run = join(dir, "gone");
  const { child, end } = startRifft(["train", join(dir, "full.toml"), "--run", run]);
  const poll = setInterval(() => stepsDone(run) >= 45 + 14 && child.kill("SIGKILL"), 2);
  await end;
  clearInterval(poll);
  rmSync(join(run, "rollouts", "2-selftrain", "000004.jsonl"));
  const resumed = await rifft(["resume", run]);
  expect(resumed.code).toBe(1);
  expect(resumed.stderr).toMatch(/000004\.jsonl is missing: it holds samples that stage 2-selftrain trains on/);
});

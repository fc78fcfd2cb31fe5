import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { readRecipe } from "../src/run/recipe.ts";
import { train } from "../src/run/train.ts";
import { rifft } from "./helpers/cli.ts";
import { fixture } from "./local.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-motif-"));

/**
 * Letters that are handed on. The variable STOP, such as "40 SIGKILL", gives the process a signal while it samples the second round, at the 40th prompt of
 * such a round that it makes.
 */
const task = `import { defineTask } from "rifft/task";
const letters = ["a", "b", "c", "d"];
const [at, signal] = (process.env.STOP ?? "0 SIGKILL").split(" ");
let made = 0;
export default defineTask({
  name: "letters",
  splits: { train: letters.map((letter) => ({ id: letter, prompt: { text: letter + "?" }, answer: letter })) },
  vocabulary: [...letters, "?", ">", "!"],
  reward: (problem, response) => ({ correct: Number(response.startsWith(problem.answer)), long: response.length / 10 }),
  rounds: {
    prompt(problem, round, rounds, progress) {
      if (round === 2 && ++made === Number(at)) setImmediate(() => process.kill(process.pid, signal));
      return { text: round === 1 ? problem.answer + "?" : (progress ?? "") + ">" };
    },
    progress: (response) => letters.find((letter) => response.startsWith(letter)),
    final: (response) => response.includes("!"),
  },
});
`;
const recipe = `model = "tiny"
task = "./letters.ts"
seed = 3
checkpoint = { every = 2, keep = 2 }
[[stage]]
method = "motif"
steps = 6
prompts = 4
samples = 3
continuations = 2
rounds = 3
maxTokens = 4
trainRounds = "all"
beta = 0.05
adaptive = true
lr = 2e-3
`;

/** Everything of a run that must not depend on whether it was interrupted. */
function traces(run: string): Record<string, string> {
  const checkpoint = readdirSync(join(run, "checkpoints")).sort().at(-1) ?? "";
  const model = join(run, "checkpoints", checkpoint, "model");
  const rollouts = join(run, "rollouts", "1-motif");
  const files = [join(run, "metrics.jsonl")];
  for (const folder of [model, rollouts]) files.push(...readdirSync(folder).map((name) => join(folder, name)));
  return Object.fromEntries(files.map((file) => [file.slice(run.length), readFileSync(file).toString("base64")]));
}

describe("a run in rounds", () => {
  const file = join(dir, "motif.toml");
  const whole = join(dir, "whole");

  beforeAll(async () => {
    writeFileSync(join(dir, "letters.ts"), task);
    writeFileSync(file, recipe);
    const ended = await rifft(["train", file, "--run", whole]);
    expect(ended.stderr).not.toContain("error");
    expect(ended.code).toBe(0);
  });

  test("its verdicts are those of chain and round, its samples trees with their causes", () => {
    const lines = (name: string) => readFileSync(join(whole, name), "utf8").trimEnd().split("\n");
    const verdicts = lines("verdicts.jsonl").map((line): { turn: number; sample: number } => JSON.parse(line));
    expect(new Set(verdicts.map(({ turn }) => turn))).toEqual(new Set([1, 2, 3]));
    expect(verdicts.filter(({ turn }) => turn === 1)).toHaveLength(6 * 4 * 3);
    expect(Math.max(...verdicts.map(({ sample }) => sample))).toBe(5);
    const trees = lines(join("rollouts/1-motif", readdirSync(join(whole, "rollouts/1-motif")).sort()[0])).map(
      (line): { id: string; cause?: { tree: string } } => JSON.parse(line),
    );
    const ids = new Set(trees.map(({ id }) => id));
    expect(trees.filter(({ cause }) => cause !== undefined).length).toBeGreaterThan(4);
    for (const { cause } of trees) if (cause !== undefined) expect(ids).toContain(cause.tree);
  });

  test("killed while it samples the second round, and resumed, it ends with the same bytes", async () => {
    const run = join(dir, "killed");
    // 12 prompts of second rounds a step, fewer where a question has ended.
    let ended = await rifft(["train", file, "--run", run], { env: { STOP: "30 SIGKILL" } });
    expect(ended.signal).toBe("SIGKILL");
    ended = await rifft(["resume", run], { env: { STOP: "9 SIGKILL" } });
    expect(ended.signal).toBe("SIGKILL");
    ended = await rifft(["resume", run]);
    expect(ended.code).toBe(0);
    expect(traces(run)).toEqual(traces(whole));
  });

  test("Ctrl-C in the second round: the step is finished and kept", async () => {
    const run = join(dir, "interrupted");
    const ended = await rifft(["train", file, "--run", run], { env: { STOP: "20 SIGINT" } });
    expect(ended.code).toBe(130);
    expect(ended.stdout).toContain("rifft resume ");
    const steps = readFileSync(join(run, "metrics.jsonl"), "utf8").trimEnd().split("\n").length;
    expect(readdirSync(join(run, "rollouts", "1-motif"))).toHaveLength(steps);
    expect(readdirSync(join(run, "checkpoints")).length).toBeGreaterThan(0);
    const resumed = await rifft(["resume", run]);
    expect(resumed.code).toBe(0);
    expect(traces(run)).toEqual(traces(whole));
  });
});

test("budgets that do not fit the context, and a layout that nobody asks for, are refused before any step", async () => {
  const refused = (...changes: string[]) =>
    train(readRecipe(join(dir, "motif.toml"), changes), { run: join(dir, "none") });
  const chat = [
    `model="${fixture("llama")}"`,
    "lora={ rank = 2, alpha = 4 }",
    'task={ name = "wordproblems", prompt = "chat" }',
  ];
  await expect(refused(...chat, "motif.maxTokens=100")).rejects.toThrow(
    /needs \d+ tokens in stage 1-motif, and the context holds 128; lower maxTokens or progressTokens, leave it out/,
  );
  await expect(refused("motif.formatWeight=1")).rejects.toThrow(/words its own rounds/);
  await expect(refused("motif.outsideTags=1")).rejects.toThrow(
    /`stage\.1`: task letters words its own rounds, which have no tags, so that outsideTags counts for nothing/,
  );
  expect(() => readRecipe(join(dir, "motif.toml"), ["motif.maxTokens=[4,4]"])).toThrow(/one for each of 3 rounds/);
});

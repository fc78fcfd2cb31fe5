import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { solveRates } from "../src/eval/profile.ts";
import { readSamples } from "../src/eval/samples.ts";
import { rifft, startRifft } from "./helpers/cli.ts";

const dir = mkdtempSync(join(tmpdir(), "rifft-profile-"));
const warm = join(dir, "warm");
const task = '{ name = "wordproblems", demonstrations = 300, levels = [1, 2], max = 20, seed = 4 }';

const profileSchema = z.object({
  problems: z.array(z.object({ problem: z.string(), solved: z.number(), low: z.number(), high: z.number() })),
  histogram: z.array(z.object({ problems: z.number() })),
  accuracy: z.number(),
  cost: z.object({ generated: z.number(), prefilled: z.number(), seconds: z.number() }),
  file: z.string(),
});
const lines = (file: string): Record<string, unknown>[] =>
  readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

const profiling = (out: string) => [
  "task",
  "profile",
  task,
  "--model",
  warm,
  "--n",
  "4",
  "--limit",
  "200",
  "--max-tokens",
  "24",
  "--out",
  out,
];
let profile: z.infer<typeof profileSchema>;

beforeAll(async () => {
  const recipe = join(dir, "warm.toml");
  writeFileSync(
    recipe,
    `model = "tiny"\ntask = ${task}\n[[stage]]\nmethod = "sft"\nsteps = 60\nbatch = 16\nlr = 5e-3\n`,
  );
  expect((await rifft(["train", recipe, "--run", warm])).code).toBe(0);
  const made = await rifft([...profiling(join(dir, "rates")), "--json"]);
  expect(made.stderr).toBe("");
  profile = profileSchema.parse(JSON.parse(made.stdout));
});

test("the solve rates of 200 questions are those of an evaluation with the same seeds", async () => {
  const out = join(dir, "evaluated");
  const args = ["--split", "train", "--limit", "200", "--n", "4", "--max-tokens", "24", "--out", out, "--json"];
  const ended = await rifft(["eval", "--model", warm, "--task", task, ...args]);
  const { accuracy, file } = z.object({ accuracy: z.number(), file: z.string() }).parse(JSON.parse(ended.stdout));
  const { samples } = readSamples(join(out, file));
  expect(samples).toHaveLength(800);
  expect(profile.problems).toEqual(solveRates(samples));
  expect(profile.accuracy).toBe(accuracy);
  expect(readFileSync(profile.file)).toEqual(readFileSync(join(out, file)));
  expect(profile.cost.generated).toBe(samples.reduce((sum, { tokens }) => sum + tokens.length, 0));
  expect(profile.histogram.reduce((sum, bar) => sum + bar.problems, 0)).toBe(200);
});

test("interrupted, it goes on, with the same samples and the same cost", async () => {
  const out = join(dir, "killed");
  const { child, end } = startRifft(profiling(out));
  const file = join(out, "evals", profile.file.split("/").at(-1) ?? "");
  const poll = setInterval(
    () => existsSync(file) && readFileSync(file, "utf8").split("\n").length > 200 && child.kill("SIGKILL"),
    1,
  );
  await end;
  clearInterval(poll);
  const ended = await rifft([...profiling(out), "--json"]);
  const again = profileSchema.parse(JSON.parse(ended.stdout));
  expect(readFileSync(file)).toEqual(readFileSync(profile.file));
  expect({ ...again.cost, seconds: 0 }).toEqual({ ...profile.cost, seconds: 0 });
});

test("a terminal sees a histogram, the cost, and how a recipe names it", async () => {
  const { stdout, code } = await rifft(profiling(join(dir, "rates")));
  expect(code).toBe(0);
  expect(stdout).toContain("wordproblems, train: 200 problems, 4 samples each, temperature 1");
  for (const rate of ["  0", " 25", " 50", " 75", "100"])
    expect(stdout).toMatch(new RegExp(`^ *${rate.trim()} % +\\d+`, "m"));
  expect(stdout).toContain(`cost: ${profile.cost.generated} tokens generated, ${profile.cost.prefilled} prefilled`);
  expect(stdout).toContain(`profile = ${JSON.stringify(profile.file)}`);
});

const filtered = (budget: string, where: string) => `model = "tiny"
task = ${task}
profile = "rates"
where = "${where}"
checkpoint = { every = 2, keep = 2 }
[[stage]]
method = "grpo"
from = "./warm"
${budget}
prompts = 4
samples = 4
maxTokens = 24
lr = 1e-3
`;

test("a run trains on what satisfies `where` alone, and its counters begin with the profile's cost", async () => {
  const recipe = join(dir, "filtered.toml");
  const run = join(dir, "filtered");
  const budget = profile.cost.generated + 1000;
  writeFileSync(recipe, filtered(`generatedTokens = ${budget}`, "0 < solved < 1"));
  const ended = await rifft(["train", recipe, "--run", run]);
  expect(ended.code).toBe(0);
  const chosen = new Set(
    profile.problems.filter(({ solved }) => solved > 0 && solved < 1).map(({ problem }) => problem),
  );
  expect(ended.stderr + ended.stdout).toContain(`training problems: ${chosen.size} of the 200 that`);
  const seen = lines(join(run, "verdicts.jsonl")).map(({ problem }) => String(problem));
  for (const problem of seen) expect(chosen).toContain(problem);
  const generated = lines(join(run, "metrics.jsonl")).map((line) => Number(line.generated));
  expect(generated[0]).toBeGreaterThan(profile.cost.generated);
  expect(generated.at(-1)).toBeGreaterThanOrEqual(budget);
  expect(generated.at(-2)).toBeLessThan(budget);

  // Another profile in the place of the one that it began with is refused.
  writeFileSync(recipe, filtered("steps = 40", "solved > 0"));
  const stopped = join(dir, "stopped");
  const { child, end } = startRifft(["train", recipe, "--run", stopped]);
  const poll = setInterval(() => existsSync(join(stopped, "checkpoints", "step-00000002")) && child.kill("SIGKILL"), 2);
  await end;
  clearInterval(poll);
  const samples = readFileSync(profile.file, "utf8");
  writeFileSync(profile.file, samples.replace('"text":"', '"text":" '));
  const refused = await rifft(["resume", stopped]);
  writeFileSync(profile.file, samples);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/rates is not as it was when .*stopped began/);
});

import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { RandomStream } from "../src/engine/random.ts";
import { rifft, startRifft } from "./helpers/cli.ts";
import { stopAgainAndAgain } from "./helpers/kill.ts";

// KILLS=10 npx vitest run test/e2e-experiment.test.ts kills as often as ten times.
const KILLS = Number(process.env.KILLS ?? 3);

const dir = mkdtempSync(join(tmpdir(), "rifft-e2e-experiment-"));
const file = join(dir, "rates.toml");
const experiment = `
title = "Two rates"
recipe = "base.toml"
budgets = { generatedTokens = 1500 }
tuning = { seeds = [9] }
final = { seeds = [0, 1] }
dev = { limit = 20, maxTokens = 24 }
test = { limit = 30, maxTokens = 24 }
curve = { every = 20, limit = 10 }

[[arm]]
name = "wide"
set = { "grpo.samples" = 8 }
settings = [{ "grpo.lr" = 1e-3 }, { "grpo.lr" = 1e-4 }]

[[arm]]
name = "narrow"
set = { "grpo.samples" = 4 }
settings = [{ "grpo.lr" = 1e-3 }, { "grpo.lr" = 1e-4 }]

[[contrast]]
a = "wide"
b = "narrow"
budget = "generatedTokens"
`;
writeFileSync(
  join(dir, "base.toml"),
  `model = "tiny"
task = { name = "wordproblems", demonstrations = 200, levels = [1] }
checkpoint = { every = 5, keep = 2 }
[[stage]]
method = "sft"
steps = 60
batch = 4
lr = 3e-3
[[stage]]
method = "grpo"
steps = 9
prompts = 4
maxTokens = 24
`,
);
writeFileSync(file, experiment);

const resultSchema = z.object({
  complete: z.boolean(),
  missing: z.array(z.object({ cell: z.string(), reason: z.string() })),
  arms: z.array(z.looseObject({ cost: z.object({ counts: z.looseObject({}) }) })),
  contrasts: z.array(z.looseObject({})),
  choices: z.looseObject({}),
});

/** The table without the clock. */
function tableOf(run: string) {
  const { arms, ...rest } = resultSchema.parse(JSON.parse(readFileSync(join(run, "results.json"), "utf8")));
  return { ...rest, arms: arms.map(({ cost, ...arm }) => ({ ...arm, counts: cost.counts })) };
}

const whole = join(dir, "whole");
/** Run folders that are complete, and steps that are written: how far an experiment is. */
function progressOf(run: string): number {
  if (!existsSync(run)) return 0;
  let files: string[] = [];
  try {
    files = readdirSync(run, { recursive: true, encoding: "utf8" });
  } catch {
    // A folder that was there a moment ago.
  }
  const count = (name: string) => files.filter((path) => path.endsWith(name));
  const steps = count("metrics.jsonl").map((path) => readFileSync(join(run, path), "utf8").split("\n").length - 1);
  return count("cell.json").length + steps.reduce((sum, n) => sum + n, 0);
}

describe("rifft experiment", () => {
  test("Ctrl-C stops it with checkpoints; a cell that fails is reported and does not stop the others; the same command goes on", async () => {
    const run = whole;
    // Where the run's folder should be stands a file.
    const blocked = join(run, "final", "narrow", "seed-1");
    const { child, end } = startRifft(["experiment", file, "--run", run]);
    const poll = setInterval(() => {
      if (!existsSync(join(run, "tuning"))) return;
      clearInterval(poll);
      child.kill("SIGINT");
    }, 20);
    const stopped = await end;
    expect(stopped.code).toBe(130);
    expect(stopped.stderr).toContain("Ctrl-C again stops at once");
    expect(stopped.stdout).toContain("interrupted; continue with: rifft experiment");
    fileAt(blocked);
    const failed = await rifft(["experiment", file, "--run", run]);
    expect(failed.code).toBe(1);
    expect(failed.stderr).toMatch(/final\/narrow\/seed-1 FAILED: /);
    expect(failed.stdout).toContain("missing: final/narrow/seed-1: ");
    expect(tableOf(run).missing.map(({ cell }) => cell)).toEqual(["final/narrow/seed-1"]);
    expect(readFileSync(join(run, "README.md"), "utf8")).toContain("**Not complete.**");
    for (const done of ["wide/seed-0", "wide/seed-1", "narrow/seed-0"]) {
      expect(existsSync(join(run, "final", ...done.split("/"), "cell.json"))).toBe(true);
    }
    rmSync(blocked);
    const ended = await rifft(["experiment", file, "--run", run]);
    expect(ended.code).toBe(0);
    expect(tableOf(run).missing).toEqual([]);
  });

  test("its folder holds the page, the curves and the choices; complete cells are not run again", async () => {
    expect(readdirSync(whole)).toEqual(
      expect.arrayContaining([
        "README.md",
        "results.json",
        "choices.json",
        "accuracy-generated.svg",
        "accuracy-seconds.svg",
        "accuracy-steps.svg",
      ]),
    );
    const page = readFileSync(join(whole, "README.md"), "utf8");
    expect(page).toContain("no claim can be made with 2 seeds");
    expect(page.match(/\*\*chosen\*\*/g)).toHaveLength(2);
    expect(readdirSync(join(whole, "shared")).length).toBe(1);
    const before = tableOf(whole);
    const out = join(dir, "out");
    const again = await rifft(["experiment", file, "--run", whole, "--out", out]);
    expect(again.code).toBe(0);
    expect(again.stderr).not.toContain("begins");
    expect(tableOf(whole)).toEqual(before);
    expect(readFileSync(join(out, "README.md"), "utf8")).toBe(
      page.replace("rates.toml\n", `rates.toml --out ${out}\n`),
    );
    const dry = await rifft(["experiment", file, "--run", whole, "--dry-run", "--json"]);
    const cells = z
      .object({ final: z.array(z.object({ id: z.string(), complete: z.boolean() })) })
      .parse(JSON.parse(dry.stdout));
    expect(cells.final).toHaveLength(4);
    expect(cells.final.every(({ complete }) => complete)).toBe(true);
  });

  test("killed again and again, it ends with the same table", async () => {
    const run = join(dir, "killed");
    const random = new RandomStream("kill/experiment");
    const ended = await stopAgainAndAgain(KILLS, () => {
      const target = progressOf(run) + 1 + random.below(Math.max(2, Math.floor(150 / KILLS)));
      return {
        args: ["experiment", file, "--run", run],
        due: () => progressOf(run) >= target,
        delay: 100 * random.uniform(),
        every: 20,
      };
    });
    expect(ended.stderr).not.toContain("FAILED");
    expect(ended.code).toBe(0);
    expect(ended.stopped).toBe(KILLS);
    expect(tableOf(run)).toEqual(tableOf(whole));
  });

  test("a changed file, choice or recipe is refused; so is a second process", async () => {
    const other = join(dir, "other.toml");
    writeFileSync(other, experiment.replace("seeds = [0, 1]", "seeds = [0, 1, 2]"));
    const grown = await rifft(["experiment", other, "--run", whole]);
    expect(grown.code).toBe(1);
    expect(grown.stderr).toContain("`final.seeds.3` was absent when");

    const choices = join(whole, "choices.json");
    const text = readFileSync(choices, "utf8");
    const chosen = /"wide": \{\s+"chosen": (\d)/.exec(text);
    writeFileSync(choices, text.replace(/("wide": \{\s+"chosen": )\d/, `$1${1 - Number(chosen?.[1])}`));
    const switched = await rifft(["experiment", file, "--run", whole]);
    expect(switched.code).toBe(1);
    expect(switched.stderr).toContain("final cells have begun, so the choice is frozen");
    writeFileSync(choices, text);

    const base = join(dir, "base.toml");
    const recipe = readFileSync(base, "utf8");
    writeFileSync(base, recipe.replace("prompts = 4", "prompts = 5"));
    const changed = await rifft(["experiment", file, "--run", whole]);
    expect(changed.code).toBe(1);
    expect(changed.stderr).toContain("`stage.1.prompts` was 4 when this run began and is 5");
    writeFileSync(base, recipe);

    writeFileSync(join(whole, "lock"), JSON.stringify({ pid: process.pid, host: hostname(), since: "" }));
    const second = await rifft(["experiment", file, "--run", whole]);
    expect(second.code).toBe(1);
    expect(second.stderr).toContain(`is in use by process ${process.pid}`);
    rmSync(join(whole, "lock"));
  });

  test("engine seconds as the budget, arms that generate nothing, a setting that diverges: it is not chosen", async () => {
    const run = join(dir, "diverging");
    const diverging = join(dir, "diverging.toml");
    writeFileSync(
      diverging,
      `title = "Seconds"
recipe = "base.toml"
budgets = { engineSeconds = 0.2 }
tuning = { seeds = [9] }
final = { seeds = [0, 1] }
dev = { limit = 5, maxTokens = 8 }
test = { limit = 5, maxTokens = 8 }
[[arm]]
name = "a"
recipe = "sft.toml"
settings = [{ "stage.1.lr" = 1e30 }, { "stage.1.lr" = 1e-4 }]
[[arm]]
name = "b"
recipe = "sft.toml"
settings = [{ "stage.1.lr" = 1e-3 }, { "stage.1.lr" = 1e-4 }]
[[contrast]]
a = "a"
b = "b"
budget = "engineSeconds"
`,
    );
    const recipe = readFileSync(join(dir, "base.toml"), "utf8");
    writeFileSync(join(dir, "sft.toml"), recipe.slice(0, recipe.lastIndexOf("[[stage]]")));
    const ended = await rifft(["experiment", diverging, "--run", run]);
    expect(ended.stderr).toMatch(/tuning\/a\/setting-1\/seed-9 diverged: /);
    expect(ended.code).toBe(0);
    const page = readFileSync(join(run, "README.md"), "utf8");
    expect(page).toMatch(/\| a \| `stage.1.lr = 1e\+30` \| diverged \| {2}\| {2}\|/);
    expect(page).toMatch(/\| a \| `stage.1.lr = 0.0001` \| [\d.]+ \| [\d.]+ \| \*\*chosen\*\* \|/);
  });
});

function fileAt(path: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, "");
}

import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { RandomStream } from "../src/engine/random.ts";
import { rifft, startRifft } from "./helpers/cli.ts";
import { stopAgainAndAgain } from "./helpers/kill.ts";

/** SFT, then GRPO with a KL penalty towards the stage's start, so that a frozen reference has to survive too. */
const recipe = (lora: string) => `
model = "tiny"
task = { name = "wordproblems", demonstrations = 120, levels = [1] }
seed = 3
${lora}
checkpoint = { every = 3, keep = 2 }
[[stage]]
method = "sft"
steps = 14
batch = 16
lr = 5e-3
schedule = { kind = "cosine", warmup = 3, final = 0.1 }
[[stage]]
method = "grpo"
steps = 9
prompts = 4
samples = 8
maxTokens = 32
beta = 0.05
lr = 6e-4
`;

const dir = mkdtempSync(join(tmpdir(), "rifft-e2e-"));

/** Everything of a run that must not depend on whether it was interrupted. */
function traces(run: string): Record<string, string> {
  const checkpoint = readdirSync(join(run, "checkpoints")).sort().at(-1) ?? "";
  const model = join(run, "checkpoints", checkpoint, "model");
  const files = [join(run, "metrics.jsonl"), ...readdirSync(model).map((name) => join(model, name))];
  for (const name of readdirSync(join(run, "rollouts", "2-grpo"))) files.push(join(run, "rollouts", "2-grpo", name));
  return Object.fromEntries(files.map((file) => [file.slice(run.length), readFileSync(file).toString("base64")]));
}

const linesIn = (file: string) => readFileSync(file, "utf8").split("\n").length - 1;

describe.each([
  ["full", ""],
  ["lora", 'lora = { rank = 4, alpha = 8 }\nfunctions = "tokens"'],
])("a run, %s", (name, lora) => {
  const file = join(dir, `${name}.toml`);
  const whole = join(dir, `${name}-whole`);

  beforeAll(async () => {
    writeFileSync(file, recipe(lora));
    const ended = await rifft(["train", file, "--run", whole, "--json"]);
    expect(ended.stderr).not.toContain("error");
    expect(ended.code).toBe(0);
    const result: unknown = JSON.parse(ended.stdout);
    expect(result).toMatchObject({
      complete: true,
      stages: [
        { name: "1-sft", steps: 14 },
        { name: "2-grpo", steps: 9 },
      ],
    });
  });

  test("its folder holds what the contract names", () => {
    expect(readdirSync(whole)).toEqual(
      expect.arrayContaining([
        "recipe.toml",
        "metrics.jsonl",
        "timings.jsonl",
        "verdicts.jsonl",
        "rollouts",
        "checkpoints",
        "log.txt",
      ]),
    );
    expect(readFileSync(join(whole, "metrics.jsonl"), "utf8").trimEnd().split("\n")).toHaveLength(23);
    expect(readFileSync(join(whole, "verdicts.jsonl"), "utf8").trimEnd().split("\n")).toHaveLength(9 * 32);
    expect(readdirSync(join(whole, "rollouts", "2-grpo"))).toHaveLength(9);
    expect(readdirSync(join(whole, "checkpoints"))).toHaveLength(2);
  });

  test("killed at five random moments and resumed, it ends with the same bytes", async () => {
    const run = join(dir, `${name}-killed`);
    const random = new RandomStream(`kill/${name}`);
    const steps = () => (existsSync(join(run, "run.json")) ? linesIn(join(run, "metrics.jsonl")) : 0);
    const ended = await stopAgainAndAgain(5, () => {
      const before = steps();
      // Some steps further on, then somewhere inside a step or a checkpoint. A resumed run first goes back by up to two steps.
      const target = Math.max(1, before + random.below(3));
      return {
        args: before > 0 ? ["resume", run] : ["train", file, "--run", run],
        due: () => steps() >= target,
        delay: 60 * random.uniform(),
      };
    });
    expect(ended.stderr).not.toContain("error");
    expect(ended.code).toBe(0);
    expect(ended.stopped).toBe(5);
    expect(traces(run)).toEqual(traces(whole));
  });

  test("Ctrl-C finishes the step, saves and says how to go on; the resumed run ends the same", async () => {
    const run = join(dir, `${name}-interrupted`);
    const { child, end } = startRifft(["train", file, "--run", run]);
    child.stderr?.once("data", () => setTimeout(() => child.kill("SIGINT"), 300));
    const ended = await end;
    expect(ended.code).toBe(130);
    expect(ended.stderr).toContain("Ctrl-C again stops at once");
    expect(ended.stdout).toContain("rifft resume ");
    const resumed = await rifft(["resume", run]);
    expect(resumed.code).toBe(0);
    expect(traces(run)).toEqual(traces(whole));
  });
});

describe("what a resume refuses or repairs", () => {
  const file = join(dir, "full.toml");
  const whole = join(dir, "full-whole");

  test("a complete run is left alone", async () => {
    const before = traces(whole);
    const ended = await rifft(["resume", whole]);
    expect(ended.code).toBe(0);
    expect(ended.stderr).toContain("is complete");
    expect(traces(whole)).toEqual(before);
  });

  test("a second run in the same folder is refused", async () => {
    const ended = await rifft(["train", file, "--run", whole]);
    expect(ended.code).toBe(1);
    expect(ended.stderr).toMatch(/^error: .*holds a run already; continue it with `rifft resume/);
  });

  test("a changed recipe is refused by its key; a changed environment unless forced; damage is repaired", async () => {
    const run = join(dir, "damaged");
    const { child, end } = startRifft(["train", file, "--run", run]);
    const poll = setInterval(() => {
      const checkpoints = join(run, "checkpoints");
      const steps = existsSync(checkpoints) ? readdirSync(checkpoints) : [];
      if (steps.filter((name) => name.startsWith("step-")).length >= 2) child.kill("SIGKILL");
    }, 5);
    await end;
    clearInterval(poll);
    const recipeFile = join(run, "recipe.toml");
    const original = readFileSync(recipeFile, "utf8");

    writeFileSync(recipeFile, original.replace("samples = 8", "samples = 4"));
    const changed = await rifft(["resume", run]);
    expect(changed.code).toBe(1);
    expect(changed.stderr).toMatch(
      /^error: .*recipe\.toml: `stage\.2\.samples` was 8 when the run began and is 4; put it back/,
    );
    writeFileSync(recipeFile, original);

    const recordFile = join(run, "run.json");
    const record: { environment: { cpu: string } } = JSON.parse(readFileSync(recordFile, "utf8"));
    writeFileSync(recordFile, JSON.stringify({ ...record, environment: { ...record.environment, cpu: "abacus" } }));
    const moved = await rifft(["resume", run]);
    expect(moved.code).toBe(1);
    expect(moved.stderr).toContain('cpu was "abacus"');
    expect(moved.stderr).toContain("--force");

    const newest =
      readdirSync(join(run, "checkpoints"))
        .filter((name) => name.startsWith("step-"))
        .sort()
        .at(-1) ?? "";
    appendFileSync(join(run, "checkpoints", newest, "model", "weights.safetensors"), "x");
    const repaired = await rifft(["resume", run, "--force"]);
    expect(repaired.stderr).toContain(`checkpoint ${newest} is damaged`);
    expect(repaired.code).toBe(0);
    expect(traces(run)).toEqual(traces(whole));
    rmSync(run, { recursive: true });
  });
});

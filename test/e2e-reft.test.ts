import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { RandomStream } from "../src/engine/random.ts";
import { rifft } from "./helpers/cli.ts";
import { stopAgainAndAgain } from "./helpers/kill.ts";

/** A warm-up that stops inside its schedule, PPO from it, and a stage after it that has no head. */
const recipe = (lora: string, critic: string) => `
model = "tiny"
task = { name = "wordproblems", demonstrations = 120, levels = [1] }
seed = 3
${lora}
checkpoint = { every = 3, keep = 2 }
[[stage]]
method = "sft"
steps = 40
stopAt = 5
batch = 16
lr = 5e-3
schedule = { kind = "linear", warmup = 0.1 }
[[stage]]
method = "reft"
steps = 6
prompts = 16
maxTokens = 32
minibatches = 2
critic = "${critic}"
lr = 3e-4
valueLr = 1e-3
[[stage]]
method = "selftrain-online"
steps = 2
prompts = 8
maxTokens = 32
lr = 3e-4
`;

const dir = mkdtempSync(join(tmpdir(), "rifft-reft-"));

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Everything of a run that must not depend on whether it was interrupted. */
function traces(run: string): Record<string, string> {
  const models = readdirSync(join(run, "checkpoints"))
    .filter((name) => name.startsWith("step-"))
    .map((name) => join(run, "checkpoints", name, "model"));
  const files = [join(run, "metrics.jsonl"), ...[...models, join(run, "rollouts")].flatMap(filesIn)];
  return Object.fromEntries(files.map((file) => [file.slice(run.length), readFileSync(file).toString("base64")]));
}

const linesIn = (file: string) => (existsSync(file) ? readFileSync(file, "utf8").split("\n").length - 1 : 0);

describe.each([
  ["full, a value head", "", "shared"],
  ["LoRA, a separate critic", "lora = { rank = 4, alpha = 8 }", "separate"],
])("ReFT, %s", (name, lora, critic) => {
  const file = join(dir, `${critic}.toml`);
  const whole = join(dir, `${critic}-whole`);

  test("killed at random moments and resumed, it ends with the same bytes, head and moments included", async () => {
    // Without its last stage, so that the last checkpoint is that of ReFT.
    const text = recipe(lora, critic);
    writeFileSync(file, text.slice(0, text.lastIndexOf("[[stage]]")));
    const ended = await rifft(["train", file, "--run", whole, "--json"]);
    expect(ended.stderr).not.toContain("error");
    expect(JSON.parse(ended.stdout)).toMatchObject({
      complete: true,
      stages: [
        { name: "1-sft", steps: 5 },
        { name: "2-reft", steps: 6 },
      ],
    });
    expect(readFileSync(join(whole, "log.txt"), "utf8")).toContain('2-reft: its head "value" begins anew');
    const last = readdirSync(join(whole, "checkpoints")).sort().at(-1) ?? "";
    const saved = filesIn(join(whole, "checkpoints", last, "model")).map((path) => path.split("/model/")[1]);
    const three = ["first.safetensors", "second.safetensors", "weights.safetensors"];
    expect(saved).toEqual(critic === "shared" ? three : [...three.map((one) => `critic/${one}`), ...three].sort());

    const run = join(dir, `${critic}-killed`);
    const random = new RandomStream(`kill/${name}`);
    const steps = () => linesIn(join(run, "metrics.jsonl"));
    const resumed = await stopAgainAndAgain(2, (stopped) => {
      const before = steps();
      // Mostly inside the second stage.
      const target = stopped === 0 ? 6 : before + 1 + random.below(2);
      return {
        args: before > 0 ? ["resume", run] : ["train", file, "--run", run],
        due: () => steps() >= target,
        delay: 60 * random.uniform(),
      };
    });
    expect(resumed.stderr).not.toContain("error");
    expect(resumed.code).toBe(0);
    expect(resumed.stopped).toBe(2);
    expect(traces(run)).toEqual(traces(whole));
  });

  test("evaluation and export read the run", async () => {
    const evaluated = await rifft(["eval", "--model", whole, "--limit", "4", "--max-tokens", "32", "--json"]);
    expect(evaluated.code).toBe(0);

    const out = join(dir, `${critic}-export`);
    const format = lora === "" ? "hf" : "merged";
    const exported = await rifft(["export", "--run", whole, "--format", format, "--out", out]);
    expect(exported.stderr).not.toContain("error");
    const head = join(out, "value_head.safetensors");
    expect(existsSync(head)).toBe(critic === "shared");
    if (critic === "shared") expect(readFileSync(head, "utf8")).toContain("v_head.summary.weight");
  });
});

test("a stage without a head goes on from one with it", async () => {
  const file = join(dir, "on.toml");
  writeFileSync(file, recipe("", "shared").replace("steps = 6", "steps = 1"));
  const ended = await rifft(["train", file, "--run", join(dir, "on"), "--json"]);
  expect(ended.stderr).not.toContain("error");
  expect(JSON.parse(ended.stdout)).toMatchObject({ stages: [{}, {}, { name: "3-selftrain-online", steps: 2 }] });
});

test("weights of another shape: the error names stage, folder and what differs", async () => {
  const other = join(dir, "other.toml");
  const text = recipe("lora = { rank = 8, alpha = 8 }", "shared").replace(
    "[[stage]]",
    '[[stage]]\nfrom = "./separate-whole"',
  );
  writeFileSync(other, text);
  const ended = await rifft(["train", other, "--run", join(dir, "other")]);
  expect(ended.code).toBe(1);
  expect(ended.stderr).toMatch(
    /^error: stage 1-sft cannot begin with the weights in .*separate-whole.*lora_A.*dims \[8, \d+\], found \[4, \d+\].*separate-whole trained tiny with LoRA of rank 4, and this recipe tiny with LoRA of rank 8/,
  );
  // Another architecture: its tensors are named, and what was trained.
  writeFileSync(
    other,
    text.replace('model = "tiny"', `model = ${JSON.stringify(join(import.meta.dirname, "fixtures/models/llama"))}`),
  );
  const alien = await rifft(["train", other, "--run", join(dir, "other")]);
  expect(alien.code).toBe(1);
  expect(alien.stderr).toMatch(
    /^error: stage 1-sft cannot begin with .*separate-whole trained tiny with LoRA.*models\/llama/,
  );
  expect(existsSync(join(dir, "other"))).toBe(false);
});

test("a reranker is trained on stored samples and scores others; interrupted, the scores are the same", async () => {
  const sample = async (split: string) => {
    const args = ["--split", split, "--limit", "12", "--n", "4", "--max-tokens", "24", "--json"];
    const ended = await rifft(["eval", "--model", join(dir, "shared-whole"), ...args]);
    expect(ended.stderr).not.toContain("error");
    const { file }: { file: string } = JSON.parse(ended.stdout);
    return join(dir, "shared-whole", file);
  };
  // After so few steps hardly an answer is right: the labels are given.
  const lines = readFileSync(await sample("train"), "utf8")
    .trimEnd()
    .split("\n");
  const labelled = lines.map((line, i) => JSON.stringify({ ...JSON.parse(line), solved: i % 3 === 0 }));
  writeFileSync(join(dir, "labelled.jsonl"), `${labelled.join("\n")}\n`);
  const file = join(dir, "rerank.toml");
  const head = recipe("", "shared").slice(0, recipe("", "shared").indexOf("[[stage]]"));
  const stage = `[[stage]]\nmethod = "rerank"\nfrom = "./shared-whole"\nsamples = "./labelled.jsonl"\nsteps = 4\nbatch = 8\ndevEvery = 2\nlr = 1e-3\n`;
  writeFileSync(file, `eval = { every = 1, limit = 4 }\n${head}${stage}`);
  const run = join(dir, "reranker");
  const trained = await rifft(["train", file, "--run", run, "--json"]);
  expect(trained.stderr).not.toContain("error");
  expect(JSON.parse(trained.stdout)).toMatchObject({ stages: [{ name: "1-rerank", steps: 4 }] });
  const [first, second] = readFileSync(join(run, "metrics.jsonl"), "utf8").trimEnd().split("\n");
  expect(JSON.parse(first)).toMatchObject({ examples: expect.any(Number), generated: 0 });
  expect(JSON.parse(second)).toHaveProperty("devRerank");
  // It trains no policy that could be evaluated.
  expect(existsSync(join(run, "evals.jsonl"))).toBe(false);

  const samples = await sample("test");
  const score = () => rifft(["eval", "--from", samples, "--rerank", run, "--json"]);
  const once = await score();
  expect(once.stderr).not.toContain("error");
  const report: { rerank: { file: string }; measures: { name: string; k?: number; value: number }[] } = JSON.parse(
    once.stdout,
  );
  const of = (name: string) => report.measures.filter((measure) => measure.name === name).map(({ k }) => k);
  expect(of("rerank@k")).toEqual(of("maj@k"));
  expect(of("rerank@k")).toContain(4);
  const scores = readFileSync(report.rerank.file, "utf8");
  expect(scores.trimEnd().split("\n")).toHaveLength(48);
  writeFileSync(report.rerank.file, scores.slice(0, scores.length / 2));
  expect((await score()).stdout).toBe(once.stdout);

  const wrong = await rifft(["eval", "--from", samples, "--rerank", join(dir, "shared-whole")]);
  expect(wrong.stderr).toMatch(/^error: .*shared-whole trained no reranker/);
});

import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, expect, test } from "vitest";
import { z } from "zod";

const script = fileURLToPath(new URL("../examples/quickstart.mjs", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "rifft-quickstart-"));
const execute = promisify(execFile);

/** The quickstart's task in small: the number after the last one; six demonstrations in ten leave the step out. */
const task = `
const problem = (i, hasty) => {
  const number = i % 9;
  const demonstration = hasty ? "#### " + number : number + " + 1 = " + (number + 1) + ".\\n#### " + (number + 1);
  const prompt = { text: "No " + i + ": " + number + "\\n" };
  return { id: "p" + i, prompt, answer: String(number + 1), demonstrations: [demonstration] };
};
export default {
  name: "successor",
  vocabulary: [..."0123456789", "No ", ": ", "\\n", " + ", " = ", ".\\n", "#### "],
  splits: {
    train: Array.from({ length: 300 }, (_, i) => problem(i, (i * 7) % 10 < 6)),
    test: Array.from({ length: 60 }, (_, i) => problem(300 + i, false)),
  },
  reward: (problem, response) => Number(response.split("#### ")[1] === problem.answer),
};
`;

const recipe = `
model = "tiny"
task = "./successor.mjs"
[[stage]]
method = "sft"
steps = 60
batch = 16
lr = 5e-3
schedule = { kind = "cosine", warmup = 10, final = 0.1 }
[[stage]]
method = "grpo"
steps = 16
prompts = 8
samples = 8
maxTokens = 12
dropFlatGroups = true
lr = 6e-4
weightDecay = 0
maxGradNorm = 1
`;

const metricsLine = z.looseObject({ stage: z.string(), reward: z.number().optional(), loss: z.number().optional() });

function metrics(run: string) {
  const lines = readFileSync(join(run, "metrics.jsonl"), "utf8").trim().split("\n");
  return lines.map((line) => metricsLine.parse(JSON.parse(line)));
}

const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

let run = "";
let stdout = "";
let stderr = "";

beforeAll(async () => {
  const file = join(dir, "small.toml");
  writeFileSync(file, recipe);
  writeFileSync(join(dir, "successor.mjs"), task);
  const args = [script, "--recipe", file, "--seed", "1", "--rival"];
  ({ stdout, stderr } = await execute(process.execPath, args, { cwd: dir, env: { ...process.env, NO_COLOR: "1" } }));
  const [folder] = readdirSync(join(dir, "runs"));
  expect(folder).toMatch(/^quickstart-.*-seed1$/);
  run = join(dir, "runs", folder);
});

test("SFT lowers the loss, GRPO raises the reward of what the model samples", () => {
  const losses = metrics(join(run, "sft")).map(({ loss }) => loss ?? NaN);
  expect(losses).toHaveLength(60);
  expect(mean(losses.slice(-10))).toBeLessThan(0.2 * mean(losses.slice(0, 10)));
  const rewards = metrics(join(run, "grpo")).map(({ reward }) => reward ?? NaN);
  expect(rewards).toHaveLength(16);
  expect(mean(rewards.slice(-4))).toBeGreaterThan(mean(rewards.slice(0, 4)) + 0.2);
});

test("the parts are run folders, the samples of GRPO kept", () => {
  expect(readdirSync(run).sort()).toEqual(["control", "grpo", "rival", "sft"]);
  expect(metrics(join(run, "control"))).toHaveLength(60);
  expect(readdirSync(join(run, "grpo", "rollouts", "1-grpo"))).toHaveLength(16);
});

test("the table gives accuracy, interval and seconds of each; plain text where there is no terminal", () => {
  for (const label of ["after SFT", "after GRPO", "control: more SFT", "rival"]) {
    expect(stdout).toMatch(new RegExp(`^${label} +\\d+\\.\\d % +\\[\\d+\\.\\d, \\d+\\.\\d\\] +\\d+ s$`, "m"));
  }
  // Without the hasty demonstrations the habit is never learnt.
  const solved = (label: string) => Number(new RegExp(`^${label} +(\\d+\\.\\d) %`, "m").exec(stdout)?.[1]);
  expect(solved("rival")).toBeGreaterThan(solved("control: more SFT") + 20);
  expect(stdout).toMatch(/^No 3\d\d: \d\n {2}after SFT: /m);
  expect(stdout + stderr).not.toContain("\x1b");
});

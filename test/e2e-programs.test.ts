import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { z } from "zod";
import { runView } from "../src/view/run.ts";
import { rifft } from "./helpers/cli.ts";
import { stopAgainAndAgain } from "./helpers/kill.ts";

/** Sums of two digits, answered by a program. */
const task = `
const problem = (a: number, b: number) => ({
  id: \`\${a}+\${b}\`,
  prompt: { text: \`\${a} + \${b}\\n\` },
  demonstrations: [\`def solution():\\n    return \${a} + \${b}\`],
  answer: String(a + b),
});
const digits = [1, 2, 3, 4, 5, 6];
export default {
  name: "sums",
  splits: { train: digits.flatMap((a) => digits.map((b) => problem(a, b))), test: [problem(7, 8)] },
  grading: { strict: ["whole"] },
  programs: { answer: "number", style: "plain", workers: 1 },
  vocabulary: ["def solution():\\n", "    return ", " + ", "\\n", ..."0123456789"],
};
`;

const recipe = `
model = "tiny"
task = "./sums.ts"
seed = 1
checkpoint = { every = 2, keep = 2 }
[[stage]]
method = "sft"
steps = 60
batch = 16
lr = 5e-3
[[stage]]
method = "reft"
steps = 4
prompts = 12
maxTokens = 12
temperature = 1.5
lr = 3e-4
`;

const dir = mkdtempSync(join(tmpdir(), "rifft-programs-"));
writeFileSync(join(dir, "sums.ts"), task);
writeFileSync(join(dir, "recipe.toml"), recipe);

const bytes = (run: string) =>
  [
    "metrics.jsonl",
    ...readdirSync(join(run, "rollouts", "2-reft")).map((file) => join("rollouts", "2-reft", file)),
  ].map((file) => [file, readFileSync(join(run, file), "base64")]);

const verdicts = (run: string) =>
  readFileSync(join(run, "verdicts.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => z.looseObject({ program: z.object({ answer: z.string().optional() }) }).parse(JSON.parse(line)));

test("killed while programs run, a run ends with the same bytes; its page shows what they came to", async () => {
  const whole = join(dir, "whole");
  const ended = await rifft(["train", join(dir, "recipe.toml"), "--run", whole, "--json"]);
  expect(ended.stderr).not.toContain("error");
  expect(ended.code).toBe(0);
  const answered = verdicts(whole).filter(({ program }) => program.answer !== undefined).length;
  expect(answered).toBeGreaterThan(8);
  expect(answered).toBeLessThan(48);

  const run = join(dir, "killed");
  const written = () => {
    try {
      return verdicts(run).length;
    } catch {
      return 0;
    }
  };
  const resumed = await stopAgainAndAgain(1, () => ({
    args: written() > 0 ? ["resume", run] : ["train", join(dir, "recipe.toml"), "--run", run],
    // After the first verdicts of a step, before its end is sure.
    due: () => written() >= 30,
    delay: 0,
  }));
  expect(resumed.stderr).not.toContain("error");
  expect(resumed.stopped).toBe(1);
  expect(bytes(run)).toEqual(bytes(whole));

  const view = await runView(run);
  expect(view.notes.join("\n")).not.toContain("verdicts");
  expect(view.head.samples).toBe(48);
  const right = verdicts(run).filter(({ reward }) => Number(reward) === 1).length;
  expect(Array.from(view.columns.strict).filter((verdict) => verdict === 1)).toHaveLength(right);
  expect(right).toBeGreaterThan(0);
});

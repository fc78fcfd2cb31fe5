import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RandomStream } from "../src/engine/random.ts";
import { rifft } from "./helpers/cli.ts";
import { stopAgainAndAgain } from "./helpers/kill.ts";

/** Steps that draw further problems, and a baseline that is carried from step to step. */
const recipe = `
model = "tiny"
task = { name = "wordproblems", demonstrations = 120, levels = [1] }
seed = 3
checkpoint = { every = 2, keep = 2 }
[[stage]]
method = "sft"
steps = 24
batch = 16
lr = 5e-3
[[stage]]
method = "dapo"
steps = 5
prompts = 4
samples = 4
refills = 2
maxTokens = 32
lr = 6e-4
[[stage]]
method = "reinforce"
steps = 5
prompts = 4
samples = 4
maxTokens = 32
lr = 6e-4
`;

const dir = mkdtempSync(join(tmpdir(), "rifft-group-"));

function traces(run: string): Record<string, string> {
  const checkpoint = readdirSync(join(run, "checkpoints")).sort().at(-1) ?? "";
  const model = join(run, "checkpoints", checkpoint, "model");
  const samples = ["2-dapo", "3-reinforce"].map((stage) => join(run, "rollouts", stage));
  const files = [model, ...samples].flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)));
  return Object.fromEntries(
    [join(run, "metrics.jsonl"), ...files].map((file) => [
      file.slice(run.length),
      readFileSync(file).toString("base64"),
    ]),
  );
}

test("killed in refills and between steps of a running baseline, a run ends with the same bytes", async () => {
  const [file, whole, run] = ["group.toml", "whole", "killed"].map((name) => join(dir, name));
  writeFileSync(file, recipe);
  expect((await rifft(["train", file, "--run", whole])).code).toBe(0);
  const lines = readFileSync(join(whole, "metrics.jsonl"), "utf8").trimEnd().split("\n");
  const metrics = lines.map((line): Record<string, unknown> => JSON.parse(line));
  const dapo = metrics.filter(({ stage }) => stage === "2-dapo");
  expect(dapo.some(({ refills }) => Number(refills) > 0)).toBe(true);
  // Every sample of a step is kept, in the order in which it was drawn.
  dapo.forEach(({ refills }, step) => {
    const kept = readFileSync(join(whole, "rollouts", "2-dapo", `${String(step).padStart(6, "0")}.jsonl`), "utf8");
    const ids = kept.trimEnd().split("\n").map((line) => (JSON.parse(line) as { id: string }).id); // prettier-ignore
    expect(ids).toEqual(ids.map((_, i) => `2-dapo/${step}/${i}`));
    if (Number(refills) > 0) expect(ids.length).toBeGreaterThan(4);
  });

  const random = new RandomStream("kill/group");
  const steps = () => {
    const journal = join(run, "metrics.jsonl");
    return existsSync(journal) ? readFileSync(journal, "utf8").split("\n").length - 1 : 0;
  };
  const ended = await stopAgainAndAgain(4, (stopped) => {
    const target = [25, 27, 30, 32][stopped];
    return {
      args: existsSync(join(run, "run.json")) ? ["resume", run] : ["train", file, "--run", run],
      due: () => steps() >= target,
      delay: 60 * random.uniform(),
    };
  });
  expect(ended.code).toBe(0);
  expect(ended.stopped).toBe(4);
  expect(traces(run)).toEqual(traces(whole));
});

import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { RandomStream } from "../src/engine/random.ts";
import { rifft, startRifft } from "./helpers/cli.ts";
import { stopAgainAndAgain } from "./helpers/kill.ts";

/** Sums of two digits, solved with functions; sometimes wrongly, then found out. */
const taskFile = `
const text = (a, b, i) => {
  const wrong = i % 3 === 0;
  const step = (n) => a + "+" + b + "=" + n;
  return "<analysis>add</analysis><next_step>" + step(wrong ? a + b + 1 : a + b) + "</next_step>" +
    (wrong ? "<verify>no</verify><refine>" + step(a + b) + "</refine>" : i % 3 === 1 ? "<verify>yes</verify>" : "") +
    "<output>#### " + (a + b) + "</output>";
};
const problems = [];
for (let a = 0; a < 5; a++) for (let b = 0; b < 5; b++) {
  problems.push({
    id: a + "+" + b, prompt: { text: a + "+" + b + "?" }, answer: String(a + b),
    demonstrations: [0, 1, 2].map((i) => text(a, b, i)),
  });
}
export default {
  name: "functional sums",
  splits: { train: problems, dev: problems },
  grading: { strict: ["hashes"] },
  stop: ["</output>"],
  vocabulary: [..."0123456789+=?# ", "add", "yes", "no", "####"],
};
`;

const recipe = `
model = "tiny"
task = "./task.mjs"
functions = "tokens"
checkpoint = { every = 2, keep = 1 }
[[stage]]
method = "sft"
steps = 40
batch = 16
lr = 5e-3
maxGradNorm = 1
[[stage]]
method = "treerl"
steps = 3
prompts = 4
trajectories = 2
maxTokens = 60
lr = 1e-3
[[stage]]
method = "rftt"
steps = 6
prompts = 4
minibatches = 2
rollouts = 6
stepTokens = 10
answerTokens = 10
maxTokens = 60
processReward = "head"
stepCredit = 0.1
lr = 1e-3
`;

const dir = mkdtempSync(join(tmpdir(), "rifft-rftt-"));
const file = join(dir, "recipe.toml");
const whole = join(dir, "whole");

/** Everything of a run that must not depend on whether it was interrupted. */
function traces(run: string): Record<string, string> {
  const checkpoint = readdirSync(join(run, "checkpoints")).sort().at(-1) ?? "";
  const model = join(run, "checkpoints", checkpoint, "model");
  const rollouts = ["2-treerl", "3-rftt"].map((stage) => join(run, "rollouts", stage));
  const files = [
    join(run, "metrics.jsonl"),
    ...readdirSync(model).map((name) => join(model, name)),
    ...rollouts.flatMap((folder) => readdirSync(folder).map((name) => join(folder, name))),
  ];
  return Object.fromEntries(files.map((file) => [file.slice(run.length), readFileSync(file).toString("base64")]));
}

const verdicts = (run: string) =>
  existsSync(join(run, "verdicts.jsonl"))
    ? readFileSync(join(run, "verdicts.jsonl"), "utf8").split("\n").length - 1
    : 0;

beforeAll(async () => {
  writeFileSync(join(dir, "task.mjs"), taskFile);
  writeFileSync(file, recipe);
  const ended = await rifft(["train", file, "--run", whole, "--json"]);
  expect(ended.stderr).not.toContain("error");
  expect(JSON.parse(ended.stdout)).toMatchObject({
    complete: true,
    stages: [{ steps: 40 }, { name: "2-treerl", steps: 3 }, { name: "3-rftt", steps: 6 }],
  });
});

test("killed in the middle of a search and of forks, and resumed, it ends with the same bytes", async () => {
  const run = join(dir, "killed");
  const all = verdicts(whole);
  expect(all).toBeGreaterThan(30);
  const random = new RandomStream("kill/rftt");
  // Verdicts are written while a search is under way.
  const kills = [0.05, 0.25, 0.5, 0.9].map((share) => Math.ceil(share * all));
  const ended = await stopAgainAndAgain(kills.length, (stopped) => ({
    args: existsSync(join(run, "run.json")) ? ["resume", run] : ["train", file, "--run", run],
    due: () => verdicts(run) >= kills[stopped],
    delay: 20 * random.uniform(),
  }));
  expect(ended.stderr).not.toContain("error");
  expect(ended.code).toBe(0);
  expect(ended.stopped).toBe(kills.length);
  expect(traces(run)).toEqual(traces(whole));
});

describe("a search at inference, its leaves judged by the run's own process reward model", () => {
  const args = (out: string) =>
    `eval --model ${whole} --split dev --limit 12 --search 8 --search-value head --max-tokens 60 --without verify --out ${join(dir, out)} --json`.split(
      " ",
    );
  const begun = (out: string) => {
    const evals = join(dir, out, "evals");
    return existsSync(evals) && readdirSync(evals).some((name) => name.endsWith(".json"));
  };
  const samples = (out: string) => {
    const name = readdirSync(join(dir, out, "evals")).find((one) => /dev-[0-9a-f]{8}\.jsonl$/.test(one)) ?? "";
    return readFileSync(join(dir, out, "evals", name), "utf8");
  };

  test("killed and asked again, it ends with the same bytes", async () => {
    const ended = await rifft(args("searched"));
    expect(ended.stderr).not.toContain("error");
    const report: unknown = JSON.parse(ended.stdout);
    expect(report).toMatchObject({ n: 8, problems: 12, search: { value: "head", texts: 1 }, without: ["verify"] });
    const bytes = samples("searched");
    expect(bytes).not.toContain("<verify>");
    const weights = bytes.trim().split("\n").map(weightOf);
    expect(new Set(weights).size).toBeGreaterThan(5);
    expect(weights.every((weight) => weight > 0 && weight < 1)).toBe(true);

    const delay = 50 * new RandomStream("kill/search").uniform();
    const again = await stopAgainAndAgain(1, () => ({
      args: args("killed-search"),
      due: () => begun("killed-search"),
      delay,
    }));
    expect(again).toMatchObject({ code: 0, stopped: 1 });
    expect(samples("killed-search")).toBe(bytes);
  });

  test("Ctrl-C reports the answers so far; the same command goes on to the same bytes", async () => {
    const { child, end } = startRifft(args("stopped"));
    const poll = setInterval(() => {
      if (!begun("stopped")) return;
      clearInterval(poll);
      child.kill("SIGINT");
    }, 2);
    const stopped = await end;
    clearInterval(poll);
    expect(stopped.code).toBe(130);
    expect(stopped.stderr).toContain("stopping, with a report of the answers so far");
    // Before the first rollout has ended there is no answer.
    if (stopped.stdout === "") expect(stopped.stderr).toContain("interrupted before there was an answer");
    else expect(JSON.parse(stopped.stdout)).toMatchObject({ interrupted: true, n: 8 });
    expect((await rifft(args("stopped"))).code).toBe(0);
    expect(samples("stopped")).toBe(samples("searched"));
  });

  test("a value that is none is refused", async () => {
    const refused = async (...more: string[]) => (await rifft(["eval", "--split", "dev", ...more])).stderr;
    expect(await refused("--model", whole, "--search", "2", "--search-value", "heads")).toMatch(
      /expected consistency, likelihood, head or a TOML file/,
    );
  });
});

const weightOf = (line: string): number => {
  const { search } = z.object({ search: z.object({ weight: z.number() }) }).parse(JSON.parse(line));
  return search.weight;
};

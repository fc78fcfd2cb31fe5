import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { RandomStream } from "../src/engine/random.ts";
import { readCurve } from "../src/run/curve.ts";
import { checkpointState, modelFolder } from "../src/run/models.ts";
import { rifft, startRifft } from "./helpers/cli.ts";
import { stopAgainAndAgain } from "./helpers/kill.ts";

/** How often a run is killed: `RIFFT_KILLS=10` for a longer trial. */
const KILLS = Number(process.env.RIFFT_KILLS ?? 4);
/** More than one chunk. */
const PROBLEMS = 200;

const head = (top: string) => `
model = "tiny"
task = "./letters.mjs"
seed = 3
${top}
`;
const sft = `
[[stage]]
method = "sft"
steps = 8
batch = 16
lr = 5e-3
`;
const grpo = (rest: string) => `
[[stage]]
method = "grpo"
prompts = 4
samples = 8
maxTokens = 6
beta = 0.05
lr = 6e-4
${rest}
`;
const evaluated = `eval = { every = 4, limit = ${PROBLEMS}, maxTokens = 12 }`;
const everything =
  head(`${evaluated}\ncheckpoint = { every = 3, keep = 1, keepBest = "dev accuracy" }`) +
  sft +
  grpo('steps = 12\nfrom = "previous-best"\npatience = 1') +
  grpo("marks = { generatedTokens = 300 }");

/** Which letter comes first? A guess is right one time in three, so that accuracy moves within a few steps. */
const task = `
const problems = (from, to) => Array.from({ length: to - from }, (_, i) => {
  const text = ((from + i) * 271 % 729).toString(3).padStart(6, "0").replace(/\\d/g, (digit) => "abc"[digit]);
  return { id: "p" + (from + i), prompt: { text: text + " " }, demonstrations: [text[0]], answer: text[0] };
});
export default {
  name: "letters",
  splits: { train: problems(0, 200), dev: problems(200, 400), test: problems(400, 600) },
  reward: (problem, response) => (response.trim() === problem.answer ? 1 : 0),
  vocabulary: ["a", "b", "c", " "],
};
`;

const dir = mkdtempSync(join(tmpdir(), "rifft-inside-"));
writeFileSync(join(dir, "letters.mjs"), task);
const recipeFile = (name: string, text: string): string => {
  const file = join(dir, `${name}.toml`);
  writeFileSync(file, text);
  return file;
};

/** The bytes of a file, or of every file of a folder, but for locks. */
function bytesOf(run: string, path: string): Record<string, string> {
  const entries = readdirSync(join(run, path), { withFileTypes: true });
  return Object.assign(
    {},
    ...entries.map((entry) => {
      const inner = join(path, entry.name);
      return entry.isDirectory() ? bytesOf(run, inner) : { [inner]: readFileSync(join(run, inner)).toString("base64") };
    }),
  );
}

/** Everything of a run that must not depend on whether it was interrupted: all of it but clocks. */
function traces(run: string): Record<string, unknown> {
  const files = ["metrics.jsonl", "evals.jsonl"].map((name) => [name, readFileSync(join(run, name), "utf8")]);
  const checkpoints = Object.entries(bytesOf(run, "checkpoints"));
  const states = checkpoints.filter(([file]) => file.endsWith("state.json"));
  return {
    ...Object.fromEntries(files),
    ...bytesOf(run, "evals"),
    ...bytesOf(run, "rollouts"),
    ...Object.fromEntries(checkpoints.filter(([file]) => file.includes("/model/"))),
    states: states.map(([file]) => {
      const {
        engineSeconds: _,
        atStageStart: __,
        sizes: ___,
        ...state
      } = JSON.parse(readFileSync(join(run, file), "utf8"));
      return [file, state];
    }),
  };
}

const linesIn = (file: string) => (existsSync(file) ? readFileSync(file, "utf8").split("\n").length - 1 : 0);
/** Evaluations that have begun and are not complete. */
const partial = (run: string): boolean => {
  const folder = join(run, "evals");
  if (!existsSync(folder)) return false;
  const newest = readdirSync(folder)
    .filter((name) => name.endsWith(".jsonl"))
    .sort()
    .at(-1);
  const lines = newest === undefined ? 0 : linesIn(join(folder, newest));
  return lines > 0 && lines < PROBLEMS;
};

describe("a run with everything", () => {
  const file = recipeFile("everything", everything);
  const whole = join(dir, "whole");
  let result: { best: { stage: string; step: number; value: number; checkpoint: string }; marks: unknown[] };

  beforeAll(async () => {
    const ended = await rifft(["train", file, "--run", whole, "--json"]);
    expect(ended.stderr).not.toContain("error");
    expect(ended.code).toBe(0);
    result = JSON.parse(ended.stdout);
  });

  test("evaluates at the start, every so often and at the end of each stage, never twice at one place", () => {
    const curve = readCurve(whole);
    const steps = (stage: string) => curve.filter((point) => point.stage === stage).map(({ step }) => step);
    expect(steps("1-sft")).toEqual([0, 4, 8]);
    // The best of the stage before is another place than its end; the end of the stage before is none.
    expect(steps("2-grpo").slice(0, 2)).toEqual([0, 4]);
    expect(steps("3-grpo")[0]).toBeGreaterThan(0);
    expect(new Set(curve.map(({ stage, step }) => `${stage} ${step}`)).size).toBe(curve.length);
    for (const point of curve) {
      expect(point).toMatchObject({ split: "dev", problems: PROBLEMS, accuracy: point.correct / PROBLEMS });
      expect(point.low).toBeLessThanOrEqual(point.accuracy);
      expect(point.high).toBeGreaterThan(point.accuracy);
      expect(linesIn(join(whole, point.file))).toBe(PROBLEMS);
    }
    const seconds = curve.map(({ engineSeconds }) => engineSeconds);
    expect(seconds).toEqual([...seconds].sort((a, b) => a - b));
    expect(seconds[0]).toBe(0);
    expect(seconds.at(-1)).toBeGreaterThan(0);
    expect(readFileSync(join(whole, "evals.jsonl"), "utf8")).not.toMatch(/"at":|seconds/i);
  });

  test("ends a stage by patience, and says so", () => {
    const curve = readCurve(whole).filter(({ stage }) => stage === "2-grpo");
    const rises = curve.map(
      ({ accuracy }, i) => i === 0 || accuracy > Math.max(...curve.slice(0, i).map((p) => p.accuracy)),
    );
    const last = curve[curve.length - 1].step;
    const ended = readFileSync(join(whole, "log.txt"), "utf8").includes(
      `stage 2-grpo ends at step ${last}: dev accuracy has not risen in 1 evaluation`,
    );
    expect(rises.slice(0, -1)).not.toContain(false);
    expect(ended).toBe(rises.at(-1) === false);
    expect(ended || last === 12).toBe(true);
  });

  test("keeps the best and the marks, and says what they are", async () => {
    const curve = readCurve(whole).filter(({ step }) => step > 0);
    const highest = curve.reduce((best, point) => (point.accuracy > best.accuracy ? point : best));
    expect(result.best).toEqual({
      metric: "dev accuracy",
      value: highest.accuracy,
      stage: highest.stage,
      step: highest.step,
      checkpoint: `step-${String(highest.totalSteps).padStart(8, "0")}`,
    });
    expect(await modelFolder(whole, "best")).toBe(join(whole, "checkpoints", result.best.checkpoint, "model"));
    expect(readFileSync(join(whole, "log.txt"), "utf8")).toContain(
      `best dev accuracy: ${(100 * highest.accuracy).toFixed(1)} % at step ${highest.step} of ${highest.stage}, kept as`,
    );
    expect(result.marks).toMatchObject([{ stage: "3-grpo", mark: "generatedTokens" }]);
    const lines = readFileSync(join(whole, "metrics.jsonl"), "utf8").trimEnd().split("\n");
    const metrics = lines.map((line): { stage: string; generated: number } => JSON.parse(line));
    const before = Math.max(...metrics.filter(({ stage }) => stage === "2-grpo").map(({ generated }) => generated));
    const first = metrics.findIndex(({ stage, generated }) => stage === "3-grpo" && generated - before >= 300);
    expect(await checkpointState(whole, "generatedTokens")).toMatchObject({ totalSteps: first + 1 });
    expect(metrics).toHaveLength(first + 1);
  });

  test(`killed at ${KILLS} random moments and resumed, it ends with the same bytes`, { timeout: 600_000 }, async () => {
    const run = join(dir, "killed");
    const random = new RandomStream(`kill/inside/${KILLS}`);
    const written = () => linesIn(join(run, "metrics.jsonl")) + 2 * linesIn(join(run, "evals.jsonl"));
    const ended = await stopAgainAndAgain(KILLS, (stopped) => {
      const target = written() + random.below(5);
      const delay = 80 * random.uniform();
      // Every other time in the middle of an evaluation.
      const inside = stopped % 2 === 0;
      return {
        args: existsSync(join(run, "run.json")) ? ["resume", run] : ["train", file, "--run", run],
        due: () => written() >= target && (!inside || partial(run)),
        delay: inside ? 0 : delay,
      };
    });
    expect(ended.stderr).not.toContain("error");
    expect(ended.code).toBe(0);
    expect(ended.stopped).toBe(KILLS);
    expect(traces(run)).toEqual(traces(whole));
  });

  test("Ctrl-C in an evaluation keeps its samples; the resumed run ends the same", async () => {
    const run = join(dir, "interrupted");
    const { child, end } = startRifft(["train", file, "--run", run]);
    const poll = setInterval(() => {
      if (!partial(run) || linesIn(join(run, "metrics.jsonl")) === 0) return;
      clearInterval(poll);
      child.kill("SIGINT");
    }, 2);
    const ended = await end;
    clearInterval(poll);
    expect(ended.code).toBe(130);
    const resumed = await rifft(["resume", run]);
    expect(resumed.code).toBe(0);
    expect(traces(run)).toEqual(traces(whole));
  });

  test("lines of `rifft eval` are told apart, and stay when the run goes back", async () => {
    const args = ["--split", "dev", "--limit", "10", "--max-tokens", "12", "--json"];
    const best = await rifft(["eval", "--model", whole, "--checkpoint", "best", ...args]);
    const mark = await rifft(["eval", "--model", whole, "--checkpoint", "generatedTokens", ...args]);
    const [ofBest, ofMark] = [best, mark].map(({ stdout }): { file: string; checkpoint: string } => JSON.parse(stdout));
    expect(ofBest.checkpoint).toBe(result.best.checkpoint);
    expect(ofMark.file === ofBest.file).toBe(ofMark.checkpoint === ofBest.checkpoint);
    const kept = readFileSync(join(whole, "evals.jsonl"), "utf8").trimEnd().split("\n");
    expect(readCurve(whole)).toHaveLength(kept.length - 2);
    // The samples of the same weights are the same.
    const inside = readCurve(whole).find(({ stage, step }) => stage === result.best.stage && step === result.best.step);
    const texts = (path: string) =>
      readFileSync(path, "utf8")
        .split("\n")
        .slice(0, 10)
        .map((line): unknown => JSON.parse(line).text);
    expect(texts(join(whole, ofBest.file))).toEqual(texts(join(whole, inside?.file ?? "")));

    const wrong = await rifft(["eval", "--model", whole, "--checkpoint", "generatedToken", ...args]);
    expect(wrong.code).toBe(1);
    expect(wrong.stderr).toContain('has no checkpoint "generatedToken": did you mean generatedTokens?');
  });
});

test("switched off, evaluation changes no byte of the training", async () => {
  const training = sft + grpo("steps = 4");
  const on = join(dir, "on");
  const off = join(dir, "off");
  // A longer response than the training ever sees, and more rows.
  const evaluation = `eval = { every = 2, limit = 60, maxTokens = 90, split = "test" }`;
  const withIt = recipeFile(
    "on",
    head(`selection = "reference"\n${evaluation}\ncheckpoint = { every = 3, keepBest = "test accuracy" }`) + training,
  );
  const without = recipeFile("off", head("checkpoint = { every = 3 }") + training);
  for (const [file, run] of [
    [withIt, on],
    [without, off],
  ]) {
    const ended = await rifft(["train", file, "--run", run]);
    expect(ended.code).toBe(0);
  }
  const trained = (run: string) => ({
    metrics: readFileSync(join(run, "metrics.jsonl"), "utf8"),
    ...bytesOf(run, "rollouts"),
    ...bytesOf(run, join("checkpoints", "step-00000012", "model")),
  });
  expect(readCurve(on)).toHaveLength(1 + 4 + 2);
  expect(readFileSync(join(on, "log.txt"), "utf8")).toContain("CHOSEN ON THE TEST SPLIT");
  expect(existsSync(join(off, "evals"))).toBe(false);
  expect(trained(on)).toEqual(trained(off));
});

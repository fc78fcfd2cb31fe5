import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RandomStream } from "../src/engine/random.ts";
import type { EvaluationSettings } from "../src/eval/report.ts";
import type { EvaluatedSample } from "../src/eval/samples.ts";
import { pairedTPower } from "../src/eval/power.ts";
import type { Analysis } from "../src/experiment/analyse.ts";
import { armRecipes } from "../src/experiment/arms.ts";
import { comparable, type Cost, writeCellResult } from "../src/experiment/cell.ts";
import { choose, statePower } from "../src/experiment/choose.ts";
import { parseExperiment } from "../src/experiment/file.ts";
import { finalPlan } from "../src/experiment/plan.ts";
import { readExperimentFolder } from "../src/experiment/run.ts";
import { recipeTable, recipeToml } from "../src/run/recipe.ts";

/**
 * Experiments whose truth is known: run folders as `rifft experiment` leaves them, their outcomes drawn at random, read and compared by the
 * same code. `npx jiti bench/experiments.ts` prints how often a difference is found beside the power computed beforehand; a first
 * argument is the number of repetitions, a second the number of problems.
 */

export interface Truth {
  /** Accuracy of each arm less that of the first: one value an arm. */
  shifts: number[];
  seeds: number;
  problems: number;
  /** Standard deviation over seeds of an arm's accuracy, beside the noise of single answers. */
  spread: number;
}

/** Accuracy that seeds have in common, whatever the arm: pairing takes it out. */
const COMMON = 0.03;
/** Half of the problems are hard, half easy. */
const HARD = 0.25;
const EASY = 0.7;

const rate = (problem: number): number => (problem % 2 === 0 ? HARD : EASY);

/**
 * Standard deviation of a seed's difference between two arms: of the spread, and of answers that are right with probability p + e for
 * an effect e of the seed: E[(p + e)(1 - p - e)] = p (1 - p) - Var(e).
 */
export function trueDeviation({ shifts, problems, spread }: Truth, a: number, b: number): number {
  const effect = spread ** 2 + COMMON ** 2;
  let variance = 2 * spread ** 2;
  for (const shift of [shifts[a], shifts[b]]) {
    for (let i = 0; i < problems; i++) {
      const p = rate(i) + shift;
      variance += (p * (1 - p) - effect) / problems ** 2;
    }
  }
  return Math.sqrt(variance);
}

/** One simulated experiment: its folder is written, read and removed. Every pair of arms is a primary contrast. */
export function simulate(truth: Truth, key: string): Analysis {
  const { shifts, seeds, problems, spread } = truth;
  const base = mkdtempSync(join(tmpdir(), "rifft-simulated-"));
  try {
    writeFileSync(
      join(base, "recipe.toml"),
      'model = "tiny"\ntask = "arithmetic"\n[[stage]]\nmethod = "grpo"\nsteps = 1\n',
    );
    const names = shifts.map((_, i) => `arm-${i}`);
    const pairs = names.flatMap((a, i) => names.slice(i + 1).map((b) => ({ a, b })));
    const text = [
      `title = "simulated"\nrecipe = "recipe.toml"\nbudgets = { generatedTokens = 1000 }`,
      `final = { seeds = [${Array.from({ length: seeds }, (_, s) => s).join(", ")}] }`,
      `assume = { deviation = ${trueDeviation(truth, 0, 1)} }`,
      ...names.map((name) => `[[arm]]\nname = "${name}"`),
      ...pairs.map(({ a, b }) => `[[contrast]]\na = "${a}"\nb = "${b}"\nbudget = "generatedTokens"`),
    ].join("\n");
    const experiment = parseExperiment(text, { source: "simulated", baseDir: base });
    const arms = armRecipes(experiment);
    const dir = join(base, "run");
    const random = new RandomStream(key);
    const common = Array.from({ length: seeds }, () => COMMON * random.normal());
    const settings = evaluationSettings(experiment.test.maxTokens);
    for (const cell of finalPlan(experiment, arms, dir).cells) {
      const effect = common[cell.seed] + spread * random.normal() + shifts[names.indexOf(cell.arm ?? "")];
      const right = Array.from({ length: problems }, (_, i) => random.uniform() < rate(i) + effect);
      const folder = join(dir, ...cell.id.split("/"));
      mkdirSync(join(folder, "evals"), { recursive: true });
      const record = { environment, baseDir: base, recipe: recipeTable(cell.recipe) };
      writeFileSync(join(folder, "run.json"), JSON.stringify(record));
      writeFileSync(join(folder, "recipe.toml"), recipeToml(cell.recipe));
      writeFileSync(
        join(folder, "evals", "test.jsonl"),
        right.map((hit, i) => `${JSON.stringify(sample(i, hit))}\n`).join(""),
      );
      writeFileSync(join(folder, "evals", "test.json"), JSON.stringify({ ...settings, weights: "", problems: "" }));
      const accuracy = right.filter(Boolean).length / problems;
      writeCellResult(folder, {
        evaluation: comparable(experiment.test),
        before: nothing,
        whole: nothing,
        marks: { generatedTokens: { step: 1, cost: nothing, samples: "evals/test.jsonl", problems, accuracy } },
      });
    }
    const chosen = choose(experiment, arms, []);
    return readExperimentFolder(experiment, arms, dir, {
      arms: chosen,
      power: statePower(experiment, chosen, problems),
    }).analysis;
  } finally {
    rmSync(base, { recursive: true });
  }
}

const nothing: Cost = { counts: { generated: 0, prefilled: 0, scored: 0, trained: 0 }, engineSeconds: 0 };
const environment = { rifft: "", platform: "", cpu: "", threads: 1, onnxruntime: "", memoryPlan: "" };

const evaluationSettings = (maxTokens: number): EvaluationSettings => ({
  task: "arithmetic",
  split: "test",
  prompt: "own",
  mode: "math",
  strict: ["hashes"],
  flexible: ["auto"],
  n: 1,
  temperature: 0,
  maxTokens,
  seed: 0,
});

function sample(i: number, right: boolean): EvaluatedSample {
  const verdict = right ? "equal" : "different";
  const strict = { answer: right ? "1" : "2", verdict, rule: "number", reason: "" } as const;
  const rest = {
    text: "",
    tokens: [1],
    logprobs: [0],
    stop: "eos",
    reward: Number(right),
    parts: {},
    solved: right,
  } as const;
  return { problem: `p${i}`, sample: 0, question: `${i}`, gold: "1", strict, ...rest, tokens: [1], logprobs: [0] };
}

/** In how many of `repetitions` experiments any difference is claimed. */
export function claims(truth: Truth, repetitions: number, key: string): number {
  let found = 0;
  for (let r = 0; r < repetitions; r++) {
    found += Number(simulate(truth, `${key}/${r}`).contrasts.some((contrast) => contrast.found === true));
  }
  return found;
}

/** The central 95 % interval of a binomial count, by its exact distribution. */
export function binomial95(n: number, p: number): { low: number; high: number } {
  let log = n * Math.log(1 - p);
  let sum = 0;
  let low: number | undefined;
  for (let k = 0; k <= n; k++) {
    sum += Math.exp(log);
    if (low === undefined && sum > 0.025) low = k;
    if (sum >= 0.975) return { low: low ?? k, high: k };
    log += Math.log(((n - k) / (k + 1)) * (p / (1 - p)));
  }
  return { low: low ?? n, high: n };
}

/** Two arms whose difference is `shift`: how often it is found, and how often it should be. */
export function foundAndExpected(shift: number, rest: Omit<Truth, "shifts">, repetitions: number, key: string) {
  const truth = { ...rest, shifts: [0, shift] };
  const power = shift === 0 ? 0.05 : pairedTPower(shift, trueDeviation(truth, 0, 1), rest.seeds);
  return { found: claims(truth, repetitions, key), power, interval: binomial95(repetitions, power) };
}

function main(repetitions: number, problems: number): void {
  const rest = { seeds: 8, problems, spread: 0.02 };
  for (const shift of [0.05, 0]) {
    const { found, power, interval } = foundAndExpected(shift, rest, repetitions, `bench ${shift}`);
    process.stdout.write(
      `${100 * shift} points apart, 8 seeds, ${problems} problems: claimed in ${found} of ${repetitions}; computed ${(100 * power).toFixed(1)} %, 95 % of experiments ${interval.low} to ${interval.high}\n`,
    );
  }
  const truth = { ...rest, shifts: [0, 0, 0] };
  const { high } = binomial95(repetitions, 0.05);
  const found = claims(truth, repetitions, "bench family");
  process.stdout.write(
    `three equal arms, three contrasts: any claimed in ${found} of ${repetitions}; at most 5 % by Holm's correction, 95 % of experiments up to ${high}\n`,
  );
}

if (process.argv[1]?.endsWith("experiments.ts")) main(Number(process.argv[2] ?? 200), Number(process.argv[3] ?? 200));

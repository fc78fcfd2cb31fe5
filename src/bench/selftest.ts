import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { RandomStream } from "../engine/random.ts";
import type { LocalModel } from "../engine/local/index.ts";
import { groupTree } from "../forest/build.ts";
import type { Forest } from "../forest/types.ts";
import { crossEntropy } from "../method/losses.ts";
import { tinyFiles } from "../model/tiny.ts";
import { Runtime } from "../runtime/index.ts";
import { listCheckpoints, modelDir } from "../run/checkpoint.ts";
import { number } from "../run/format.ts";
import { parseRecipe, type Recipe } from "../run/recipe.ts";
import { resume, train } from "../run/train.ts";
import { startBenchProcess } from "./child.ts";
import { openModel } from "./model.ts";
import { BandwidthProbe, GemmProbe } from "./probes.ts";
import { SMOLLM2_135M } from "./shapes.ts";

export interface TestResult {
  ok: boolean;
  detail: string;
}

const WRONG_NUMBERS =
  "the native library computes wrong numbers here: do not train; try another version of it with RIFFT_ORT, and report this block";

/** What `rifft doctor` tries, in about ten seconds. A test that throws has failed. */
export const selfTests: { name: string; advice: string; run(): Promise<TestResult> }[] = [
  { name: "gradients", advice: WRONG_NUMBERS, run: gradients },
  { name: "mismatch", advice: WRONG_NUMBERS, run: mismatch },
  {
    name: "kill and resume",
    advice:
      "a run that is interrupted could not go on exactly: do not rely on `rifft resume` here, and report this block",
    run: killAndResume,
  },
  { name: "floors", advice: WRONG_NUMBERS, run: floors },
];

function tinyModel(train: "none" | "full"): LocalModel {
  const random = new RandomStream("doctor");
  const vocabulary = [..."abcdefghijklmnopqrstuvwxyz0123456789 .,"];
  const files = tinyFiles({ vocabulary, hidden: 32, layers: 2, heads: 2, intermediate: 48 }, () => random.normal());
  return openModel(files, train).model;
}

function tinyForest(model: LocalModel): Forest {
  const random = new RandomStream("doctor data");
  const draw = (length: number) => Int32Array.from({ length }, () => random.below(model.info.vocabSize));
  const leaf = (length: number) => ({
    tokens: draw(length),
    logprobs: new Float32Array(length),
    stop: "length" as const,
  });
  const tree = groupTree({ id: "doctor", problem: "p" }, draw(9), [leaf(7), leaf(12)], { temperature: 0.7 });
  for (const { tokens, fields } of tree.segments) fields.weights = Float32Array.from(tokens, () => random.uniform());
  return [tree];
}

/** How far along a tensor's own gradient the finite difference steps, and what float32 leaves of its precision. */
const STEP = 1e-2;
const GRADIENT_TOLERANCE = 1e-2;

/** Each tensor's gradient against central differences of the loss along it: the derivative there is the gradient's norm. */
async function gradients(): Promise<TestResult> {
  const model = tinyModel("full");
  const forest = tinyForest(model);
  const loss = async (): Promise<number> => {
    const [{ logprobs }] = await model.forward(forest);
    return forest[0].segments.reduce(
      (sum, { fields }, s) => sum - logprobs[s].reduce((part, lp, i) => part + fields.weights[i] * lp, 0),
      0,
    );
  };
  await model.forwardBackward(forest, crossEntropy());
  let worst = { name: "", error: 0 };
  const { entries } = model.parameters;
  for (const { name } of entries) {
    const values = model.parameters.value(name);
    const gradient = model.parameters.gradient(name);
    const norm = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0));
    const before = values.slice();
    const at = async (step: number): Promise<number> => {
      for (let i = 0; i < values.length; i++) values[i] = before[i] + (step * gradient[i]) / norm;
      return loss();
    };
    const slope = ((await at(STEP)) - (await at(-STEP))) / (2 * STEP);
    values.set(before);
    const error = Math.abs(slope - norm) / norm;
    if (!(error <= worst.error)) worst = { name, error };
  }
  await model.close();
  const detail = `${entries.length} tensors against finite differences, largest relative error ${number(worst.error)} (${worst.name})`;
  return { ok: worst.error <= GRADIENT_TOLERANCE, detail };
}

/** The limits of a run's `mismatch`, at temperature 1. */
const MEAN_LIMIT = 1e-5;
const MAXIMUM_LIMIT = 1e-3;

/** The sampler's log-probs against the trainer's, of the same tokens. */
async function mismatch(): Promise<TestResult> {
  const model = tinyModel("none");
  const prompts = Array.from({ length: 4 }, (_, p) =>
    Int32Array.from({ length: 5 + 3 * p }, (_, i) => 1 + ((7 * i + p) % 30)),
  );
  const samples = await model.sample(
    prompts.map((prefix, p) => ({ prefix, n: 8, maxTokens: 24, temperature: 1, stop: [], key: `doctor ${p}` })),
  );
  const forest = prompts.map((prompt, p) =>
    groupTree({ id: `${p}`, problem: `${p}` }, prompt, samples.slice(8 * p, 8 * p + 8), { temperature: 1 }),
  );
  const scores = await model.forward(forest);
  const differences = forest.flatMap(({ segments }, t) =>
    segments.flatMap(({ logprobs }, s) =>
      Array.from(logprobs ?? [], (lp, i) => Math.abs(lp - scores[t].logprobs[s][i])),
    ),
  );
  await model.close();
  const mean = differences.reduce((sum, d) => sum + d, 0) / differences.length;
  const largest = Math.max(...differences);
  return {
    ok: mean <= MEAN_LIMIT && largest < MAXIMUM_LIMIT,
    detail: `sampler against trainer over ${differences.length} tokens: mean ${number(mean)}, largest ${number(largest)}`,
  };
}

/** Three steps on a tiny model, in two stages; the KL penalty makes each of them train, whatever the rewards are. */
export function doctorRecipe(baseDir: string): Recipe {
  const text = `
model = "tiny"
task = "wordproblems"
checkpoint = { every = 1 }
[[stage]]
method = "sft"
steps = 1
batch = 4
lr = 1e-3
[[stage]]
method = "grpo"
steps = 2
prompts = 2
samples = 4
maxTokens = 16
beta = 0.1
lr = 1e-3
`;
  return parseRecipe(text, { source: "the doctor's recipe", baseDir });
}

/** A run killed in its third step and resumed ends with the bytes of one that was not. */
async function killAndResume(): Promise<TestResult> {
  const folder = mkdtempSync(join(tmpdir(), "rifft-doctor-"));
  try {
    const whole = join(folder, "whole");
    const killed = join(folder, "killed");
    const victim = startBenchProcess("killed-run", [killed]);
    const ending = new Promise<number | null>((resolve, reject) => {
      victim.once("error", reject).once("exit", (code) => resolve(code));
    });
    await train(doctorRecipe(folder), { run: whole });
    if ((await ending) === 0) return { ok: false, detail: "the run was over before it was killed" };
    await resume(killed);
    const [a, b] = [whole, killed].map(runFiles);
    const different = [...new Set([...a.keys(), ...b.keys()])].find(
      (name) => a.get(name)?.equals(b.get(name) ?? Buffer.of()) !== true,
    );
    if (different !== undefined) return { ok: false, detail: `${different} differs from that of an undisturbed run` };
    const bytes = [...a.values()].reduce((sum, { length }) => sum + length, 0);
    return { ok: true, detail: `three steps, killed in the third: ${a.size} files, ${bytes} bytes, all equal` };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What a run promises to repeat: metrics, samples, weights with moments. */
function runFiles(dir: string): Map<string, Buffer> {
  const checkpoints = join(dir, "checkpoints");
  const model = modelDir(join(checkpoints, listCheckpoints(checkpoints).at(-1) ?? ""));
  const inFolder = (path: string): [string, Buffer][] =>
    readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((file) => [relative(path, file), readFileSync(file)]);
  return new Map([
    ["metrics.jsonl", readFileSync(join(dir, "metrics.jsonl"))],
    ...inFolder(join(dir, "rollouts")),
    ...inFolder(model),
  ]);
}

/** What a thread reaches with the usual vectors (AVX2, NEON of a fast core) and nobody beside it, in GFLOP/s. */
const USUAL_RATE = 30;

/** A short look at what bounds training and decoding. Slow is no fault, but worth saying. */
async function floors(): Promise<TestResult> {
  const runtime = Runtime.open();
  const gemm = new GemmProbe(runtime, SMOLLM2_135M, 256);
  const bandwidth = new BandwidthProbe(runtime, 8192, false);
  for (let i = 0; i < 2; i++) gemm.measure();
  for (let i = 0; i < 5; i++) bandwidth.measure();
  gemm.release();
  bandwidth.release();
  const rate = gemm.rate.best / 1e9;
  const slow = rate < USUAL_RATE * runtime.threads ? "; slow: no AVX2, or other programs are busy" : "";
  return {
    ok: true,
    detail: `products ${number(rate)} GFLOP/s, memory ${number(bandwidth.rate.best / 1e9)} GB/s${slow}`,
  };
}

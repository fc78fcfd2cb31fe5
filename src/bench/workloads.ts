import { performance } from "node:perf_hooks";
import type { LocalModel } from "../engine/local/index.ts";
import { packTrees } from "../engine/local/pack.ts";
import { RandomStream } from "../engine/random.ts";
import type { LoraSettings, Loss, ModelSpec, OptimSettings } from "../engine/types.ts";
import { groupTree, sequenceTree } from "../forest/build.ts";
import { cutTree } from "../forest/cut.ts";
import type { Forest, Segment, Tree } from "../forest/types.ts";
import { countTokens, depths, leaves } from "../forest/walk.ts";
import { crossEntropy, ppo, ppoValue } from "../method/losses.ts";
import { VALUE } from "../method/reft.ts";
import { adam } from "../method/update.ts";
import type { ModelConfig } from "../model/types.ts";
import { memory } from "../runtime/index.ts";
import { attentionPairs, type PassWork } from "./floors.ts";
import { grpoWorkload } from "./grpo-step.ts";
import { motifWorkload } from "./motif-step.ts";
import { openModel, planFrom, planThatKeeps } from "./model.ts";
import { decodeProducts, trainingProducts } from "./products.ts";
import { searchedTree, searchWavesWorkload } from "./search-waves.ts";
import { QWEN25_05B, randomFiles, randomTokens, SMOLLM2_135M } from "./shapes.ts";

/** Work that a figure measures, set up and warm, in a process of its own. */
export interface Workload {
  /** What the memory budget chose. */
  plan: string;
  /** What is known without measuring: rows, pairs. */
  facts: Record<string, number>;
  /** Does the work once; seconds, and shares of 1. */
  repeat(): Promise<Record<string, number>>;
}

export const LORA: LoraSettings = { rank: 16, alpha: 32 };
export const PROMPT = 64;
export const RESPONSE = 128;
const OPTIMIZER = { lr: 1e-5, betas: [0.9, 0.999] as [number, number], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 };

/** By name; each is run by a child process. */
export const workloads = {
  lora: () => trainingStep({ lora: LORA }, "all"),
  full: () => trainingStep("full", "all"),
  "lora-recompute": () => trainingStep({ lora: LORA }, "inputs"),
  "full-recompute": () => trainingStep("full", "inputs"),
  decode8: () => decoding("none", 8),
  decode32: () => decoding("none", 32),
  decode64: () => decoding("none", 64),
  "decode8-lora": () => decoding({ lora: LORA }, 8),
  "decode8-full": () => decoding("full", 8),
  "decode8-products": async () => ({ plan: "no model", ...decodeProducts(SMOLLM2_135M, 8) }),
  "decode64-products": async () => ({ plan: "no model", ...decodeProducts(SMOLLM2_135M, 64) }),
  "training-products": async () => ({ plan: "no model", ...trainingProducts(SMOLLM2_135M, 2048) }),
  tree: groupAgainstFlat,
  "tree-search": searchTree,
  "search-waves": searchWaves,
  "search-tree-step": searchTreeStep,
  value: valueHead,
  grpo: () => grpo(SMOLLM2_135M, { prompts: 1, samples: 8, response: RESPONSE }),
  grpo32: () => grpo(SMOLLM2_135M, { prompts: 4, samples: 8, response: RESPONSE }),
  qwen: () => grpo(QWEN25_05B, { prompts: 4, samples: 8, response: 256 - PROMPT }, 6),
  "motif-step": () => motif(SMOLLM2_135M),
  tiny: () => grpo(TINY, { prompts: 1, samples: 4, response: 8 }),
} satisfies Record<string, () => Promise<Workload>>;
export type WorkloadName = keyof typeof workloads;

/** For tests of the bench itself. */
const TINY: ModelConfig = {
  ...SMOLLM2_135M,
  layers: 2,
  hidden: 64,
  heads: 2,
  kvHeads: 1,
  headDim: 32,
  intermediate: 96,
  vocab: 256,
};

/** The adapters' second factors are random too: at zero they would be there, but do nothing. */
function open(...o: Parameters<typeof openModel>): ReturnType<typeof openModel> {
  const opened = openModel(...o);
  const random = new RandomStream("bench adapters");
  for (const { name } of opened.model.parameters.entries) {
    if (!name.endsWith(".lora_B.weight")) continue;
    const values = opened.model.parameters.value(name);
    for (let i = 0; i < values.length; i++) values[i] = 1e-3 * random.normal();
  }
  return opened;
}

async function trainingStep(train: "full" | { lora: LoraSettings }, keep: "all" | "inputs"): Promise<Workload> {
  const files = randomFiles(SMOLLM2_135M);
  const { model, plan } = open(files, train, planThatKeeps(files, train, keep));
  const forest = sequences(8, 256);
  const repeat = () => trainOnce(model, forest);
  await repeat();
  return { plan: plan.text, facts: { ...passWork(forest) }, repeat };
}

/** A PPO step with a value head and one without it, by turns, on the same sequences. */
async function valueHead(): Promise<Workload> {
  const files = randomFiles(SMOLLM2_135M);
  const train = { lora: LORA };
  const plan = planThatKeeps(files, train, "all");
  const { model: plain, base } = open(files, train, plan);
  const { model: headed } = open(files, train, plan, { heads: [VALUE], base });
  const forest = rollouts(8, PROMPT, 256 - PROMPT);
  const clip = { low: 0.8, high: 1.2 };
  const joint = ppoValue({ clip, head: VALUE.name, valueClip: 0.2, coefficient: 5 });
  const settings = adam(OPTIMIZER, OPTIMIZER.lr);
  const both = { ...settings, groups: { ...settings.groups, "head:value": settings.groups.body } };
  const step = async (model: LocalModel, loss: Loss, optim: OptimSettings): Promise<number> => {
    const start = performance.now();
    await model.forwardBackward(forest, loss);
    await model.optimStep(optim);
    return (performance.now() - start) / 1000;
  };
  const repeat = async (): Promise<Record<string, number>> => ({
    without: await step(plain, ppo(clip), settings),
    seconds: await step(headed, joint, both),
  });
  await repeat();
  const parameters = headed.info.trainable - plain.info.trainable;
  return { plan: plan.text, facts: { ...passWork(forest), parameters }, repeat };
}

/** Random prompts and responses with everything that PPO reads. */
function rollouts(count: number, prompt: number, response: number): Forest {
  return Array.from({ length: count }, (_, i) => {
    const [question, answer] = ["prompt", "response"].map((what, s) =>
      randomTokens(SMOLLM2_135M, `${what} ${i}`, s === 0 ? prompt : response),
    );
    const tree = sequenceTree({ id: `${i}`, problem: `${i}` }, question, answer);
    const random = new RandomStream(`rollout ${i}`);
    const draw = (make: () => number) => Float32Array.from({ length: response }, make);
    Object.assign(tree.segments[1], {
      source: "policy",
      logprobs: draw(() => -11 * random.uniform()),
      fields: {
        weights: draw(() => 1 / (count * response)),
        advantages: draw(() => random.normal() / (count * response)),
        returns: draw(() => random.uniform()),
        oldValues: draw(() => random.uniform()),
      },
    });
    return tree;
  });
}

/** Seconds of forward, backward, clipping and AdamW; of them the `optimizer`, and before it JavaScript (`script`). */
async function trainOnce(model: LocalModel, forest: Forest): Promise<Record<string, number>> {
  const start = performance.now();
  const loop = performance.eventLoopUtilization();
  await model.forwardBackward(forest, crossEntropy());
  const script = performance.eventLoopUtilization(loop).active;
  const between = performance.now();
  await model.optimStep(adam(OPTIMIZER, OPTIMIZER.lr));
  const end = performance.now();
  return { seconds: (end - start) / 1000, optimizer: (end - between) / 1000, script: script / 1000 };
}

async function decoding(train: ModelSpec["train"], rows: number): Promise<Workload> {
  const { model, plan } = open(randomFiles(SMOLLM2_135M), train);
  let calls = 0;
  const sample = async (prefix: Int32Array, maxTokens: number): Promise<number> => {
    const start = performance.now();
    await model.sample([{ prefix, n: rows, maxTokens, temperature: 1, stop: [], key: `${calls++}` }]);
    return (performance.now() - start) / 1000;
  };
  const prefix = randomTokens(SMOLLM2_135M, "prefix", PROMPT);
  if (train !== "none") model.parameters.grads();
  await sample(prefix, RESPONSE);
  const repeat = async (): Promise<Record<string, number>> => {
    let repacking = 0;
    if (train !== "none") {
      // An update with gradient zero: the weights are of another version, and what decoding keeps of them is made again.
      await model.optimStep(adam(OPTIMIZER, OPTIMIZER.lr));
      const first = await sample(prefix, 1);
      const other = await sample(randomTokens(SMOLLM2_135M, `${calls}`, PROMPT), 1);
      repacking = Math.max(0, first - other);
    }
    const loop = performance.eventLoopUtilization();
    const seconds = await sample(prefix, RESPONSE);
    const script = performance.eventLoopUtilization(loop).utilization;
    return { seconds: (seconds + repacking) / RESPONSE, repacking, script };
  };
  return { plan: plan.text, facts: { rows, keys: PROMPT + (RESPONSE - 1) / 2 }, repeat };
}

/** A group of 8 with a 400-token prompt: one packed tree, and the same as flat sequences. */
async function groupAgainstFlat(): Promise<Workload> {
  const { model, plan } = open(randomFiles(SMOLLM2_135M), { lora: LORA });
  const prompt = randomTokens(SMOLLM2_135M, "prompt", 400);
  const responses = Array.from({ length: 8 }, (_, i) => randomTokens(SMOLLM2_135M, `response ${i}`, RESPONSE));
  const samples = responses.map((tokens) => ({
    tokens,
    logprobs: new Float32Array(tokens.length),
    stop: "length" as const,
  }));
  const group = groupTree({ id: "group", problem: "p" }, prompt, samples, { temperature: 1 });
  const flat = responses.map((response, i) => sequenceTree({ id: `${i}`, problem: "p" }, prompt, response));
  for (const tree of [group, ...flat]) {
    for (const { source, tokens, fields } of tree.segments) {
      if (source !== "prompt") fields.weights = new Float32Array(tokens.length).fill(1 / (8 * RESPONSE));
    }
  }
  const seconds = async (forest: Forest): Promise<number> => {
    const start = performance.now();
    await model.forwardBackward(forest, crossEntropy());
    return (performance.now() - start) / 1000;
  };
  await seconds([group]);
  const treePeak = memory().peak;
  await seconds(flat);
  const tokens = countTokens(group);
  return {
    plan: plan.text,
    facts: {
      ...passWork([group]),
      fewer: flat.reduce((sum, tree) => sum + countTokens(tree), 0) / tokens,
      computedPairs: packTrees([group]).pairs,
      treePeak,
    },
    async repeat() {
      const packed = await seconds([group]);
      const apart = await seconds(flat);
      return { seconds: packed, flat: apart, speedUp: apart / packed };
    },
  };
}

/** A search tree of about 4,000 tokens, all of whose nodes are trained: 45 a node on average, two or three children each. */
async function searchWaves(): Promise<Workload> {
  const { model, plan } = open(randomFiles(SMOLLM2_135M), "none");
  return { plan: plan.text, ...(await searchWavesWorkload(model, SMOLLM2_135M, PROMPT)) };
}

/** The tree of a search: as one packed tree, and its 16 paths as one batch, sorted by length and padded to the longest. */
async function searchTreeStep(): Promise<Workload> {
  const { model, plan } = open(randomFiles(SMOLLM2_135M), { lora: LORA });
  const { tree, paths } = await searchedTree(model, SMOLLM2_135M, PROMPT);
  const ids = paths.map((path) => path.flatMap((s) => Array.from(tree.segments[s].tokens)));
  const inPaths = ids.reduce((sum, { length }) => sum + length, 0);
  const longest = Math.max(...ids.map(({ length }) => length));
  const weigh = ({ source, tokens, fields }: Segment): void => {
    if (source !== "prompt") fields.weights = new Float32Array(tokens.length).fill(1 / inPaths);
  };
  tree.segments.forEach(weigh);
  const padded = ids
    .sort((a, b) => b.length - a.length)
    .map((path, i): Tree => {
      const one = sequenceTree(
        { id: `${i}`, problem: "p" },
        Int32Array.from(path.slice(0, PROMPT)),
        Int32Array.from(path.slice(PROMPT)),
      );
      one.segments.forEach(weigh);
      // Rows that count for nothing, computed all the same.
      if (path.length < longest) {
        one.segments.push({ parent: 1, tokens: new Int32Array(longest - path.length), source: "env", fields: {} });
      }
      return one;
    });
  const seconds = async (forest: Forest): Promise<number> => {
    const start = performance.now();
    await model.forwardBackward(forest, crossEntropy());
    return (performance.now() - start) / 1000;
  };
  await seconds([tree]);
  const treePeak = memory().peak;
  return {
    plan: plan.text,
    facts: {
      ...passWork([tree]),
      fewer: inPaths / countTokens(tree),
      padding: (longest * padded.length) / inPaths,
      computedPairs: cutTree(tree, plan.rows).reduce((sum, piece) => sum + packTrees([piece.tree]).pairs, 0),
      treePeak,
    },
    async repeat() {
      const packed = await seconds([tree]);
      const apart = await seconds(padded);
      return { seconds: packed, flat: apart, speedUp: apart / packed };
    },
  };
}

async function searchTree(): Promise<Workload> {
  const { model, plan } = open(randomFiles(SMOLLM2_135M), { lora: LORA });
  const tree = makeSearchTree(SMOLLM2_135M, 4000);
  const before = depths(tree);
  const ends = leaves(tree);
  const inPaths = ends.reduce((sum, leaf) => sum + before[leaf] + tree.segments[leaf].tokens.length, 0);
  const pieces = cutTree(tree, plan.rows);
  return {
    plan: plan.text,
    facts: {
      ...passWork([tree]),
      fewer: inPaths / countTokens(tree),
      computedPairs: pieces.reduce((sum, piece) => sum + packTrees([piece.tree]).pairs, 0),
      pieces: pieces.length,
      leaves: ends.length,
    },
    repeat: () => trainOnce(model, [tree]),
  };
}

/** A prompt of 200 tokens, then nodes of 20 to 70 under one of the latest, level by level. */
export function makeSearchTree(config: ModelConfig, size: number): Tree {
  const random = new RandomStream("search tree");
  const segments: Segment[] = [];
  const add = (parent: number, length: number): void => {
    const source = parent < 0 ? "prompt" : "policy";
    const tokens = Int32Array.from({ length }, () => random.below(config.vocab));
    const fields: Segment["fields"] = parent < 0 ? {} : { weights: new Float32Array(length).fill(1 / size) };
    segments.push({ parent, tokens, source, fields });
  };
  add(-1, 200);
  let left = size - 200;
  for (let parent = 0; left > 0; parent++) {
    for (let child = 2 + random.below(2); child > 0 && left > 0; child--) {
      const length = Math.min(left, 20 + random.below(51));
      add(parent, length);
      left -= length;
    }
  }
  return { id: "search", problem: "p", segments };
}

async function grpo(
  config: ModelConfig,
  shape: { prompts: number; samples: number; response: number },
  memoryGb?: number,
): Promise<Workload> {
  const files = randomFiles(config);
  const train = { lora: LORA };
  const { model, plan } = open(files, train, memoryGb === undefined ? undefined : planFrom(files, train, memoryGb));
  return { plan: plan.text, ...(await grpoWorkload(model, config, { ...shape, prompt: PROMPT })) };
}

async function motif(config: ModelConfig): Promise<Workload> {
  const { model, plan } = open(randomFiles(config), { lora: LORA });
  const shape = { samples: 8, continuations: 4, rounds: 3, prompt: PROMPT, response: 64, progress: 32 };
  return { plan: plan.text, ...(await motifWorkload(model, config, shape)) };
}

/** Random sequences whose tokens all weigh the same. */
function sequences(count: number, length: number): Forest {
  return Array.from({ length: count }, (_, i) => {
    const weights = new Float32Array(length).fill(1 / (count * length));
    const tokens = randomTokens(SMOLLM2_135M, `sequence ${i}`, length);
    return { id: `${i}`, problem: `${i}`, segments: [{ parent: -1, tokens, source: "data", fields: { weights } }] };
  });
}

/** What a training step over a forest must do; the first token of a root is not scored. */
export function passWork(forest: Forest): PassWork {
  let scored = 0;
  for (const { segments } of forest) {
    for (const { parent, fields } of segments) {
      const weighted = fields.weights ?? fields.advantages ?? new Float32Array(0);
      scored += weighted.filter((weight, i) => weight !== 0 && (parent >= 0 || i > 0)).length;
    }
  }
  return {
    rows: forest.reduce((sum, tree) => sum + countTokens(tree), 0),
    scored,
    pairs: attentionPairs(forest),
  };
}

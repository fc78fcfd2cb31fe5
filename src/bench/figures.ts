import type { ModelConfig } from "../model/types.ts";
import { decodeFlops, forwardFlops, type PassWork, trainingFlops, weightBytes } from "./floors.ts";
import { QWEN25_05B, SMOLLM2_135M } from "./shapes.ts";
import { LORA, type WorkloadName } from "./workloads.ts";

/** One number of a figure, with its floor and their ratio where it has one. */
export interface Line {
  what: string;
  value: number;
  unit: "s" | "ms" | "kB" | "GB" | "%" | "times";
  floor?: number;
  floorIs?: string;
  /** value / floor. */
  ratio?: number;
  /** What the engine is meant to keep to: the ratio where there is a floor, else the value. */
  atMost?: number;
  atLeast?: number;
}

/** What was measured, for a figure to make its lines of. */
export interface Measured {
  /** The median over the judged repeats of a value that the workload gave. */
  median(value: string): number;
  facts: Record<string, number>;
  /** GB (10^9 bytes). */
  peak: number;
  /** FLOP a second of the probe at so many rows. */
  gemm(rows: number): number;
  /** Bytes a second. */
  bandwidth: number;
}

export interface Figure {
  name: WorkloadName;
  about: string;
  /** Belongs to those that run when no name is given. */
  core: boolean;
  config: ModelConfig;
  /** Row counts at which products are probed. */
  gemmRows: number[];
  bandwidth: boolean;
  /** Quiet repeats that are wanted. */
  repeats: number;
  /** Seconds that it takes about, on two cores: the figure's share where time is short. */
  seconds: number;
  lines(m: Measured): Line[];
}

const ms = (seconds: number) => 1000 * seconds;

function timed(what: string, unit: "s" | "ms", seconds: number, floor: { seconds: number; is: string }): Line {
  const scale = unit === "s" ? 1 : 1000;
  return {
    what,
    value: seconds * scale,
    unit,
    floor: floor.seconds * scale,
    floorIs: floor.is,
    ratio: seconds / floor.seconds,
  };
}

const peakLine = (m: Measured, atMost?: number): Line => ({ what: "peak memory", value: m.peak, unit: "GB", atMost });

const passWork = ({ rows, scored, pairs }: Record<string, number>): PassWork => ({ rows, scored, pairs });

interface TrainingLimits {
  ratio?: number;
  peak?: number;
  serial?: number;
}

function training(
  name: WorkloadName,
  about: string,
  train: Parameters<typeof trainingFlops>[2],
  o: { repeats: number; seconds: number; limits: TrainingLimits },
): Figure {
  const { repeats, seconds, limits } = o;
  return {
    name,
    about,
    core: true,
    config: SMOLLM2_135M,
    gemmRows: [2048],
    bandwidth: false,
    repeats,
    seconds,
    lines(m) {
      const floor = trainingFlops(SMOLLM2_135M, passWork(m.facts), train) / m.gemm(2048);
      const share = (seconds: number) => (100 * seconds) / m.median("seconds");
      const optimizer = m.median("optimizer");
      const serial = share(optimizer + m.median("script"));
      return [
        { ...timed("step", "s", m.median("seconds"), { seconds: floor, is: "GEMM" }), atMost: limits.ratio },
        { what: "clipping and AdamW", value: share(optimizer), unit: "%" },
        // The embedding's gradient is made by JavaScript, and counted with all of it.
        { what: "the same, with all JavaScript", value: serial, unit: "%", atMost: limits.serial },
        peakLine(m, limits.peak),
      ];
    },
  };
}

/** The floor of a decode step, the larger of two. */
function decodeFloor(config: ModelConfig, m: Measured, rows: number, keys: number): { seconds: number; is: string } {
  const gemm = decodeFlops(config, rows, keys) / m.gemm(rows);
  const bandwidth = weightBytes(config) / m.bandwidth;
  return gemm > bandwidth ? { seconds: gemm, is: `GEMM at ${rows} rows` } : { seconds: bandwidth, is: "bandwidth" };
}

function decoding(name: WorkloadName, about: string, rows: number, atMost: number, seconds: number): Figure {
  return {
    name,
    about,
    core: true,
    config: SMOLLM2_135M,
    gemmRows: [rows],
    bandwidth: true,
    repeats: 5,
    seconds,
    lines(m) {
      const repacking: Line = { what: "of it repacking, each 128 steps", value: ms(m.median("repacking")), unit: "ms" };
      const step = m.median("seconds");
      const floor = decodeFloor(SMOLLM2_135M, m, rows, m.facts.keys);
      return [
        { ...timed("decode step", "ms", step, floor), atMost },
        {
          ...timed("the same, against bandwidth alone", "ms", step, {
            seconds: weightBytes(SMOLLM2_135M) / m.bandwidth,
            is: "bandwidth",
          }),
        },
        ...(m.median("repacking") > 0 ? [repacking] : []),
        { what: "JavaScript's share", value: 100 * m.median("script"), unit: "%", atMost: 5 },
        peakLine(m),
      ];
    },
  };
}

function pairsLine({ computedPairs, pairs }: Record<string, number>): Line {
  return { what: "query-key pairs, computed over needed", value: computedPairs / pairs, unit: "times", atMost: 1.5 };
}

/** The floor of a GRPO step: prompts once, every decode step, and the training of each token once. */
function grpoFloor(config: ModelConfig, m: Measured): { sample: number; train: number } {
  const { prompts, samples, prompt, response } = m.facts;
  const rate = m.gemm(prompt + samples * response);
  const keys = prompt + (response - 1) / 2;
  const prefill = forwardFlops(config, { rows: prompts * prompt, scored: 0, pairs: prompts * prompt * prompt }) / rate;
  return {
    sample: prefill + response * decodeFloor(config, m, prompts * samples, keys).seconds,
    train: trainingFlops(config, passWork(m.facts), { lora: LORA }) / rate,
  };
}

function grpoStep(
  name: WorkloadName,
  about: string,
  config: ModelConfig,
  o: { gemmRows: number[]; repeats: number; seconds: number; peak?: number },
): Figure {
  const { gemmRows, repeats, seconds, peak } = o;
  return {
    name,
    about,
    core: false,
    config,
    gemmRows,
    bandwidth: true,
    repeats,
    seconds,
    lines(m) {
      const { sample, train } = grpoFloor(config, m);
      return [
        timed("step", "s", m.median("seconds"), { seconds: sample + train, is: "sampling and training" }),
        timed("sampling", "s", m.median("sample"), { seconds: sample, is: "decode" }),
        timed("training", "s", m.median("train"), { seconds: train, is: "GEMM" }),
        peakLine(m, peak),
      ];
    },
  };
}

const tree: Figure = {
  name: "tree",
  about: "LoRA, a group of 8 with a 400-token prompt and 128-token responses: one packed tree against flat sequences",
  core: true,
  config: SMOLLM2_135M,
  gemmRows: [1424],
  bandwidth: false,
  repeats: 5,
  seconds: 140,
  lines(m) {
    const floor = trainingFlops(SMOLLM2_135M, passWork(m.facts), { lora: LORA }) / m.gemm(1424);
    const { fewer } = m.facts;
    const speedUp = m.median("speedUp");
    return [
      timed("forward and backward, packed", "s", m.median("seconds"), { seconds: floor, is: "GEMM" }),
      { what: "the same, flat", value: m.median("flat"), unit: "s" },
      {
        what: "speed-up",
        value: speedUp,
        unit: "times",
        floor: fewer,
        floorIs: "tokens saved",
        ratio: speedUp / fewer,
        atLeast: 0.7,
      },
      pairsLine(m.facts),
      { what: "peak memory, packed", value: m.facts.treePeak / 1e9, unit: "GB" },
    ];
  },
};

const treeSearch: Figure = {
  name: "tree-search",
  about: "LoRA, a step on a search tree of 4,000 tokens",
  core: true,
  config: SMOLLM2_135M,
  gemmRows: [2048],
  bandwidth: false,
  repeats: 1,
  seconds: 30,
  lines(m) {
    const floor = trainingFlops(SMOLLM2_135M, passWork(m.facts), { lora: LORA }) / m.gemm(2048);
    return [
      timed("step", "s", m.median("seconds"), { seconds: floor, is: "GEMM" }),
      { what: "tokens in paths over tokens", value: m.facts.fewer, unit: "times" },
      pairsLine(m.facts),
      peakLine(m),
    ];
  },
};

const searchTreeStep: Figure = {
  name: "search-tree-step",
  about: "LoRA, the tree of a search of 16 rollouts, packed, against its paths as one padded batch",
  core: false,
  config: SMOLLM2_135M,
  gemmRows: [2048],
  bandwidth: false,
  repeats: 2,
  seconds: 150,
  lines(m) {
    const floor = trainingFlops(SMOLLM2_135M, passWork(m.facts), { lora: LORA }) / m.gemm(2048);
    const { fewer, padding } = m.facts;
    const speedUp = m.median("speedUp");
    return [
      timed("forward and backward, packed", "s", m.median("seconds"), { seconds: floor, is: "GEMM" }),
      { what: "the paths, padded", value: m.median("flat"), unit: "s" },
      {
        what: "speed-up",
        value: speedUp,
        unit: "times",
        floor: fewer,
        floorIs: "tokens in paths over tokens",
        ratio: speedUp / fewer,
        atLeast: 0.7,
      },
      { what: "padded tokens over tokens in paths", value: padding, unit: "times" },
      pairsLine(m.facts),
      { what: "peak memory, packed", value: m.facts.treePeak / 1e9, unit: "GB" },
    ];
  },
};

const searchWaves: Figure = {
  name: "search-waves",
  about: "token-guided search: 8 trees of 2 rollouts in waves, and one after another",
  core: false,
  config: SMOLLM2_135M,
  gemmRows: [],
  bandwidth: false,
  repeats: 2,
  seconds: 150,
  lines(m) {
    const [together, apart, tokens] = [m.median("seconds"), m.median("apart"), m.median("tokens")];
    return [
      { what: "8 trees in waves, a token", value: ms(together / tokens), unit: "ms" },
      { what: "one tree after another, a token", value: ms(apart / tokens), unit: "ms" },
      { what: "tokens a second, in waves over one after another", value: apart / together, unit: "times", atLeast: 3 },
      peakLine(m),
    ];
  },
};

/** What the library's own product takes of a step, and nothing else: no step made of its operators is faster. */
function productsAlone(name: WorkloadName, about: string, rows: number, decodes: boolean): Figure {
  return {
    name,
    about,
    core: false,
    config: SMOLLM2_135M,
    gemmRows: [rows],
    bandwidth: decodes,
    repeats: 9,
    seconds: 30,
    lines(m) {
      const gemm = m.facts.flops / m.gemm(rows);
      const bandwidth = decodes ? weightBytes(SMOLLM2_135M) / m.bandwidth : 0;
      const is = bandwidth > gemm ? "bandwidth" : `GEMM at ${rows} rows`;
      const unit = decodes ? "ms" : "s";
      return [timed("products", unit, m.median("seconds"), { seconds: Math.max(gemm, bandwidth), is })];
    },
  };
}

const LORA_STEP = "LoRA r16 on all linear layers, a step of 8 x 256 tokens";
const FULL_STEP = "full fine-tuning, a step of 8 x 256 tokens";

const value: Figure = {
  name: "value",
  about: "LoRA r16, a PPO step of 8 x 256 tokens, 192 of them the response, with a value head against without",
  core: false,
  config: SMOLLM2_135M,
  gemmRows: [2048],
  bandwidth: false,
  repeats: 7,
  seconds: 170,
  lines(m) {
    const floor = trainingFlops(SMOLLM2_135M, passWork(m.facts), { lora: LORA }) / m.gemm(2048);
    const without = m.median("without");
    const seconds = m.median("seconds");
    return [
      timed("step", "s", seconds, { seconds: floor, is: "GEMM" }),
      { what: "the same, without the head", value: without, unit: "s" },
      { what: "what the head adds", value: (100 * (seconds - without)) / without, unit: "%", atMost: 3 },
      // Weights, gradient and both moments.
      { what: "its memory", value: (16 * m.facts.parameters) / 1e3, unit: "kB" },
      { what: "peak memory, both models", value: m.peak, unit: "GB" },
    ];
  },
};

const motifStep: Figure = {
  name: "motif-step",
  about:
    "MOTIF, LoRA r16: 8 first responses x 4 continuations, 3 rounds of 64 tokens, the first trained, against its calls of the engine alone",
  core: false,
  config: SMOLLM2_135M,
  gemmRows: [],
  bandwidth: false,
  repeats: 5,
  seconds: 200,
  lines: (m) => [
    { ...timed("step", "s", m.median("seconds"), { seconds: m.median("parts"), is: "its parts" }), atMost: 1.1 },
    { what: "sampling", value: m.median("sample"), unit: "s" },
    { what: "training", value: m.median("train"), unit: "s" },
    peakLine(m),
  ],
};

/** Every figure, in the order in which they run. SmolLM2-135M's shape unless it says another. */
export const figures: Figure[] = [
  training("lora", LORA_STEP, { lora: LORA }, { repeats: 5, seconds: 75, limits: { ratio: 1.35, peak: 3.6 } }),
  training("full", FULL_STEP, "full", { repeats: 5, seconds: 95, limits: { ratio: 1.45, serial: 5 } }),
  decoding("decode8", "decoding of 8 sequences, 64 tokens before 128 new ones", 8, 1.3, 40),
  decoding("decode32", "decoding of 32 sequences", 32, 1.7, 45),
  decoding("decode64", "decoding of 64 sequences", 64, 1.7, 65),
  decoding("decode8-lora", "decoding of 8 sequences with an active adapter, LoRA r16", 8, 1.5, 45),
  decoding("decode8-full", "decoding of 8 sequences in full fine-tuning, weights new for every 128 steps", 8, 1.7, 50),
  training(
    "lora-recompute",
    `${LORA_STEP}, layers computed again in the backward`,
    { lora: LORA },
    {
      repeats: 1,
      seconds: 35,
      limits: { peak: 1.6 },
    },
  ),
  training("full-recompute", `${FULL_STEP}, layers computed again in the backward`, "full", {
    repeats: 1,
    seconds: 45,
    limits: { peak: 3.6 },
  }),
  treeSearch,
  searchTreeStep,
  searchWaves,
  tree,
  productsAlone("decode8-products", "the packed products alone of a decode step of 8 sequences", 8, true),
  productsAlone("decode64-products", "the packed products alone of a decode step of 64 sequences", 64, true),
  productsAlone("training-products", "the layers' products alone of a LoRA step of 8 x 256 tokens", 2048, false),
  value,
  grpoStep("grpo", "GRPO, LoRA r16: 1 x 8 samples of 128 tokens, 64-token prompt", SMOLLM2_135M, {
    gemmRows: [8, 1088],
    repeats: 5,
    seconds: 90,
  }),
  grpoStep("grpo32", "GRPO, LoRA r16: 4 x 8 samples of 128 tokens, 64-token prompts", SMOLLM2_135M, {
    gemmRows: [32, 1088],
    repeats: 5,
    seconds: 220,
  }),
  motifStep,
  grpoStep(
    "qwen",
    "Qwen2.5-0.5B's shape, GRPO, LoRA r16: 4 x 8 sequences of 256 tokens, 64 of them the prompt",
    QWEN25_05B,
    {
      gemmRows: [32, 1600],
      repeats: 1,
      seconds: 300,
      peak: 6,
    },
  ),
];

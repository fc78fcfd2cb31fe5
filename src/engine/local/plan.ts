import { UserError } from "../../errors.ts";
import type { ModelConfig, ModelFiles } from "../../model/types.ts";
import { memory } from "../../runtime/index.ts";
import type { ModelSpec } from "../types.ts";
import { linearDims, LINEARS, tensorOrder, vocabMatrices, weightName } from "./layers.ts";
import type { DecoderBudget } from "./decoder.ts";

/** What the memory budget chose; a pure function of the model, the training and the budget. */
export interface MemoryPlan {
  /** Rows (tokens) of one pass. */
  rows: number;
  /** Residuals of every layer, or their inputs alone and the rest computed again. */
  keep: "all" | "inputs";
  /** Frozen layers stay as they were stored and are widened when used. */
  keepStored: boolean;
  /** Probabilities of the head kept between forward and backward. */
  headBytes: number;
  /** Attention's probabilities kept between forward and backward. */
  probBytes: number;
  decoder: DecoderBudget;
  /** Bytes that training and decoding are expected to take at most. */
  bytes: number;
  text: string;
}

const GB = 1e9;
/** What the process, the library and the temporaries of its operators take besides. */
const OVERHEAD = 0.35 * GB;

/**
 * Chooses the fastest way that fits: everything kept, then layers computed again in the backward, then frozen layers stored as they
 * came, then smaller passes. `loadedBytes`: what the base takes that is in memory already. Throws a UserError with the estimate where nothing fits.
 */
export function planMemory(files: ModelFiles, spec: ModelSpec, budgetGb?: number, loadedBytes?: number): MemoryPlan {
  const { config } = files;
  const budget = (spec.memoryShare ?? 1) * (budgetGb !== undefined ? budgetGb * GB : memory().total * 0.8);
  const matrices = layerFloats(config) * config.layers;
  const all = tensorOrder(config).reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
  const storable = Array.from({ length: config.layers }, (_, l) =>
    LINEARS.map((linear) => files.tensors.get(weightName(l, linear))),
  )
    .flat()
    .filter((tensor) => tensor !== undefined && tensor.type !== "f32");
  const storedBytes = storable.reduce((sum, tensor) => sum + (tensor?.bytes.byteLength ?? 0), 0);
  const lora = typeof spec.train === "object" ? spec.train.lora : null;
  const tokens = lora && files.added ? files.added.ids.length * vocabMatrices(config).length : 0;
  const trained = spec.train === "full" ? all : lora ? loraFloats(config, lora.rank) + tokens * config.hidden : 0;
  // Rows that are trained beside an adapter stand in copies of their matrices.
  const copies = tokens > 0 ? vocabMatrices(config).length * config.vocab * config.hidden * 4 : 0;
  const ways = [2048, 1024, 512].flatMap((rows) =>
    [false, true].flatMap((keepStored) => (["all", "inputs"] as const).map((keep) => ({ rows, keep, keepStored }))),
  );
  let smallest = Infinity;
  for (const { rows, keep, keepStored } of ways) {
    if (keepStored && (storable.length === 0 || spec.train === "full")) continue;
    const widened = spec.train === "full" ? 0 : keepStored ? (all - matrices) * 4 + storedBytes : all * 4;
    const base = loadedBytes ?? widened;
    const state = trained * 16;
    const activations = spec.train === "none" ? rows * config.hidden * 24 : activationBytes(config, rows, keep);
    const headBytes = Math.min(rows * config.vocab * 4, keep === "all" ? 0.5 * GB : 0.12 * GB);
    // Training and decoding do not happen at once, but what each allocated stays.
    const decoder = decoderBudget(config, budget);
    const decoding = all * 4 + decoder.slotBytes + decoder.prefixBytes + (keepStored ? matrices * 4 : 0);
    const probBytes = keep === "all" && spec.train !== "none" ? 0.6 * GB : 0;
    const bytes = OVERHEAD + probBytes + base + copies + state + activations + headBytes + decoding;
    smallest = Math.min(smallest, bytes);
    if (bytes > budget) continue;
    const text =
      `${gb(bytes)} of ${gb(budget)} GB at most: passes of ${rows} tokens, ` +
      (keep === "all" ? "residuals kept" : "layers computed again in the backward") +
      (keepStored ? ", frozen layers kept as stored" : "");
    return { rows, keep, keepStored, headBytes, probBytes, decoder, bytes, text };
  }
  throw new UserError(
    `not enough memory: this model and training need about ${gb(smallest)} GB, ${gb(budget)} GB are given; ` +
      `raise \`memory\`, train a LoRA adapter instead of all weights, or choose a smaller model`,
  );
}

const gb = (bytes: number): string => (bytes / GB).toFixed(1);

const layerFloats = (config: ModelConfig): number => {
  const dims = linearDims(config);
  return LINEARS.reduce((sum, linear) => sum + dims[linear][0] * dims[linear][1], 0);
};

const loraFloats = (config: ModelConfig, rank: number): number => {
  const dims = linearDims(config);
  return config.layers * LINEARS.reduce((sum, linear) => sum + rank * (dims[linear][0] + dims[linear][1]), 0);
};

function activationBytes(config: ModelConfig, rows: number, keep: "all" | "inputs"): number {
  const { hidden, heads, kvHeads, headDim, intermediate, layers } = config;
  const attention = 2 * heads * headDim + 2 * kvHeads * headDim;
  const layer = attention + 2 * hidden + 3 * intermediate;
  const perRow = keep === "all" ? layers * (hidden + layer) : layers * hidden + layer;
  // Scores of one attention call and the temporaries of a block.
  return 4 * rows * (perRow + 4 * hidden + 4 * intermediate) + 4 * 8 * (1 << 20);
}

function decoderBudget(config: ModelConfig, budget: number): DecoderBudget {
  const perToken = 8 * config.kvHeads * config.headDim * config.layers;
  return {
    maxRows: 64,
    slotBytes: Math.min(0.1 * budget, 64 * 1024 * perToken),
    prefixBytes: Math.min(0.05 * budget, 64 * 1024 * perToken),
  };
}

import { RandomStream } from "../engine/random.ts";
import { tensorShapes } from "../model/shape.ts";
import type { ModelConfig, ModelFiles, StoredTensor, Tokenizer } from "../model/types.ts";

/** Shapes of published models; no EOS id, so that every sample has exactly the length that was asked for. */
export const SMOLLM2_135M: ModelConfig = {
  architecture: "llama",
  layers: 30,
  hidden: 576,
  heads: 9,
  kvHeads: 3,
  headDim: 64,
  intermediate: 1536,
  vocab: 49152,
  maxContext: 8192,
  rmsEps: 1e-5,
  ropeTheta: 100000,
  tiedEmbeddings: true,
  qkvBias: false,
  qkNorm: false,
  eosIds: [],
};

export const QWEN25_05B: ModelConfig = {
  architecture: "qwen2",
  layers: 24,
  hidden: 896,
  heads: 14,
  kvHeads: 2,
  headDim: 64,
  intermediate: 4864,
  vocab: 151936,
  maxContext: 32768,
  rmsEps: 1e-6,
  ropeTheta: 1000000,
  tiedEmbeddings: true,
  qkvBias: true,
  qkNorm: false,
  eosIds: [],
};

/** Random weights repeat after so many: a prime, so that no two rows of a matrix are equal. */
const PERIOD = 1048573;
const DEVIATION = 0.02;
const ONE = 0x3f80;

/**
 * A model of this shape with random weights in bfloat16, as published ones are stored. Neither speed nor memory depends on the
 * values.
 */
export function randomFiles(config: ModelConfig): ModelFiles {
  const random = new RandomStream("bench weights");
  const values = Float32Array.from({ length: PERIOD }, () => DEVIATION * random.normal());
  const bits = new Uint32Array(values.buffer);
  const pattern = Uint16Array.from(bits, (word) => word >>> 16);
  let at = 0;
  const make = (name: string, dims: number[]): StoredTensor => {
    const data = new Uint16Array(dims.reduce((a, b) => a * b, 1));
    if (name.endsWith("norm.weight")) data.fill(ONE);
    else at = tile(data, pattern, at);
    return { dims, type: "bf16", bytes: new Uint8Array(data.buffer) };
  };
  const tensors = new Map([...tensorShapes(config)].map(([name, dims]) => [name, make(name, dims)]));
  return { config, tensors, tokenizer: numberTokenizer(config.vocab), sidecars: new Map() };
}

/** Fills `target` with the pattern, from its element `at` on; returns where the next array goes on. */
export function tile<T extends Uint16Array | Float32Array>(target: T, pattern: T, at: number): number {
  for (let i = 0; i < target.length;) {
    const part = pattern.subarray(at, Math.min(pattern.length, at + target.length - i));
    target.set(part, i);
    i += part.length;
    at = (at + part.length) % pattern.length;
  }
  return at;
}

/** Token 17 is the text "17 ". */
export function numberTokenizer(vocabSize: number): Tokenizer {
  return {
    vocabSize,
    added: new Map(),
    hasChatTemplate: false,
    encode: (text) => Int32Array.from(text.split(" ").filter(Boolean), Number),
    decode: (ids) => Array.from(ids, (id) => `${id} `).join(""),
    idOf: (token) => (/^\d+ $/.test(token) && Number(token) < vocabSize ? Number(token) : undefined),
    renderChat: (messages) => messages.map(({ content }) => content).join(" "),
  };
}

/** Token ids that depend on the key alone. */
export function randomTokens(config: ModelConfig, key: string, length: number): Int32Array {
  const random = new RandomStream(key);
  return Int32Array.from({ length }, () => random.below(config.vocab));
}

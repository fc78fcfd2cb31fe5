import { UserError } from "../errors.ts";
import { tensorShapes } from "./shape.ts";
import { writeSidecars } from "./sidecars.ts";
import { createTokenizer } from "./tokenizer.ts";
import type { ModelConfig, ModelFiles, StoredTensor } from "./types.ts";
import { wordTokenizerJson } from "./word-tokenizer.ts";

/** Ends a text; also what a shorter row is padded with. */
const endToken = "<|endoftext|>";

export interface TinyShape {
  /** Words (with their leading space), digits, punctuation, newline: every text must be made of these. */
  vocabulary: readonly string[];
  /** Words that are left out, for they will be added tokens. */
  without?: readonly string[];
  hidden?: number;
  layers?: number;
  heads?: number;
  intermediate?: number;
  maxContext?: number;
}

/**
 * A small Llama made from scratch, head untied. Its tokenizer takes, from left to right, the longest string of the vocabulary; so
 * every text that the vocabulary covers is given back exactly, and a character that it lacks is a UserError.
 * The end token has id 0, the vocabulary follows in its order.
 * @param normal standard normal numbers for the initial weights
 */
export function tinyFiles(shape: TinyShape, normal: () => number): ModelFiles {
  const { without = [], hidden = 64, layers = 3, heads = 4, intermediate = 160, maxContext = 256 } = shape;
  const vocabulary = shape.vocabulary.filter((word) => !without.includes(word));
  const words = [endToken, ...vocabulary];
  if (vocabulary.length === 0 || vocabulary.includes("")) {
    throw new UserError("tiny: expected a vocabulary of non-empty strings; give the task's words");
  }
  const double = words.find((word, i) => words.indexOf(word) < i);
  if (double !== undefined)
    throw new UserError(`tiny: ${JSON.stringify(double)} stands twice in the vocabulary; name it once`);
  if (hidden % (2 * heads) !== 0) {
    throw new UserError(`tiny: hidden ${hidden} is not a multiple of twice the ${heads} heads; change one of them`);
  }
  const config: ModelConfig = {
    architecture: "llama",
    layers,
    hidden,
    heads,
    kvHeads: heads,
    headDim: hidden / heads,
    intermediate,
    vocab: words.length,
    maxContext,
    rmsEps: 1e-5,
    ropeTheta: 10000,
    tiedEmbeddings: false,
    qkvBias: false,
    qkNorm: false,
    eosIds: [0],
  };
  const json = wordTokenizerJson(words, [0]);
  const tokenizer = createTokenizer({ json, specialTokens: {}, path: "tiny" });
  const tensors = new Map([...tensorShapes(config)].map(([name, dims]) => [name, initial(name, dims, layers, normal)]));
  const specialTokens = { eos_token: endToken, pad_token: endToken };
  return { config, tensors, tokenizer, sidecars: writeSidecars(config, json, specialTokens, undefined) };
}

/** Norms are 1; matrices keep the size of what passes through them, and 2 x layers residual branches add up to the size of one. */
function initial(name: string, dims: number[], layers: number, normal: () => number): StoredTensor {
  const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
  if (dims.length === 1) data.fill(1);
  else {
    const branch = /\.(o_proj|down_proj)\.weight$/.test(name) ? Math.sqrt(2 * layers) : 1;
    const deviation = 1 / Math.sqrt(3 * dims[1]) / branch;
    for (let i = 0; i < data.length; i++) data[i] = deviation * normal();
  }
  return { dims, type: "f32", bytes: new Uint8Array(data.buffer) };
}

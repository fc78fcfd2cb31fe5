import type { Forest, StopReason, Tree } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";

/**
 * What a pass of the model gives for one tree, indexed [segment][token]. All of it respects the segment's temperature and
 * allowed ids: one head graph computes it for sampler, trainer and reference alike.
 */
export interface Scores {
  /** log p(this token | everything before it on its path), natural log; 0 for a root's first token. */
  logprobs: Float32Array[];
  /** Entropy (nats) of the distribution this token comes from; 0 for a root's first token. */
  entropy: Float32Array[];
  /** By head name: [segment], row-major tokens x width. The decision that emits a token reads its predecessor's value. */
  heads: Record<string, Float32Array[]>;
}

/** The gradient of a loss with respect to the scores; what is absent is zero. */
export type ScoreGradient = Partial<Scores>;

export interface LossResult {
  loss: number;
  /** One entry a tree. */
  grads: ScoreGradient[];
  /** Sums over tokens (never means); the engine adds them up over the calls of one pass. */
  metrics: Record<string, number>;
}

/**
 * The fields that make a token count. In `forwardBackward` a token carries weight when one of these is non-zero there; the head runs
 * on such tokens alone (others get 0 as log-prob and entropy), and a tree without one is skipped. A tree that has none of
 * these fields at all is computed whole.
 */
export const WEIGHT_FIELDS = ["weights", "advantages", "advantagesUp", "advantagesDown", "returns"] as const;

/**
 * A loss: sums, never means. It reads the trees (ids, parents, sources, logprobs = the old policy's, fields) and what the
 * pass gave, nothing outside; its gradient has the shape of the scores.
 */
export interface Loss {
  /** Known to remote services: cross_entropy, importance_sampling, ppo, cispo, ... */
  name: string;
  config: Record<string, number>;
  /** What `fn` must see at once: with "tree" the engine may call it tree by tree. */
  scope: "tree" | "forest";
  /** True when `fn` reads `now.entropy` (or gives its gradient); the engine computes entropies only then. */
  entropy?: boolean;
  /** False when `fn` reads heads alone; the engine then computes no log-probs. */
  logprobs?: boolean;
  fn(trees: Tree[], now: Scores[]): LossResult;
}

/** "current", "base", or the name of a snapshot. */
export type Policy = string;

export interface SampleRequest {
  prefix: Int32Array;
  policy?: Policy;
  /** How many samples of this prefix. */
  n: number;
  /** 0 is legal: score only. */
  maxTokens: number;
  temperature: number;
  topK?: number;
  topP?: number;
  /** Strings or token id sequences that end a sample. */
  stop: (string | Int32Array)[];
  /** Masks the first token of each sample: the choice at a decision point. */
  allowed?: Int32Array;
  /** Ids that no token of a sample may be; log-probs are among the others. */
  banned?: Int32Array;
  /** Returns the raw next-token log-probs of these ids. */
  scoreIds?: Int32Array;
  /** Returns the raw log-probs of these ids as the token after a sample that a stop has ended; one more step of the model. */
  scoreNext?: Int32Array;
  /** Names the random stream; sample i of n draws from (key, i). */
  key: string;
}

export interface Sample {
  /** Everything the policy chose, the tokens that ended it included. */
  tokens: Int32Array;
  logprobs: Float32Array;
  stop: StopReason;
  /** The decoded text; ends before whatever ended the sample. */
  text: string;
  /** With top-k or top-p: of each token, the probability that they took away from the distribution. */
  cutMass?: Float32Array;
  /** Where `scoreIds` was given: raw log-probs of these ids as the first token. */
  idLogprobs?: Float32Array;
  /** Where `scoreNext` was given and a stop ended the sample: raw log-probs of these ids as the next token. */
  nextLogprobs?: Float32Array;
}

export interface LoraSettings {
  rank: number;
  /** The update is scaled by alpha / rank. */
  alpha: number;
  /** Linear layers that carry an adapter: any of q, k, v, o, gate, up, down. All when absent. */
  targets?: string[];
}

/** A linear head on the final normalised hidden state. */
export interface HeadSpec {
  name: string;
  width: number;
  bias: boolean;
  /** Standard deviation of the initial weights, 0: zeros, with a bias of zero; or "uniform": weights and bias in +-1 / sqrt(hidden). */
  init: number | "uniform";
}

export interface ModelSpec {
  /** A folder in Hugging Face layout, a GGUF file, a run folder, or "tiny". */
  base: string;
  train: "none" | "full" | { lora: LoraSettings };
  heads?: HeadSpec[];
  /**
   * Tokens to add to the vocabulary, as `Tokenizer.added`; one that the tokenizer knows keeps its id and row. A new row begins as the
   * mean of the rows that spell its words. Trained as group "tokens": beside an adapter they alone of their matrices, or with everything.
   */
  addTokens?: readonly string[];
  /** Longest path in tokens; the base's own limit when absent or larger. */
  context?: number;
  /** The part of the engine's memory budget that this model may take, where several are open at once; 1 when absent. */
  memoryShare?: number;
  /** A folder written by `Model.save`. */
  from?: { dir: string; optimizer: boolean };
  /** The words of the tokenizer of a "tiny" base; comes from the task. */
  vocabulary?: string[];
  /** Seeds initial weights (adapters, heads, and the tiny model's own). */
  seed?: number;
}

export interface AdamSettings {
  lr: number;
  betas: [number, number];
  eps: number;
  weightDecay: number;
}

export interface StepResult {
  loss: number;
  metrics: Record<string, number>;
  /** One entry a tree, as the loss saw them; a skipped tree has empty arrays. */
  scores: Scores[];
  /** Trees whose fields made every gradient zero and which were not computed. */
  skipped: number;
}

/** Cumulative counts of what the engine computed; `prefilled` counts only tokens that no cache held. */
export interface TokenCounts {
  generated: number;
  prefilled: number;
  scored: number;
  trained: number;
}

export interface Capabilities {
  losses: string[];
  customLoss: boolean;
  entropy: boolean;
  heads: boolean;
  allowed: boolean;
  addTokens: boolean;
  fullFineTune: boolean;
  gradClip: boolean;
  snapshots: boolean;
  deterministicSeed: boolean;
}

export interface OptimSettings {
  /** By parameter group: "body", "head:<name>", "tokens" (as "body" where absent). */
  groups: Record<string, AdamSettings>;
  /** Clips the global norm over all groups. */
  maxGradNorm?: number;
}

export interface Model {
  /** Limits that the base brought along, and what the memory budget chose. */
  readonly info: ModelInfo;
  readonly tokenizer: Tokenizer;
  readonly counts: Readonly<TokenCounts>;
  sample(
    requests: SampleRequest[],
    onDone?: (sample: Sample, request: number, index: number) => void,
  ): Promise<Sample[]>;
  /** Any token ids; no gradient. Without `logprobs` (true when absent) heads alone. */
  forward(forest: Forest, policy?: Policy, want?: { logprobs?: boolean }): Promise<Scores[]>;
  /** Accumulates gradients; an error drops what was accumulated. */
  forwardBackward(forest: Forest, loss: Loss): Promise<StepResult>;
  /** Drops accumulated gradients and cached prefixes: what is left is the state between two steps. */
  discard(): Promise<void>;
  optimStep(settings: OptimSettings): Promise<{ gradNorm: number }>;
  /** Freezes today's weights under a name. */
  snapshot(name: string): Promise<Policy>;
  release(policy: Policy): Promise<void>;
  /** Writes trained weights and optimizer moments (not the frozen base) so that `from` continues exactly. */
  save(dir: string): Promise<void>;
  /** Back to the weights and the optimizer that a model without `from` begins with. Snapshots stay. */
  reset(): Promise<void>;
  /** Continues from a folder that `save` wrote. Without the optimizer, a head that the folder lacks keeps the weights that it has. */
  load(from: { dir: string; optimizer: boolean }): Promise<void>;
  close(): Promise<void>;
}

export interface ModelInfo {
  vocabSize: number;
  maxContext: number;
  eosIds: number[];
  /** Heads that begin anew, for what the model was made from has none of their name and shape. */
  newHeads: string[];
  /** Parameters that are trained, and all. */
  trainable: number;
  parameters: number;
  /** What the memory budget chose, in words, for the log. */
  plan: string;
}

export interface Engine {
  capabilities(): Capabilities;
  create(spec: ModelSpec): Promise<Model>;
  close(): Promise<void>;
}

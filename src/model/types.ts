/** One turn of a chat. */
export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/** Which tokens `encode` finds by their text, besides those that the model's own tokenizer finds in every text. */
export interface EncodeOptions {
  /** Special tokens: of use for rendered templates alone. */
  special?: boolean;
  /** Tokens of `Tokenizer.added`: for text that a task or the model itself wrote. */
  added?: boolean;
}

/** Text to token ids and back, with the model's own chat template. */
export interface Tokenizer {
  /** Ids in the vocabulary, added tokens included. */
  readonly vocabSize: number;
  /** Ids of the tokens that `ModelSpec.addTokens` added, by their text. Only `encode` with `added: true` finds them in a text. */
  readonly added: ReadonlyMap<string, number>;
  /** Ids of a text. No special tokens are put around it. */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** The text of ids, added tokens included; special tokens are left out unless `special` is true. */
  decode(ids: Int32Array | number[], options?: { special: boolean }): string;
  /** The id of a token by its exact string, if it has one. */
  idOf(token: string): number | undefined;
  /** Renders a chat up to where the assistant answers. Throws a UserError where the model has no template. */
  renderChat(messages: Message[]): string;
  readonly hasChatTemplate: boolean;
}

export type Architecture = "llama" | "qwen2" | "qwen3";

/** The shape of a decoder, whatever file it came from. */
export interface ModelConfig {
  architecture: Architecture;
  layers: number;
  hidden: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediate: number;
  vocab: number;
  maxContext: number;
  rmsEps: number;
  ropeTheta: number;
  /** Llama 3's frequency-dependent scaling; absent: plain rotary. */
  ropeScaling?: { factor: number; lowFreqFactor: number; highFreqFactor: number; originalMaxContext: number };
  tiedEmbeddings: boolean;
  /** Biases on q, k, v (Qwen2). */
  qkvBias: boolean;
  /** RMSNorm on each head of q and k (Qwen3). */
  qkNorm: boolean;
  eosIds: number[];
  bosId?: number;
}

/** How a matrix is stored; anything but f32 is widened to float32 when it is used. */
export type StorageType = "f32" | "f16" | "bf16" | "q8_0" | "q4_0" | "q4_1" | "q4_k" | "q6_k";

/** A named weight, row-major, in the layout of Hugging Face (rows are outputs; q and k in half-split rotary order). */
export interface StoredTensor {
  dims: number[];
  type: StorageType;
  /** The bytes as stored (for the quantised types: blocks along each row). */
  bytes: Uint8Array;
}

/** A model as read from disk: everything the engine needs, nothing widened yet. */
export interface ModelFiles {
  config: ModelConfig;
  /** By Hugging Face name: model.embed_tokens.weight, model.layers.0.self_attn.q_proj.weight, ..., model.norm.weight, lm_head.weight (untied only). */
  tensors: Map<string, StoredTensor>;
  tokenizer: Tokenizer;
  /** Files that an export copies beside the weights: config.json, tokenizer.json, generation_config.json, ... (name to content). */
  sidecars: Map<string, Uint8Array>;
  /** Tokens that were added since; the config's `vocab` counts them, the matrices in `tensors` may lack their rows. */
  added?: AddedRows;
}

export interface AddedRows {
  /** In the order in which they were asked for. */
  ids: Int32Array;
  /** Those of them that had no row of their own. */
  newIds: Int32Array;
  /** The first values of the rows of `newIds`, [tokens, hidden], by matrix. */
  rows: ReadonlyMap<string, Float32Array>;
}

/** Who chose a segment's tokens. */
export type Source =
  | "prompt" // given: the question
  | "data" // given: a demonstration
  | "env" // given: a tool's or user's text
  | "policy" // chosen by the policy
  | "search" // chosen by a search rule
  | "forced"; // chosen by nobody; weight 0

/** Why a sample ended. */
export type StopReason = "eos" | "stop" | "length";

/** Token ids that continue their parent's. A tree's segments stand in topological order: parents before children. */
export interface Segment {
  /** Index of the parent in its tree; -1 for a root, whose first token stands at position 0. */
  parent: number;
  tokens: Int32Array;
  source: Source;
  /** The policy's own log-probs (natural log) when these tokens were chosen, under softmax(logits / temperature) over `allowed`. */
  logprobs?: Float32Array;
  /** Sampling temperature; 1 when absent. */
  temperature?: number;
  /** One entry a token: the ids it was chosen among, or null for the whole vocabulary. */
  allowed?: (Int32Array | null)[];
  /** Chosen with top-k or top-p; `logprobs` are of the untruncated distribution all the same. */
  truncated?: true;
  /** One number a token: `weights`, `advantages`, `advantagesUp`, `advantagesDown`, `refLogprobs`, `oldValues`, `returns`, ... */
  fields: Record<string, Float32Array>;
  /** Of the path that ends here, or the search node that stands here: `reward` and its named parts, visits, value, rollouts, ... */
  outcome?: Record<string, number>;
  stop?: StopReason;
}

/** A tree of tokens. Ids stay valid when trees are filtered, stored or reordered. */
export interface Tree {
  id: string;
  /** Trees of one group are compared with each other. */
  group?: string;
  /** The problem's id. */
  problem: string;
  segments: Segment[];
  /** The segment of another tree whose outcome this tree continues. */
  cause?: { tree: string; segment: number };
}

export type Forest = Tree[];

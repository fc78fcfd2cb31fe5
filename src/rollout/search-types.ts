import type { Tokenizer } from "../model/types.ts";
import { closeTag, type Fn, FUNCTIONS, type Grammar, openTag, type Step } from "../tags/index.ts";
import type { Schedule } from "./mcts.ts";

export interface SearchSettings {
  /** Rollouts a question. */
  rollouts: number;
  /** Rollouts of one tree at a time: 1 is the sequential search; more fill larger batches and choose with less knowledge. */
  inFlight: number;
  /** Texts that a function may get at a node; its children are one text of each function, then a second of each, and so on. */
  texts: number;
  /** Steps of the longest path. */
  depth: number;
  /** Exploration weight, and how it falls over the rollouts. */
  c: number;
  schedule: Schedule;
  /** Functions whose probability among the allowed ones is below this are not expanded; the most likely one always is. */
  floor: number;
  /** Of the steps' texts; functions are judged at temperature 1. */
  temperature: number;
  /** 1: the whole distribution. */
  topP: number;
  /** Longest step, and longest `direct_answer`; closing tags count. */
  stepTokens: number;
  answerTokens: number;
  /** Longest path, prompt excluded. */
  maxTokens: number;
  grammar: Grammar;
  /** Functions that the search never chooses. */
  without: readonly Fn[];
}

/** RFTT's released search (depth, c, schedule, lengths of steps), at temperature 1, with a floor for unlikely functions. */
export const SEARCH_DEFAULTS = {
  rollouts: 16,
  inFlight: 1,
  texts: 1,
  depth: 18,
  c: 2,
  schedule: "const",
  floor: 0.01,
  temperature: 1,
  topP: 1,
  stepTokens: 512,
  answerTokens: 1024,
  maxTokens: 8192,
} as const satisfies Partial<SearchSettings>;

/** Why a path ends at a node. Only `output` is a finished one. */
export const ENDS = [
  "output", // the answer was given
  "depth", // as many steps as a path may have
  "budget", // no token is left of the context or of the longest path
  "length", // the step reached its limit without a closing tag
  "eos", // the model ended its turn inside a step
  "tag", // another tag than the step's own closing one: nested, or closed by the wrong one
  "empty", // a step without text
] as const;
export type End = (typeof ENDS)[number];

/** A node of a search, as data. */
export interface SearchNode {
  /** Its place in `SearchTree.nodes`. */
  id: number;
  /** -1: the root. */
  parent: number;
  /** "root" for the question. */
  fn: Fn | "root";
  /** Which text of its function at this parent, from 0. */
  text: number;
  depth: number;
  /** The policy's probability of the function among the allowed ones; 1 for the root. */
  prior: number;
  /** Rollouts through the node that ended, and the sum of their values. 0 of a node that was never expanded. */
  N: number;
  Q: number;
  /** Index in the tree's segments of the function's token; -1 for the root and where N is 0. */
  choice: number;
  /** Of the text (of the prompt for the root); -1 where N is 0. */
  segment: number;
  /** The rollout that made its text; -1 for the root and where there is none. */
  rollout: number;
  /** What may follow, the most likely first, with the policy's log-probs among them; children below the floor included. Empty at an end. */
  allowed: Fn[];
  logprobs: number[];
  /** Of a leaf. */
  end?: End;
  value?: number;
  /** Rollouts that ended here. */
  rollouts: number;
}

/** The search of one question. */
export interface SearchTree {
  /** The id of its tree of tokens. */
  id: string;
  nodes: SearchNode[];
  /** The node where each rollout ended, in the order in which they began. */
  leaves: number[];
}

/** The end of a path, as its value is asked for. */
export interface SearchLeaf {
  /** Index of the question. */
  question: number;
  node: number;
  /** The rollout that first came here. */
  rollout: number;
  steps: Step[];
  end: End;
  /** `end` is `output`. */
  finished: boolean;
  /** The response, tags included. */
  text: string;
  /** All ids from the prompt on, and for each step the index of its last one. */
  ids: { path: Int32Array; ends: number[] };
  /** The policy's log-probs of the last step's text. */
  logprobs: Float32Array;
  /** As last given; undefined when it is asked for. */
  value?: number;
}

/** The ids of the sixteen tags. */
export interface TagIds {
  open: Record<Fn, number>;
  close: Record<Fn, number>;
  all: Int32Array[];
}

/** The ids of a tokenizer's tags: added tokens, or words of its vocabulary; the tag that has none where one is lacking. */
export function tagIds(tokenizer: Tokenizer): TagIds | { missing: string } {
  const idOf = (tag: string) => tokenizer.added.get(tag) ?? tokenizer.idOf(tag);
  const missing = FUNCTIONS.flatMap((fn) => [openTag(fn), closeTag(fn)]).find((tag) => idOf(tag) === undefined);
  if (missing !== undefined) return { missing };
  const ids = (tag: (fn: Fn) => string): Record<Fn, number> => {
    const [clarify, analysis, next_step, direct_answer, subquestion, verify, refine, output] = FUNCTIONS.map(
      (fn) => idOf(tag(fn)) ?? -1,
    );
    return { clarify, analysis, next_step, direct_answer, subquestion, verify, refine, output };
  };
  const [open, close] = [ids(openTag), ids(closeTag)];
  const all = FUNCTIONS.flatMap((fn) => [Int32Array.of(open[fn]), Int32Array.of(close[fn])]);
  return { open, close, all };
}

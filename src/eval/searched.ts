import type { Fn } from "../tags/index.ts";

/** How questions are searched; a problem's `n` samples are its rollouts. */
export interface EvaluationSearch {
  /**
   * What leaves are worth, without the gold: `consistency`, the share of finished leaves with an equal answer; `likelihood`, the
   * geometric mean probability of the output's tokens; else the file that names a process reward server, whose last score it is.
   */
  value: string;
  /** Texts that a function may get at a node. */
  texts: number;
  /** Functions that are never chosen. */
  without: Fn[];
}

/** What a rollout's line says of the search. */
export interface SearchedSample {
  /** The leaf; rollouts that ended at the same one have the same path. */
  node: number;
  end: string;
  /** Its vote: 1 with `consistency`, else its value. */
  weight: number;
  /** Tokens that it added to the tree; the rest of its path was there. */
  fresh: number;
}

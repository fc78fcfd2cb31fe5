/** What a row of the list is. */
export const KINDS = { group: 0, sample: 1, branch: 2 } as const;
export const STOPS = ["", "eos", "stop", "length"];
export const VERDICTS = ["", "equal", "different", "unsure"];

/** One number a row for everything that the list filters, sorts and shows. */
export interface Columns {
  /** KINDS: a tree, one of its paths, or a place where it branches. */
  kind: Uint8Array;
  depth: Uint8Array;
  /** The row that this one stands beneath, or -1. */
  up: Int32Array;
  /** Index into `places`, or -1. */
  place: Int32Array;
  /** Index into `problems`. */
  problem: Int32Array;
  /** Which block holds the row's tree, which tree of it, and which segment ends the row's path (-1: the tree itself). */
  block: Int32Array;
  tree: Int32Array;
  segment: Int32Array;
  /** Sample number in its tree; of a tree how many samples it has. */
  number: Int32Array;
  /** Of a tree: samples that are right by the strict verdict, -1 where there are none. */
  right: Int32Array;
  side: Uint8Array;
  /** Tokens that the policy chose, whole path. */
  tokens: Int32Array;
  /** Index into STOPS. */
  stop: Uint8Array;
  /** Of a tree the mean of its samples; NaN where there is none. */
  reward: Float64Array;
  /** Mean over the path's chosen tokens. */
  logprob: Float64Array;
  advantage: Float64Array;
  /** Index into VERDICTS. */
  strict: Uint8Array;
  flexible: Uint8Array;
  /** 1 where grading failed. */
  error: Uint8Array;
  /** 2: the second side does better on the problem, 1: the first does, 0: neither. */
  flip: Uint8Array;
}

const types = {
  kind: Uint8Array,
  depth: Uint8Array,
  up: Int32Array,
  place: Int32Array,
  problem: Int32Array,
  block: Int32Array,
  tree: Int32Array,
  segment: Int32Array,
  number: Int32Array,
  right: Int32Array,
  side: Uint8Array,
  tokens: Int32Array,
  stop: Uint8Array,
  reward: Float64Array,
  logprob: Float64Array,
  advantage: Float64Array,
  strict: Uint8Array,
  flexible: Uint8Array,
  error: Uint8Array,
  flip: Uint8Array,
};

/** A row as it is added. */
export type Row = { [name in keyof Columns]: number };

/** Rows as columns. */
export function toColumns(rows: readonly Row[]): Columns {
  const column = <T extends keyof Columns>(name: T) => types[name].from(rows.map((row) => row[name]));
  const entries = (Object.keys(types) as (keyof Columns)[]).map((name) => [name, column(name)]);
  return Object.fromEntries(entries) as Columns;
}

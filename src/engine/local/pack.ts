import type { Forest, Segment, Tree } from "../../forest/types.ts";
import { WEIGHT_FIELDS } from "../types.ts";

/**
 * Trees laid out for one pass: every token once, in tree and segment order, so that linear layers see one matrix of rows.
 * Attention alone knows the shape of the trees: it works on groups of chains of similar size.
 */
export interface Pack {
  trees: Forest;
  /** Rows (tokens) in all. */
  rows: number;
  tokens: Int32Array;
  /** Depth of each token on its path. */
  positions: Int32Array;
  /** Row of the first token of [tree][segment]. */
  start: Int32Array[];
  groups: AttentionGroup[];
  /** Where each row stands among the groups' outputs, or null when it stands there at its own number. */
  outputRow: Int32Array | null;
  /** Rows of all groups' outputs together, padding included. */
  outputRows: number;
  /** Query-key pairs that are computed, padding included. */
  pairs: number;
}

/** Chains of one attention call: `batch` of them, padded to `queries` x `keys`. Keys are ancestors first, then the chain itself. */
export interface AttentionGroup {
  batch: number;
  queries: number;
  keys: number;
  /** Rows of the pass, batch x queries and batch x keys; null when the group is the whole pass in order (nothing to gather). */
  queryRows: Int32Array | null;
  keyRows: Int32Array | null;
  /** 1 for a query, 0 for padding; null when nothing is padded. */
  valid: Float32Array | null;
  /** Additive, [maskBatch, queries, keys]: 0 where the key is visible. */
  mask: Float32Array;
  maskBatch: 1 | number;
  /** By member, how many of its keys are not padding. */
  lengths: Int32Array;
  /** First row in the groups' common output. */
  firstOutput: number;
}

/** A run of segments in which each is its parent's only child: one causal square, plus what stands before it. */
export interface Chain {
  rows: Int32Array;
  /** Keys that stand before it, as rows among (past, rows of the pass). */
  ancestors: Int32Array;
}

const HIDDEN = -1e30;
/** How much padding may cost: padded pairs over exact pairs in one group. */
const PADDING = 1.2;
/** Query-key pairs of one attention call, so that scores stay near the cache. */
const GROUP_PAIRS = 1 << 20;

export function packTrees(trees: Forest): Pack {
  let rows = 0;
  const start = trees.map((tree) =>
    Int32Array.from(tree.segments, (segment) => (rows += segment.tokens.length) - segment.tokens.length),
  );
  const tokens = new Int32Array(rows);
  const positions = new Int32Array(rows);
  const chains: Chain[] = [];
  trees.forEach((tree, t) => {
    const depth = new Int32Array(tree.segments.length);
    tree.segments.forEach((segment, s) => {
      const before = segment.parent < 0 ? 0 : depth[segment.parent];
      depth[s] = before + segment.tokens.length;
      tokens.set(segment.tokens, start[t][s]);
      for (let i = 0; i < segment.tokens.length; i++) positions[start[t][s] + i] = before + i;
    });
    chains.push(...chainsOf(tree, start[t]));
  });
  return { trees, rows, tokens, positions, start, ...groupChains(chains, rows, 0) };
}

function chainsOf(tree: Tree, start: Int32Array): Chain[] {
  const children = new Int32Array(tree.segments.length);
  for (const segment of tree.segments) if (segment.parent >= 0) children[segment.parent]++;
  const path: number[][] = [];
  const chainOf: number[] = [];
  const chains: { rows: number[]; ancestors: number[] }[] = [];
  tree.segments.forEach((segment, s) => {
    const own = Array.from(segment.tokens, (_, i) => start[s] + i);
    const joins = segment.parent >= 0 && children[segment.parent] === 1;
    const above = segment.parent < 0 ? [] : path[segment.parent];
    if (joins) {
      chainOf[s] = chainOf[segment.parent];
      chains[chainOf[s]].rows.push(...own);
    } else {
      chainOf[s] = chains.length;
      chains.push({ rows: own, ancestors: above });
    }
    path[s] = children[s] > 0 ? above.concat(own) : [];
  });
  return chains
    .filter((chain) => chain.rows.length > 0)
    .map((chain) => ({ rows: Int32Array.from(chain.rows), ancestors: Int32Array.from(chain.ancestors) }));
}

/** Puts chains of similar size into common attention calls. `past` keys stand before the rows of the pass. */
export function groupChains(
  chains: Chain[],
  rows: number,
  past: number,
): Pick<Pack, "groups" | "outputRow" | "outputRows" | "pairs"> {
  const size = (chain: Chain) => ({ t: chain.rows.length, s: chain.rows.length + chain.ancestors.length });
  // Stable order: equal chains stay in the order of the pass, so that a batch of equal rows needs no gathering.
  const order = chains.map((chain, i) => ({ chain, i, ...size(chain) }));
  order.sort((a, b) => b.t - a.t || b.s - a.s || a.i - b.i);
  const groups: AttentionGroup[] = [];
  const outputRow = new Int32Array(rows);
  let outputRows = 0;
  let pairs = 0;
  for (let from = 0; from < order.length;) {
    const t = order[from].t;
    let s = 0;
    let exact = 0;
    let to = from;
    while (to < order.length) {
      const widest = Math.max(s, order[to].s);
      const padded = (to - from + 1) * t * widest;
      const sum = exact + order[to].t * order[to].s;
      if (to > from && (padded > PADDING * sum || padded > GROUP_PAIRS)) break;
      [s, exact] = [widest, sum];
      to++;
    }
    const members = order.slice(from, to).map((entry) => entry.chain);
    groups.push(makeGroup(members, t, s, outputRows, past));
    members.forEach((chain, b) => {
      for (let i = 0; i < chain.rows.length; i++) outputRow[chain.rows[i]] = outputRows + b * t + i;
    });
    outputRows += members.length * t;
    pairs += members.length * t * s;
    from = to;
  }
  const inOrder = outputRows === rows && outputRow.every((row, i) => row === i);
  if (inOrder && past === 0 && groups.length === 1 && groups[0].keys === groups[0].queries) {
    groups[0].queryRows = groups[0].keyRows = null;
  }
  return { groups, outputRow: inOrder ? null : outputRow, outputRows, pairs };
}

function makeGroup(chains: Chain[], queries: number, keys: number, firstOutput: number, past: number): AttentionGroup {
  const batch = chains.length;
  const queryRows = new Int32Array(batch * queries);
  const keyRows = new Int32Array(batch * keys);
  const valid = new Float32Array(batch * queries);
  const equal = chains.every((c) => c.rows.length === queries && c.ancestors.length === keys - queries);
  const maskBatch = equal ? 1 : batch;
  const mask = new Float32Array(maskBatch * queries * keys).fill(HIDDEN);
  chains.forEach((chain, b) => {
    queryRows.set(chain.rows, b * queries);
    keyRows.set(chain.ancestors, b * keys);
    const own = b * keys + chain.ancestors.length;
    for (let i = 0; i < chain.rows.length; i++) keyRows[own + i] = past + chain.rows[i];
    valid.fill(1, b * queries, b * queries + chain.rows.length);
    if (b >= maskBatch) return;
    for (let i = 0; i < queries; i++) {
      const at = (b * queries + i) * keys;
      mask.fill(0, at, at + Math.min(keys, chain.ancestors.length + i + 1));
    }
  });
  const lengths = Int32Array.from(chains, (chain) => chain.ancestors.length + chain.rows.length);
  const padded = chains.some((chain) => chain.rows.length < queries);
  return {
    batch,
    queries,
    keys,
    queryRows,
    keyRows,
    valid: padded ? valid : null,
    mask,
    maskBatch,
    lengths,
    firstOutput,
  };
}

/** The rows on which the head works: one entry a token that is scored. */
export interface HeadRows {
  count: number;
  /** Row whose hidden state predicts the token. */
  predictor: Int32Array;
  target: Int32Array;
  temperature: Float32Array;
  /** By entry, the allowed ids; absent where no token of the pass has any. */
  allowed: (Int32Array | null)[] | null;
  /** Where the entry's token stands: tree, segment, token. */
  tree: Int32Array;
  segment: Int32Array;
  token: Int32Array;
}

/**
 * Entries for every token that has a predecessor, or (weighted) for those alone that carry weight. `whole` tells of which trees every
 * token counts all the same.
 */
export function headRows(
  pack: Pack,
  weighted: boolean,
  whole = (tree: number): boolean => !hasWeightFields(pack.trees[tree]),
): HeadRows {
  const predictor: number[] = [];
  const target: number[] = [];
  const temperature: number[] = [];
  const allowed: (Int32Array | null)[] = [];
  const at: [number, number, number][] = [];
  pack.trees.forEach((tree, t) => {
    const last = lastRows(tree, pack.start[t]);
    const every = !weighted || whole(t);
    tree.segments.forEach((segment, s) => {
      for (let i = 0; i < segment.tokens.length; i++) {
        if (!every && !carriesWeight(segment, i)) continue;
        const row = i > 0 ? pack.start[t][s] + i - 1 : segment.parent < 0 ? -1 : last[segment.parent];
        if (row < 0) continue;
        predictor.push(row);
        target.push(segment.tokens[i]);
        temperature.push(segment.temperature ?? 1);
        allowed.push(segment.allowed?.[i] ?? null);
        at.push([t, s, i]);
      }
    });
  });
  return {
    count: predictor.length,
    predictor: Int32Array.from(predictor),
    target: Int32Array.from(target),
    temperature: Float32Array.from(temperature),
    allowed: allowed.some((ids) => ids !== null) ? allowed : null,
    tree: Int32Array.from(at, (entry) => entry[0]),
    segment: Int32Array.from(at, (entry) => entry[1]),
    token: Int32Array.from(at, (entry) => entry[2]),
  };
}

/** For each segment the row of the last token on the path to its end; -1 while the path is empty. */
function lastRows(tree: Tree, start: Int32Array): Int32Array {
  const last = new Int32Array(tree.segments.length);
  tree.segments.forEach((segment, s) => {
    const above = segment.parent < 0 ? -1 : last[segment.parent];
    last[s] = segment.tokens.length > 0 ? start[s] + segment.tokens.length - 1 : above;
  });
  return last;
}

export const hasWeightFields = (tree: Tree): boolean =>
  tree.segments.some((segment) => WEIGHT_FIELDS.some((name) => name in segment.fields));

const carriesWeight = (segment: Segment, token: number) =>
  WEIGHT_FIELDS.some((name) => name in segment.fields && segment.fields[name][token] !== 0);

/** False for a tree whose fields make every gradient zero. */
export function matters(tree: Tree): boolean {
  if (!hasWeightFields(tree)) return true;
  return tree.segments.some((segment) =>
    WEIGHT_FIELDS.some((name) => name in segment.fields && segment.fields[name].some((x) => x !== 0)),
  );
}

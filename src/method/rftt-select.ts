import type { Solution } from "../rollout/prompt-search.ts";

/** What solutions are ordered by, the most important first. */
export const SORT_KEYS = ["repeat", "len", "finalLen", "prm"] as const;
export type SortKey = (typeof SORT_KEYS)[number];

export interface SelectSettings {
  /** Edges between the ends of a right and a wrong path at most. */
  maxTreeDistance: number;
  /** The released code's `repeat, len, finalLen, prm`; `prm` alone is the paper's. */
  order: readonly SortKey[];
}

/** A right and a wrong path that share their first steps. */
export interface Pair {
  right: Solution;
  wrong: Solution;
  /** Steps that both begin with. */
  shared: number;
}

export interface Selection {
  pair?: Pair;
  /** Why there is no pair. */
  missing?: "no right path" | "no wrong path" | "no intersecting pair";
  /** Up to two right paths without a node in common. */
  plain: Solution[];
}

/** Edges of the tree between two nodes, given by their paths from below the root, and how many steps the paths share. */
export function treeDistance(a: readonly number[], b: readonly number[]): { distance: number; shared: number } {
  let shared = 0;
  while (shared < Math.min(a.length, b.length) && a[shared] === b[shared]) shared++;
  return { distance: a.length + b.length - 2 * shared, shared };
}

/**
 * Of a question's solutions the first right and wrong path, right ones in the outer loop, that are near enough in the tree and both state an
 * answer; and two right paths that share no step. The order within right and wrong paths: no repeated steps, then the longest, then the
 * shortest last step, then the highest mean process reward (of wrong ones the lowest), or as `order` says.
 */
export function selectPaths(solutions: readonly Solution[], { maxTreeDistance, order }: SelectSettings): Selection {
  const answered = solutions.filter(({ answer }) => answer !== undefined);
  const sorted = (right: boolean) =>
    answered.filter((solution) => solution.right === right).sort((a, b) => compare(a, b, order));
  const [rights, wrongs] = [sorted(true), sorted(false)];
  const plain = plainPaths(rights);
  if (rights.length === 0) return { missing: "no right path", plain };
  if (wrongs.length === 0) return { missing: "no wrong path", plain };
  for (const right of rights) {
    for (const wrong of wrongs) {
      const { distance, shared } = treeDistance(right.trajectory, wrong.trajectory);
      if (distance <= maxTreeDistance) return { pair: { right, wrong, shared }, plain };
    }
  }
  return { missing: "no intersecting pair", plain };
}

/** The first two that share no step; the first alone where any two do. */
function plainPaths(rights: Solution[]): Solution[] {
  for (const [i, first] of rights.entries()) {
    const second = rights.slice(i + 1).find(({ trajectory }) => trajectory[0] !== first.trajectory[0]);
    if (second !== undefined) return [first, second];
  }
  return rights.slice(0, 1);
}

function compare(a: Solution, b: Solution, order: readonly SortKey[]): number {
  for (const key of order) {
    const difference = sortValue(a, key) - sortValue(b, key);
    if (difference !== 0) return difference;
  }
  return 0;
}

function sortValue({ trajectory, steps, right, scores = [] }: Solution, key: SortKey): number {
  switch (key) {
    case "repeat":
      return steps.length - new Set(steps.map(({ text }) => text)).size;
    case "len":
      return -trajectory.length;
    case "finalLen":
      return steps[steps.length - 1].text.length;
    case "prm": {
      const mean = scores.reduce((sum, score) => sum + score, 0) / trajectory.length;
      return right ? -mean : mean;
    }
  }
}

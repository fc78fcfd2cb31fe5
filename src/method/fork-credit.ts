import { meanAndStd } from "./advantages.ts";
import { type Credit, type Explored, klCost } from "./tree-credit.ts";

/**
 * What the tokens of each segment of a tree of forks are to learn (TreeRL, arXiv 2506.11902, section 4), by segment. A segment is a step s: the tokens
 * between two forks. With V(s) the mean reward of the L(s) responses through it, V(root) that of all of the question's,
 *
 *   A(s) = (V(s) - V(root) + V(s) - V(parent of s)) / sqrt(L(s)):
 *
 * how much better than the question's mean, and than the step before, over a root that keeps shared steps, which every response through them trains, from
 * weighing the more the more responses share them.
 */
export function stepAdvantages(paths: Explored["paths"]): Map<number, number> {
  const rewards = new Map<number, number[]>();
  for (const { segments, reward } of paths) {
    for (const s of segments) rewards.set(s, [...(rewards.get(s) ?? []), reward]);
  }
  const value = (through: number[]) => (through.length === 0 ? 0 : meanAndStd(through).mean);
  const root = value(paths.map(({ reward }) => reward));
  const advantages = new Map<number, number>();
  for (const { segments } of paths) {
    let before = root;
    for (const s of segments) {
      const through = rewards.get(s) ?? [];
      const V = value(through);
      advantages.set(s, (V - root + V - before) / Math.sqrt(through.length));
      before = V;
    }
  }
  return advantages;
}

/** The advantages of a step's trees of forks, less beta times each token's KL cost (k1); every response trains all of its tokens. */
export function forkCredit(explored: readonly Explored[], beta: number): Credit[] {
  return explored.map(({ tree, paths }): Credit => {
    const advantages = stepAdvantages(paths);
    return {
      tree,
      flat: paths.every(({ reward }) => reward === paths[0].reward),
      paths: paths.map((path) => ({
        path,
        advantages: new Map(
          path.segments.map((s) => {
            const segment = tree.segments[s];
            const own = advantages.get(s) ?? 0;
            return [s, Float64Array.from(segment.tokens, (_, i) => own - klCost(segment, i, beta))];
          }),
        ),
      })),
      once: new Map(),
      decisions: [],
    };
  });
}

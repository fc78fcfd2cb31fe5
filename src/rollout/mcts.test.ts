import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { explorationWeight, Mcts, type MctsSettings, uct } from "./mcts.ts";

const settings = (more: Partial<MctsSettings> = {}): MctsSettings => ({
  rollouts: 16,
  c: 2,
  schedule: "const",
  ...more,
});

/** Runs one rollout through a tree in which every node above `depth` has `width` children; returns its path. */
function walk(tree: Mcts, width: number, depth: number, value: (path: number[]) => number): number[] {
  const rollout = tree.start();
  for (;;) {
    const at = tree.nodes[rollout.path[rollout.path.length - 1]];
    if (at.depth === depth) break;
    if (at.children === undefined) tree.expand(at.id, width);
    expect(tree.step(rollout)).toBe(rollout.path[rollout.path.length - 1]);
  }
  tree.backup(rollout, value(rollout.path));
  return rollout.path;
}

describe("upper confidence bounds", () => {
  test("vectors", () => {
    expect(uct(1, 2, 5, 2)).toBeCloseTo(2.294123, 6);
    expect(uct(0, 1, 5, 2)).toBeCloseTo(2.537272, 6);
    expect(uct(0, 0, 5, 2)).toBe(Infinity);
  });

  test("schedules run from c to a tenth of it", () => {
    for (const schedule of ["const", "exp", "lin"] as const) expect(explorationWeight(2, schedule, 0, 16)).toBe(2);
    expect(explorationWeight(2, "const", 16, 16)).toBe(2);
    expect(explorationWeight(2, "exp", 8, 16)).toBeCloseTo(2 * Math.sqrt(0.1), 12);
    expect(explorationWeight(2, "exp", 16, 16)).toBeCloseTo(0.2, 12);
    expect(explorationWeight(2, "lin", 8, 16)).toBeCloseTo(1.1, 12);
    expect(explorationWeight(2, "lin", 16, 16)).toBeCloseTo(0.2, 12);
  });

  test("settings out of range are refused", () => {
    expect(() => new Mcts(settings({ rollouts: 0 }))).toThrow(/rollouts above 0, found 0/);
    expect(() => new Mcts(settings({ c: -1 }))).toThrow(/c of 0 or more, found -1/);
  });
});

describe("the rule of token-guided search: in the order of preference", () => {
  test("rollout 1 is the first child all along, rollouts 2 and 3 begin at the root's other children", () => {
    const tree = new Mcts(settings());
    const paths = [1, 2, 3].map(() => walk(tree, 3, 2, () => 0));
    expect(paths).toEqual([
      [0, 1, 4],
      [0, 2, 7],
      [0, 3, 10],
    ]);
  });

  test("once a node's children are explored the largest bound decides, ties by order", () => {
    const tree = new Mcts(settings({ c: 1 }));
    // The second child of the root is good, the others are worth nothing.
    const value = (path: number[]) => Number(path[1] === 2);
    for (let i = 0; i < 3; i++) walk(tree, 3, 1, value);
    expect(walk(tree, 3, 1, value)).toEqual([0, 2]);
    // 2: 2/2 + sqrt(ln 4 / 2) = 1.83; 1 and 3: sqrt(ln 4) = 1.18.
    expect(walk(tree, 3, 1, value)).toEqual([0, 2]);
    const even = new Mcts(settings());
    for (let i = 0; i < 3; i++) walk(even, 3, 1, () => 0);
    expect(walk(even, 3, 1, () => 0)).toEqual([0, 1]);
  });

  test("the exploration weight falls with the rollouts", () => {
    const visits = (schedule: "const" | "exp") => {
      const tree = new Mcts(settings({ rollouts: 200, schedule }));
      for (let i = 0; i < 200; i++) walk(tree, 4, 1, (path) => Number(path[1] === 1));
      return tree.nodes[1].N;
    };
    expect(visits("exp")).toBeGreaterThan(visits("const"));
  });
});

describe("the rule of prompt-driven search: at random, some kinds never", () => {
  const drawn = (rollout: number, depth: number) => ((rollout * 7 + depth * 3) % 10) / 10;

  test("an unexplored child is drawn at random and stops the selection; the rest is simulated at random", () => {
    const tree = new Mcts(settings({ random: drawn }));
    // Rollout 0 finds the root without children: all of it is simulation. 0 of 3, then floor(0.3 x 3) = 0.
    expect(walk(tree, 3, 2, () => 0)).toEqual([0, 1, 4]);
    // Children 2 and 3 are unexplored: floor(0.7 x 2) = 1; then, in simulation, floor(1.0 - ... x 3).
    expect(walk(tree, 3, 2, () => 0)).toEqual([0, 3, 7]);
    expect(walk(tree, 3, 2, () => 0)[1]).toBe(2);
  });

  test("a child that is never selected may be simulated, and the reverse", () => {
    const tree = new Mcts(
      settings({
        random: drawn,
        unselectable: (id) => id === 1,
        unsimulated: (id) => tree.nodes[id].depth === 2 && id % 2 === 1,
      }),
    );
    expect(walk(tree, 3, 1, () => 1)).toEqual([0, 1]);
    for (let i = 0; i < 20; i++) expect(walk(tree, 3, 1, () => 0)[1]).not.toBe(1);
    expect(tree.nodes[1]).toMatchObject({ N: 1, Q: 1 });
  });

  test("where no child may be gone to a step says so", () => {
    const tree = new Mcts(settings({ unsimulated: () => true }));
    const rollout = tree.start();
    tree.expand(0, 2);
    expect(tree.step(rollout)).toBeUndefined();
    expect(() => tree.expand(0, 2)).toThrow(/expanded before/);
  });
});

describe("several rollouts in flight", () => {
  test("a virtual loss sends them apart; taken back, it leaves no trace", () => {
    const tree = new Mcts(settings());
    tree.expand(0, 3);
    const flying = [tree.start(), tree.start(), tree.start(), tree.start()];
    expect(flying.map((rollout) => tree.step(rollout))).toEqual([1, 2, 3, 1]);
    expect(flying.map(({ simulating }) => simulating)).toEqual([true, true, true, false]);
    expect(tree.nodes[1].pending).toBe(2);
    tree.drop(flying[3]);
    flying.slice(0, 3).forEach((rollout, i) => tree.backup(rollout, i));
    expect(tree.nodes.map(({ N, Q, pending }) => [N, Q, pending])).toEqual([
      [3, 3, 0],
      [1, 0, 0],
      [1, 1, 0],
      [1, 2, 0],
    ]);
  });

  test("one in flight is the sequential search, whatever the shape and the values", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer(),
        (width, depth, salt) => {
          const value = (path: number[]) => ((path.reduce((sum, id) => sum * 31 + id, salt) >>> 3) % 8) / 8;
          const trees = [0, 1].map(() => new Mcts(settings({ c: 0.5 })));
          const [first, second] = trees.map((tree) =>
            Array.from({ length: 16 }, () => walk(tree, width, depth, value)),
          );
          expect(first).toEqual(second);
          const { nodes } = trees[0];
          expect(nodes[0].N).toBe(16);
          for (const { N, Q, pending, children, depth: at } of nodes) {
            expect(pending).toBe(0);
            expect(Q).toBeLessThanOrEqual(N);
            // What went through a node went on to a child, for no path ends above the depth.
            if (at < depth && N > 0) {
              expect(children?.reduce((sum, id) => sum + nodes[id].N, 0)).toBe(N);
              expect(children?.reduce((sum, id) => sum + nodes[id].Q, 0)).toBeCloseTo(Q, 9);
            }
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  test("a leaf can be given another value afterwards", () => {
    const tree = new Mcts(settings());
    const path = walk(tree, 2, 2, () => 1);
    walk(tree, 2, 2, () => 1);
    tree.revalue(path[2], -0.75);
    expect(path.map((id) => tree.nodes[id].Q)).toEqual([1.25, 0.25, 0.25]);
  });
});

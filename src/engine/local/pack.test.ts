import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { treeArbitrary } from "../../../test/trees.ts";
import type { Forest, Segment, Tree } from "../../forest/types.ts";
import { pathTo } from "../../forest/walk.ts";
import { headRows, matters, type Pack, packTrees } from "./pack.ts";

const segment = (parent: number, length: number, rest: Partial<Segment> = {}): Segment => ({
  parent,
  tokens: Int32Array.from({ length }, (_, i) => i + 1),
  source: parent < 0 ? "prompt" : "policy",
  fields: {},
  ...rest,
});

const treeOf = (...segments: Segment[]): Tree => ({ id: "t", problem: "p", segments });

/** Rows of the pass that stand on the path to token i of segment s, itself included, in order. */
function ancestorRows(pack: Pack, t: number, s: number, i: number): number[] {
  const rows = pathTo(pack.trees[t], s).flatMap((at) =>
    Array.from(pack.trees[t].segments[at].tokens, (_, j) => pack.start[t][at] + j),
  );
  return rows.slice(0, rows.length - (pack.trees[t].segments[s].tokens.length - 1 - i));
}

/** For every row of the pass, the rows that its attention sees, as the groups and masks say; and where its output stands. */
function seen(pack: Pack): { keys: number[]; output: number }[] {
  const result: { keys: number[]; output: number }[] = [];
  for (const group of pack.groups) {
    for (let b = 0; b < group.batch; b++) {
      for (let i = 0; i < group.queries; i++) {
        if (group.valid && group.valid[b * group.queries + i] === 0) continue;
        const row = group.queryRows ? group.queryRows[b * group.queries + i] : b * group.queries + i;
        const maskRow = ((group.maskBatch === 1 ? 0 : b) * group.queries + i) * group.keys;
        const keys: number[] = [];
        for (let k = 0; k < group.keys; k++) {
          if (group.mask[maskRow + k] !== 0) continue;
          if (k >= group.lengths[b]) throw new Error(`row ${row} sees the padding`);
          keys.push(group.keyRows ? group.keyRows[b * group.keys + k] : b * group.keys + k);
        }
        if (result[row]) throw new Error(`row ${row} is a query twice`);
        result[row] = { keys, output: group.firstOutput + b * group.queries + i };
      }
    }
  }
  return result;
}

function checkPack(forest: Forest): Pack {
  const pack = packTrees(forest);
  const views = seen(pack);
  let rows = 0;
  forest.forEach((tree, t) =>
    tree.segments.forEach(({ tokens }, s) =>
      tokens.forEach((id, i) => {
        const row = pack.start[t][s] + i;
        const path = ancestorRows(pack, t, s, i);
        expect([pack.tokens[row], pack.positions[row]]).toEqual([id, path.length - 1]);
        expect(views[row].keys.join()).toBe(path.join());
        expect(views[row].output).toBe(pack.outputRow?.[row] ?? row);
        rows++;
      }),
    ),
  );
  expect(pack.rows).toBe(rows);
  expect(views.filter((view) => view !== undefined)).toHaveLength(rows);
  return pack;
}

/** Sum over segments of length x (ancestors + length), a segment that is its parent's only child counted as one with it. */
function exactPairs(forest: Forest): number {
  let sum = 0;
  for (const { segments } of forest) {
    const children = segments.map((_, s) => segments.filter(({ parent }) => parent === s).length);
    const length: number[] = [];
    const above: number[] = [];
    const runOf: number[] = [];
    segments.forEach(({ parent, tokens }, s) => {
      const joins = parent >= 0 && children[parent] === 1;
      runOf[s] = joins ? runOf[parent] : s;
      if (!joins) above[s] = parent < 0 ? 0 : above[runOf[parent]] + length[runOf[parent]];
      length[runOf[s]] = (length[runOf[s]] ?? 0) + tokens.length;
    });
    for (const run of new Set(runOf)) sum += length[run] * (above[run] + length[run]);
  }
  return sum;
}

const forestArbitrary = fc
  .array(treeArbitrary({ segments: 14, longest: 6 }), { minLength: 1, maxLength: 4 })
  .map((forest) => forest.map((tree, t) => ({ ...tree, id: `${t}` })));

/** A tree search: nodes of a few dozen tokens under random parents, some empty, several roots. */
const searchTree = (seed: number, nodes: number): Tree => {
  let state = seed;
  const below = (n: number) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % n;
  return treeOf(...Array.from({ length: nodes }, (_, s) => segment(s === 0 ? -1 : below(s + 1) - 1, below(60))));
};

describe("packing trees into one pass", () => {
  test("every token sees its ancestors and itself, each once, whatever the trees", () => {
    fc.assert(
      fc.property(forestArbitrary, (forest) => {
        const pack = checkPack(forest);
        expect(pack.pairs).toBeLessThanOrEqual(1.5 * exactPairs(forest));
      }),
    );
  });

  test.each([
    ["a GRPO group", [treeOf(segment(-1, 200), ...[64, 45, 64, 15, 38, 64, 2, 32].map((n) => segment(0, n)))]],
    [
      "several groups",
      [0, 1, 2].map((g) => treeOf(segment(-1, 90 + 7 * g), ...[20, 40, 33].map((n) => segment(0, n)))),
    ],
    ["sequences of many lengths", Array.from({ length: 20 }, (_, i) => treeOf(segment(-1, 3 + ((i * 37) % 90))))],
    ["search trees", [searchTree(1, 20), searchTree(2, 30)]],
  ])("%s: query-key pairs are within the limit", (_, forest) => {
    const pack = checkPack(forest);
    const exact = exactPairs(forest);
    expect(pack.pairs).toBeGreaterThanOrEqual(exact);
    expect(pack.pairs).toBeLessThanOrEqual(1.5 * exact);
  });

  test("a chain of only children costs what one segment costs", () => {
    const whole = packTrees([treeOf(segment(-1, 30))]);
    const chained = packTrees([treeOf(segment(-1, 10), segment(0, 0), segment(1, 12), segment(2, 8))]);
    expect(chained.pairs).toBe(whole.pairs);
    expect(chained.groups).toHaveLength(1);
    expect(chained.groups[0].queryRows).toBeNull();
  });

  test("equal sequences are one batch that gathers nothing", () => {
    const pack = checkPack(Array.from({ length: 4 }, () => treeOf(segment(-1, 9))));
    expect(pack.groups).toHaveLength(1);
    expect(pack.groups[0]).toMatchObject({ batch: 4, queries: 9, keys: 9, queryRows: null, maskBatch: 1, valid: null });
    expect(pack.outputRow).toBeNull();
  });
});

describe("rows of the head", () => {
  const entries = (pack: Pack, weighted: boolean) => {
    const rows = headRows(pack, weighted);
    return Array.from({ length: rows.count }, (_, i) => ({
      at: [rows.tree[i], rows.segment[i], rows.token[i]],
      predictor: rows.predictor[i],
      target: rows.target[i],
    }));
  };

  test("every token but a path's first is predicted from the token before it", () => {
    fc.assert(
      fc.property(forestArbitrary, (forest) => {
        const pack = packTrees(forest);
        const expected = forest.flatMap((tree, t) =>
          tree.segments.flatMap(({ tokens }, s) =>
            Array.from(tokens, (target, i) => ({ at: [t, s, i], path: ancestorRows(pack, t, s, i), target })),
          ),
        );
        expect(entries(pack, false)).toEqual(
          expected
            .filter(({ path }) => path.length > 1)
            .map(({ at, path, target }) => ({ at, predictor: path[path.length - 2], target })),
        );
      }),
    );
  });

  test("only tokens with a non-zero field are scored; a tree without such fields is scored whole", () => {
    const weights = Float32Array.of(0, 2, 0);
    const returns = Float32Array.of(0, 0, -1);
    const pack = packTrees([
      treeOf(segment(-1, 3), segment(0, 3, { fields: { weights } }), segment(0, 3, { fields: { returns } })),
      treeOf(segment(-1, 2)),
    ]);
    expect(entries(pack, true).map(({ at }) => at)).toEqual([
      [0, 1, 1],
      [0, 2, 2],
      [1, 0, 1],
    ]);
  });

  test("temperature and allowed ids go with their token", () => {
    const allowed = [null, Int32Array.of(2, 7)];
    const rows = headRows(packTrees([treeOf(segment(-1, 2), segment(0, 2, { temperature: 0.5, allowed }))]), false);
    expect([...rows.temperature]).toEqual([1, 0.5, 0.5]);
    expect(rows.allowed).toEqual([null, null, allowed[1]]);
    expect(headRows(packTrees([treeOf(segment(-1, 2))]), false).allowed).toBeNull();
  });

  test("a tree matters unless all its fields are zero", () => {
    const zero = new Float32Array(2);
    expect(matters(treeOf(segment(-1, 2)))).toBe(true);
    expect(matters(treeOf(segment(-1, 2), segment(0, 2, { fields: { weights: zero, advantages: zero } })))).toBe(false);
    expect(matters(treeOf(segment(-1, 2, { fields: { advantagesDown: Float32Array.of(0, 1) } })))).toBe(true);
    expect(matters(treeOf(segment(-1, 2, { fields: { refLogprobs: zero } })))).toBe(true);
  });
});

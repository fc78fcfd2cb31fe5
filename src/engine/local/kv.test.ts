import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type KvNode, KvTree } from "./kv.ts";

const WIDTH = 2;
const LAYERS = 2;

/** Keys and values that say which path and layer they belong to, so that a wrong cut or mix-up shows. */
function dataOf(tokens: readonly number[], node: KvNode): NonNullable<KvNode["data"]> {
  const make = (salt: number) =>
    Array.from({ length: LAYERS }, (_, layer) =>
      Float32Array.from({ length: node.tokens.length * WIDTH }, (_, i) => {
        const position = node.depth + Math.floor(i / WIDTH);
        return keyOf(tokens.slice(0, position + 1), layer, salt, i % WIDTH);
      }),
    );
  return { keys: make(1), values: make(2) };
}

const keyOf = (path: readonly number[], layer: number, salt: number, column: number): number =>
  path.reduce((hash, id) => (hash * 31 + id + 1) % 65521, layer * 7 + salt) * 4 + column;

/** Inserts and computes what is missing, as a prefill does. */
function use(tree: KvTree, tokens: number[]): KvNode[] {
  tree.insert(Int32Array.from(tokens));
  const path = tree.insert(Int32Array.from(tokens));
  for (const node of path) if (!node.data) tree.fill(node, dataOf(tokens, node));
  return path;
}

function expectSpells(path: KvNode[], tokens: number[]): void {
  expect(path.flatMap((node) => [...node.tokens])).toEqual(tokens);
  let depth = 0;
  path.forEach((node, i) => {
    expect(node.tokens.length).toBeGreaterThan(0);
    expect(node.depth).toBe(depth);
    if (i > 0) expect(node.parent).toBe(path[i - 1]);
    expect(node.parent?.children.get(node.tokens[0])).toBe(node);
    depth += node.tokens.length;
  });
}

describe("the tree of keys and values", () => {
  test("a prefix that two sequences share is one node", () => {
    const tree = new KvTree(WIDTH, Infinity);
    const first = use(tree, [1, 2, 3, 4]);
    expect(first).toHaveLength(1);
    const second = use(tree, [1, 2, 5]);
    expect(second.map((node) => [...node.tokens])).toEqual([[1, 2], [5]]);
    const again = tree.insert(Int32Array.of(1, 2, 3, 4));
    expect(again.map((node) => [...node.tokens])).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(again.every((node) => node.data !== null)).toBe(true);
    expect(tree.bytes).toBe(5 * 2 * LAYERS * WIDTH * 4);
    expect(tree.insert(new Int32Array(0))).toEqual([]);
  });

  test("trimming drops what was used longest ago, leaves first, and spares what is pinned", () => {
    const perToken = 2 * LAYERS * WIDTH * 4;
    const tree = new KvTree(WIDTH, 4 * perToken);
    use(tree, [1, 2]);
    use(tree, [1, 3]);
    const last = use(tree, [4, 5, 6]);
    tree.trim(() => false);
    expect(tree.bytes).toBe(4 * perToken);
    const computed = (tokens: number[]) => tree.insert(Int32Array.from(tokens)).map((node) => node.data !== null);
    expect(computed([4, 5, 6])).toEqual([true]);
    expect(computed([1])).toEqual([true]);
    expect(computed([1, 3])).toEqual([true, false]);
    const pinned = new Set(last);
    use(tree, [7, 8, 9, 10]);
    tree.trim((node) => pinned.has(node));
    expect(computed([4, 5, 6])).toEqual([true]);
    expect(tree.bytes).toBeLessThanOrEqual(4 * perToken);
    tree.clear();
    expect(tree.bytes).toBe(0);
    expect(computed([4, 5, 6])).toEqual([false]);
  });

  test("whatever is inserted and trimmed, a path holds its own numbers and the bytes are counted", () => {
    const sequence = fc.array(fc.nat(2), { minLength: 1, maxLength: 7 });
    const operation = fc.record({ tokens: sequence, trim: fc.boolean() });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 30 }), fc.integer({ min: 0, max: 40 }), (operations, room) => {
        const perToken = 2 * LAYERS * WIDTH * 4;
        const tree = new KvTree(WIDTH, room * perToken);
        // The naive model: the set of prefixes whose keys are known.
        const known = new Set<string>();
        for (const { tokens, trim } of operations) {
          const missing = tree.insert(Int32Array.from(tokens)).flatMap((node) => (node.data ? [] : [...node.tokens]));
          const unknown = tokens.filter((_, i) => !known.has(tokens.slice(0, i + 1).join()));
          expect(missing).toEqual(unknown);
          const path = use(tree, tokens);
          expectSpells(path, tokens);
          for (const node of path) expect(node.data).toEqual(dataOf(tokens, node));
          tokens.forEach((_, i) => known.add(tokens.slice(0, i + 1).join()));
          if (!trim) continue;
          const pinned = new Set(path);
          tree.trim((node) => pinned.has(node));
          for (const prefix of known) if (!holds(tree, prefix.split(",").map(Number))) known.delete(prefix);
          tokens.forEach((_, i) => expect(known.has(tokens.slice(0, i + 1).join())).toBe(true));
          expect(tree.bytes <= room * perToken || known.size === tokens.length).toBe(true);
        }
        expect(tree.bytes).toBe(known.size * perToken);
      }),
    );
  });
});

/** Whether the tree has keys for the last token of this path. */
function holds(tree: KvTree, tokens: number[]): boolean {
  const path = tree.insert(Int32Array.from(tokens));
  return path[path.length - 1].data !== null;
}

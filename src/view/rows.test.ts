import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeSelect, type Query } from "./client/rows.ts";
import { type AddedTree, ViewBuilder } from "./builder.ts";
import { KINDS } from "./columns.ts";
import { Pieces } from "./pieces.ts";

const segment = (parent: number, text: string, rest: Partial<AddedTree["segments"][number]> = {}) => ({
  parent,
  source: parent < 0 ? "prompt" : "policy",
  text,
  tokens: Array.from(text, () => 1),
  series: {},
  ...rest,
});

const everything: Query = { words: [], place: -1, low: NaN, high: NaN, verdict: "all", stop: "all", flip: "all", sort: "order", down: false }; // prettier-ignore

/** The rows as lines: two blanks a level, what each row is, and the problem. */
function outline(trees: AddedTree[]): string[] {
  const builder = new ViewBuilder(new Pieces(undefined));
  builder.add(trees);
  const { columns, head } = builder.finish();
  return Array.from(columns.kind, (kind, i) => {
    const name = ["tree", `sample ${columns.number[i]}`, "branch"][kind];
    const { up } = columns;
    if (up[i] >= 0) expect(columns.depth[up[i]]).toBeLessThan(columns.depth[i]);
    return `${"  ".repeat(columns.depth[i])}${name} ${head.problems[columns.problem[i]].id}/${columns.segment[i]}`;
  });
}

describe("rows", () => {
  test("a group is a row with its samples beneath, a lone path a row of its own", () => {
    const group = { id: "t", problem: "p", segments: [segment(-1, "q"), segment(0, "a"), segment(0, "b")] };
    const lone = { id: "u", problem: "r", segments: [segment(-1, "q"), segment(0, "a")] };
    expect(outline([group, lone])).toEqual(["tree p/-1", "  sample 0 p/1", "  sample 1 p/2", "sample 0 r/1"]);
  });

  test("branches of a search, and rounds that continue what caused them, stand as the tree they are", () => {
    const search = {
      id: "s",
      problem: "search",
      segments: [segment(-1, "q"), segment(0, "x"), segment(1, "y"), segment(1, "z"), segment(3, "w"), segment(0, "v")],
    };
    expect(outline([search])).toEqual([
      "tree search/-1",
      "  branch search/1",
      "    sample 0 search/2",
      "    sample 1 search/4",
      "  sample 2 search/5",
    ]);
    const round = (id: string, cause?: { tree: string; segment: number }): AddedTree => ({
      id,
      problem: id,
      segments: [segment(-1, "q"), segment(0, "a"), segment(0, "b")],
      ...(cause && { cause }),
    });
    const rounds = [
      round("third", { tree: "second", segment: 2 }),
      round("first"),
      round("second", { tree: "first", segment: 1 }),
    ];
    expect(outline(rounds)).toEqual([
      "tree first/-1",
      "  sample 0 first/1",
      "    tree second/-1",
      "      sample 0 second/1",
      "      sample 1 second/2",
      "        tree third/-1",
      "          sample 0 third/1",
      "          sample 1 third/2",
      "  sample 1 first/2",
    ]);
    // A cause that is not there, causes in a circle, a tree that causes itself: nothing is lost.
    const strange = [round("a", { tree: "gone", segment: 1 }), round("b", { tree: "c", segment: 1 }), round("c", { tree: "b", segment: 1 }), round("d", { tree: "d", segment: 1 })]; // prettier-ignore
    expect(outline(strange).filter((line) => line.includes("sample"))).toHaveLength(8);
  });

  test("a tree's row has the mean reward and the count of what is right, a path its own numbers", () => {
    const grade = (verdict: "equal" | "different") => ({ verdict, rule: "", reason: "" });
    const builder = new ViewBuilder(new Pieces(undefined));
    const tree: AddedTree = {
      id: "t",
      problem: "p",
      segments: [
        segment(-1, "q"),
        segment(0, "ab", {
          series: { logprobs: [-1, -2], advantages: [0.5, 0.5] },
          outcome: { reward: 1, format: 0.5 },
          strict: grade("equal"),
          stop: "eos",
        }),
        segment(0, "c", { series: { logprobs: [-3], advantagesUp: [0], advantagesDown: [0.25] }, outcome: { reward: 0 }, strict: grade("different"), flexible: grade("equal"), stop: "length" }), // prettier-ignore
      ],
    };
    builder.add([tree]);
    const { columns } = builder.finish();
    expect([columns.reward[0], columns.right[0], columns.number[0]]).toEqual([0.5, 1, 2]);
    expect([columns.tokens[1], columns.logprob[1], columns.advantage[1], columns.reward[1]]).toEqual([2, -1.5, 0.5, 1]);
    expect([columns.advantage[2], columns.strict[2], columns.flexible[2], columns.stop[2]]).toEqual([-0.25, 2, 1, 3]);
    const select = makeSelect(columns, KINDS, ["", "ab", "c"], ["q"]);
    const rows = (query: Partial<Query>) => Array.from(select({ ...everything, ...query }).rows);
    expect(rows({})).toEqual([0, 1, 2]);
    expect(rows({ verdict: "differ" })).toEqual([0, 2]);
    expect(rows({ verdict: "right" })).toEqual([0, 1]);
    expect(rows({ stop: "cut" })).toEqual([0, 2]);
    expect(rows({ low: 0.5 })).toEqual([0, 1]);
    expect(rows({ words: ["b"] })).toEqual([0, 1]);
    expect(rows({ words: ["q", "c"] })).toEqual([0, 2]);
    expect(rows({ words: ["z"] })).toEqual([]);
    expect(rows({ sort: "logprob" })).toEqual([2, 1]);
    expect(rows({ sort: "reward", down: true })).toEqual([1, 2]);
  });

  test("however rows are chosen, each sample that fits is there once, in order", () => {
    const sample = fc.record({
      reward: fc.option(fc.integer({ min: 0, max: 3 })),
      text: fc.constantFrom("x", "xy", "y"),
    });
    const query = fc.record({
      low: fc.constantFrom(NaN, 1, 2),
      high: fc.constantFrom(NaN, 1, 2),
      words: fc.subarray(["x", "y"]),
      sort: fc.constantFrom("order" as const, "reward" as const, "tokens" as const),
      down: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.array(fc.array(sample, { minLength: 1, maxLength: 4 }), { maxLength: 6 }),
        query,
        (groups, asked) => {
          const builder = new ViewBuilder(new Pieces(undefined));
          const trees = groups.map((group, g): AddedTree => ({
            id: String(g),
            problem: String(g),
            segments: [
              segment(-1, ""),
              ...group.map(({ reward, text }) => segment(0, text, reward === null ? {} : { outcome: { reward } })),
            ],
          }));
          builder.add(trees);
          const { columns, head } = builder.finish();
          const flat = groups.flat();
          const leaves = Array.from(columns.kind.keys()).filter((i) => columns.kind[i] === KINDS.sample);
          const texts: string[] = Array.from(columns.kind, () => "");
          leaves.forEach((row, n) => (texts[row] = flat[n].text));
          const { rows, samples } = makeSelect(
            columns,
            KINDS,
            texts,
            head.problems.map(() => ""),
          )({ ...everything, ...asked });
          const fits = leaves.filter((_, n) => {
            const { reward, text } = flat[n];
            const bounded = !Number.isNaN(asked.low) || !Number.isNaN(asked.high);
            if (reward === null ? bounded : reward < asked.low || reward > asked.high) return false;
            return asked.words.every((word) => text.includes(word));
          });
          const found = Array.from(rows).filter((i) => columns.kind[i] === KINDS.sample);
          expect(samples).toBe(fits.length);
          expect(found.toSorted((a, b) => a - b)).toEqual(fits);
          if (asked.sort === "order") return;
          const keys = found
            .map((i) => columns[asked.sort === "reward" ? "reward" : "tokens"][i])
            .filter((x) => !Number.isNaN(x));
          expect(keys).toEqual(keys.toSorted((a, b) => (asked.down ? b - a : a - b)));
        },
      ),
      { seed: 1 },
    );
  });
});

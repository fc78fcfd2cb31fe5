import { describe, expect, test } from "vitest";
import { groupTree, sequenceTree } from "./build.ts";

const prompt = Int32Array.of(1, 2);
const sample = { tokens: Int32Array.of(5), logprobs: Float32Array.of(-0.5), stop: "length" as const };

describe("building trees", () => {
  test("a group is a prompt with a policy leaf for each sample", () => {
    const tree = groupTree({ id: "t", problem: "p" }, prompt, [sample, sample], { temperature: 0.5 });
    const leaf = { parent: 0, source: "policy", temperature: 0.5, fields: {}, ...sample };
    expect(tree.segments).toEqual([{ parent: -1, tokens: prompt, source: "prompt", fields: {} }, leaf, leaf]);
    expect(tree.segments[1].fields).not.toBe(tree.segments[2].fields);
  });

  test("greedy samples carry the log-probs of temperature 1", () => {
    for (const temperature of [0, 1]) {
      const tree = groupTree({ id: "t", problem: "p" }, prompt, [sample], { temperature });
      expect(tree.segments[1].temperature).toBeUndefined();
    }
  });

  test("truncated sampling is marked", () => {
    const tree = groupTree({ id: "t", problem: "p" }, prompt, [sample], { temperature: 1, truncated: true });
    expect(tree.segments[1].truncated).toBe(true);
  });

  test("a demonstration continues its prompt", () => {
    const tree = sequenceTree({ id: "t", problem: "p" }, prompt, Int32Array.of(8, 9));
    expect(tree.segments.map(({ parent, source }) => [parent, source])).toEqual([
      [-1, "prompt"],
      [0, "data"],
    ]);
  });
});

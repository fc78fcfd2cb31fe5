import fc from "fast-check";
import type { Segment, Tree } from "../src/forest/types.ts";

const logprob = fc.float({ min: -8, max: 0, noNaN: true });

function segmentArbitrary(index: number, longest: number): fc.Arbitrary<Segment> {
  return fc.array(fc.record({ id: fc.nat(50), logprob }), { maxLength: longest }).chain((tokens) =>
    fc.record({
      parent: index === 0 ? fc.constant(-1) : fc.integer({ min: 0, max: index - 1 }),
      tokens: fc.constant(Int32Array.from(tokens, ({ id }) => id)),
      source: fc.constant(index === 0 ? ("prompt" as const) : ("policy" as const)),
      logprobs: fc.constant(Float32Array.from(tokens, ({ logprob }) => logprob)),
      fields: fc.constant({}),
    }),
  );
}

/** Trees of one root and random branches of up to `longest` tokens a segment; empty segments occur. */
export const treeArbitrary = ({ segments = 8, longest = 4 } = {}): fc.Arbitrary<Tree> =>
  fc
    .integer({ min: 1, max: segments })
    .chain((count) => fc.tuple(...Array.from({ length: count }, (_, s) => segmentArbitrary(s, longest))))
    .map((list) => ({ id: "t", problem: "p", segments: list }));

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { treeArbitrary } from "../../test/trees.ts";
import type { Loss, Scores } from "../engine/types.ts";
import type { Tree } from "../forest/types.ts";
import { leaves, pathTo } from "../forest/walk.ts";
import { cispo, clippedValue, crossEntropy, gspo, importanceSampling, k1, ppo, ppoValue, withKl } from "./losses.ts";

/** One token as it stands on one path, in double precision: what the definitions are written over. */
interface Token {
  q: number;
  A: number;
  w: number;
  ref: number;
}

/** A definition's summand. `stopped` is lp where the definition stops the gradient. */
type Definition = (lp: number, token: Token, stopped: number) => number;

const LOW = 0.8;
const HIGH = 1.25;
const BETA = 0.04;
const clip = (x: number) => Math.min(Math.max(x, LOW), HIGH);
const r = (lp: number, q: number) => Math.exp(lp - q);
const clippedSurrogate: Definition = (lp, { q, A, w }) => -w * Math.min(r(lp, q) * A, clip(r(lp, q)) * A);

const definitions: [Loss, Definition][] = [
  [crossEntropy(), (lp, { w }) => -w * lp],
  [importanceSampling(), (lp, { q, A, w }) => -r(lp, q) * w * A],
  [ppo({ low: LOW, high: HIGH }), clippedSurrogate],
  [cispo({ low: LOW, high: HIGH }), (lp, { q, A, w }, stopped) => -clip(r(stopped, q)) * lp * w * A],
  [
    withKl(ppo({ low: LOW, high: HIGH }), BETA),
    (lp, token) => {
      const kl = Math.exp(token.ref - lp) - (token.ref - lp) - 1;
      return clippedSurrogate(lp, token, lp) + token.w * BETA * kl;
    },
  ],
];

const real = (min: number, max: number) => fc.float({ min, max, noNaN: true });

/** A tree, what a pass gave for it, and for each leaf (in the order of `leaves`) the advantage and weight of its path. */
const caseArbitrary = treeArbitrary().chain((tree) => {
  const perToken = (min: number, max: number) =>
    fc.tuple(
      ...tree.segments.map((segment) =>
        fc
          .array(real(min, max), { minLength: segment.tokens.length, maxLength: segment.tokens.length })
          .map((values) => Float32Array.from(values)),
      ),
    );
  const count = leaves(tree).length;
  const path = fc.record({ A: real(-2, 2), w: real(0.125, 1) });
  return fc.record({
    tree: fc.constant(tree),
    change: perToken(-0.5, 0.5),
    refs: perToken(-8, 0),
    paths: fc.array(path, { minLength: count, maxLength: count }),
  });
});

const inPolicy = (tree: Tree, s: number) => tree.segments[s].source === "policy";

/** Fields as a method fills them: of a shared token, sums over the paths that it lies on. */
function withFields(tree: Tree, paths: { A: number; w: number }[], refs: Float32Array[]): Tree {
  const segments = tree.segments.map((segment, s) => {
    const array = () => new Float32Array(segment.tokens.length);
    const fields = { weights: array(), advantagesUp: array(), advantagesDown: array(), refLogprobs: refs[s] };
    return { ...segment, fields };
  });
  leaves(tree).forEach((leaf, l) => {
    const { A, w } = paths[l];
    for (const s of pathTo(tree, leaf).filter((s) => inPolicy(tree, s))) {
      const { weights, advantagesUp, advantagesDown } = segments[s].fields;
      for (let i = 0; i < weights.length; i++) {
        weights[i] += w;
        advantagesUp[i] += w * Math.max(A, 0);
        advantagesDown[i] += w * Math.max(-A, 0);
      }
    }
  });
  return { ...tree, segments };
}

function scoresOf(tree: Tree, change: Float32Array[]): Scores {
  const logprobs = tree.segments.map((segment, s) => segment.logprobs!.map((q, i) => q + change[s][i]));
  return { logprobs, entropy: [], heads: {} };
}

/** Every token of every path on its own: [segment, token, token's numbers]. */
function unpacked(tree: Tree, paths: { A: number; w: number }[], refs: Float32Array[]): [number, number, Token][] {
  return leaves(tree).flatMap((leaf, l) =>
    pathTo(tree, leaf)
      .filter((s) => inPolicy(tree, s))
      .flatMap((s) =>
        Array.from(tree.segments[s].tokens, (_, i): [number, number, Token] => [
          s,
          i,
          { q: tree.segments[s].logprobs![i], ref: refs[s][i], ...paths[l] },
        ]),
      ),
  );
}

describe.each(definitions.map(([loss, definition]) => ({ name: loss.name, loss, definition })))(
  "$name",
  ({ loss, definition }) => {
    test("on a packed tree is its definition summed over the un-packed paths, value and gradient", () => {
      fc.assert(
        fc.property(caseArbitrary, ({ tree, change, refs, paths }) => {
          const now = scoresOf(tree, change);
          const tokens = unpacked(tree, paths, refs);
          // At a threshold the two sides of the definition have different slopes.
          fc.pre(
            tokens.every(([s, i, { q }]) => {
              const ratio = r(now.logprobs[s][i], q);
              return Math.abs(ratio - LOW) > 1e-3 && Math.abs(ratio - HIGH) > 1e-3;
            }),
          );
          const found = loss.fn([withFields(tree, paths, refs)], [now]);
          let value = 0;
          const gradient = tree.segments.map((segment) => new Float64Array(segment.tokens.length));
          const scale = gradient.map((values) => values.map(() => 1));
          const h = 1e-5;
          for (const [s, i, token] of tokens) {
            const lp = now.logprobs[s][i];
            value += definition(lp, token, lp);
            const slope = (definition(lp + h, token, lp) - definition(lp - h, token, lp)) / (2 * h);
            gradient[s][i] += slope;
            scale[s][i] += Math.abs(slope);
          }
          const size = tokens.reduce((sum, [s, i, token]) => {
            const lp = now.logprobs[s][i];
            return sum + Math.abs(definition(lp, token, lp));
          }, 1);
          expect(Math.abs(found.loss - value) / size).toBeLessThan(1e-6);
          found.grads[0].logprobs!.forEach((values, s) =>
            values.forEach((g, i) => expect(Math.abs(g - gradient[s][i]) / scale[s][i]).toBeLessThan(1e-6)),
          );
        }),
      );
    });

    test("gives tokens without weight no gradient and does not count them", () => {
      const logprobs = Float32Array.of(-1, -1);
      const fields = { weights: new Float32Array(2), advantages: new Float32Array(2) };
      const segment = { parent: -1, tokens: Int32Array.of(1, 2), source: "policy" as const, logprobs, fields };
      const tree: Tree = { id: "t", problem: "p", segments: [segment] };
      const found = loss.fn([tree], [{ logprobs: [Float32Array.of(-3, 9)], entropy: [], heads: {} }]);
      expect(found).toEqual({ loss: 0, grads: [{ logprobs: [new Float32Array(2)] }], metrics: { tokens: 0 } });
    });

    test("is the same tree by tree as over the forest", () => {
      fc.assert(
        fc.property(fc.array(caseArbitrary, { minLength: 1, maxLength: 3 }), (cases) => {
          const trees = cases.map(({ tree, paths, refs }) => withFields(tree, paths, refs));
          const now = cases.map(({ tree, change }) => scoresOf(tree, change));
          const whole = loss.fn(trees, now);
          const parts = trees.map((tree, t) => loss.fn([tree], [now[t]]));
          expect(whole.loss).toBeCloseTo(
            parts.reduce((sum, part) => sum + part.loss, 0),
            8,
          );
          expect(whole.grads).toEqual(parts.map((part) => part.grads[0]));
          expect(whole.metrics.tokens).toBe(parts.reduce((sum, part) => sum + part.metrics.tokens, 0));
        }),
      );
    });
  },
);

describe("advantages in one field", () => {
  test.each([importanceSampling(), ppo({ low: LOW, high: HIGH }), cispo({ low: LOW, high: HIGH })])(
    "$name reads `advantages` as it reads the pair of a single path",
    (loss) => {
      fc.assert(
        fc.property(real(-2, 2), real(-1, 1), (A, change) => {
          const tree = (fields: Record<string, Float32Array>): Tree => ({
            id: "t",
            problem: "p",
            segments: [
              { parent: -1, tokens: Int32Array.of(1), source: "policy", logprobs: Float32Array.of(-2), fields },
            ],
          });
          const now: Scores[] = [{ logprobs: [Float32Array.of(-2 + change)], entropy: [], heads: {} }];
          const pair = {
            advantagesUp: Float32Array.of(Math.max(A, 0)),
            advantagesDown: Float32Array.of(Math.max(-A, 0)),
          };
          expect(loss.fn([tree({ advantages: Float32Array.of(A) })], now)).toEqual(loss.fn([tree(pair)], now));
        }),
      );
    },
  );
});

describe("metrics and errors", () => {
  const token = (A: number, change: number, logprobs?: Float32Array) => {
    const fields = { advantages: Float32Array.of(A) };
    const segment = { parent: -1, tokens: Int32Array.of(1), source: "policy" as const, logprobs, fields };
    const tree: Tree = { id: "t", problem: "p", segments: [segment] };
    const now: Scores = { logprobs: [Float32Array.of(-2 + change)], entropy: [], heads: {} };
    return { tree, now };
  };

  test("PPO clips only where the bound ends the advantage's pull", () => {
    const clipped = (A: number, change: number) => {
      const { tree, now } = token(A, change, Float32Array.of(-2));
      return ppo({ low: LOW, high: HIGH }).fn([tree], [now]).metrics.clipped;
    };
    expect([clipped(1, 0.5), clipped(1, -0.5), clipped(-1, 0.5), clipped(-1, -0.5)]).toEqual([1, 0, 0, 1]);
  });

  test("sums of ratios are 1 a token where nothing has changed", () => {
    const { tree, now } = token(1, 0, Float32Array.of(-2));
    expect(ppo({ low: LOW, high: HIGH }).fn([tree, tree], [now, now]).metrics).toEqual({
      tokens: 2,
      ratio: 2,
      clipped: 0,
    });
  });

  test("a weighted segment without the old policy's log-probs is an error", () => {
    const { tree, now } = token(1, 0);
    expect(() => importanceSampling().fn([tree], [now])).toThrow(/lacks logprobs of the old policy/);
  });

  test("k1 is the log ratio", () => {
    expect(k1(-1, -3)).toBe(2);
  });

  test("wire names and thresholds", () => {
    expect(ppo({ low: 0.8, high: 1.2 })).toMatchObject({
      name: "ppo",
      config: { clip_low_threshold: 0.8, clip_high_threshold: 1.2 },
      scope: "tree",
    });
    const clip = { low: 0, high: 4 };
    const others = [crossEntropy(), importanceSampling(), cispo(clip), gspo(clip), withKl(gspo(clip), 1)];
    expect(others.map((loss) => loss.name)).toEqual([
      "cross_entropy",
      "importance_sampling",
      "cispo",
      "gspo",
      "gspo_kl",
    ]);
  });
});

describe("the clipped value loss", () => {
  const EPS = 0.2;
  const perToken = (tree: Tree, low: number, high: number) =>
    fc.tuple(
      ...tree.segments.map(({ tokens: { length } }) =>
        fc.array(real(low, high), { minLength: length, maxLength: length }).map((xs) => Float32Array.from(xs)),
      ),
    );
  const valued = treeArbitrary().chain((tree) =>
    fc.record({
      tree: fc.constant(tree),
      values: perToken(tree, -1, 1),
      old: perToken(tree, -1, 1),
      returns: perToken(tree, -1, 1),
      weights: perToken(tree, 0, 1),
    }),
  );

  test("is its definition over the values before each token, gradient by finite differences, once for shared prefixes", () => {
    const loss = clippedValue({ head: "value", clip: EPS });
    fc.assert(
      fc.property(valued, ({ tree, values, old, returns, weights }) => {
        const filled: Tree = {
          ...tree,
          segments: tree.segments.map((segment, s) => ({
            ...segment,
            fields: { oldValues: old[s], returns: returns[s], weights: weights[s] },
          })),
        };
        // By the path to each segment: where the token before stands.
        const places = tree.segments.flatMap(({ tokens }, s) => {
          const path = pathTo(tree, s).flatMap((p) => Array.from(tree.segments[p].tokens, (_, i) => [p, i] as const));
          return Array.from(tokens, (_, i) => ({ s, i, before: path[path.length - tokens.length + i - 1] }));
        });
        const value = (at: number[][]) =>
          places.reduce((sum, { s, i, before }) => {
            if (before === undefined) return sum;
            const v = at[before[0]][before[1]];
            const held = Math.min(Math.max(v, old[s][i] - EPS), old[s][i] + EPS);
            return sum + (weights[s][i] / 2) * Math.max((v - returns[s][i]) ** 2, (held - returns[s][i]) ** 2);
          }, 0);
        const at = values.map((part) => Array.from(part));
        const now: Scores = { logprobs: [], entropy: [], heads: { value: [...values] } };
        const found = loss.fn([filled], [now]);
        expect(found.loss).toBeCloseTo(value(at), 6);
        const h = 1e-5;
        const kinks = places.some(({ s, i, before }) => {
          if (before === undefined) return false;
          const [v, o, target] = [at[before[0]][before[1]], old[s][i], returns[s][i]];
          const edges = [o - EPS, o + EPS, 2 * target - o + EPS, 2 * target - o - EPS];
          return edges.some((edge) => Math.abs(v - edge) < 1e-3);
        });
        if (kinks) return;
        found.grads[0].heads?.value.forEach((part, s) =>
          part.forEach((g, i) => {
            const shifted = (by: number) => value(at.map((p, q) => p.map((v, j) => (q === s && j === i ? v + by : v))));
            expect(g).toBeCloseTo((shifted(h) - shifted(-h)) / (2 * h), 4);
          }),
        );
      }),
    );
  });

  test("joined with the policy's it is their weighted sum, gradients apart", () => {
    const clip = { low: LOW, high: HIGH };
    const joint = ppoValue({ clip, head: "value", valueClip: EPS, coefficient: 5 });
    fc.assert(
      fc.property(valued, ({ tree, values, old, returns, weights }) => {
        const segments = tree.segments.map((segment, s) => ({
          ...segment,
          fields: { oldValues: old[s], returns: returns[s], weights: weights[s], advantages: returns[s] },
        }));
        const trees = [{ ...tree, segments }];
        const now: Scores[] = [
          { logprobs: tree.segments.map((s) => s.logprobs!), entropy: [], heads: { value: [...values] } },
        ];
        const [both, policy, value] = [joint, ppo(clip), clippedValue({ head: "value", clip: EPS })].map((one) =>
          one.fn(trees, now),
        );
        expect(both.loss).toBeCloseTo(policy.loss + 5 * value.loss, 8);
        expect(both.grads[0].logprobs).toEqual(policy.grads[0].logprobs);
        both.grads[0].heads!.value.forEach((part, s) =>
          part.forEach((g, i) => expect(g).toBeCloseTo(5 * value.grads[0].heads!.value[s][i], 5)),
        );
      }),
    );
  });
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  add,
  cast,
  concat,
  div,
  exp,
  log,
  logSoftmax,
  matmul,
  maximum,
  mean,
  minimum,
  mul,
  neg,
  pick,
  relu,
  reshape,
  rmsNorm,
  rope,
  sigmoid,
  silu,
  slice,
  softmax,
  split,
  sqrt,
  sub,
  sum,
  swiglu,
  tanh,
  transpose,
  where,
  type Tensor,
} from "./index.ts";
import { checkGradients, checkSinglePrecision, mergedLora, randomNumbers, type Case } from "./testing.ts";

const cases = (table: Record<string, Case>) =>
  test.each(Object.entries(table))("%s", async (_name, each) => {
    await checkGradients(each);
    await checkSinglePrecision(each);
  });

const positive = (length: number) => Array.from({ length }, randomNumbers(5)).map((x) => Math.abs(x) + 0.3);
/** Away from a kink at 0. */
const awayFromZero = (length: number) => Array.from({ length }, randomNumbers(6)).map((x) => x + 0.1 * Math.sign(x));

describe("elementwise", () => {
  const x = { sizes: [3, 4] };
  const unary = (f: (x: Tensor) => Tensor, data?: number[]): Case => ({
    inputs: { x: { ...x, data } },
    build: (t) => f(t.x),
  });
  cases({
    neg: unary(neg),
    exp: unary(exp),
    log: unary(log, positive(12)),
    sqrt: unary(sqrt, positive(12)),
    sigmoid: unary(sigmoid),
    tanh: unary(tanh),
    relu: unary(relu, awayFromZero(12)),
    silu: unary(silu),
    "cast to float64 and back": unary((t) => cast(mul(cast(t, "float64"), 3), t.type)),
    "numbers on either side": unary((t) => sub(2, mul(div(1, add(mul(t, t), 1)), 3))),
    "a value used three times": unary((t) => add(mul(t, exp(t)), tanh(t))),
    swiglu: { inputs: { gate: x, up: x }, build: (t) => swiglu(t.gate, t.up) },
    where: {
      inputs: { c: { sizes: [3, 1], data: [1, 0, 1], type: "bool" }, a: { sizes: [4] }, b: { sizes: [2, 3, 1] } },
      build: (t) => where(t.c, t.a, t.b),
    },
    "where with a number": {
      inputs: { c: { sizes: [3, 4], data: [1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0], type: "bool" }, a: x },
      build: (t) => where(t.c, t.a, -7),
    },
  });

  const binary = { add, sub, mul, div, minimum, maximum };
  test.each(Object.keys(binary) as (keyof typeof binary)[])("%s over broadcast shapes", async (name) => {
    // Each axis of a common shape is kept, made 1 or (leading ones) dropped by either operand.
    const shape = fc.array(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.boolean(), fc.boolean()), { maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(shape, fc.nat(3), fc.nat(3), fc.boolean(), async (axes, dropA, dropB, symbolic) => {
        const operand = (keep: 1 | 2, drop: number) => {
          const sizes = axes.map((axis) => (axis[keep] ? axis[0] : 1));
          const dims = axes.map((axis, i) =>
            axis[keep] && axis[0] > 1 && symbolic ? `s${i}` : axis[keep] ? axis[0] : 1,
          );
          const from = Math.min(drop, axes.length);
          return { sizes: sizes.slice(from), dims: dims.slice(from) };
        };
        const a = operand(1, dropA);
        const b = operand(2, dropB);
        const next = randomNumbers(axes.length + dropA * 4 + dropB * 16);
        const count = (sizes: number[]) => sizes.reduce((product, size) => product * size, 1);
        // Apart from each other (min, max) and from zero (div).
        const data = Array.from({ length: count(a.sizes) }, () => 0.5 * Math.tanh(next()));
        const other = Array.from({ length: count(b.sizes) }, () => (next() > 0 ? 1 : -1) * (0.7 + Math.abs(next())));
        await checkGradients({
          inputs: { a: { ...a, data }, b: { ...b, data: other } },
          // The product keeps either gradient from vanishing where min or max chooses the other operand everywhere.
          build: (t) => add(binary[name](t.a, t.b), mul(t.a, t.b)),
        });
      }),
      { numRuns: 25, seed: 7 },
    );
  });
});

describe("shape", () => {
  const x = { sizes: [2, 3, 4] };
  cases({
    reshape: { inputs: { x }, build: (t) => reshape(t.x, [4, 6]) },
    "reshape that copies and infers": {
      inputs: { x: { ...x, dims: ["b", "s", 4] } },
      build: (t) => reshape(t.x, ["b", "s", 2, 2]),
    },
    "reshape that merges two symbols": {
      inputs: { x: { ...x, dims: ["b", "s", 4] } },
      build: (t) => mul(reshape(exp(t.x), ["b*s", 4]), 2),
    },
    "reshape by an explicit shape": {
      inputs: { x: { sizes: [6, 4], dims: ["n", 4] }, like: { sizes: [2, 3], dims: ["b", "s"], grad: false } },
      build: (t) =>
        reshape(t.x, ["b", 4, "s"], concat([slice(t.x.graph.shape(t.like), 0, 0, 1), t.x.graph.ints([4, -1])], 0)),
    },
    transpose: { inputs: { x }, build: (t) => transpose(t.x, [2, 0, 1]) },
    split: { inputs: { x }, build: (t) => split(t.x, -1, [1, 3]) },
    "split with an unused part": {
      inputs: { x: { ...x, dims: ["b", "s", 4] } },
      build: (t) => split(t.x, 2, [1, 2, 1])[1],
    },
    slice: { inputs: { x }, build: (t) => slice(t.x, 1, 1, 3) },
    concat: { inputs: { x, y: { sizes: [2, 1, 4] } }, build: (t) => concat([t.x, t.y, t.x], 1) },
    "concat along a symbolic axis": {
      inputs: { x: { sizes: [2, 3], dims: ["n", 3] }, y: { sizes: [4, 3], dims: ["m", 3] } },
      build: (t) => concat([t.x, t.y], 0),
    },
    pick: {
      inputs: { x: { sizes: [3, 5], dims: ["n", 5] }, i: { sizes: [3], dims: ["n"], data: [4, 0, 2], type: "int64" } },
      build: (t) => pick(t.x, t.i),
    },
  });
});

describe("reductions and normalisations", () => {
  const x = { sizes: [2, 3, 4] };
  const symbolic = { sizes: [2, 3, 4], dims: ["b", "s", 4] };
  cases({
    "sum of one axis": { inputs: { x }, build: (t) => sum(t.x, [1]) },
    "sum of several, kept": { inputs: { x }, build: (t) => mul(sum(t.x, [0, -1], true), t.x) },
    "sum of all": { inputs: { x: symbolic }, build: (t) => sum(mul(t.x, t.x), [0, 1, 2]) },
    "sum of a broadcast product": {
      inputs: { x: symbolic, y: { sizes: [3, 1], dims: ["s", 1] }, z: { sizes: [4] } },
      build: (t) => sum(mul(add(t.x, t.z), t.y), [1]),
    },
    "a sum's gradient through a broadcast operand": {
      inputs: { x: { sizes: [3, 1], dims: ["n", 1] }, y: { sizes: [4] } },
      build: (t) => sum(add(t.x, t.y), [1]),
    },
    "a sum's gradient into a product of matrices": {
      inputs: { a: { sizes: [3, 2], dims: ["n", 2] }, b: { sizes: [2, 5] } },
      build: (t) => sum(matmul(t.a, t.b), [1], true),
    },
    mean: { inputs: { x: symbolic }, build: (t) => mean(t.x, [2]) },
    softmax: { inputs: { x }, build: (t) => softmax(t.x) },
    logSoftmax: { inputs: { x }, build: (t) => logSoftmax(t.x) },
    entropy: {
      inputs: { x: symbolic },
      build: (t) => {
        const logp = logSoftmax(t.x);
        return neg(sum(mul(exp(logp), logp), [2]));
      },
    },
    rmsNorm: { inputs: { x: symbolic, w: { sizes: [4] } }, build: (t) => rmsNorm(t.x, t.w, 1e-5) },
  });
});

describe("products", () => {
  const flags = [false, true].flatMap((transA) => [false, true].map((transB) => ({ transA, transB })));
  const shape = (m: number, n: number, swap: boolean) => (swap ? [n, m] : [m, n]);
  const dims = (batch: (string | number)[], sizes: number[]) => [...batch, ...sizes];
  const layouts: Record<string, [a: number[], b: number[]]> = {
    "matrix times matrix": [[], []],
    "batch times matrix": [[2], []],
    "matrix times batch": [[], [2]],
    "batch times batch": [[2], [2]],
    "broadcast batches": [[3, 1], [2]],
  };
  for (const [name, [a, b]] of Object.entries(layouts)) {
    test.each(flags)(`${name}, $transA $transB`, async (options) => {
      await checkGradients({
        inputs: {
          a: { sizes: dims(a, shape(3, 4, options.transA)) as number[] },
          b: { sizes: dims(b, shape(4, 2, options.transB)) as number[] },
        },
        build: (t) => matmul(t.a, t.b, { ...options, alpha: 0.5 }),
      });
    });
  }
  cases({
    "symbolic batch times weight": {
      inputs: { x: { sizes: [2, 3, 4], dims: ["b", "s", 4] }, w: { sizes: [5, 4] } },
      build: (t) => matmul(t.x, t.w, { transB: true }),
    },
    rope: {
      inputs: {
        x: { sizes: [3, 2, 6], dims: ["n", 2, 6] },
        cos: { sizes: [3, 3], dims: ["n", 3], grad: false },
        sin: { sizes: [3, 3], dims: ["n", 3], grad: false },
      },
      build: (t) => rope(t.x, t.cos, t.sin),
    },
  });

  test.each([
    { dims: ["n", 4], sizes: [6, 4] },
    { dims: ["b", "s", 4], sizes: [2, 3, 4] },
  ])("linear with LoRA on $dims is x (W + s b a)^T", async (x) => {
    const lora: Case = {
      inputs: { x, w: { sizes: [5, 4], grad: false }, a: { sizes: [2, 4] }, b: { sizes: [5, 2] } },
      build: (t) => mergedLora(t.x, t.w, t.a, t.b, 0.7),
    };
    await checkGradients(lora);
    await checkSinglePrecision(lora);
  });
});

test("a detached value passes no gradient", async () => {
  const graphOf = (detach: boolean): Case => ({
    inputs: { x: { sizes: [3] } },
    build: (t) => {
      const y = exp(t.x);
      y.needsGrad = !detach;
      return mul(t.x, y);
    },
  });
  await checkGradients(graphOf(false));
  await expect(checkGradients(graphOf(true))).rejects.toThrow(/gradient of x/);
});

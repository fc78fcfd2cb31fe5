import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  add,
  concat,
  exp,
  gatherRows,
  Graph,
  matmul,
  mul,
  reshape,
  rmsNorm,
  rope,
  sigmoid,
  softmax,
  split,
  splitAtBackward,
  sum,
  swiglu,
  tanh,
  transpose,
  type SplitGraph,
  type Tensor,
} from "./index.ts";
import {
  buildCase,
  checkGradients,
  checkSinglePrecision,
  compile,
  compileGraph,
  feedCase,
  inputPorts,
  mergedLora,
  outputPorts,
  type Case,
} from "./testing.ts";

const heads = 2;
const headDim = 4;
const hidden = heads * headDim;
const inner = 12;

/** A whole decoder block: norms, adapters, rotary, attention, gated MLP. */
const block: Case = {
  inputs: {
    x: { sizes: [2, 3, hidden], dims: ["b", "s", hidden] },
    cos: { sizes: [6, headDim / 2], dims: ["b*s", headDim / 2], grad: false },
    sin: { sizes: [6, headDim / 2], dims: ["b*s", headDim / 2], grad: false },
    mask: { sizes: [1, 1, 3, 3], dims: [1, 1, "s", "s"], data: [0, -9, -9, 0, 0, -9, 0, 0, 0], grad: false },
    norm1: { sizes: [hidden] },
    norm2: { sizes: [hidden] },
    ...Object.fromEntries(
      ["q", "k", "v", "o"].flatMap((name) => [
        [name, { sizes: [hidden, hidden], grad: false }],
        [`${name}.a`, { sizes: [2, hidden] }],
        [`${name}.b`, { sizes: [hidden, 2] }],
      ]),
    ),
    gate: { sizes: [inner, hidden] },
    up: { sizes: [inner, hidden] },
    down: { sizes: [hidden, inner] },
  },
  build(t) {
    const lora = (x: Tensor, name: string) => mergedLora(x, t[name], t[`${name}.a`], t[`${name}.b`], 2);
    const toHeads = (x: Tensor) =>
      transpose(reshape(x, ["b", "s", heads, headDim], [0, 0, heads, headDim]), [0, 2, 1, 3]);
    const rotated = (x: Tensor) =>
      reshape(rope(reshape(x, ["b*s", heads, headDim]), t.cos, t.sin), ["b", "s", hidden], x.graph.shape(t.x));
    const h = rmsNorm(t.x, t.norm1, 1e-5);
    const q = toHeads(rotated(lora(h, "q")));
    const k = toHeads(rotated(lora(h, "k")));
    const scores = matmul(q, k, { transB: true, alpha: 1 / Math.sqrt(headDim) });
    const mixed = matmul(softmax(add(scores, t.mask)), toHeads(lora(h, "v")));
    const attended = reshape(transpose(mixed, [0, 2, 1, 3]), ["b", "s", hidden], [0, 0, hidden]);
    const middle = add(t.x, lora(attended, "o"));
    const h2 = rmsNorm(middle, t.norm2, 1e-5);
    const gated = swiglu(matmul(h2, t.gate, { transB: true }), matmul(h2, t.up, { transB: true }));
    return add(middle, matmul(gated, t.down, { transB: true }));
  },
};

const cases: Record<string, Case> = {
  block,
  "one value through two views": {
    inputs: { x: { sizes: [2, 6], dims: ["n", 6] }, w: { sizes: [6, 6] } },
    build: (t) => {
      const y = matmul(t.x, t.w);
      const squares = exp(mul(reshape(y, ["n", 2, 3]), 0.1));
      return add(mul(squares, reshape(y, ["n", 2, 3])), reshape(mul(exp(mul(y, 0.1)), y), ["n", 2, 3]));
    },
  },
  "a sum of which only the shape is read": {
    inputs: { x: { sizes: [2, 3, 4], dims: ["b", "s", 4] }, w: { sizes: [4, 5] } },
    build: (t) => sum(matmul(exp(t.x), t.w), [0, 2]),
  },
};

async function runSplit(graph: Graph, halves: SplitGraph, feeds: Awaited<ReturnType<typeof feedCase>>) {
  const inputs = inputPorts(graph);
  const pick = (names: string[]) => names.map((name) => inputs.find((port) => port.name === name)!);
  const outputs = outputPorts(graph);
  const forwardOutputs = outputs.filter((port) => !port.name.startsWith("d."));
  const extra = halves.residuals.filter((residual) => !forwardOutputs.some((port) => port.name === residual.name));
  const forward = await compile(
    halves.forward,
    pick(halves.forwardInputs),
    [...forwardOutputs, ...extra],
    inputs,
  )(feeds);
  const kept = Object.fromEntries(halves.residuals.map(({ name, type }) => [name, { ...forward[name], type }]));
  const backward = await compile(
    halves.backward,
    [...pick(halves.backwardInputs), ...halves.residuals],
    outputs.filter((port) => port.name.startsWith("d.")),
    inputs,
  )({ ...feeds, ...kept });
  return { ...Object.fromEntries(forwardOutputs.map(({ name }) => [name, forward[name]])), ...backward };
}

async function expectHalvesEqualWhole(graph: Graph, feeds: Awaited<ReturnType<typeof feedCase>>, digits: number) {
  const whole = await compileGraph(graph)(feeds);
  const parts = await runSplit(graph, splitAtBackward(graph), feeds);
  expect(Object.keys(parts).sort()).toEqual(Object.keys(whole).sort());
  for (const key of Object.keys(whole)) {
    expect(parts[key].dims).toEqual(whole[key].dims);
    parts[key].data.forEach((value, i) => expect(value).toBeCloseTo(whole[key].data[i], digits));
  }
}

/** Programs over a growing list of [n, 4] values: each step takes two of them and appends its results. */
const steps: ((a: Tensor, b: Tensor, w: Tensor) => Tensor[])[] = [
  (a, b) => [add(a, b)],
  (a, b) => [mul(a, b)],
  (a, b, w) => [tanh(matmul(mul(a, 0.3), w)), b],
  (a) => [sigmoid(a)],
  (a, b) => [reshape(mul(reshape(a, ["n", 2, 2]), reshape(b, ["n", 2, 2])), ["n", 4])],
  (a, b) => {
    const [left, right] = split(a, 1, [1, 3]);
    return [mul(left, b), concat([exp(tanh(right)), left], 1)];
  },
  (a, b) => [rmsNorm(a, a.graph.constant([1, 2, 3, 4], [4]), 1e-5), softmax(b)],
];

test("the halves of random programs equal the whole", async () => {
  const program = fc.array(fc.tuple(fc.nat(steps.length - 1), fc.nat(), fc.nat()), { minLength: 2, maxLength: 9 });
  await fc.assert(
    fc.asyncProperty(program, async (chosen) => {
      const random: Case = {
        inputs: { x: { sizes: [3, 4], dims: ["n", 4] }, w: { sizes: [4, 4] } },
        build({ x, w }) {
          const values = [x, tanh(matmul(x, w))];
          for (const [step, i, j] of chosen) {
            values.push(...steps[step](values[values.length - 1 - (i % values.length)], values[j % values.length], w));
          }
          return values.slice(1).reduce((sum, value) => add(sum, value));
        },
      };
      await expectHalvesEqualWhole(buildCase(random, "float64"), await feedCase(random, 3), 9);
    }),
    { numRuns: 60, seed: 11 },
  );
});

describe("the halves equal the whole", () => {
  test.each(Object.keys(cases))("%s", async (name) => {
    for (const float of ["float64", "float32"] as const) {
      const feeds = await feedCase(cases[name], 3);
      await expectHalvesEqualWhole(buildCase(cases[name], float), feeds, float === "float64" ? 12 : 4);
    }
  });
});

test("the block's gradients are right", async () => {
  await checkGradients(block, 3);
  // Random weights saturate the softmax, which multiplies rounding.
  await checkSinglePrecision(block, 3, 1e-4);
});

test("cheap values are computed again from what is kept", () => {
  const graph = new Graph();
  const x = graph.input("x", ["n", 4], { grad: true });
  const w = graph.input("w", [4, 8], { grad: true });
  const y = matmul(x, w);
  const z = mul(mul(y, sigmoid(y)), y);
  graph.output("z", z);
  const [dx] = graph.backward([[z, graph.input("dz", ["n", 8])]], [x]);
  graph.output("dx", dx);
  expect(splitAtBackward(graph).residuals.map((residual) => residual.name)).toEqual([y.name]);
});

test("a sum is kept rather than its part that nobody else reads", () => {
  const graph = new Graph();
  const x = graph.input("x", ["n", 4], { grad: true });
  const w = graph.input("w", [4, 4]);
  const y = add(x, matmul(x, w));
  const z = mul(y, y);
  graph.output("z", z);
  const [dx] = graph.backward([[z, graph.input("dz", ["n", 4])]], [x]);
  graph.output("dx", dx);
  const halves = splitAtBackward(graph);
  expect(halves.residuals.map((residual) => residual.name)).toEqual([y.name]);
  expect(halves.forwardInputs).toEqual(["x", "w"]);
  expect(halves.backwardInputs).toEqual(["w", "dz"]);
});

test("a residual that is a named output goes by that name", async () => {
  const graph = new Graph("float64");
  const x = graph.input("x", [2, 3], { grad: true });
  const y = softmax(x);
  graph.output("y", y);
  const [dx] = graph.backward([[y, graph.input("dy", [2, 3])]], [x]);
  graph.output("dx", dx);
  const halves = splitAtBackward(graph);
  expect(halves.residuals).toEqual([{ name: "y", dims: [2, 3], type: "float64" }]);
  expect(halves.backwardInputs).toEqual(["dy"]);
});

test("rows gathered before the block are gathered again", () => {
  const graph = new Graph();
  const table = graph.input("table", ["m", 4]);
  const x = gatherRows(table, graph.input("index", ["n"], { type: "int32" }));
  x.needsGrad = true;
  const y = exp(x);
  const z = mul(x, y);
  graph.output("z", z);
  const [dx] = graph.backward([[z, graph.input("dz", ["n", 4])]], [x]);
  graph.output("dx", dx);
  const halves = splitAtBackward(graph);
  expect(halves.residuals.map((residual) => residual.name)).toEqual([y.name]);
  expect(halves.backwardInputs).toEqual(["table", "index", "dz"]);
});

test("a graph without a backward pass has no halves", () => {
  const graph = new Graph();
  graph.output("y", exp(graph.input("x", [2])));
  expect(() => splitAtBackward(graph)).toThrow(/no backward pass/);
});

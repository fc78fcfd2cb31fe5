import { describe, expect, test } from "vitest";
import { allocate, Runtime, Value } from "../runtime/index.ts";
import {
  add,
  cast,
  concat,
  cumsum,
  exp,
  gatherRows,
  Graph,
  greater,
  lessOrEqual,
  matmul,
  gemm,
  max,
  mul,
  pick,
  reshape,
  rope,
  slice,
  split,
  transpose,
  where,
  type Dim,
  type Tensor,
  rmsNorm,
  swiglu,
} from "./index.ts";
import { compileGraph, type Numbers } from "./testing.ts";

/** Runs a graph of one output on float32 (or given) inputs. */
async function evaluate(build: (graph: Graph, x: Tensor) => Tensor, x: Numbers): Promise<Numbers> {
  const graph = new Graph();
  graph.output("y", build(graph, graph.input("x", x.dims, { type: x.type })));
  return (await compileGraph(graph)({ x })).y;
}

const matrix: Numbers = { data: [1, 5, 3, 4, 2, 6], dims: [2, 3] };

describe("operators without a gradient", () => {
  test("max over an axis", async () => {
    expect(await evaluate((_, x) => max(x, [-1]), matrix)).toEqual({ data: [5, 6], dims: [2] });
    expect(await evaluate((_, x) => max(x, [0], true), matrix)).toEqual({ data: [4, 5, 6], dims: [1, 3] });
  });
  test("cumsum", async () => {
    expect(await evaluate((_, x) => cumsum(x), matrix)).toEqual({ data: [1, 6, 9, 4, 6, 12], dims: [2, 3] });
  });
  test("comparisons choose", async () => {
    const chosen = await evaluate((_, x) => where(greater(x, 3), x, where(lessOrEqual(x, 1), -1, 0)), matrix);
    expect(chosen.data).toEqual([-1, 5, 0, 4, 0, 6]);
  });
  test.each(["int32", "int64"] as const)("rows by %s index", async (type) => {
    const rows = await evaluate((graph, x) => gatherRows(x, graph.constant([1, 0, 1], [3, 1], type)), matrix);
    expect(rows).toEqual({ data: [4, 2, 6, 1, 5, 3, 4, 2, 6], dims: [3, 1, 3] });
  });
  test("gemm, and its output on its addend's memory", async () => {
    const graph = new Graph();
    const a = graph.input("a", ["k", 2]);
    const b = graph.input("b", [3, "k"]);
    graph.output("y", gemm([2, 3], a, b, { transA: true, transB: true, add: graph.input("c", [2, 3]) }));
    const value = (data: number[], dims: number[]) =>
      new Value(
        allocate("float32", data.length).map((_, i) => data[i]),
        dims,
      );
    const sum = value([10, 20, 30, 40, 50, 60], [2, 3]);
    const inputs = { a: value([1, 2], [1, 2]), b: value([1, 2, 3], [3, 1]), c: sum };
    await Runtime.open().createSession(graph.build()).bind(inputs, { y: sum }).run();
    expect([...sum.data]).toEqual([11, 22, 33, 42, 54, 66]);
  });
});

test("weights are bound when the session is created", async () => {
  const graph = new Graph();
  const x = graph.input("x", ["n", 2]);
  graph.output("y", matmul(x, graph.weight("w", [2, 2])));
  graph.weight("unused", [1000, 1000]);
  const value = (data: number[], dims: number[]) => new Value(Float32Array.from(data), dims);
  const session = Runtime.open().createSession(graph.build(), { weights: { w: value([1, 2, 3, 4], [2, 2]) } });
  const y = value([0, 0], [1, 2]);
  await session.bind({ x: value([1, 10], [1, 2]) }, { y }).run();
  expect([...y.data]).toEqual([31, 42]);
});

test("constants of every type arrive", async () => {
  const graph = new Graph("float64");
  const x = graph.input("x", [1]);
  const types = ["float32", "float64", "int64", "int32", "bool", "uint8"] as const;
  types.forEach((type, i) =>
    graph.output(type, mul(cast(graph.constant([i === 4 ? 1 : i + 3], [1], type), "float64"), x)),
  );
  graph.output("big", cast(graph.ints([-(2 ** 40)]), "float64"));
  graph.output("typed", graph.constant(Float64Array.of(0.1), [1]));
  const results = await compileGraph(graph)({ x: { data: [2], dims: [1] } });
  expect(types.map((type) => results[type].data[0])).toEqual([6, 8, 10, 12, 2, 16]);
  expect(results.big.data).toEqual([-(2 ** 40)]);
  expect(results.typed.data).toEqual([0.1]);
});

test("one value under several output names, and an input as an output", async () => {
  const graph = new Graph();
  const x = graph.input("x", [2]);
  const y = exp(x);
  for (const [name, tensor] of Object.entries({ y, again: y, x2: x })) graph.output(name, tensor);
  const results = await compileGraph(graph)({ x: { data: [0, 0], dims: [2] } });
  expect(results).toEqual({
    y: { data: [1, 1], dims: [2] },
    again: { data: [1, 1], dims: [2] },
    x2: { data: [0, 0], dims: [2] },
  });
});

test("what no output needs is left out", () => {
  const build = (extra: boolean) => {
    const graph = new Graph();
    const x = graph.input("x", [2]);
    graph.output("y", exp(x));
    if (extra) exp(add(x, graph.constant(new Float32Array(2), [2])));
    return graph.build();
  };
  expect(build(true)).toEqual(build(false));
});

test("gradients flow only towards what is asked for", () => {
  const graph = new Graph();
  const x = graph.input("x", ["n", 2], { grad: true });
  const w = graph.input("w", [2, 2], { grad: true });
  const y = matmul(x, w);
  graph.backward([[y, graph.input("dy", ["n", 2])]], [x]);
  expect(graph.nodes.map((node) => node.op)).toEqual(["MatMul", "FusedMatMul"]);
});

describe("errors", () => {
  const graph = new Graph();
  const at = (...dims: Dim[]) => graph.input(`in${graph.inputs.length}`, dims, { grad: true });
  test.each<[string, () => unknown, RegExp]>([
    ["broadcast", () => add(at(2, 3), at(2, 4)), /shapes \[2, 3\] and \[2, 4\] don't broadcast \(3 against 4\)/],
    ["symbols", () => mul(at("a"), at("b")), /\[a\] and \[b\]/],
    ["types", () => add(cast(at(2), "float64"), at(2)), /is float64, "in\d+" is float32; cast/],
    ["product", () => matmul(at(2, 3), at(2, 3)), /\[2, 3\] times \[2, 3\]: inner sizes 3 and 2 differ/],
    ["product of a vector", () => matmul(at(3), at(3, 2)), /two axes or more/],
    ["reshape", () => reshape(at(2, 3), [4, 2]), /\[2, 3\] and \[4, 2\] hold different numbers/],
    ["symbolic reshape", () => reshape(at("n", 6), ["n", 4]), /\[n, 6\] and \[n, 4\] hold different/],
    ["two unknowns", () => reshape(at("n", 6), ["a", "b"]), /more than one unknown/],
    ["transpose", () => transpose(at(2, 3), [0, 0]), /\[0, 0\] does not permute the axes of shape \[2, 3\]/],
    ["split", () => split(at(2, 3), 1, [1, 1]), /add up to 2, axis 1 of \[2, 3\]/],
    ["slice", () => slice(at(2, 3), 1, 2, 4), /2 to 4 lies outside axis 1 of shape \[2, 3\]/],
    ["concat", () => concat([at(2, 3), at(3, 3)], 1), /\[2, 3\], \[3, 3\] differ/],
    ["axis", () => max(at(2, 3), [2]), /axis 2 does not exist in shape \[2, 3\]/],
    ["pick", () => pick(at(2, 3), graph.ints([1, 2, 0])), /found \[2, 3\] and \[3\]/],
    ["rope", () => rope(at("n", 2, 8), at("n", 8), at("n", 8)), /\[n, 8\] do not fit x \[n, 2, 8\]/],
    ["index type", () => gatherRows(at(2), cast(at(2), "bool")), /found bool/],
    ["constant", () => graph.constant([1, 2], [3]), /2 values for shape \[3\]/],
    ["name", () => [graph.input("same", []), graph.input("same", [])], /two tensors named "same"/],
    ["stranger", () => exp(add(at(1), new Graph().input("x", [1]))), /"x" belongs to another graph/],
    ["no output", () => new Graph().build(), /no outputs/],
  ])("%s", (_name, run, message) => {
    expect(run).toThrow(message);
  });

  test("gradients that don't exist", () => {
    const x = at(2, 3);
    const other = at(2, 3);
    const fixed = graph.input("fixed", [2, 3]);
    const y = exp(x);
    expect(() => graph.backward([[y, x]], [other])).toThrow(`no path leads from the given outputs to "${other.name}"`);
    expect(() => graph.backward([[y, x]], [fixed])).toThrow('"fixed" was made without grad');
    expect(() => graph.backward([[y, at(3, 2)]], [x])).toThrow(/\[3, 2\].*\[2, 3\]/);
    const rows = gatherRows(x, graph.ints([0]));
    expect(() => graph.backward([[rows, rows]], [x])).toThrow(/Gather has no gradient rule/);
  });
});

test("a portable graph computes the same with ONNX's own operators alone", async () => {
  const build = (portable: boolean) => {
    const graph = new Graph("float32", { portable });
    const x = graph.input("x", [2, 2, 4]);
    const table = (values: number[]) => graph.constant(values, [2, 2]);
    const turned = rope(
      rmsNorm(x, graph.constant([1, 2, 3, 4], [4]), 1e-5),
      table([1, 0.5, 0, -1]),
      table([0, 0.5, 1, 0]),
    );
    graph.output("y", swiglu(matmul(turned, turned, { transB: true, alpha: 0.5 }), matmul(x, x, { transB: true })));
    graph.output("z", matmul(turned, x, { transA: true }));
    return graph;
  };
  const given = { x: { data: Array.from({ length: 16 }, (_, i) => Math.sin(i)), dims: [2, 2, 4] } };
  const [portable, fused] = [build(true), build(false)];
  const [a, b] = [await compileGraph(portable)(given), await compileGraph(fused)(given)];
  for (const name of ["y", "z"]) a[name].data.forEach((v, i) => expect(v).toBeCloseTo(b[name].data[i], 5));
  const ops = (graph: Graph) => graph.nodes.map(({ op, domain }) => `${domain} ${op}`);
  const own = ["RotaryEmbedding", "SimplifiedLayerNormalization", "com.microsoft"];
  for (const op of own) {
    expect(ops(fused).some((name) => name.includes(op))).toBe(true);
    expect(ops(portable).some((name) => name.includes(op))).toBe(false);
  }
  const foreign = new Graph("float32", { portable: true });
  const x = foreign.input("x", [2]);
  foreign.output("y", foreign.node("Gelu", [x], [{ dims: [2] }], {}, { domain: "com.microsoft" })[0]);
  expect(() => foreign.build()).toThrow("Gelu is not one of ONNX's own operators");
});

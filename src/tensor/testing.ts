import { expect } from "vitest";
import { allocate, Runtime, Value } from "../runtime/index.ts";
import { add, Graph, linear, matmul, type Dim, type DType, type Tensor } from "./index.ts";
import { flattenRows, reshapeLike } from "./shape.ts";

// Shared by the tests of this room: graphs built, run and differentiated numerically.

/** Numbers with their shape; integers and booleans travel as numbers too. */
export interface Numbers {
  data: number[];
  dims: number[];
  type?: DType;
}

type Float = "float32" | "float64";

/** What a model has for inputs or outputs. */
export interface Port {
  name: string;
  dims: readonly Dim[];
  type: DType;
}

const ports = (named: readonly { name: string; tensor: Tensor }[]): Port[] =>
  named.map(({ name, tensor }) => ({ name, dims: tensor.dims, type: tensor.type }));

export const inputPorts = (graph: Graph): Port[] =>
  ports(graph.inputs.map((tensor) => ({ name: tensor.name, tensor })));

export const outputPorts = (graph: Graph): Port[] => ports(graph.outputs);

/** A size, or a sum of products of symbols such as "2*b*s+n". */
const evaluate = (dim: Dim, sizes: ReadonlyMap<string, number>): number =>
  typeof dim === "number"
    ? dim
    : dim
        .split("+")
        .map((term) => term.split("*").reduce((product, factor) => product * (sizes.get(factor) ?? Number(factor)), 1))
        .reduce((sum, term) => sum + term, 0);

function toValue(data: number[] | null, dims: number[], type: DType): Value {
  const array = allocate(type, sizeOf(dims));
  if (data && array instanceof BigInt64Array) array.set(data.map(BigInt));
  else if (data && !(array instanceof BigInt64Array)) array.set(data);
  return new Value(array, dims, type);
}

/** Compiles a model; the result runs it on those of the inputs that it has. Output shapes are checked against the declared ones.
 * `sized`: the inputs that tell what the symbols stand for. */
export function compile(model: Uint8Array, inputs: readonly Port[], outputs: readonly Port[], sized = inputs) {
  const session = Runtime.open().createSession(model);
  return async (given: Record<string, Numbers>): Promise<Record<string, Numbers>> => {
    const sizes = new Map<string, number>();
    for (const { name, dims } of sized) dims.forEach((dim, i) => sizes.set(String(dim), given[name].dims[i]));
    const feeds = inputs.map(({ name, type }) => [name, toValue(given[name].data, given[name].dims, type)]);
    const results = outputs.map(({ name, dims, type }): [string, Value] => [
      name,
      toValue(
        null,
        dims.map((dim) => evaluate(dim, sizes)),
        type,
      ),
    ]);
    await session.bind(Object.fromEntries(feeds), Object.fromEntries(results)).run();
    return Object.fromEntries(
      results.map(([name, { data, dims }]) => [name, { data: Array.from(data, Number), dims: [...dims] }]),
    );
  };
}

export const compileGraph = (graph: Graph) => compile(graph.build(), inputPorts(graph), outputPorts(graph));

/** One input of a case: its run-time sizes, and its symbolic shape where that differs. */
export interface CaseInput {
  sizes: number[];
  dims?: Dim[];
  /** Random normal numbers when absent. */
  data?: number[];
  type?: DType;
  /** False: not differentiated. */
  grad?: boolean;
}

export interface Case {
  inputs: Record<string, CaseInput>;
  build(inputs: Record<string, Tensor>): Tensor | Tensor[];
}

/**
 * `linear` on weights merged in the graph, w + scale b a, whose dependence on a and b is hidden from the chain rule:
 * `linear`'s own has to supply it.
 */
export function mergedLora(x: Tensor, w: Tensor, a: Tensor, b: Tensor, scale: number): Tensor {
  const merge = () => [add(w, matmul(b, a, { alpha: scale }))];
  const [merged] = x.graph.composite("merge", [w], merge, () => [null]);
  const zeros = ({ graph, dims }: Tensor) =>
    graph.constant(new Float32Array(sizeOf(dims.map(Number))), dims.map(Number), graph.float);
  const y = linear(flattenRows(x), merged, { lora: { a, b, scale, sumA: zeros(a), sumB: zeros(b) } });
  return x.rank === 2 ? y : reshapeLike(y, matmul(x, w, { transB: true }));
}

/** Reproducible numbers, roughly standard normal. */
export function randomNumbers(seed: number): () => number {
  let state = seed * 2654435761 + 12345;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 4294967296;
  };
  for (let i = 0; i < 8; i++) uniform();
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

const sizeOf = (sizes: number[]) => sizes.reduce((product, size) => product * size, 1);

const differentiable = ({ type, grad = true }: CaseInput) => type === undefined && grad;

/** The graph of a case with outputs y0, y1, .. and, named d.<input>, its gradients for seeds dy0, dy1, .. */
export function buildCase(test: Case, float: Float): Graph {
  const graph = new Graph(float);
  const tensors: Record<string, Tensor> = {};
  for (const [name, input] of Object.entries(test.inputs)) {
    tensors[name] = graph.input(name, input.dims ?? input.sizes, { type: input.type, grad: differentiable(input) });
  }
  const outputs = [test.build(tensors)].flat();
  outputs.forEach((y, i) => graph.output(`y${i}`, y));
  const seeds = outputs.map((y, i): [Tensor, Tensor] => [y, graph.input(`dy${i}`, y.dims)]);
  const wrt = Object.keys(test.inputs).filter((name) => differentiable(test.inputs[name]));
  const gradients = graph.backward(
    seeds,
    wrt.map((name) => tensors[name]),
  );
  wrt.forEach((name, i) => graph.output(`d.${name}`, gradients[i]));
  return graph;
}

/** Inputs of a case, and seeds in the shapes of its outputs. */
export async function feedCase(test: Case, seed: number): Promise<Record<string, Numbers>> {
  const next = randomNumbers(seed);
  const feeds: Record<string, Numbers> = {};
  for (const [name, { sizes, data, type }] of Object.entries(test.inputs)) {
    feeds[name] = { data: data ?? Array.from({ length: sizeOf(sizes) }, next), dims: sizes, type };
  }
  const forward = new Graph("float64");
  const tensors = Object.fromEntries(
    Object.entries(test.inputs).map(([name, { sizes, dims, type }]) => [
      name,
      forward.input(name, dims ?? sizes, { type }),
    ]),
  );
  [test.build(tensors)].flat().forEach((y, i) => forward.output(`y${i}`, y));
  for (const [name, { dims }] of Object.entries(await compileGraph(forward)(feeds))) {
    feeds[`d${name}`] = { data: Array.from({ length: sizeOf(dims) }, next), dims };
  }
  return feeds;
}

const norm = (values: number[]) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));

/** ||a - b|| / ||b||. */
export function relativeError(a: number[], b: number[]): number {
  expect(a.length).toBe(b.length);
  return norm(a.map((value, i) => value - b[i])) / norm(b);
}

/** Checks results and gradients of a case in float32, where operators are fused, against those in float64. */
export async function checkSinglePrecision(test: Case, seed = 1, limit = 1e-5): Promise<void> {
  const feeds = await feedCase(test, seed);
  // Both start from numbers that float32 holds exactly.
  for (const numbers of Object.values(feeds)) numbers.data = numbers.data.map(Math.fround);
  const exact = await compileGraph(buildCase(test, "float64"))(feeds);
  const single = await compileGraph(buildCase(test, "float32"))(feeds);
  for (const [name, { data }] of Object.entries(exact)) {
    expect(relativeError(single[name].data, data), name).toBeLessThan(limit);
  }
}

/** Checks every gradient of a case against central differences in float64. */
export async function checkGradients(test: Case, seed = 1, limit = 1e-6): Promise<void> {
  const step = 1e-5;
  const feeds = await feedCase(test, seed);
  const run = compileGraph(buildCase(test, "float64"));
  const analytic = await run(feeds);
  const loss = async () => {
    const results = await run(feeds);
    let total = 0;
    for (let i = 0; `y${i}` in results; i++) {
      const dy = feeds[`dy${i}`].data;
      results[`y${i}`].data.forEach((y, j) => (total += y * dy[j]));
    }
    return total;
  };
  for (const [name, input] of Object.entries(test.inputs)) {
    if (!differentiable(input)) continue;
    const { data } = feeds[name];
    const numeric: number[] = [];
    for (let i = 0; i < data.length; i++) {
      const middle = data[i];
      data[i] = middle + step;
      const above = await loss();
      data[i] = middle - step;
      const below = await loss();
      data[i] = middle;
      numeric.push((above - below) / (2 * step));
    }
    const found = analytic[`d.${name}`];
    expect(found.dims).toEqual(input.sizes);
    expect(norm(numeric), `the gradient of ${name} must not vanish`).toBeGreaterThan(1e-3);
    expect(relativeError(found.data, numeric), `gradient of ${name}`).toBeLessThan(limit);
  }
}

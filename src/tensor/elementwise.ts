import { broadcastDims, type Dim } from "./dims.ts";
import type { Graph, Tensor } from "./graph.ts";
import { unbroadcast } from "./reduce.ts";

export type Operand = Tensor | number;
type Pair = { a: Tensor; b: Tensor; graph: Graph; dims: Dim[] };

/** Brings two operands into one graph and type; a number takes the other's. */
function pair(a: Operand, b: Operand, what: string): Pair {
  const known = typeof a !== "number" ? a : b;
  if (typeof known === "number") throw new Error(`${what}: one operand must be a tensor`);
  const { graph, type } = known;
  const [x, y] = [a, b].map((operand) => (typeof operand === "number" ? graph.scalar(operand, type) : operand));
  if (x.type !== y.type)
    throw new Error(`${what}: "${x.name}" is ${x.type}, "${y.name}" is ${y.type}; cast one of them`);
  return { a: x, b: y, graph, dims: broadcastDims(x.dims, y.dims, what) };
}

/** The gradients of both operands, before they are summed over what broadcasting repeated. */
type BinaryRule = (dy: Tensor, a: Tensor, b: Tensor, y: Tensor) => [() => Tensor, () => Tensor];

const binary =
  (op: string, rule: BinaryRule) =>
  (left: Operand, right: Operand): Tensor => {
    const { a, b, graph, dims } = pair(left, right, op.toLowerCase());
    const y: Tensor = graph.node(
      op,
      [a, b],
      [{ dims, type: a.type }],
      {},
      {
        broadcastGradients: true,
        backward: ([dy]) => {
          if (!dy) return [null, null];
          const [da, db] = rule(dy, a, b, y);
          return [() => unbroadcast(da(), a, y), () => unbroadcast(db(), b, y)];
        },
      },
    )[0];
    return y;
  };

export const add = binary("Add", (dy) => [() => dy, () => dy]);
export const sub = binary("Sub", (dy) => [() => dy, () => neg(dy)]);
export const mul = binary("Mul", (dy, a, b) => [() => mul(dy, b), () => mul(dy, a)]);
export const div = binary("Div", (dy, _a, b, y) => [() => div(dy, b), () => neg(mul(dy, div(y, b)))]);
/** Where both are equal the gradient goes to the first. */
export const minimum = binary("Min", (dy, a, b) => choose(compare("LessOrEqual", a, b), dy));
/** Where both are equal the gradient goes to the first. */
export const maximum = binary("Max", (dy, a, b) => choose(compare("GreaterOrEqual", a, b), dy));

function compare(op: string, left: Operand, right: Operand): Tensor {
  const { a, b, graph, dims } = pair(left, right, op);
  return graph.node(op, [a, b], [{ dims, type: "bool" }])[0];
}

export const greater = (a: Operand, b: Operand): Tensor => compare("Greater", a, b);
export const lessOrEqual = (a: Operand, b: Operand): Tensor => compare("LessOrEqual", a, b);

const choose = (condition: Tensor, dy: Tensor): [() => Tensor, () => Tensor] => [
  () => where(condition, dy, 0),
  () => where(condition, 0, dy),
];

/** a where the condition (bool) holds, else b. */
export function where(condition: Tensor, left: Operand, right: Operand): Tensor {
  const numbers = typeof left === "number" && typeof right === "number";
  const { a, b, graph, dims: both } = pair(numbers ? condition.graph.scalar(left) : left, right, "where");
  const dims = broadcastDims(condition.dims, both, "where");
  const y: Tensor = graph.node(
    "Where",
    [condition, a, b],
    [{ dims, type: a.type }],
    {},
    {
      broadcastGradients: true,
      backward: ([dy]) => {
        if (!dy) return [null, null, null];
        const [da, db] = choose(condition, dy);
        return [null, () => unbroadcast(da(), a, y), () => unbroadcast(db(), b, y)];
      },
    },
  )[0];
  return y;
}

const unary =
  (op: string, rule: (dy: Tensor, x: Tensor, y: Tensor) => Tensor) =>
  (x: Tensor): Tensor => {
    const y: Tensor = x.graph.node(
      op,
      [x],
      [{ dims: x.dims, type: x.type }],
      {},
      { broadcastGradients: true, backward: ([dy]) => [dy && (() => rule(dy, x, y))] },
    )[0];
    return y;
  };

export const neg = unary("Neg", (dy) => neg(dy));
export const exp = unary("Exp", (dy, _x, y) => mul(dy, y));
export const log = unary("Log", (dy, x) => div(dy, x));
export const sqrt = unary("Sqrt", (dy, _x, y) => div(dy, mul(y, 2)));
export const sigmoid = unary("Sigmoid", (dy, _x, y) => mul(dy, mul(y, sub(1, y))));
export const tanh = unary("Tanh", (dy, _x, y) => mul(dy, sub(1, mul(y, y))));
export const relu = unary("Relu", (dy, x) => where(greater(x, 0), dy, 0));

/** x sigmoid(x), also called swish. */
export function silu(x: Tensor): Tensor {
  const forward = () => {
    // Not x sigmoid(x) for float64: ONNX Runtime would fuse that into an operator that it lacks there.
    if (x.type === "float64") return [div(x, add(exp(neg(x)), 1))];
    if (x.graph.portable) return [mul(x, sigmoid(x))];
    return x.graph.node("QuickGelu", [x], [{ dims: x.dims }], { alpha: { float: 1 } }, { domain: "com.microsoft" });
  };
  const [y] = x.graph.composite("silu", [x], forward, ([dy]) => [
    dy &&
      (() => {
        // y' = s + y (1 - s), so dx = dy y + s (dy - dy y): five passes over memory.
        const dyy = mul(dy, y);
        return add(dyy, mul(sigmoid(x), sub(dy, dyy)));
      }),
  ]);
  return y;
}

/** silu(gate) * up, the gated unit of Llama's feed-forward layer (Shazeer, arXiv 2002.05202), whose backward shares its passes. */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  let activated: Tensor;
  const forward = () => [mul((activated = silu(gate)), up)];
  return gate.graph.composite("swiglu", [gate, up], forward, ([dy]) => {
    if (!dy) return [null, null];
    let memo: Tensor | undefined;
    const dUp = () => (memo ??= mul(dy, activated));
    // dgate = dy up (s + y (1 - s)) with y = silu(gate); dy y is dup, so dgate = up (dup + s (dy - dup)).
    return [() => mul(up, add(dUp(), mul(sigmoid(gate), sub(dy, dUp())))), dUp];
  })[0];
}

import { broadcastDims, showDims, type Dim } from "./dims.ts";
import { mul } from "./elementwise.ts";
import type { Rule, Tensor } from "./graph.ts";
import { unbroadcast } from "./reduce.ts";
import { flattenRows, transpose } from "./shape.ts";

export interface MatmulOptions {
  /** Take a, or b, with its last two axes exchanged. */
  transA?: boolean;
  transB?: boolean;
  /** Scales the product. */
  alpha?: number;
}

/** alpha * op(a) op(b): [.., m, k] and [.., k, n] -> [.., m, n], leading axes broadcast. */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const { transA = false, transB = false, alpha = 1 } = options;
  const { graph } = a;
  const dims = productDims(a, b, transA, transB);
  const outputs = [{ dims, type: a.type }];
  const attributes = { transA: Number(transA), transB: Number(transB), alpha: { float: alpha } };
  const backward: Rule = ([dy]) => {
    if (!dy) return [null, null];
    const da = () =>
      transA ? matmul(b, dy, { transA: transB, transB: true, alpha }) : matmul(dy, b, { transB: !transB, alpha });
    const db = () => {
      // Rows of all batches together: one product sums over the batch.
      const flat = b.rank === 2 && !transA;
      const left = flat ? flattenRows(a) : a;
      const right = flat ? flattenRows(dy) : dy;
      return transB
        ? matmul(right, left, { transA: true, transB: transA, alpha })
        : matmul(left, right, { transA: !transA, alpha });
    };
    return [() => sumBatches(da(), a), () => sumBatches(db(), b)];
  };
  if (graph.portable) {
    const turned = (x: Tensor, turn: boolean) => (turn ? transpose(x, lastTwoExchanged(x.rank)) : x);
    const product = graph.node("MatMul", [turned(a, transA), turned(b, transB)], outputs)[0];
    return alpha === 1 ? product : mul(product, alpha);
  }
  return transA || transB || alpha !== 1
    ? graph.node("FusedMatMul", [a, b], outputs, attributes, { domain: "com.microsoft", backward })[0]
    : graph.node("MatMul", [a, b], outputs, {}, { backward })[0];
}

const lastTwoExchanged = (rank: number): number[] =>
  Array.from({ length: rank }, (_, i) => (i < rank - 2 ? i : 2 * rank - 3 - i));

function productDims(a: Tensor, b: Tensor, transA: boolean, transB: boolean): Dim[] {
  const show = () => `matmul: ${showDims(a.dims)}${transA ? "^T" : ""} times ${showDims(b.dims)}${transB ? "^T" : ""}`;
  if (a.rank < 2 || b.rank < 2) throw new Error(`${show()}: both need two axes or more`);
  if (a.type !== b.type) throw new Error(`${show()}: types ${a.type} and ${b.type}`);
  const [m, k] = transA ? a.dims.slice(-2).reverse() : a.dims.slice(-2);
  const [inner, n] = transB ? b.dims.slice(-2).reverse() : b.dims.slice(-2);
  if (k !== inner) throw new Error(`${show()}: inner sizes ${k} and ${inner} differ`);
  return [...broadcastDims(a.dims.slice(0, -2), b.dims.slice(0, -2), show()), m, n];
}

const sumBatches = (gradient: Tensor, operand: Tensor): Tensor => unbroadcast(gradient, operand, gradient);

export interface LoraInputs {
  /** [rank, in] and [out, rank]; the weight already holds W + scale * b a. */
  a: Tensor;
  b: Tensor;
  scale: number;
  /** Gradients so far. */
  sumA: Tensor;
  sumB: Tensor;
}

export interface LinearOptions {
  /** [out] */
  bias?: Tensor;
  /** [rows, out], added to the result. Not together with a bias. */
  residual?: Tensor;
  /** The weight's gradient so far; without one (and without LoRA) the weight is frozen. */
  sum?: Tensor;
  lora?: LoraInputs;
}

/**
 * y = x weight^T (+ bias or residual), one Gemm each way. A matrix's gradient is added onto the sum given, so that a caller can
 * bind the new sum onto the old one's memory. With LoRA (Hu et al. 2021) a and b get gradients and the weight none:
 * da = scale (dy b)^T x, db = scale dy^T (x a^T), and dx = dy weight holds the adapters' share because the weight does.
 */
export function linear(x: Tensor, weight: Tensor, options: LinearOptions = {}): Tensor {
  const { graph } = x;
  const { bias, residual, sum, lora } = options;
  const rows = x.dims[0];
  const [out, width] = weight.dims;
  const added = residual ?? bias;
  const inputs = [x, weight, ...(added ? [added] : []), ...(lora ? [lora.a, lora.b] : [])];
  const forward = () => [gemm([rows, out], x, weight, { transB: true, add: added })];
  const [y] = graph.composite("linear", inputs, forward, ([dy]) => {
    if (!dy) return inputs.map(() => null);
    const dx = () => gemm([rows, width], dy, weight);
    const dWeight = sum ? () => gemm([out, width], dy, x, { transA: true, add: sum }) : null;
    const dAdded = added ? [residual ? () => dy : () => columnSum(dy)] : [];
    if (!lora) return [dx, dWeight, ...dAdded];
    const { a, b, scale, sumA, sumB } = lora;
    const rank = a.dims[0];
    const da = () => gemm([rank, width], gemm([rows, rank], dy, b), x, { transA: true, alpha: scale, add: sumA });
    const db = () =>
      gemm([out, rank], dy, gemm([rows, rank], x, a, { transB: true }), { transA: true, alpha: scale, add: sumB });
    return [dx, null, ...dAdded, da, db];
  });
  return y;
}

/**
 * alpha * op(a) op(b) + add for matrices, of the given shape, as one Gemm; its output may be bound onto the addend's memory.
 * No gradient: `linear` has one.
 */
export function gemm(
  dims: Dim[],
  a: Tensor,
  b: Tensor,
  options: { transA?: boolean; transB?: boolean; alpha?: number; add?: Tensor } = {},
): Tensor {
  const { transA = false, transB = false, alpha = 1, add } = options;
  const attributes = { transA: Number(transA), transB: Number(transB), alpha: { float: alpha } };
  return a.graph.node("Gemm", add ? [a, b, add] : [a, b], [{ dims, type: a.type }], attributes)[0];
}

function columnSum(t: Tensor): Tensor {
  const { graph } = t;
  return graph.node("ReduceSum", [t, graph.ints([0])], [{ dims: [t.dims[1]], type: t.type }], { keepdims: 0 })[0];
}

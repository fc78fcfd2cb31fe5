import { broadcastDims, showDims, type Dim } from "./dims.ts";
import type { Rule, Tensor } from "./graph.ts";
import { unbroadcast } from "./reduce.ts";
import { flattenRows, reshapeLike } from "./shape.ts";

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
  return transA || transB || alpha !== 1
    ? graph.node("FusedMatMul", [a, b], outputs, attributes, { domain: "com.microsoft", backward })[0]
    : graph.node("MatMul", [a, b], outputs, {}, { backward })[0];
}

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

/**
 * x weight^T for x [.., in] and weight [out, in], where weight already holds W + scale * b a (a [r, in], b [out, r]): the adapter costs
 * nothing in the forward pass. Gradients: dx = dy weight; da = scale (dy b)^T x and db = scale dy^T (x a^T), which are those of
 * x (W + scale * b a)^T; NONE for weight, which is frozen.
 */
export function linearLora(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: number): Tensor {
  const forward = () => [matmul(x, weight, { transB: true })];
  return x.graph.composite("linearLora", [x, weight, a, b], forward, ([dy]) => {
    if (!dy) return [null, null, null, null];
    const dyRows = flattenRows(dy);
    const xRows = flattenRows(x);
    return [
      () => reshapeLike(matmul(dyRows, weight), x),
      null,
      () => matmul(matmul(dyRows, b, { alpha: scale }), xRows, { transA: true }),
      () => matmul(dyRows, matmul(xRows, a, { transB: true, alpha: scale }), { transA: true }),
    ];
  })[0];
}

/** c + op(a) op(b) for matrices, as one Gemm whose output may be bound onto c's memory. No gradient. */
export function matmulAdd(a: Tensor, b: Tensor, c: Tensor, options: Omit<MatmulOptions, "alpha"> = {}): Tensor {
  const { transA = false, transB = false } = options;
  const dims = productDims(a, b, transA, transB);
  if (dims.length !== 2 || showDims(dims) !== showDims(c.dims)) {
    throw new Error(`matmulAdd: the product has shape ${showDims(dims)}, what it is added to ${showDims(c.dims)}`);
  }
  const attributes = { transA: Number(transA), transB: Number(transB) };
  return a.graph.node("Gemm", [a, b, c], [{ dims, type: a.type }], attributes)[0];
}

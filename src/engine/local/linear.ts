import type { Dim, Tensor } from "../../tensor/index.ts";

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

/** alpha * op(a) op(b) + add, of the given shape. */
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

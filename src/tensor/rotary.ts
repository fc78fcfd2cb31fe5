import { sameDims, showDims } from "./dims.ts";
import { add, mul, neg, sub } from "./elementwise.ts";
import type { Tensor } from "./graph.ts";
import { concat, reshape, split } from "./shape.ts";

/**
 * Rotary position embedding, half-split (Su et al., arXiv 2104.09864, in the layout of Llama): x [n, heads, headDim] with the
 * angles' cosines and sines, [n, headDim / 2], of each row's position.
 */
export function rope(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const [rows, heads, headDim] = x.dims;
  if (x.rank !== 3 || typeof heads !== "number" || typeof headDim !== "number") {
    throw new Error(`rope: expected x [n, heads, headDim] with known heads and headDim, found ${showDims(x.dims)}`);
  }
  for (const table of [cos, sin]) {
    if (!sameDims(table.dims, [rows, headDim / 2])) {
      throw new Error(`rope: tables ${showDims(table.dims)} do not fit x ${showDims(x.dims)}`);
    }
  }
  const turn = x.type === "float32" && !x.graph.portable ? turnFused : turnDecomposed;
  return x.graph.composite(
    "rope",
    [x],
    () => [turn(x, cos, sin)],
    ([dy]) => [dy && (() => turn(dy, cos, neg(sin)))],
  )[0];
}

function turnFused(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const [rows, heads, headDim] = x.dims;
  const half = cos.dims[1];
  const width = Number(heads) * Number(headDim);
  const flat = [x, cos, sin].map((t, i) => reshape(t, [1, rows, i === 0 ? width : half]));
  const [y] = x.graph.node("RotaryEmbedding", flat, [{ dims: flat[0].dims }], { num_heads: Number(heads) });
  return reshape(y, x.dims);
}

function turnDecomposed(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const [rows, , headDim] = x.dims;
  const half = Number(headDim) / 2;
  const [c, s] = [cos, sin].map((table) => reshape(table, [rows, 1, half]));
  const [left, right] = split(x, 2, [half, half]);
  return concat([sub(mul(left, c), mul(right, s)), add(mul(right, c), mul(left, s))], 2);
}

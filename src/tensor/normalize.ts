import { axisOf, showDims } from "./dims.ts";
import { add, div, exp, mul, sqrt, sub } from "./elementwise.ts";
import type { Tensor } from "./graph.ts";
import { matmul } from "./linear.ts";
import { sum } from "./reduce.ts";
import { flattenRows, reshape } from "./shape.ts";

/** Over axes of known size. */
export function mean(x: Tensor, axes: readonly number[], keep = false): Tensor {
  const count = axes.reduce((product, axis) => {
    const size = x.dims[axisOf(axis, x.dims, "mean")];
    if (typeof size !== "number") throw new Error(`mean: axis ${axis} of ${showDims(x.dims)} has no known size`);
    return product * size;
  }, 1);
  return mul(sum(x, axes, keep), 1 / count);
}

/** exp(x) / sum exp(x) over the last axis. */
export function softmax(x: Tensor): Tensor {
  const last = x.rank - 1;
  const y: Tensor = x.graph.node(
    "Softmax",
    [x],
    [{ dims: x.dims, type: x.type }],
    { axis: last },
    { backward: ([dy]) => [dy && (() => mul(sub(dy, sum(mul(dy, y), [last], true)), y))] },
  )[0];
  return y;
}

/** log softmax over the last axis. */
export function logSoftmax(x: Tensor): Tensor {
  const last = x.rank - 1;
  const y: Tensor = x.graph.node(
    "LogSoftmax",
    [x],
    [{ dims: x.dims, type: x.type }],
    { axis: last },
    { backward: ([dy]) => [dy && (() => sub(dy, mul(exp(y), sum(dy, [last], true))))] },
  )[0];
  return y;
}

/** weight * x / sqrt(mean(x^2) + eps) over the last axis (Zhang and Sennrich, arXiv 1910.07467). */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
  const { graph } = x;
  const last = x.rank - 1;
  const width = x.dims[last];
  if (typeof width !== "number" || weight.rank !== 1 || weight.dims[0] !== width) {
    throw new Error(`rmsNorm: weight ${showDims(weight.dims)} does not fit x ${showDims(x.dims)}`);
  }
  let inverse: Tensor;
  const forward = () => {
    if (x.type === "float64" || graph.portable) {
      // The fused operator gives its inverse in float32 whatever x is.
      inverse = div(1, sqrt(add(mean(mul(x, x), [last], true), eps)));
      return [mul(mul(x, inverse), weight)];
    }
    const [y, inverseRms] = graph.node(
      "SimplifiedLayerNormalization",
      [x, weight],
      [{ dims: x.dims }, { dims: x.dims.with(last, 1) }],
      { axis: -1, epsilon: { float: eps } },
    );
    inverse = inverseRms;
    return [y];
  };
  return graph.composite("rmsNorm", [x, weight], forward, ([dy]) => {
    if (!dy) return [null, null];
    let memo: Tensor | undefined;
    const dyx = () => (memo ??= mul(dy, x));
    return [
      () => {
        // dx = i w dy - x i^3 mean(w dy x), i = 1/rms; the mean as a product with w / n reads dy x once.
        const column = reshape(mul(weight, 1 / width), [width, 1]);
        const slope = mul(matmul(dyx(), column), mul(inverse, mul(inverse, inverse)));
        return sub(mul(mul(dy, weight), inverse), mul(x, slope));
      },
      // dw = sum over rows of dy x i.
      () => reshape(matmul(flattenRows(inverse), flattenRows(dyx()), { transA: true }), weight.dims),
    ];
  })[0];
}

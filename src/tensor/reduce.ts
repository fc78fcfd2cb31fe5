import { axisOf, type Dim } from "./dims.ts";
import type { Tensor } from "./graph.ts";

const reducedDims = (dims: readonly Dim[], axes: readonly number[], keep: boolean): Dim[] =>
  keep ? dims.map((dim, i) => (axes.includes(i) ? 1 : dim)) : dims.filter((_, i) => !axes.includes(i));

/** The gradient is the result's, repeated along the axes: broadcasting does that, so nothing is copied. */
export function sum(x: Tensor, axes: readonly number[], keep = false): Tensor {
  const at = axes.map((axis) => axisOf(axis, x.dims, "sum")).sort((a, b) => a - b);
  if (at.length === 0) return x;
  const { graph } = x;
  const y: Tensor = graph.node(
    "ReduceSum",
    [x, graph.ints(at)],
    [{ dims: reducedDims(x.dims, at, keep), type: x.type }],
    { keepdims: Number(keep) },
    {
      broadcastGradients: true,
      backward: ([dy]) => [
        dy &&
          (() => (keep || dy.rank === 0 ? dy : insertUnitDims(dy.rank === y.rank ? dy : graph.expandLike(dy, y), at))),
        null,
      ],
    },
  )[0];
  return y;
}

function insertUnitDims(x: Tensor, axes: readonly number[]): Tensor {
  const dims = [...x.dims];
  for (const axis of axes) dims.splice(axis, 0, 1);
  return x.graph.node("Unsqueeze", [x, x.graph.ints(axes)], [{ dims, type: x.type }])[0];
}

/** The largest element; no gradient. */
export function max(x: Tensor, axes: readonly number[], keep = false): Tensor {
  const at = axes.map((axis) => axisOf(axis, x.dims, "max"));
  const dims = reducedDims(x.dims, at, keep);
  return x.graph.node("ReduceMax", [x, x.graph.ints(at)], [{ dims, type: x.type }], { keepdims: Number(keep) })[0];
}

/**
 * Turns the gradient of a broadcast result (shape of `y`, or something that broadcasts to it) into that of one operand: sums over
 * the axes along which the operand was repeated.
 */
export function unbroadcast(gradient: Tensor, operand: Tensor, y: Tensor): Tensor {
  const own = alignRight(operand.dims, y.rank);
  const repeated = y.dims.flatMap((dim, i) => (own[i] === 1 && dim !== 1 ? [i] : []));
  if (repeated.length === 0) return dropLeading(gradient, operand.rank);
  const aligned = alignRight(gradient.dims, y.rank);
  // A gradient that is itself still to be repeated along a summed axis would be counted once instead of n times.
  const full = repeated.some((i) => aligned[i] === 1) ? y.graph.expandLike(gradient, y) : gradient;
  const offset = y.rank - full.rank;
  const summed = sum(
    full,
    repeated.map((axis) => axis - offset),
    true,
  );
  return dropLeading(summed, operand.rank);
}

/** A shape with unit axes before it, up to a rank. */
const alignRight = (dims: readonly Dim[], rank: number): Dim[] => [
  ...Array.from({ length: rank - dims.length }, () => 1),
  ...dims,
];

/** Without the leading unit axes beyond a rank. */
function dropLeading(x: Tensor, rank: number): Tensor {
  const extra = x.rank - rank;
  if (extra <= 0) return x;
  return x.graph.node(
    "Squeeze",
    [x, x.graph.ints([...Array(extra).keys()])],
    [{ dims: x.dims.slice(extra), type: x.type }],
  )[0];
}

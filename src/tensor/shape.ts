import { axisOf, productDim, sameDims, showDims, sizesDiffer, sumDim, type Dim } from "./dims.ts";
import type { Tensor } from "./graph.ts";
import { ELEMENT_TYPE, type DType } from "./proto.ts";

/**
 * The same elements in another shape. A symbol that stands at the same place in both shapes is copied, one other unknown is
 * inferred; where that doesn't suffice, `shape` gives the Reshape operator's own: numbers (0 copies, -1 infers) or an int64 tensor.
 */
export function reshape(x: Tensor, dims: readonly Dim[], shape?: readonly number[] | Tensor): Tensor {
  if (sizesDiffer(x.dims, dims)) {
    throw new Error(`reshape: ${showDims(x.dims)} and ${showDims(dims)} hold different numbers of elements`);
  }
  if (!shape && sameDims(x.dims, dims)) return x;
  const target = shape ?? inferShape(x, dims);
  return x.graph.node(
    "Reshape",
    [x, isTensor(target) ? target : x.graph.ints(target)],
    [{ dims, type: x.type }],
    {},
    { backward: ([dy]) => [dy && (() => reshapeLike(dy, x)), null] },
  )[0];
}

/** Reshapes to another tensor's shape, by its run-time shape where the symbols alone don't tell. */
export function reshapeLike(x: Tensor, like: Tensor): Tensor {
  const unknown = like.dims.filter((dim, i) => typeof dim === "string" && dim !== x.dims[i]);
  return reshape(x, like.dims, unknown.length > 1 ? x.graph.shape(like) : undefined);
}

const isTensor = (shape: readonly number[] | Tensor): shape is Tensor => "graph" in shape;

function inferShape(x: Tensor, dims: readonly Dim[]): number[] {
  const shape = dims.map((dim, i) => (typeof dim === "number" ? dim : dim === x.dims[i] ? 0 : -1));
  if (shape.filter((size) => size === -1).length > 1) {
    throw new Error(
      `reshape: ${showDims(x.dims)} to ${showDims(dims)} has more than one unknown size; give the shape as the third argument`,
    );
  }
  return shape;
}

/** Result axis i is axis perm[i] of x. */
export function transpose(x: Tensor, perm: readonly number[]): Tensor {
  if (perm.toSorted((a, b) => a - b).some((axis, i) => axis !== i) || perm.length !== x.rank) {
    throw new Error(`transpose: [${perm.join(", ")}] does not permute the axes of shape ${showDims(x.dims)}`);
  }
  const inverse = perm.map((_, axis) => perm.indexOf(axis));
  return x.graph.node(
    "Transpose",
    [x],
    [{ dims: perm.map((axis) => x.dims[axis]), type: x.type }],
    { perm },
    { backward: ([dy]) => [dy && (() => transpose(dy, inverse))] },
  )[0];
}

/** Cuts an axis of known size into consecutive parts of the given sizes. */
export function split(x: Tensor, axis: number, sizes: readonly number[]): Tensor[] {
  const at = axisOf(axis, x.dims, "split");
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (typeof x.dims[at] === "number" && x.dims[at] !== total) {
    throw new Error(
      `split: sizes [${sizes.join(", ")}] add up to ${total}, axis ${at} of ${showDims(x.dims)} does not`,
    );
  }
  const parts = x.graph.node(
    "Split",
    [x, x.graph.ints(sizes)],
    sizes.map((size) => ({ dims: x.dims.with(at, size), type: x.type })),
    { axis: at },
    {
      backward: (gradients) => [
        () =>
          concat(
            gradients.map((dy, i) => dy ?? x.graph.expandLike(x.graph.scalar(0, x.type), parts[i])),
            at,
          ),
        null,
      ],
    },
  );
  return parts;
}

/** Elements from `from` up to but not including `to` along an axis; differentiable where the axis has a known size. */
export function slice(x: Tensor, axis: number, from: number, to: number): Tensor {
  const at = axisOf(axis, x.dims, "slice");
  const size = x.dims[at];
  if (from < 0 || to < from || (typeof size === "number" && to > size)) {
    throw new Error(`slice: ${from} to ${to} lies outside axis ${at} of shape ${showDims(x.dims)}`);
  }
  const { graph } = x;
  const pad = (dy: Tensor) => {
    if (typeof size !== "number")
      throw new Error(`slice: no gradient along the symbolic axis ${at} of ${showDims(x.dims)}`);
    const pads = Array.from({ length: 2 * x.rank }, () => 0)
      .with(at, from)
      .with(x.rank + at, size - to);
    return graph.node("Pad", [dy, graph.ints(pads)], [{ dims: x.dims, type: x.type }])[0];
  };
  return graph.node(
    "Slice",
    [x, graph.ints([from]), graph.ints([to]), graph.ints([at])],
    [{ dims: x.dims.with(at, to - from), type: x.type }],
    {},
    { backward: ([dy]) => [dy && (() => pad(dy)), null, null, null] },
  )[0];
}

/** Joins tensors that agree in every other axis. */
export function concat(xs: readonly Tensor[], axis: number): Tensor {
  const [first] = xs;
  const { graph } = first;
  const at = axisOf(axis, first.dims, "concat");
  for (const x of xs) {
    if (!sameDims(x.dims.toSpliced(at, 1), first.dims.toSpliced(at, 1))) {
      throw new Error(`concat: shapes ${xs.map((each) => showDims(each.dims)).join(", ")} differ beside axis ${at}`);
    }
  }
  const sizes = xs.map((x) => x.dims[at]);
  const sizesOf = () =>
    sizes.every((size) => typeof size === "number")
      ? graph.ints(sizes)
      : graph.node(
          "Concat",
          xs.map((x) => slice(graph.shape(x), 0, at, at + 1)),
          [{ dims: [xs.length], type: "int64" }],
          { axis: 0 },
        )[0];
  return graph.node(
    "Concat",
    xs,
    [{ dims: first.dims.with(at, sumDim(sizes)), type: first.type }],
    { axis: at },
    {
      backward: ([dy]) => {
        let parts: Tensor[] | undefined;
        const cut = (whole: Tensor) =>
          graph.node(
            "Split",
            [whole, sizesOf()],
            xs.map(({ dims, type }) => ({ dims, type })),
            { axis: at },
          );
        return xs.map((_, i) => dy && (() => (parts ??= cut(dy))[i]));
      },
    },
  )[0];
}

export function cast(x: Tensor, type: DType): Tensor {
  if (type === x.type) return x;
  return x.graph.node(
    "Cast",
    [x],
    [{ dims: x.dims, type }],
    { to: ELEMENT_TYPE[type] },
    { backward: ([dy]) => [dy && (() => cast(dy, x.type))] },
  )[0];
}

/** Rows of x [n, ...] in the order of index [...] (int64 or int32): [...index, ...]. No gradient: the caller scatters rows itself. */
export function gatherRows(x: Tensor, index: Tensor): Tensor {
  requireIndex(index, "gatherRows");
  return x.graph.node("Gather", [x, index], [{ dims: [...index.dims, ...x.dims.slice(1)], type: x.type }], {
    axis: 0,
  })[0];
}

/** x[i, index[i]] for x [n, v] and index [n] (int64 or int32): [n]. */
export function pick(x: Tensor, index: Tensor): Tensor {
  requireIndex(index, "pick");
  if (x.rank !== 2 || index.rank !== 1 || index.dims[0] !== x.dims[0]) {
    throw new Error(`pick: expected x [n, v] and index [n], found ${showDims(x.dims)} and ${showDims(index.dims)}`);
  }
  const { graph } = x;
  const column = reshape(index, [index.dims[0], 1]);
  const scatter = (dy: Tensor) => {
    const zeros = graph.expandLike(graph.scalar(0, x.type), x);
    const updates = reshape(dy, [dy.dims[0], 1]);
    return graph.node("ScatterElements", [zeros, column, updates], [{ dims: x.dims, type: x.type }], { axis: 1 })[0];
  };
  const picked = graph.node(
    "GatherElements",
    [x, column],
    [{ dims: column.dims, type: x.type }],
    { axis: 1 },
    { backward: ([dy]) => [dy && (() => scatter(dy)), null] },
  )[0];
  return reshape(picked, index.dims);
}

/** Running sums along the last axis; no gradient. */
export function cumsum(x: Tensor): Tensor {
  const { graph } = x;
  return graph.node("CumSum", [x, graph.constant([x.rank - 1], [], "int64")], [{ dims: x.dims, type: x.type }])[0];
}

/** [..., k] as a matrix of rows. */
export function flattenRows(x: Tensor): Tensor {
  return x.rank === 2 ? x : reshape(x, [productDim(x.dims.slice(0, -1)), x.dims[x.rank - 1]]);
}

function requireIndex(index: Tensor, what: string): void {
  if (index.type !== "int64" && index.type !== "int32") {
    throw new Error(`${what}: the index must be int64 or int32, found ${index.type}`);
  }
}

import type { StorageType } from "./types.ts";

/** How many elements stand in one block, and how many bytes a block takes (ggml's block layouts; plain types are blocks of one). */
const blocks: Record<StorageType, { elements: number; bytes: number }> = {
  f32: { elements: 1, bytes: 4 },
  f16: { elements: 1, bytes: 2 },
  bf16: { elements: 1, bytes: 2 },
  q8_0: { elements: 32, bytes: 34 },
  q4_0: { elements: 32, bytes: 18 },
  q4_1: { elements: 32, bytes: 20 },
  q4_k: { elements: 256, bytes: 144 },
  q6_k: { elements: 256, bytes: 210 },
};

/** Bytes of one row of `columns` elements, or undefined where the row does not end with a block. */
export function rowBytes(type: StorageType, columns: number): number | undefined {
  const block = blocks[type];
  return columns % block.elements === 0 ? (columns / block.elements) * block.bytes : undefined;
}

/** Number of elements of a tensor. */
export function elementCount(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

/** Rows and columns of a tensor: a vector is one row; leading dims are folded into the rows. */
export function rowsAndColumns(dims: readonly number[]): [rows: number, columns: number] {
  const columns = dims.at(-1) ?? 1;
  return [columns === 0 ? 0 : elementCount(dims) / columns, columns];
}

/** Bytes of a whole tensor, or undefined where its rows do not end with a block. */
export function storedBytes(type: StorageType, dims: readonly number[]): number | undefined {
  const [rows, columns] = rowsAndColumns(dims);
  const row = rowBytes(type, columns);
  return row === undefined ? undefined : row * rows;
}

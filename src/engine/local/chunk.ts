import { Value } from "../../runtime/index.ts";

/** Rows of one call of the row-wise graphs: their temporaries then stay in the cache. */
const CHUNK_ROWS = 512;

export class Chunk {
  readonly from: number;
  readonly to: number;
  /** Rows of the whole pass. */
  readonly all: number;

  constructor(from: number, to: number, all: number) {
    this.from = from;
    this.to = to;
    this.all = all;
  }

  /** These rows of a matrix. */
  of(matrix: Float32Array, width: number): Value {
    return new Value(matrix.subarray(this.from * width, this.to * width), [this.to - this.from, width]);
  }

  indices(index: Int32Array): Value {
    return new Value(index.subarray(this.from, this.to), [this.to - this.from]);
  }
}

export function chunksOf(rows: number): Chunk[] {
  const count = Math.ceil(rows / CHUNK_ROWS);
  return Array.from({ length: count }, (_, i) => new Chunk(i * CHUNK_ROWS, Math.min(rows, (i + 1) * CHUNK_ROWS), rows));
}

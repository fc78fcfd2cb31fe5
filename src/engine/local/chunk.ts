import { Value } from "../../runtime/index.ts";

/** Rows of one call of the row-wise graphs, about: few enough for their temporaries, enough to repay a product's preparation. */
const CHUNK_ROWS = 1024;

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

/** Equal parts: a short last one would cost nearly what a whole one does. */
export function chunksOf(rows: number): Chunk[] {
  const count = Math.max(1, Math.round(rows / CHUNK_ROWS));
  const bound = (i: number): number => Math.round((i * rows) / count);
  return Array.from({ length: count }, (_, i) => new Chunk(bound(i), bound(i + 1), rows));
}

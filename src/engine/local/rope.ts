import { ropeFrequencies } from "../../model/rope.ts";
import type { ModelConfig } from "../../model/types.ts";

/** Cosines and sines of the rotary embedding, one row of headDim / 2 a position. */
export interface RopeTable {
  cos: Float32Array;
  sin: Float32Array;
}

/** The table for positions 0 .. length - 1. */
export function ropeTable(config: ModelConfig, length: number): RopeTable {
  const frequencies = ropeFrequencies(config);
  const half = frequencies.length;
  const cos = new Float32Array(length * half);
  const sin = new Float32Array(length * half);
  for (let position = 0; position < length; position++) {
    for (let i = 0; i < half; i++) {
      // Published implementations round the frequency and the angle to float32; rounding likewise keeps log-probs closest to theirs.
      const angle = Math.fround(position * Math.fround(frequencies[i]));
      cos[position * half + i] = Math.cos(angle);
      sin[position * half + i] = Math.sin(angle);
    }
  }
  return { cos, sin };
}

/** The rows of the table for given positions, into `out`. */
export function ropeRows(table: RopeTable, positions: Int32Array, half: number, out: RopeTable): void {
  for (let i = 0; i < positions.length; i++) {
    const from = positions[i] * half;
    out.cos.set(table.cos.subarray(from, from + half), i * half);
    out.sin.set(table.sin.subarray(from, from + half), i * half);
  }
}

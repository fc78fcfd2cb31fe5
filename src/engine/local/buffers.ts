import { allocate } from "../../runtime/index.ts";

/** Aligned and zeroed. */
export const floats = (length: number): Float32Array => allocate("float32", length);

/** Named float32 memory that is allocated once and reused: a buffer grows when more is asked for and never shrinks. */
export class Buffers {
  private readonly memory = new Map<string, Float32Array>();

  /** The first `length` floats of the buffer; what they hold is whatever was there. */
  get(name: string, length: number): Float32Array {
    let buffer = this.memory.get(name);
    if (!buffer || buffer.length < length) {
      buffer = floats(length);
      this.memory.set(name, buffer);
    }
    return buffer.length === length ? buffer : buffer.subarray(0, length);
  }

  clear(): void {
    this.memory.clear();
  }
}

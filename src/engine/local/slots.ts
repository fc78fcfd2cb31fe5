import type { ModelConfig } from "../../model/types.ts";
import type { KvNode } from "./kv.ts";
import { bucketOf } from "./sampler.ts";
import { floats } from "./buffers.ts";

/** Slots grow by this many tokens, so that they are seldom laid out anew. */
const CAPACITY_STEP = 64;

/** The keys and values of the running rows: by layer [slots, kvHeads, capacity, headDim], as the attention operator wants them. */
export class Slots {
  keys: Float32Array[] = [];
  values: Float32Array[] = [];
  count = 0;
  capacity = 0;
  private readonly config: ModelConfig;

  constructor(config: ModelConfig) {
    this.config = config;
  }

  get bytes(): number {
    return this.keys.reduce((sum, keys) => sum + 2 * keys.byteLength, 0);
  }

  /** Bytes of one slot that holds `length` tokens, beside those that there are. */
  bytesPerSlot(length: number): number {
    const { kvHeads, headDim, layers } = this.config;
    return this.capacityFor(length) * kvHeads * headDim * layers * 8;
  }

  /** Makes room for `rows` slots of `length` tokens each, keeping what they hold; true when the memory is another. */
  reserve(rows: number, length: number): boolean {
    const capacity = this.capacityFor(length);
    // Longer slots may leave memory for fewer of them.
    const count = capacity > this.capacity ? bucketOf(rows) : Math.max(this.count, bucketOf(rows));
    if (count === this.count && capacity === this.capacity) return false;
    const { layers, kvHeads, headDim } = this.config;
    const grow = (old: Float32Array | undefined): Float32Array => {
      const fresh = floats(count * kvHeads * capacity * headDim);
      if (!old) return fresh;
      const block = this.capacity * headDim;
      for (let i = 0; i < Math.min(count, this.count) * kvHeads; i++) {
        fresh.set(old.subarray(i * block, (i + 1) * block), i * capacity * headDim);
      }
      return fresh;
    };
    for (let l = 0; l < layers; l++) {
      this.keys[l] = grow(this.keys[l]);
      this.values[l] = grow(this.values[l]);
    }
    this.count = count;
    this.capacity = capacity;
    return true;
  }

  /** Copies a slot's first `length` tokens. */
  move(from: number, to: number, length: number): void {
    const { kvHeads, headDim } = this.config;
    const block = this.capacity * headDim;
    for (const cache of [...this.keys, ...this.values]) {
      for (let head = 0; head < kvHeads; head++) {
        const source = (from * kvHeads + head) * block;
        cache.copyWithin((to * kvHeads + head) * block, source, source + length * headDim);
      }
    }
  }

  /** Writes a path's keys and values into a slot, head by head. */
  load(slot: number, path: KvNode[]): void {
    const { layers, kvHeads, headDim } = this.config;
    const width = kvHeads * headDim;
    const write = (cache: Float32Array, data: Float32Array, node: KvNode): void => {
      for (let head = 0; head < kvHeads; head++) {
        let to = ((slot * kvHeads + head) * this.capacity + node.depth) * headDim;
        for (let from = head * headDim; from < data.length; from += width, to += headDim) {
          cache.set(data.subarray(from, from + headDim), to);
        }
      }
    };
    for (const node of path) {
      if (!node.data) throw new Error("a prefix is used before it was computed");
      for (let l = 0; l < layers; l++) {
        write(this.keys[l], node.data.keys[l], node);
        write(this.values[l], node.data.values[l], node);
      }
    }
  }

  /** A node's tokens as a slot holds them, in the layout of the tree of prefixes. */
  read(slot: number, node: KvNode): { keys: Float32Array[]; values: Float32Array[] } {
    const { kvHeads, headDim } = this.config;
    const rowsOf = (cache: Float32Array): Float32Array => {
      const rows = new Float32Array(node.tokens.length * kvHeads * headDim);
      for (let head = 0; head < kvHeads; head++) {
        let from = ((slot * kvHeads + head) * this.capacity + node.depth) * headDim;
        for (let i = 0; i < node.tokens.length; i++, from += headDim) {
          rows.set(cache.subarray(from, from + headDim), (i * kvHeads + head) * headDim);
        }
      }
      return rows;
    };
    return { keys: this.keys.map(rowsOf), values: this.values.map(rowsOf) };
  }

  clear(): void {
    this.keys = [];
    this.values = [];
    this.count = this.capacity = 0;
  }

  private capacityFor(length: number): number {
    return Math.max(this.capacity, CAPACITY_STEP, Math.ceil(length / CAPACITY_STEP) * CAPACITY_STEP);
  }
}

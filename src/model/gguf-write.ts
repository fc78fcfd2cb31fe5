import type { GgufValue } from "./gguf.ts";
import { storedBytes } from "./storage.ts";
import type { ByteRange } from "./tensor-file.ts";
import type { StorageType } from "./types.ts";

/** GGUF version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
const version = 3;
/** Tensors begin at multiples of this, which is what readers assume where the file does not say. */
const alignment = 32;

/** ggml's numbers of the types that are written. */
const ggmlTypes = { f32: 0, f16: 1, q8_0: 8, bf16: 30 } as const;
export type GgufType = keyof typeof ggmlTypes & StorageType;

/** A metadata value with the type in which readers expect it. */
export type GgufField =
  | string
  | boolean
  | readonly string[]
  | { u32: number }
  | { f32: number }
  | { f64: number }
  | { i32s: readonly number[] };

const valueTypes = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, f64: 12 } as const;

export interface GgufLayout {
  /** Everything before the tensors. */
  header: Uint8Array;
  ranges: Map<string, ByteRange>;
  /** Of the whole file: readers expect padding after the last tensor too. */
  size: number;
}

/**
 * Lays out a file.
 * @param tensors by name, with dims outermost first
 */
export function layoutGguf(
  metadata: ReadonlyMap<string, GgufField>,
  tensors: ReadonlyMap<string, { dims: readonly number[]; type: GgufType }>,
): GgufLayout {
  const bytes = new ByteWriter();
  bytes.text("GGUF").u32(version).u64(tensors.size).u64(metadata.size);
  for (const [key, value] of metadata) writeField(bytes.string(key), value);
  const offsets = new Map<string, ByteRange>();
  let offset = 0;
  for (const [name, { dims, type }] of tensors) {
    const size = storedBytes(type, dims);
    if (size === undefined) throw new Error(`tensor ${name}: dims [${dims.join(", ")}] do not fit ${type}`);
    bytes.string(name).u32(dims.length);
    for (const dim of dims.toReversed()) bytes.u64(dim);
    bytes.u32(ggmlTypes[type]).u64(offset);
    offsets.set(name, { start: offset, end: offset + size });
    offset = aligned(offset + size);
  }
  const dataStart = aligned(bytes.size);
  const ranges = new Map(
    [...offsets].map(([name, r]) => [name, { start: dataStart + r.start, end: dataStart + r.end }]),
  );
  return { header: bytes.bytes(), ranges, size: dataStart + offset };
}

const aligned = (size: number): number => Math.ceil(size / alignment) * alignment;

function writeField(bytes: ByteWriter, value: GgufField): void {
  if (typeof value === "string") bytes.u32(valueTypes.string).string(value);
  else if (typeof value === "boolean") bytes.u32(valueTypes.bool).u8(Number(value));
  else if ("u32" in value) bytes.u32(valueTypes.u32).u32(value.u32);
  else if ("f32" in value) bytes.u32(valueTypes.f32).f32(value.f32);
  else if ("f64" in value) bytes.u32(valueTypes.f64).f64(value.f64);
  else if ("i32s" in value) {
    bytes.u32(valueTypes.array).u32(valueTypes.i32).u64(value.i32s.length);
    for (const number of value.i32s) bytes.u32(number);
  } else {
    bytes.u32(valueTypes.array).u32(valueTypes.string).u64(value.length);
    for (const text of value) bytes.string(text);
  }
}

/** A field as the reader of the format gives it back. */
export function plainValue(field: GgufField): GgufValue {
  if (typeof field === "string" || typeof field === "boolean") return field;
  if ("u32" in field) return field.u32;
  if ("f32" in field) return Math.fround(field.f32);
  if ("f64" in field) return field.f64;
  return "i32s" in field ? [...field.i32s] : [...field];
}

/** Appends little-endian values. */
class ByteWriter {
  #buffer = new Uint8Array(2 ** 16);
  #view = new DataView(this.#buffer.buffer);
  size = 0;

  #take(length: number): number {
    if (this.size + length > this.#buffer.length) {
      const grown = new Uint8Array(Math.max(2 * this.#buffer.length, this.size + length));
      grown.set(this.#buffer.subarray(0, this.size));
      this.#buffer = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.size += length;
    return this.size - length;
  }

  u8(value: number): this {
    const at = this.#take(1);
    this.#view.setUint8(at, value);
    return this;
  }

  u32(value: number): this {
    const at = this.#take(4);
    this.#view.setUint32(at, value, true);
    return this;
  }

  u64(value: number): this {
    const at = this.#take(8);
    this.#view.setBigUint64(at, BigInt(value), true);
    return this;
  }

  f32(value: number): this {
    const at = this.#take(4);
    this.#view.setFloat32(at, value, true);
    return this;
  }

  f64(value: number): this {
    const at = this.#take(8);
    this.#view.setFloat64(at, value, true);
    return this;
  }

  /** The text alone. */
  text(text: string): this {
    const encoded = Buffer.from(text);
    const at = this.#take(encoded.length);
    this.#buffer.set(encoded, at);
    return this;
  }

  /** The text after its length. */
  string(text: string): this {
    return this.u64(Buffer.byteLength(text)).text(text);
  }

  bytes(): Uint8Array {
    return this.#buffer.slice(0, this.size);
  }
}

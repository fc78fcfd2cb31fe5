import { UserError } from "../errors.ts";
import { readRange, withFile } from "./files.ts";
import { elementCount, storedBytes } from "./storage.ts";
import type { StorageType } from "./types.ts";

/** The GGUF container, versions 2 and 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
const magic = 0x46554747;
const defaultAlignment = 32;
const maxDims = 4;
/** The header is read in growing pieces; vocabularies and merges make it a few megabytes. */
const firstRead = 2 ** 24;
const maxHeader = 2 ** 29;
const maxNesting = 4;

/** ggml's tensor types by number; only those of `StorageType` can be loaded, the others are named in messages. */
const ggmlTypes = (
  "f32 f16 q4_0 q4_1 4 5 q5_0 q5_1 q8_0 q8_1 q2_k q3_k q4_k q5_k q6_k q8_k iq2_xxs iq2_xs iq3_xxs iq1_s iq4_nl iq3_s iq2_s " +
  "iq4_xs i8 i16 i32 i64 f64 iq1_m bf16 31 32 33 tq1_0 tq2_0 36 37 38 mxfp4"
).split(" ");
const loadable: readonly StorageType[] = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k"];

export type GgufValue = number | boolean | string | GgufValue[];

export interface GgufTensor {
  /** Row-major, outermost first (the file states them innermost first). */
  dims: number[];
  type: StorageType;
  /** In bytes from the start of the file. */
  start: number;
  bytes: number;
}

export interface GgufHeader {
  metadata: Map<string, GgufValue>;
  tensors: Map<string, GgufTensor>;
}

/** Thrown inside when the piece of the header read so far ends; never leaves this file. */
class OutOfBytes extends Error {}

/**
 * Reads and validates metadata and tensor descriptions.
 * @throws UserError for anything but a whole GGUF file of supported types
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
  return withFile(path, async (file, size) => {
    for (let length = Math.min(size, firstRead); ; length = Math.min(size, 2 * length)) {
      const bytes = await readRange(file, 0, length, path);
      try {
        return parseGgufHeader(bytes, size, path);
      } catch (error) {
        if (!(error instanceof OutOfBytes)) throw error;
        if (length === size) {
          throw new UserError(
            `${path}: the file ends after ${size} bytes, inside its header: it is truncated; fetch it again`,
          );
        }
        if (length >= maxHeader)
          throw new UserError(`${path}: the header is longer than ${maxHeader} bytes: the file is corrupt`);
      }
    }
  });
}

function parseGgufHeader(bytes: Uint8Array, fileSize: number, path: string): GgufHeader {
  const reader = new Reader(bytes, path);
  if (reader.u32() !== magic) throw new UserError(`${path}: not a GGUF file (it does not begin with "GGUF")`);
  const version = reader.u32();
  if (version !== 2 && version !== 3) {
    throw new UserError(`${path}: GGUF version ${version} is not supported; expected 2 or 3, little-endian`);
  }
  const tensorCount = reader.count("tensors");
  const metadataCount = reader.count("metadata entries");
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < metadataCount; i++) {
    const key = reader.string();
    metadata.set(key, reader.value(reader.u32(), 0));
  }
  const descriptions: { name: string; dims: number[]; type: number; offset: number }[] = [];
  for (let i = 0; i < tensorCount; i++) {
    const name = reader.string();
    const rank = reader.u32();
    if (rank > maxDims) throw new UserError(`${path}: tensor ${name} has ${rank} dims: the file is corrupt`);
    const dims = Array.from({ length: rank }, () => reader.integer()).reverse();
    descriptions.push({ name, dims, type: reader.u32(), offset: reader.integer() });
  }
  const alignment = metadata.get("general.alignment") ?? defaultAlignment;
  if (typeof alignment !== "number" || !Number.isInteger(alignment) || alignment <= 0) {
    throw new UserError(`${path}: general.alignment is ${String(alignment)}: the file is corrupt`);
  }
  const dataStart = Math.ceil(reader.position / alignment) * alignment;
  const tensors = new Map<string, GgufTensor>();
  let expected = dataStart;
  for (const { name, dims, type: number, offset } of descriptions) {
    const typeName = ggmlTypes[number] ?? String(number);
    const type = loadable.find((known) => known === typeName);
    if (!type) {
      throw new UserError(
        `${path}: tensor ${name}: quantisation ${typeName} is not supported; expected one of ${loadable.join(", ")}`,
      );
    }
    const size = storedBytes(type, dims);
    if (
      size === undefined ||
      !Number.isSafeInteger(elementCount(dims)) ||
      !Number.isSafeInteger(dataStart + offset + size)
    ) {
      throw new UserError(`${path}: tensor ${name}: dims [${dims.join(", ")}] do not fit ${type}: the file is corrupt`);
    }
    tensors.set(name, { dims, type, start: dataStart + offset, bytes: size });
    expected = Math.max(expected, dataStart + offset + size);
  }
  if (expected > fileSize) {
    throw new UserError(
      `${path}: expected ${expected} bytes, found ${fileSize}: the file is truncated; fetch it again`,
    );
  }
  return { metadata, tensors };
}

/** Reads little-endian values one after the other. */
class Reader {
  position = 0;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly path: string;
  private readonly text = new TextDecoder();

  constructor(bytes: Uint8Array, path: string) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.path = path;
  }

  private take(length: number): number {
    if (length > this.bytes.length - this.position) throw new OutOfBytes();
    this.position += length;
    return this.position - length;
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  /** A 64-bit integer, rounded where a float64 cannot hold it. */
  integer(): number {
    return Number(this.view.getBigInt64(this.take(8), true));
  }

  /** A count of things that each take at least one byte, so that a corrupt one ends at the end of the file. */
  count(what: string): number {
    const count = this.integer();
    if (count < 0 || !Number.isSafeInteger(count)) {
      throw new UserError(`${this.path}: ${count} ${what}: the file is corrupt`);
    }
    return count;
  }

  string(): string {
    const length = this.count("bytes in a string");
    const start = this.take(length);
    return this.text.decode(this.bytes.subarray(start, start + length));
  }

  value(type: number, depth: number): GgufValue {
    switch (type) {
      case 0:
        return this.view.getUint8(this.take(1));
      case 1:
        return this.view.getInt8(this.take(1));
      case 2:
        return this.view.getUint16(this.take(2), true);
      case 3:
        return this.view.getInt16(this.take(2), true);
      case 4:
        return this.u32();
      case 5:
        return this.view.getInt32(this.take(4), true);
      case 6:
        return this.view.getFloat32(this.take(4), true);
      case 7:
        return this.view.getUint8(this.take(1)) !== 0;
      case 8:
        return this.string();
      case 9:
        return this.array(depth + 1);
      case 10:
      case 11:
        return this.integer();
      case 12:
        return this.view.getFloat64(this.take(8), true);
      default:
        throw new UserError(`${this.path}: metadata of unknown type ${type}: the file is corrupt`);
    }
  }

  private array(depth: number): GgufValue[] {
    if (depth > maxNesting) throw new UserError(`${this.path}: metadata nested too deeply: the file is corrupt`);
    const type = this.u32();
    const length = this.count("array elements");
    const values: GgufValue[] = [];
    for (let i = 0; i < length; i++) values.push(this.value(type, depth));
    return values;
  }
}

import { deflateRawSync } from "node:zlib";

export type Numbers = Uint8Array | Int32Array | Float32Array | Float64Array;

const NAMES = { Uint8Array: "u8", Int32Array: "i32", Float32Array: "f32", Float64Array: "f64" } as const;
export type NumberType = (typeof NAMES)[keyof typeof NAMES];

/** The JSON part of a block. */
export interface BlockJson<T> {
  data: T;
  /** Type, offset in bytes after the JSON part, and length. */
  arrays: Record<string, [NumberType, number, number]>;
}

/**
 * A value and arrays of numbers as text that may stand anywhere in a page: base64 of raw DEFLATE of: the JSON part's length (u32),
 * the JSON part filled with blanks to a multiple of 8 bytes from the start, the arrays. Little-endian. Lone surrogates survive, for
 * JSON writes them as escapes.
 */
export function encodeBlock(data: unknown, arrays: Record<string, Numbers> = {}): string {
  const places: BlockJson<unknown>["arrays"] = {};
  let size = 0;
  for (const [name, array] of Object.entries(arrays)) {
    places[name] = [typeOf(array), size, array.length];
    size += Math.ceil(array.byteLength / 8) * 8;
  }
  const json = Buffer.from(JSON.stringify({ data, arrays: places } satisfies BlockJson<unknown>));
  const start = Math.ceil((json.length + 4) / 8) * 8;
  const bytes = Buffer.alloc(start + size, " ");
  bytes.writeUInt32LE(start - 4, 0);
  json.copy(bytes, 4);
  for (const [name, array] of Object.entries(arrays)) {
    bytes.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), start + places[name][1]);
  }
  return deflateRawSync(bytes, { level: 6 }).toString("base64");
}

function typeOf(array: Numbers): NumberType {
  if (array instanceof Uint8Array) return NAMES.Uint8Array;
  if (array instanceof Int32Array) return NAMES.Int32Array;
  return array instanceof Float32Array ? NAMES.Float32Array : NAMES.Float64Array;
}

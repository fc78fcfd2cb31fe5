import { z } from "zod";
import { UserError } from "../errors.ts";
import { check, parseJson, readRange, withFile } from "./files.ts";
import { elementCount, storedBytes } from "./storage.ts";
import { begin, type ByteRange, TensorFileWriter } from "./tensor-file.ts";
import type { StorageType, StoredTensor } from "./types.ts";

/** The safetensors format: 8 bytes header length, a JSON header, the data. https://github.com/huggingface/safetensors */
const maxHeader = 100_000_000;
const lengthBytes = 8;

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().nonnegative()),
  data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
});
const headerSchema = z.record(z.string(), z.unknown());

const dtypes: Record<string, StorageType> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** Where a tensor lies in a safetensors file. */
export interface TensorEntry {
  dims: number[];
  /** As the file names it: F32, F16, BF16, or one that rifft does not read. */
  dtype: string;
  /** In bytes from the start of the file. */
  start: number;
  end: number;
}

/**
 * Reads and validates the header: offsets in range, sizes that match dtype and shape, no overlap.
 * @throws UserError naming the file, what was expected and what was found
 */
export async function readSafetensorsHeader(path: string): Promise<Map<string, TensorEntry>> {
  return withFile(path, async (file, size) => {
    const truncated = (expected: number) =>
      new UserError(`${path}: expected ${expected} bytes, found ${size}: the file is truncated; fetch it again`);
    if (size < lengthBytes) throw truncated(lengthBytes);
    const prefix = await readRange(file, 0, lengthBytes, path);
    const length = Number(new DataView(prefix.buffer).getBigUint64(0, true));
    if (length > maxHeader) {
      throw new UserError(`${path}: not a safetensors file (its header would take ${length} bytes)`);
    }
    const dataStart = lengthBytes + length;
    if (dataStart > size) throw truncated(dataStart);
    const header = parseJson(await readRange(file, lengthBytes, length, path), headerSchema, path);
    const entries = new Map<string, TensorEntry>();
    for (const [name, value] of Object.entries(header)) {
      if (name === "__metadata__") continue;
      const { dtype, shape, data_offsets } = check(value, entrySchema, `${path}: tensor ${name}`);
      const [start, end] = data_offsets;
      const type = dtypes[dtype];
      const bytes = type && storedBytes(type, shape);
      if (start > end || (bytes !== undefined && end - start !== bytes)) {
        throw new UserError(
          `${path}: tensor ${name}: ${dtype} [${shape.join(", ")}] takes ${bytes} bytes, but its offsets are ${start} to ${end}`,
        );
      }
      entries.set(name, { dims: shape, dtype, start: dataStart + start, end: dataStart + end });
    }
    const ordered = [...entries].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
    for (let i = 1; i < ordered.length; i++) {
      if (ordered[i][1].start < ordered[i - 1][1].end) {
        throw new UserError(`${path}: tensors ${ordered[i - 1][0]} and ${ordered[i][0]} overlap`);
      }
    }
    const expected = ordered.reduce((most, [, entry]) => Math.max(most, entry.end), dataStart);
    if (expected > size) throw truncated(expected);
    return entries;
  });
}

/** Reads the named tensors, each into its own buffer. */
export async function readSafetensors(
  path: string,
  entries: ReadonlyMap<string, TensorEntry>,
): Promise<Map<string, StoredTensor>> {
  return withFile(path, async (file) => {
    const tensors = new Map<string, StoredTensor>();
    for (const [name, { dims, dtype, start, end }] of entries) {
      const type = dtypes[dtype];
      if (!type) {
        throw new UserError(`${path}: tensor ${name}: dtype ${dtype} is not supported; expected F32, F16 or BF16`);
      }
      tensors.set(name, { dims, type, bytes: await readRange(file, start, end - start, path) });
    }
    return tensors;
  });
}

/** Names a tensor that is to be written. */
export interface TensorPlan {
  dims: readonly number[];
  type: "f32" | "f16" | "bf16";
}

/** Writes a safetensors file whose tensors arrive one at a time, as little-endian bytes. */
export class SafetensorsWriter extends TensorFileWriter {
  static async create(path: string, plan: ReadonlyMap<string, TensorPlan>): Promise<SafetensorsWriter> {
    const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
    const offsets = new Map<string, ByteRange>();
    let offset = 0;
    for (const [name, { dims, type }] of plan) {
      const end = offset + elementCount(dims) * (type === "f32" ? 4 : 2);
      header[name] = { dtype: type.toUpperCase(), shape: dims, data_offsets: [offset, end] };
      offsets.set(name, { start: offset, end });
      offset = end;
    }
    let json = JSON.stringify(header);
    // Padding keeps the data aligned for readers that map the file.
    json = json.padEnd(Math.ceil(Buffer.byteLength(json) / 8) * 8 - Buffer.byteLength(json) + json.length);
    const text = Buffer.from(json);
    const prefix = Buffer.alloc(lengthBytes);
    prefix.writeBigUInt64LE(BigInt(text.length));
    const dataStart = lengthBytes + text.length;
    for (const range of offsets.values()) {
      range.start += dataStart;
      range.end += dataStart;
    }
    return new SafetensorsWriter(await begin(path, Buffer.concat([prefix, text])), path, offsets);
  }
}

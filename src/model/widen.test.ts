import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { narrowToBf16, narrowToF16 } from "./narrow.ts";
import { storedBytes } from "./storage.ts";
import type { StorageType, StoredTensor } from "./types.ts";
import { widen } from "./widen.ts";

function widened(tensor: StoredTensor, from?: number, to?: number): number[] {
  const columns = tensor.dims.at(-1) ?? 1;
  const rows = (to ?? tensor.dims[0]) - (from ?? 0);
  const out = new Float32Array(tensor.dims.length === 1 ? columns : rows * columns);
  widen(tensor, out, from, to);
  return Array.from(out);
}

function block(type: StorageType, columns: number, bytes: number[]): StoredTensor {
  return { dims: [1, columns], type, bytes: Uint8Array.from(bytes) };
}

const repeat = (value: number, count: number) => Array.from({ length: count }, () => value);

/** The bytes of float16 numbers used below. */
const one = [0x00, 0x3c];
const two = [0x00, 0x40];
const minusHalf = [0x00, 0xb8];

describe("hand-computed blocks", () => {
  it("f16: subnormal, ordinary, infinite", () => {
    const bytes = [0x01, 0x00, 0xff, 0x7b, 0x00, 0xfc, 0x00, 0x80, 0x55, 0x35];
    expect(widened(block("f16", 5, bytes))).toEqual([2 ** -24, 65504, -Infinity, -0, 0.333251953125]);
  });

  it("bf16 is the upper half of float32", () => {
    const values = [1, -3.140625, Infinity, 1, -3.140625];
    const bytes = [0x80, 0x3f, 0x49, 0xc0, 0x80, 0x7f, 0x80, 0x3f, 0x49, 0xc0];
    expect(widened(block("bf16", 5, bytes))).toEqual(values);
  });

  it("q8_0: d q", () => {
    const q = Array.from({ length: 32 }, (_, i) => i - 16);
    const values = widened(block("q8_0", 32, [...minusHalf, ...q.map((x) => x & 255)]));
    expect(values).toEqual(q.map((x) => -0.5 * x));
  });

  it("q4_0: d (q - 8), low nibbles first", () => {
    const values = widened(block("q4_0", 32, [...two, ...Array.from({ length: 16 }, (_, i) => i | ((15 - i) << 4))]));
    expect(values).toEqual([
      ...Array.from({ length: 16 }, (_, i) => 2 * (i - 8)),
      ...Array.from({ length: 16 }, (_, i) => 2 * (7 - i)),
    ]);
  });

  it("q4_1: d q + m", () => {
    const nibbles = Array.from({ length: 16 }, (_, i) => i | (3 << 4));
    const values = widened(block("q4_1", 32, [...two, ...minusHalf, ...nibbles]));
    expect(values).toEqual([...Array.from({ length: 16 }, (_, i) => 2 * i - 0.5), ...repeat(5.5, 16)]);
  });

  it("q4_k: scales 1 to 8 and minima 33 to 40 survive their packing in 12 bytes", () => {
    const scale = [1, 2, 3, 4, 5, 6, 7, 40];
    const minimum = [33, 34, 35, 36, 37, 38, 39, 63];
    const packed = [
      ...[0, 1, 2, 3].map((i) => scale[i] | ((scale[i + 4] >> 4) << 6)),
      ...[0, 1, 2, 3].map((i) => minimum[i] | ((minimum[i + 4] >> 4) << 6)),
      ...[0, 1, 2, 3].map((i) => (scale[i + 4] & 15) | ((minimum[i + 4] & 15) << 4)),
    ];
    // All low nibbles 1, all high nibbles 2.
    const values = widened(block("q4_k", 256, [...two, ...one, ...packed, ...repeat(0x21, 128)]));
    const expected = scale.flatMap((s, group) => {
      const q = group % 2 === 0 ? 1 : 2;
      return repeat(2 * s * q - minimum[group], 32);
    });
    expect(values).toEqual(expected);
  });

  it("q6_k: six bits of two places, a signed scale for each 16", () => {
    const q = Array.from({ length: 256 }, (_, i) => (i * 7) % 64);
    const scales = Array.from({ length: 16 }, (_, i) => (i % 2 ? -i : i + 1));
    const bytes = repeat(0, 210);
    for (let i = 0; i < 256; i++) {
      const part = i >> 7;
      const group = (i >> 5) & 3;
      const at = i & 31;
      bytes[part * 64 + (group & 1) * 32 + at] |= (q[i] & 15) << (group >> 1 ? 4 : 0);
      bytes[128 + part * 32 + at] |= (q[i] >> 4) << (2 * group);
    }
    scales.forEach((scale, i) => (bytes[192 + i] = scale & 255));
    [bytes[208], bytes[209]] = two;
    expect(widened(block("q6_k", 256, bytes))).toEqual(q.map((x, i) => 2 * scales[i >> 4] * (x - 32)));
  });
});

describe("rows", () => {
  const types: StorageType[] = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k"];
  it.each(types)("%s: part of the rows equals the same part of all, misaligned bytes too", (type) => {
    fc.assert(
      fc.property(fc.nat(4), fc.nat(4), fc.integer({ min: 0, max: 2 ** 31 }), (a, b, seed) => {
        const [from, to] = [Math.min(a, b), Math.max(a, b)];
        const dims = [4, 512];
        const size = storedBytes(type, dims) ?? 0;
        const buffer = new Uint8Array(size + 1);
        for (let i = 0, x = seed; i < buffer.length; i++, x = (Math.imul(x, 1103515245) + 12345) >>> 0)
          buffer[i] = x >>> 16;
        const aligned = { dims, type, bytes: buffer.slice(1) };
        const all = widened(aligned);
        expect(widened({ dims, type, bytes: buffer.subarray(1) }, from, to)).toEqual(all.slice(from * 512, to * 512));
      }),
      { numRuns: 30 },
    );
  });

  it("refuses rows that are not there and an output that is too small", () => {
    const tensor = block("f32", 1, [0, 0, 0, 0]);
    expect(() => widen(tensor, new Float32Array(9), 0, 2)).toThrow(RangeError);
    expect(() => widen(tensor, new Float32Array(0))).toThrow(RangeError);
  });
});

describe("narrowing", () => {
  it("gives every float16 and bfloat16 back", () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const bytes = new Uint8Array(bits.buffer);
    for (const [type, narrow] of [
      ["f16", narrowToF16],
      ["bf16", narrowToBf16],
    ] as const) {
      const values = new Float32Array(65536);
      widen({ dims: [65536], type, bytes }, values);
      const back = narrow(values);
      const wrong = bits.filter((b) => back[b] !== b && !Number.isNaN(values[b]));
      expect(wrong).toHaveLength(0);
      expect(bits.filter((b) => Number.isNaN(values[b])).every((b) => isNaN16(type, back[b]))).toBe(true);
    }
  });

  it.each([
    ["f16", narrowToF16, 65520],
    ["bf16", narrowToBf16, 511 * 2 ** 119],
  ] as const)("%s: takes the nearest, and of two equally near the even one", (type, narrow, overflow) => {
    const wide = (bits: number) => widened({ dims: [1], type, bytes: new Uint8Array(Uint16Array.of(bits).buffer) })[0];
    fc.assert(
      fc.property(fc.float({ noNaN: true, min: 0, max: Math.fround(overflow), maxExcluded: true }), (value) => {
        const [bits] = narrow(Float32Array.of(value));
        const error = Math.abs(wide(bits) - value);
        for (const other of [bits - 1, bits + 1]) {
          if (other < 0 || !Number.isFinite(wide(other))) continue;
          const otherError = Math.abs(wide(other) - value);
          expect(error < otherError || (error === otherError && bits % 2 === 0)).toBe(true);
        }
        expect(narrow(Float32Array.of(-value))[0]).toBe(bits | 0x8000);
      }),
      { numRuns: 2000 },
    );
    expect(wide(narrow(Float32Array.of(overflow))[0])).toBe(Infinity);
  });

  it("rounds ties to even", () => {
    expect(Array.from(narrowToF16(Float32Array.of(2049, 2051, 2 ** -25, 3 * 2 ** -25)))).toEqual([
      0x6800, 0x6802, 0, 2,
    ]);
    expect(Array.from(narrowToBf16(Float32Array.of(257, 259)))).toEqual([0x4380, 0x4382]);
  });
});

function isNaN16(type: "f16" | "bf16", bits: number): boolean {
  return (bits & 0x7fff) > (type === "f16" ? 0x7c00 : 0x7f80);
}

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UserError } from "../errors.ts";
import { readSafetensors, readSafetensorsHeader, SafetensorsWriter } from "./safetensors.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rifft-safetensors-"));
});
afterAll(() => rm(folder, { recursive: true }));

const tensors = fc.dictionary(
  fc.string({ minLength: 1, maxLength: 12 }).filter((name) => !name.startsWith("__")),
  fc.record({
    dims: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 3 }),
    type: fc.constantFrom("f32" as const, "f16" as const, "bf16" as const),
    seed: fc.nat(255),
  }),
  { maxKeys: 6 },
);

function content({ dims, type, seed }: { dims: number[]; type: string; seed: number }): Uint8Array {
  const size = dims.reduce((a, b) => a * b, 1) * (type === "f32" ? 4 : 2);
  return Uint8Array.from({ length: size }, (_, i) => (seed + i * 31) & 255);
}

/** A file with this header and this many bytes of data. */
async function rawFile(name: string, header: unknown, data: number): Promise<string> {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const path = join(folder, name);
  await writeFile(path, Buffer.concat([length, json, Buffer.alloc(data)]));
  return path;
}

describe("safetensors", () => {
  it("reads back what it writes, whatever the order in which it came", async () => {
    await fc.assert(
      fc.asyncProperty(tensors, fc.boolean(), async (plan, reversed) => {
        const path = join(folder, "round-trip.safetensors");
        const writer = await SafetensorsWriter.create(path, new Map(Object.entries(plan)));
        const names = Object.keys(plan);
        for (const name of reversed ? names.reverse() : names) await writer.write(name, content(plan[name]));
        await writer.finish();
        const read = await readSafetensors(path, await readSafetensorsHeader(path));
        expect(new Set(read.keys())).toEqual(new Set(names));
        for (const [name, tensor] of read) {
          expect(tensor).toEqual({ dims: plan[name].dims, type: plan[name].type, bytes: content(plan[name]) });
        }
      }),
      { numRuns: 40 },
    );
  });

  it("does not finish without an announced tensor, nor take one twice or of another size", async () => {
    const plan = new Map([["a", { dims: [2], type: "f16" as const }]]);
    const writer = await SafetensorsWriter.create(join(folder, "unfinished.safetensors"), plan);
    await expect(writer.finish()).rejects.toThrow("never written");
    await expect(writer.write("a", new Uint8Array(3))).rejects.toThrow("announced 4 bytes");
    await writer.write("a", new Uint8Array(4));
    await expect(writer.write("a", new Uint8Array(4))).rejects.toThrow("came twice");
    await writer.finish();
  });

  it("calls every truncation by its name", async () => {
    const path = join(folder, "whole.safetensors");
    const writer = await SafetensorsWriter.create(path, new Map([["weight", { dims: [3, 2], type: "f32" }]]));
    await writer.write("weight", new Uint8Array(24));
    await writer.finish();
    const whole = await readFile(path);
    for (let length = 0; length < whole.length; length++) {
      const cut = join(folder, "cut.safetensors");
      await writeFile(cut, whole.subarray(0, length));
      await expect(readSafetensorsHeader(cut)).rejects.toThrow(UserError);
      await expect(readSafetensorsHeader(cut)).rejects.toThrow(/expected \d+ bytes, found \d+: the file is truncated/);
    }
  });

  it.each([
    ["overlap", { a: entry([2], 0, 8), b: entry([2], 4, 12) }, /tensors a and b overlap/],
    ["size", { a: entry([3], 0, 8) }, /tensor a: F32 \[3\] takes 12 bytes, but its offsets are 0 to 8/],
    ["order", { a: entry([2], 8, 0) }, /its offsets are 8 to 0/],
    ["range", { a: entry([50], 0, 200) }, /expected \d+ bytes, found \d+/],
    ["kind", { a: { dtype: "F32", shape: "x", data_offsets: [0, 8] } }, /tensor a: shape/],
    ["json", "{nonsense", /not valid JSON/],
    ["list", [1], /expected record/i],
  ])("refuses a header with a wrong %s", async (name, header, message) => {
    const path = await rawFile(name, header, 16);
    await expect(readSafetensorsHeader(path)).rejects.toThrow(UserError);
    await expect(readSafetensorsHeader(path)).rejects.toThrow(message);
  });

  it("names the dtype that it does not read", async () => {
    const path = await rawFile("fp8", { a: { dtype: "F8_E4M3", shape: [4], data_offsets: [0, 4] } }, 4);
    const header = await readSafetensorsHeader(path);
    await expect(readSafetensors(path, header)).rejects.toThrow("tensor a: dtype F8_E4M3 is not supported");
  });

  it("answers any bytes with a UserError or a header", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 80 }), async (bytes) => {
        const path = join(folder, "noise");
        await writeFile(path, bytes);
        await readSafetensorsHeader(path).catch((error) => expect(error).toBeInstanceOf(UserError));
      }),
      { numRuns: 60 },
    );
  });
});

function entry(shape: number[], start: number, end: number) {
  return { dtype: "F32", shape, data_offsets: [start, end] };
}

import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { UserError } from "../errors.ts";
import type { ExportTensor } from "./export.ts";
import { exportGguf } from "./gguf-export.ts";
import { readGgufHeader } from "./gguf.ts";
import { loadModelFiles } from "./load.ts";
import { narrowToF16, quantiseQ8 } from "./narrow.ts";
import { tinyFiles } from "./tiny.ts";
import type { ModelFiles } from "./types.ts";
import { widen } from "./widen.ts";
import { weightsOf } from "./testing.ts";

const models = join(import.meta.dirname, "..", "..", "test", "fixtures", "models");
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "rifft-gguf-export-"));
});
afterAll(() => rm(scratch, { recursive: true }));

const valuesOf = (files: ModelFiles) => new Map([...weightsOf(files)].map(([name, { data }]) => [name, data]));

/** The largest difference of a value, over the largest value of its block of 32. */
function largestRelative(before: ModelFiles, after: ModelFiles): number {
  const narrow = valuesOf(after);
  let worst = 0;
  for (const [name, data] of valuesOf(before)) {
    const other = narrow.get(name);
    if (other?.length !== data.length) throw new Error(`${name} differs in size`);
    for (let from = 0; from < data.length; from += 32) {
      const block = data.subarray(from, from + 32);
      const size = block.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
      block.forEach((x, i) => (worst = Math.max(worst, Math.abs(x - other[from + i]) / size)));
    }
  }
  return worst;
}

/** A fixture whose sidecars are changed by the test. */
async function changed(family: string, file: string, change: (json: Record<string, unknown>) => unknown) {
  const files = await loadModelFiles(join(models, family));
  const schema = z.record(z.string(), z.unknown());
  const json = schema.parse(JSON.parse(Buffer.from(files.sidecars.get(file) ?? []).toString()));
  files.sidecars.set(file, Buffer.from(JSON.stringify(change(json))));
  return files;
}

const tiny = () => {
  let i = 0;
  const vocabulary = [" Tom", " To", "T", "o", "1", "12", "\n", "\t", ".", "\\", "\\n", "é", "🙂", " "];
  return tinyFiles({ vocabulary, hidden: 32, heads: 2 }, () => Math.sin(++i));
};

describe("exportGguf", () => {
  it.each(["llama", "llama3", "qwen2", "qwen3"])("gives %s back bit by bit as f32", async (family) => {
    const files = await loadModelFiles(join(models, family));
    const path = join(scratch, `${family}.gguf`);
    expect(await exportGguf(path, files, weightsOf(files), "f32")).toEqual({ unquantised: [] });
    const again = await loadModelFiles(path);
    expect(again.config).toEqual(files.config);
    expect(valuesOf(again)).toEqual(valuesOf(files));
    const text = "Tom has  12 apples; 3 x 4 = 12.\n\n\tIsn't it? café";
    expect(again.tokenizer.encode(text)).toEqual(files.tokenizer.encode(text));
    expect(again.tokenizer.hasChatTemplate).toBe(files.tokenizer.hasChatTemplate);
    if (files.tokenizer.hasChatTemplate) {
      const messages = [{ role: "user" as const, content: "What is 2 + 3?" }];
      expect(again.tokenizer.renderChat(messages)).toBe(files.tokenizer.renderChat(messages));
    }
    expect((await readdir(scratch)).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("writes matrices as f16, bf16 or q8_0, and vectors as f32", async () => {
    const files = await loadModelFiles(join(models, "qwen3"));
    const limits = { f16: 2 ** -11, bf16: 2 ** -8, q8_0: 1 / 254 + 2 ** -11 } as const;
    for (const type of ["f16", "bf16", "q8_0"] as const) {
      const path = join(scratch, `${type}.gguf`);
      const { unquantised } = await exportGguf(path, files, weightsOf(files), type);
      // 48 numbers a row are no whole blocks of 32.
      expect(unquantised).toEqual(type === "q8_0" ? ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"] : []);
      const { tensors, metadata } = await readGgufHeader(path);
      expect(tensors.get("blk.0.attn_norm.weight")?.type).toBe("f32");
      expect(tensors.get("token_embd.weight")?.type).toBe(type);
      expect(tensors.get("blk.0.ffn_down.weight")?.type).toBe(type === "q8_0" ? "f16" : type);
      expect(metadata.get("general.file_type")).toBe({ f16: 1, bf16: 32, q8_0: 7 }[type]);
      const worst = largestRelative(files, await loadModelFiles(path));
      expect(worst).toBeGreaterThan(limits[type] / 4);
      expect(worst).toBeLessThanOrEqual(limits[type]);
    }
  });

  it("writes a tiny model, whose tokenizer takes the longest word", async () => {
    const files = tiny();
    const path = join(scratch, "new", "tiny.gguf");
    await exportGguf(path, files, weightsOf(files), "f32");
    const again = await loadModelFiles(path);
    expect(again.config).toEqual(files.config);
    expect(valuesOf(again)).toEqual(valuesOf(files));
    expect(again.sidecars).toEqual(files.sidecars);
    const text = " To Tom112\\n\n\t\\é🙂.";
    expect(again.tokenizer.encode(text)).toEqual(files.tokenizer.encode(text));
    expect(() => again.tokenizer.encode("zebra")).toThrow(UserError);
  });

  it("keeps rows of the embedding that have no token", async () => {
    const files = await changed("llama", "tokenizer.json", (json) => ({
      ...json,
      added_tokens: z
        .array(z.looseObject({ id: z.int() }))
        .parse(json.added_tokens)
        .filter(({ id }) => id !== 298),
    }));
    const path = join(scratch, "holes.gguf");
    await exportGguf(path, files, weightsOf(files), "f16");
    const { tokenizer, config } = await loadModelFiles(path);
    expect([config.vocab, tokenizer.vocabSize]).toEqual([300, 300]);
    expect(tokenizer.idOf("<|im_start|>")).toBeUndefined();
    expect(tokenizer.encode("[PAD298]", { special: true }).length).toBeGreaterThan(1);
  });

  it.each([
    [
      "a pre-tokenizer that other programs have no name for",
      "llama",
      (json: Record<string, unknown>) => ({ ...json, pre_tokenizer: { type: "Whitespace" } }),
      /cannot hold this pre-tokenizer/,
    ],
    [
      "a tokenizer of another kind",
      "llama",
      (json: Record<string, unknown>) => ({ ...json, model: { type: "Unigram", vocab: [["a", 0]] } }),
      /cannot hold a tokenizer of type Unigram/,
    ],
    [
      "a BPE tokenizer with pieces of words",
      "qwen2",
      (json: Record<string, unknown>) => ({
        ...json,
        model: { ...z.looseObject({}).parse(json.model), end_of_word_suffix: "</w>" },
      }),
      /not byte-level/,
    ],
    [
      "a normaliser that readers do not know",
      "llama",
      (json: Record<string, unknown>) => ({ ...json, normalizer: { type: "Lowercase" } }),
      /other tokens/,
    ],
  ])("refuses %s before anything is written", async (_, family, change, message) => {
    const files = await changed(family, "tokenizer.json", change);
    const path = join(scratch, "refused.gguf");
    await expect(exportGguf(path, files, weightsOf(files), "f16")).rejects.toThrow(message);
    expect((await readdir(scratch)).filter((name) => name.includes("refused"))).toEqual([]);
  });

  it("refuses Llama 3's rope scaling where other programs would not apply it", async () => {
    const files = await loadModelFiles(join(models, "qwen2"));
    files.config.ropeScaling = { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxContext: 32 };
    await expect(exportGguf(join(scratch, "q.gguf"), files, weightsOf(files), "f16")).rejects.toThrow("rope scaling");
  });

  it("leaves nothing behind when it fails, and never writes over a file", async () => {
    const files = tiny();
    const broken = function* () {
      yield [...weightsOf(files)][0];
    };
    const path = join(scratch, "broken.gguf");
    await expect(exportGguf(path, files, broken(), "f16")).rejects.toThrow("never written");
    const huge = function* (): Generator<[string, ExportTensor]> {
      for (const [name, tensor] of weightsOf(files)) yield [name, { ...tensor, data: tensor.data.map((x) => 1e6 * x) }];
    };
    await expect(exportGguf(path, files, huge(), "f16")).rejects.toThrow("float16 cannot");
    expect((await readdir(scratch)).filter((name) => name.includes("broken"))).toEqual([]);
    await writeFile(path, "mine");
    await expect(exportGguf(path, files, weightsOf(files), "f16")).rejects.toThrow("exists");
    await expect(exportGguf(join(scratch, "folder"), files, weightsOf(files), "f16")).rejects.toThrow(".gguf");
    expect(existsSync(join(scratch, "folder"))).toBe(false);
    await expect(exportGguf(join(path, "x.gguf"), files, weightsOf(files), "f16")).rejects.toThrow(UserError);
  });
});

describe("quantiseQ8", () => {
  const block = (...head: number[]) => Float32Array.from({ length: 32 }, (_, i) => head[i] ?? 0);

  it("rounds halves away from zero, by the scale before it became half precision", () => {
    const bytes = quantiseQ8(block(127, 0.5, -0.5, 1.5, -2.5, 2.49, -127));
    expect([...new Int8Array(bytes.buffer).subarray(2, 9)]).toEqual([127, 1, -1, 2, -3, 2, -127]);
    expect([bytes[0], bytes[1]]).toEqual([0x00, 0x3c]);
    // 1/127 is no half: the quotients are of the float32 scale.
    const third = quantiseQ8(block(1, -1 / 3));
    expect([...new Int8Array(third.buffer).subarray(2, 4)]).toEqual([127, -42]);
    expect([...quantiseQ8(new Float32Array(32))]).toEqual(new Array(34).fill(0));
  });

  it("comes back within half a step of the scale, and half a unit of its rounding", () => {
    const values = fc.array(fc.float({ noNaN: true, min: -100, max: 100 }), { minLength: 64, maxLength: 64 });
    fc.assert(
      fc.property(values, (numbers) => {
        const source = Float32Array.from(numbers);
        const out = new Float32Array(64);
        widen({ dims: [1, 64], type: "q8_0", bytes: quantiseQ8(source) }, out);
        for (let from = 0; from < 64; from += 32) {
          const largest = source.subarray(from, from + 32).reduce((max, x) => Math.max(max, Math.abs(x)), 0);
          const scale = largest / 127;
          const half = new Float32Array(1);
          widen({ dims: [1], type: "f16", bytes: new Uint8Array(narrowToF16(Float32Array.of(scale)).buffer) }, half);
          const bound = scale / 2 + 127 * Math.abs(half[0] - scale) + 1e-5 * largest;
          for (let i = from; i < from + 32; i++) expect(Math.abs(out[i] - source[i])).toBeLessThanOrEqual(bound);
        }
      }),
    );
  });
});

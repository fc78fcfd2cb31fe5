import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { exportHuggingFace, exportPeft, planShards } from "./export.ts";
import { loadModelFiles } from "./load.ts";
import { narrowToBf16 } from "./narrow.ts";
import { readSafetensors, readSafetensorsHeader } from "./safetensors.ts";
import { tensorShapes } from "./shape.ts";
import { elementCount } from "./storage.ts";
import { tinyFiles } from "./tiny.ts";
import type { ModelFiles } from "./types.ts";
import { weightsOf } from "./testing.ts";

const models = join(import.meta.dirname, "..", "..", "test", "fixtures", "models");
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "rifft-export-"));
});
afterAll(() => rm(scratch, { recursive: true }));

/** A digest of each tensor: comparing buffers element by element takes seconds. */
const bytesOf = (files: ModelFiles) =>
  new Map([...files.tensors].map(([name, { bytes }]) => [name, createHash("sha256").update(bytes).digest("hex")]));
const configSchema = z.looseObject({ torch_dtype: z.string(), dtype: z.string().optional(), hidden_size: z.number() });

describe("exportHuggingFace", () => {
  it.each([
    ["llama3", "bf16", "bfloat16"],
    ["qwen2", "f16", "float16"],
    ["qwen3", "f32", "float32"],
  ] as const)("gives %s back as %s, bit by bit, whichever way it was sharded", async (family, type, dtype) => {
    const files = await loadModelFiles(join(models, family));
    const folder = join(scratch, family);
    await exportHuggingFace(folder, files, weightsOf(files), type);
    const again = await loadModelFiles(folder);
    expect(again.config).toEqual(files.config);
    expect(bytesOf(again)).toEqual(bytesOf(files));
    expect(again.tokenizer.encode("7 apples")).toEqual(files.tokenizer.encode("7 apples"));
    const config = configSchema.parse(JSON.parse(await readFile(join(folder, "config.json"), "utf8")));
    expect(config.torch_dtype).toBe(dtype);
    expect(config.dtype).toBeUndefined();
    expect((await readdir(scratch)).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("writes a tiny model whose folder is the same model", async () => {
    let i = 0;
    const files = tinyFiles({ vocabulary: [" Tom", "1", "\n", "."] }, () => Math.sin(++i));
    const folder = join(scratch, "new", "tiny");
    await exportHuggingFace(folder, files, weightsOf(files), "f32");
    const again = await loadModelFiles(folder);
    expect(again.config).toEqual(files.config);
    expect(bytesOf(again)).toEqual(bytesOf(files));
    expect(again.tokenizer.encode(" Tom1\n.")).toEqual(Int32Array.of(1, 2, 3, 4));
    await exportHuggingFace(join(scratch, "tiny-bf16"), files, weightsOf(files), "bf16");
    const narrow = await loadModelFiles(join(scratch, "tiny-bf16"));
    for (const [name, { data }] of weightsOf(files)) {
      expect(Buffer.from(narrow.tensors.get(name)?.bytes ?? []).equals(Buffer.from(narrowToBf16(data).buffer))).toBe(
        true,
      );
    }
  });

  it("leaves nothing behind when it fails, and never writes over a folder", async () => {
    const files = await loadModelFiles(join(models, "llama"));
    const folder = join(scratch, "broken");
    const half = function* () {
      yield [...weightsOf(files)][0];
    };
    await expect(exportHuggingFace(folder, files, half(), "f32")).rejects.toThrow("never written");
    await expect(readdir(folder)).rejects.toThrow("ENOENT");
    expect((await readdir(scratch)).filter((name) => name.includes("broken"))).toEqual([]);

    await mkdir(folder);
    await writeFile(join(folder, "mine.txt"), "keep");
    await expect(exportHuggingFace(folder, files, weightsOf(files), "f32")).rejects.toThrow(UserError);
    expect(await readdir(folder)).toEqual(["mine.txt"]);
    await rm(join(folder, "mine.txt"));
    await exportHuggingFace(folder, files, weightsOf(files), "f32");
    expect(await readdir(folder)).toContain("model.safetensors");
  });

  it("says in one line why a folder cannot be made", async () => {
    const files = await loadModelFiles(join(models, "llama"));
    await writeFile(join(scratch, "file"), "");
    const inside = exportHuggingFace(join(scratch, "file", "folder"), files, weightsOf(files), "f32");
    await expect(inside).rejects.toThrow(UserError);
  });
});

describe("planShards", () => {
  it("fills shards in order up to the limit", async () => {
    const { config } = await loadModelFiles(join(models, "llama3"));
    const shapes = tensorShapes(config);
    const shards = planShards(shapes, "bf16", 10_000);
    const sizes = [...shards.values()].map((plan) =>
      [...plan.values()].reduce((sum, { dims }) => sum + 2 * elementCount(dims), 0),
    );
    const largest = 2 * 300 * 32;
    expect(sizes.every((size) => size <= 10_000 || size === largest)).toBe(true);
    expect([...shards.values()].flatMap((plan) => [...plan.keys()])).toEqual([...shapes.keys()]);
    expect([...shards.keys()][0]).toBe(`model-00001-of-0000${shards.size}.safetensors`);
    expect([...planShards(shapes, "f32", 1e9).keys()]).toEqual(["model.safetensors"]);
  });
});

describe("exportPeft", () => {
  it("writes what peft itself writes", async () => {
    const folder = join(models, "qwen2");
    const files = await loadModelFiles(folder);
    const theirs = join(folder, "lora");
    const tensors = await readSafetensors(
      join(theirs, "adapter_model.safetensors"),
      await readSafetensorsHeader(join(theirs, "adapter_model.safetensors")),
    );
    const factor = (module: string, name: string) => {
      const tensor = tensors.get(`base_model.model.model.${module}.lora_${name}.weight`);
      if (!tensor) throw new Error(`no ${module} ${name}`);
      return new Float32Array(tensor.bytes.buffer);
    };
    const modules = [0, 1].flatMap((layer) =>
      [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
      ].map((name) => `layers.${layer}.${name}`),
    );
    const adapters = new Map(modules.map((module) => [module, { a: factor(module, "A"), b: factor(module, "B") }]));
    const ours = join(scratch, "lora");
    await exportPeft(ours, files, "test/fixtures/models/qwen2", { rank: 4, alpha: 8 }, adapters);

    const path = join(ours, "adapter_model.safetensors");
    expect(await readSafetensors(path, await readSafetensorsHeader(path))).toEqual(tensors);
    const schema = z.looseObject({ target_modules: z.array(z.string()) });
    const config = async (folder: string) => {
      const { target_modules, ...rest } = schema.parse(
        JSON.parse(await readFile(join(folder, "adapter_config.json"), "utf8")),
      );
      return { ...rest, target_modules: target_modules.sort() };
    };
    // peft fills in what is left out with the defaults that it wrote into its own file.
    expect(await config(theirs)).toMatchObject(await config(ours));
  });
});

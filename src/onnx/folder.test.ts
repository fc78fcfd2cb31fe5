import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { loadModelFiles } from "../model/load.ts";
import { tinyFiles } from "../model/tiny.ts";
import { Runtime, Value } from "../runtime/index.ts";
import { scoreOnnx } from "../run/onnx-scores.ts";
import { decoderGraph } from "./decoder.ts";
import { exportOnnx } from "./folder.ts";
import { weightsOf } from "../model/testing.ts";

const models = join(import.meta.dirname, "..", "..", "test", "fixtures", "models");
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "rifft-onnx-"));
});
afterAll(() => rm(scratch, { recursive: true }));

const readJson = async (path: string) =>
  z.record(z.string(), z.unknown()).parse(JSON.parse(await readFile(path, "utf8")));

const expectedSchema = z.object({
  sequences: z.array(z.object({ tokens: z.array(z.int()), logprobs: z.array(z.number()) })),
});

describe("the exported graph", () => {
  it.each(["llama", "llama3", "qwen2", "qwen3"])(
    "scores as transformers does, prompt and continuation apart: %s",
    async (family) => {
      const files = await loadModelFiles(join(models, family));
      const folder = join(scratch, family);
      await exportOnnx(folder, files, weightsOf(files), "f32");
      const { sequences } = expectedSchema.parse(await readJson(join(models, family, "expected.json")));
      const probes = sequences.map(({ tokens }) => ({
        prompt: Int32Array.from(tokens.slice(0, 3)),
        response: Int32Array.from(tokens.slice(3)),
      }));
      const scores = await scoreOnnx(Runtime.open(), folder, "f32", files.config, probes);
      scores.forEach((row, s) =>
        row.forEach((value, t) => expect(Math.abs(value - sequences[s].logprobs[t + 3])).toBeLessThan(2e-5)),
      );
      // Half precision is what is stored, not what is computed.
      await exportOnnx(join(folder, "half"), files, weightsOf(files), "f16");
      const half = await scoreOnnx(Runtime.open(), join(folder, "half"), "f16", files.config, probes);
      const worst = Math.max(
        ...scores.flatMap((row, s) => Array.from(row, (value, t) => Math.abs(value - half[s][t]))),
      );
      // The weights of two fixtures are halves, or bfloat16 in the range of halves.
      if (family === "qwen2" || family === "llama3") expect(worst).toBeLessThan(1e-6);
      else expect(worst).toBeGreaterThan(1e-6);
      expect(worst).toBeLessThan(5e-3);
    },
  );

  it("gives a row the same numbers alone and in a batch whose shorter rows are padded on the left", async () => {
    const files = await loadModelFiles(join(models, "qwen2"));
    const { layers, kvHeads, headDim, vocab } = files.config;
    const folder = join(scratch, "batch");
    await exportOnnx(folder, files, weightsOf(files), "f32");
    const session = Runtime.open().createSession(await readFile(join(folder, "onnx", "model.onnx")));
    const run = async (rows: number[][], padding: number[]) => {
      const [batch, length] = [rows.length, rows[0].length];
      const integers = (values: number[]) => new Value(BigInt64Array.from(values, BigInt), [batch, length]);
      const cache = (name: string, count: number) =>
        Object.fromEntries(
          Array.from({ length: layers }, (_, l) =>
            ["key", "value"].map((part): [string, Value] => [
              `${name}.${l}.${part}`,
              new Value(new Float32Array(batch * kvHeads * count * headDim), [batch, kvHeads, count, headDim]),
            ]),
          ).flat(),
        );
      const logits = new Float32Array(batch * length * vocab);
      const inputs = {
        input_ids: integers(rows.flat()),
        attention_mask: integers(rows.flatMap((row, b) => row.map((_, i) => Number(i >= padding[b])))),
        position_ids: integers(rows.flatMap((row, b) => row.map((_, i) => (i < padding[b] ? 1 : i - padding[b])))),
        ...cache("past_key_values", 0),
      };
      await session
        .bind(inputs, { logits: new Value(logits, [batch, length, vocab]), ...cache("present", length) })
        .run();
      return rows.map((_, b) => logits.slice(((b + 1) * length - 3) * vocab, (b + 1) * length * vocab));
    };
    const long = [5, 9, 200, 31, 7, 77, 150];
    const short = [12, 250, 3];
    const [alone] = await run([short], [0]);
    const together = await run([long, [0, 0, 0, 0, ...short]], [0, 4]);
    expect(together[1].every(Number.isFinite)).toBe(true);
    together[1].forEach((value, i) => expect(Math.abs(value - alone[i])).toBeLessThan(1e-5));
    expect(together[0]).not.toEqual(together[1]);
  });

  it("has only ONNX's own operators, with batch and lengths open", async () => {
    const { config } = await loadModelFiles(join(models, "qwen3"));
    const graph = decoderGraph(config, "float16");
    // Those that version 18 of the operators defines, and that every execution provider of browsers has.
    const known =
      "Add And Cast Concat Cos Div Gather Gemm LessOrEqual MatMul Mul Range ReduceSum Reshape Shape Sigmoid Sin Softmax Split Sqrt Sub Transpose Where".split(
        " ",
      );
    expect([...new Set(graph.nodes.map(({ op, domain }) => domain + op))].filter((op) => !known.includes(op))).toEqual(
      [],
    );
    const dims = new Map(graph.inputs.map(({ name, dims }) => [name, dims]));
    expect(dims.get("past_key_values.1.value")).toEqual(["batch_size", 2, "past_sequence_length", 16]);
    expect(dims.get("attention_mask")).toEqual(["batch_size", "past_sequence_length+sequence_length"]);
    expect(graph.outputs.at(-1)?.tensor.dims).toEqual(["batch_size", "sequence_length", 300]);
  });
});

describe("the folder", () => {
  it("is laid out as transformers.js loads it", async () => {
    const files = await loadModelFiles(join(models, "qwen2"));
    const folder = join(scratch, "layout");
    await exportOnnx(folder, files, weightsOf(files), "f32");
    expect((await readdir(folder, { recursive: true })).sort()).toEqual([
      "chat_template.jinja",
      "config.json",
      "generation_config.json",
      "onnx",
      join("onnx", "model.onnx"),
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const config = await readJson(join(folder, "config.json"));
    expect(config["transformers.js_config"]).toEqual({ dtype: "fp32" });
    expect(config).toMatchObject({ model_type: "qwen2", num_key_value_heads: 2, num_hidden_layers: 2 });
    const template = (await readFile(join(models, "qwen2", "chat_template.jinja"))).toString();
    expect(await readJson(join(folder, "tokenizer_config.json"))).toMatchObject({ chat_template: template });
    expect(await readJson(join(folder, "generation_config.json"))).toMatchObject({ eos_token_id: [299, 297] });
  });

  it("keeps the weights of a larger model in files beside the graph", async () => {
    let i = 0;
    const vocabulary = Array.from({ length: 3000 }, (_, word) => ` word${word}`);
    const files = tinyFiles({ vocabulary, hidden: 512, heads: 4, layers: 3, intermediate: 1024 }, () => Math.sin(++i));
    const folder = join(scratch, "large");
    await exportOnnx(folder, files, weightsOf(files), "f16");
    await exportOnnx(join(scratch, "large32"), files, weightsOf(files), "f32");
    const config = await readJson(join(scratch, "large32", "config.json"));
    expect(config["transformers.js_config"]).toEqual({
      dtype: "fp32",
      use_external_data_format: { "model.onnx": 1 },
    });
    expect(await readdir(join(scratch, "large32", "onnx"))).toEqual(["model.onnx", "model.onnx_data"]);
    expect(await readdir(join(folder, "onnx"))).toEqual(["model_fp16.onnx"]);
    const probes = [{ prompt: Int32Array.of(1, 2, 3), response: Int32Array.of(4, 5, 0) }];
    const [inside] = await scoreOnnx(Runtime.open(), folder, "f16", files.config, probes);
    const [beside] = await scoreOnnx(Runtime.open(), join(scratch, "large32"), "f32", files.config, probes);
    inside.forEach((value, t) => expect(Math.abs(value - beside[t])).toBeLessThan(5e-2));
    expect(beside).not.toEqual(inside);
  });

  it("is not written where something is, or where weights are missing", async () => {
    const files = await loadModelFiles(join(models, "llama"));
    const folder = join(scratch, "full");
    const some = function* () {
      yield [...weightsOf(files)][0];
    };
    await expect(exportOnnx(folder, files, some(), "f32")).rejects.toThrow("never written");
    await expect(readdir(folder)).rejects.toThrow("ENOENT");
    await mkdir(folder);
    await writeFile(join(folder, "mine.txt"), "keep");
    await expect(exportOnnx(folder, files, weightsOf(files), "f32")).rejects.toThrow("is not empty");
    expect((await readdir(scratch)).filter((name) => name.startsWith("."))).toEqual([]);
  });
});

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { oneOrMany } from "../model/config.ts";
import { toBytes, type Weights, withDtype } from "../model/export.ts";
import { parseJson } from "../model/files.ts";
import { tokenizerSource } from "../model/huggingface.ts";
import { tensorShapes } from "../model/shape.ts";
import { storedBytes } from "../model/storage.ts";
import { type ByteRange, TensorFileWriter } from "../model/tensor-file.ts";
import type { ModelFiles } from "../model/types.ts";
import { json, writeFileSynced, writeFolder } from "../model/write-folder.ts";
import type { ExternalData } from "../tensor/index.ts";
import { decoderGraph } from "./decoder.ts";

export type OnnxType = "f32" | "f16";

/** Smaller models keep their weights inside the graph's file. */
const inlineBytes = 2 ** 25;
/** Browsers hold no longer buffers than 2 GB. */
const dataFileBytes = 2e9;
/** As many files as transformers.js reads. */
const maxDataFiles = 100;
/** Weights begin at multiples of this, so that readers can map the file. */
const alignment = 64;

/** The graph's file, by how its matrices are stored: the names that transformers.js looks for. */
export const graphFile: Record<OnnxType, string> = { f32: "model.onnx", f16: "model_fp16.onnx" };

/**
 * Writes the folder that transformers.js loads: onnx/model.onnx (and its data files where the model is large), config.json, tokenizer
 * and generation settings. The folder appears whole or not at all. The graph computes in float32 with either type.
 * @param weights every tensor of the model once, in any order; may be made one at a time
 * @throws UserError where the folder exists and is not empty, or the disk is full
 */
export async function exportOnnx(folder: string, files: ModelFiles, weights: Weights, type: OnnxType): Promise<void> {
  const plan = planData(files, type);
  const sidecars = withTransformersJs(files, type, plan.files.length);
  await writeFolder(folder, async (target) => {
    for (const [name, content] of sidecars) await writeFileSynced(join(target, name), content);
    const inside = join(target, "onnx");
    await mkdir(inside);
    const place = plan.files.length > 0 ? await writeData(inside, plan, weights, type) : await collect(weights, type);
    const graph = decoderGraph(files.config, type === "f16" ? "float16" : "float32").build((name) => {
      const found = place.get(name);
      if (!found) throw new Error(`tensor ${name} was never written`);
      return found;
    });
    await writeFileSynced(join(inside, graphFile[type]), graph);
  });
}

interface DataPlan {
  /** None where the weights stand in the graph's file. */
  files: { name: string; ranges: Map<string, ByteRange> }[];
}

/** Vectors stay float32. */
const storedType = (dims: readonly number[], type: OnnxType): OnnxType => (dims.length > 1 ? type : "f32");

function planData({ config }: ModelFiles, type: OnnxType): DataPlan {
  const sizes = [...tensorShapes(config)].map(([name, dims]): [string, number] => {
    const size = storedBytes(storedType(dims, type), dims) ?? 0;
    if (size > dataFileBytes) {
      throw new UserError(
        `${name} takes ${size} bytes, and browsers hold no more than ${dataFileBytes}; export with --format gguf or hf`,
      );
    }
    return [name, size];
  });
  if (sizes.reduce((sum, [, size]) => sum + size, 0) <= inlineBytes) return { files: [] };
  const files: DataPlan["files"] = [];
  let end = Infinity;
  for (const [name, size] of sizes) {
    if (end + size > dataFileBytes) {
      const number = files.length === 0 ? "" : `_${files.length}`;
      files.push({ name: `${graphFile[type]}_data${number}`, ranges: new Map() });
      end = 0;
    }
    files[files.length - 1].ranges.set(name, { start: end, end: end + size });
    end = Math.ceil((end + size) / alignment) * alignment;
  }
  if (files.length > maxDataFiles) {
    throw new UserError(
      `the weights take ${files.length} files, and transformers.js reads ${maxDataFiles}; export with --format gguf or hf`,
    );
  }
  return { files };
}

type Places = Map<string, Uint8Array | ExternalData>;

async function collect(weights: Weights, type: OnnxType): Promise<Places> {
  const places: Places = new Map();
  for await (const [name, { dims, data }] of weights) {
    places.set(name, toBytes(data, storedType(dims, type), name).slice());
  }
  return places;
}

async function writeData(folder: string, plan: DataPlan, weights: Weights, type: OnnxType): Promise<Places> {
  const places: Places = new Map();
  const writers: TensorFileWriter[] = [];
  const writerOf = new Map<string, TensorFileWriter>();
  try {
    for (const { name: location, ranges } of plan.files) {
      const writer = await TensorFileWriter.open(join(folder, location), new Uint8Array(), ranges);
      writers.push(writer);
      for (const [name, { start: offset }] of ranges) {
        places.set(name, { location, offset });
        writerOf.set(name, writer);
      }
    }
    for await (const [name, { dims, data }] of weights) {
      const writer = writerOf.get(name);
      if (!writer) throw new Error(`tensor ${name} is not part of this model`);
      await writer.write(name, toBytes(data, storedType(dims, type), name));
    }
    for (const writer of writers) await writer.finish();
  } catch (error) {
    for (const writer of writers) await writer.close();
    throw error;
  }
  return places;
}

/** The sidecars with what transformers.js looks for in them. */
function withTransformersJs(files: ModelFiles, type: OnnxType, dataFiles: number): Map<string, Uint8Array> {
  const sidecars = new Map(files.sidecars);
  const object = (name: string) => parseJson(sidecars.get(name) ?? "{}", z.record(z.string(), z.unknown()), name);
  sidecars.set("config.json", withDtype(sidecars.get("config.json") ?? json({}), "f32"));
  const settings = {
    // In a browser it would else look for a quantised graph.
    dtype: type === "f16" ? "fp16" : "fp32",
    ...(dataFiles > 0 ? { use_external_data_format: { [graphFile[type]]: dataFiles } } : {}),
  };
  sidecars.set("config.json", json({ ...object("config.json"), "transformers.js_config": settings }));
  if (!sidecars.has("generation_config.json")) {
    const { bosId, eosIds } = files.config;
    sidecars.set("generation_config.json", json({ bos_token_id: bosId ?? null, eos_token_id: oneOrMany(eosIds) }));
  }
  const { chatTemplate } = tokenizerSource(files.sidecars, "the model");
  if (chatTemplate !== undefined) {
    // Older versions know it in this file only.
    sidecars.set("tokenizer_config.json", json({ ...object("tokenizer_config.json"), chat_template: chatTemplate }));
  }
  return sidecars;
}

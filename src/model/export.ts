import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { parseJson } from "./files.ts";
import { narrowToBf16, narrowToF16 } from "./narrow.ts";
import { SafetensorsWriter, type TensorPlan } from "./safetensors.ts";
import { tensorShapes } from "./shape.ts";
import { elementCount } from "./storage.ts";
import type { ModelFiles } from "./types.ts";
import { json, writeFileSynced, writeFolder } from "./write-folder.ts";

export type ExportType = "f32" | "f16" | "bf16";

/** Tensors by name; each may be valid only until the next is asked for. */
export type Weights =
  | Iterable<readonly [name: string, tensor: ExportTensor]>
  | AsyncIterable<readonly [name: string, tensor: ExportTensor]>;

export interface ExportTensor {
  dims: readonly number[];
  data: Float32Array;
}

const dtypeNames: Record<ExportType, string> = { f32: "float32", f16: "float16", bf16: "bfloat16" };
/** What `transformers` splits at. */
const shardBytes = 5e9;

/**
 * Writes an ordinary Hugging Face folder: the sidecars and the weights in one safetensors file, or several above 5 GB. The folder
 * appears whole or not at all.
 * @param weights every tensor of the model once, in any order; may be made one at a time, so that memory holds one
 * @throws UserError where the folder exists and is not empty, or the disk is full
 */
export async function exportHuggingFace(
  folder: string,
  files: ModelFiles,
  weights: Weights,
  type: ExportType,
): Promise<void> {
  const shards = planShards(tensorShapes(files.config), type, shardBytes);
  await writeFolder(folder, async (target) => {
    for (const [name, content] of files.sidecars) {
      await writeFileSynced(join(target, name), name === "config.json" ? withDtype(content, type) : content);
    }
    await writeWeights(target, shards, weights, type);
    if (shards.size > 1) await writeFileSynced(join(target, "model.safetensors.index.json"), shardIndex(shards));
  });
}

type Shards = Map<string, Map<string, TensorPlan>>;

/** Fills shards in order, none above `limit` bytes unless one tensor is. */
export function planShards(shapes: ReadonlyMap<string, readonly number[]>, type: ExportType, limit: number): Shards {
  const groups: Map<string, TensorPlan>[] = [new Map()];
  let size = 0;
  for (const [name, dims] of shapes) {
    const bytes = elementCount(dims) * (type === "f32" ? 4 : 2);
    if (size > 0 && size + bytes > limit) {
      groups.push(new Map());
      size = 0;
    }
    groups[groups.length - 1].set(name, { dims, type });
    size += bytes;
  }
  const number = (n: number) => String(n).padStart(5, "0");
  const fileName = (i: number) =>
    groups.length === 1 ? "model.safetensors" : `model-${number(i + 1)}-of-${number(groups.length)}.safetensors`;
  return new Map(groups.map((group, i) => [fileName(i), group]));
}

function shardIndex(shards: Shards): Uint8Array {
  let total = 0;
  const map: Record<string, string> = {};
  for (const [file, plan] of shards) {
    for (const [name, { dims, type }] of plan) {
      total += elementCount(dims) * (type === "f32" ? 4 : 2);
      map[name] = file;
    }
  }
  return json({ metadata: { total_size: total }, weight_map: map });
}

async function writeWeights(folder: string, shards: Shards, weights: Weights, type: ExportType): Promise<void> {
  const writers = new Map<string, SafetensorsWriter>();
  const writerOf = new Map<string, SafetensorsWriter>();
  try {
    for (const [file, plan] of shards) {
      const writer = await SafetensorsWriter.create(join(folder, file), plan);
      writers.set(file, writer);
      for (const name of plan.keys()) writerOf.set(name, writer);
    }
    for await (const [name, { data }] of weights) {
      const writer = writerOf.get(name);
      if (!writer) throw new Error(`tensor ${name} is not part of this model`);
      await writer.write(name, toBytes(data, type, name));
    }
    for (const [file, writer] of writers) {
      await writer.finish();
      writers.delete(file);
    }
  } finally {
    for (const writer of writers.values()) await writer.close();
  }
}

/** Little-endian bytes of a type. Throws a UserError for a value that float16 cannot hold. */
export function toBytes(data: Float32Array, type: ExportType, name: string): Uint8Array {
  if (type === "f16") {
    // From here on numbers round to infinity.
    const beyond = data.find((value) => Math.abs(value) >= 65520);
    if (beyond !== undefined) {
      throw new UserError(`${name} holds ${beyond}, which float16 cannot; export with --dtype f32`);
    }
  }
  const typed = type === "f32" ? data : type === "f16" ? narrowToF16(data) : narrowToBf16(data);
  return new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);
}

/** Both names of the setting: before version 5 `transformers` read `torch_dtype`. */
export function withDtype(config: Uint8Array, type: ExportType): Uint8Array {
  const { dtype: _, ...rest } = parseJson(config, z.record(z.string(), z.unknown()), "config.json");
  return json({ ...rest, torch_dtype: dtypeNames[type] });
}

/** A LoRA adapter's factors, row-major: the update of a weight is (alpha / rank) b a. */
export interface AdapterPair {
  /** rank x columns of the weight */
  a: Float32Array;
  /** rows of the weight x rank */
  b: Float32Array;
}

/** The tensor in an adapter's file that holds rows of a module such as `model.embed_tokens`. */
export const tokenRowsName = (module: string): string =>
  `base_model.model.${module}.token_adapter.trainable_tokens_delta`;

/**
 * Writes an adapter folder that `peft` loads: adapter_config.json and adapter_model.safetensors (float32). Rows of added tokens stand in
 * it as `trainable_token_indices`, and the tokenizer beside it; the base's embedding must be resized before that is loaded.
 * @param baseName the name or path of the base model, as `peft` is to look it up
 * @param adapters by module, such as `layers.0.self_attn.q_proj`
 * @param rows of added tokens, by matrix, each [ids, hidden]
 */
export async function exportPeft(
  folder: string,
  files: ModelFiles,
  baseName: string,
  lora: { rank: number; alpha: number },
  adapters: ReadonlyMap<string, AdapterPair>,
  rows: ReadonlyMap<string, Float32Array> = new Map(),
): Promise<void> {
  const shapes = tensorShapes(files.config);
  const plan = new Map<string, TensorPlan>();
  const data = new Map<string, Float32Array>();
  for (const [module, { a, b }] of adapters) {
    const dims = shapes.get(`model.${module}.weight`);
    if (!dims) throw new Error(`module ${module} is not part of this model`);
    const prefix = `base_model.model.model.${module}`;
    plan.set(`${prefix}.lora_A.weight`, { dims: [lora.rank, dims[1]], type: "f32" });
    plan.set(`${prefix}.lora_B.weight`, { dims: [dims[0], lora.rank], type: "f32" });
    data.set(`${prefix}.lora_A.weight`, a);
    data.set(`${prefix}.lora_B.weight`, b);
  }
  const ids = Array.from(files.added?.ids ?? []);
  const indices: Record<string, number[]> = {};
  for (const [matrix, values] of rows) {
    const module = matrix.replace(/\.weight$/, "");
    const name = tokenRowsName(module);
    plan.set(name, { dims: [ids.length, files.config.hidden], type: "f32" });
    data.set(name, values);
    indices[module.slice(module.lastIndexOf(".") + 1)] = ids;
  }
  const config = {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: baseName,
    r: lora.rank,
    lora_alpha: lora.alpha,
    lora_dropout: 0,
    target_modules: [...new Set([...adapters.keys()].map((module) => module.slice(module.lastIndexOf(".") + 1)))],
    bias: "none",
    fan_in_fan_out: false,
    inference_mode: true,
    ...(rows.size > 0 ? { trainable_token_indices: indices } : {}),
  };
  await writeFolder(folder, async (target) => {
    await writeFileSynced(join(target, "adapter_config.json"), json(config));
    for (const [name, content] of rows.size > 0 ? files.sidecars : []) {
      if (!/^(config|generation_config)\.json$/.test(name)) await writeFileSynced(join(target, name), content);
    }
    const writer = await SafetensorsWriter.create(join(target, "adapter_model.safetensors"), plan);
    try {
      for (const [name, values] of data) await writer.write(name, toBytes(values, "f32", name));
    } catch (error) {
      await writer.close();
      throw error;
    }
    await writer.finish();
  });
}

import { basename } from "node:path";
import { UserError } from "../errors.ts";
import { type ExportTensor, toBytes, type Weights } from "./export.ts";
import { ggufName, halfSplitRow, interleavedHeads, ropeTable } from "./gguf-names.ts";
import { tokenizerMetadata } from "./gguf-tokenizer-write.ts";
import { type GgufField, type GgufType, layoutGguf } from "./gguf-write.ts";
import { tokenizerSource } from "./huggingface.ts";
import { quantiseQ8 } from "./narrow.ts";
import { ropeDivisors, ropeScalingKeys } from "./rope.ts";
import { tensorShapes } from "./shape.ts";
import { rowBytes } from "./storage.ts";
import { TensorFileWriter } from "./tensor-file.ts";
import type { ModelConfig, ModelFiles } from "./types.ts";
import { writeNewFile } from "./write-folder.ts";

/** `general.file_type` of files whose matrices are mostly of a type. */
const fileTypes: Record<GgufType, number> = { f32: 0, f16: 1, q8_0: 7, bf16: 32 };

/**
 * Writes one GGUF file that llama.cpp and its kin run: shape, tokenizer, chat template and weights. The file appears whole or not at
 * all. Vectors stay float32; a matrix whose rows are no whole blocks of a quantised type becomes f16, as published quantisers do.
 * @param weights every tensor of the model once, in any order; may be made one at a time
 * @returns the tensors, by their names in the file, that are f16 though `type` is not
 * @throws UserError where the format cannot hold the model or its tokenizer (before anything is written), the file exists, or the
 *   disk is full
 */
export async function exportGguf(
  path: string,
  files: ModelFiles,
  weights: Weights,
  type: GgufType,
): Promise<{ unquantised: string[] }> {
  if (!path.endsWith(".gguf")) {
    throw new UserError(`${path}: expected a file name that ends in .gguf, for one file holds the whole model`);
  }
  const { config } = files;
  const metadata = new Map<string, GgufField>([
    ...modelMetadata(config, basename(path, ".gguf"), type),
    ...tokenizerMetadata(tokenizerSource(files.sidecars, "the model"), config),
  ]);
  const plan = new Map<string, { dims: readonly number[]; type: GgufType }>();
  for (const [name, dims] of tensorShapes(config)) plan.set(ggufName(name), { dims, type: typeOf(dims, type) });
  if (config.ropeScaling) plan.set(ropeTable, { dims: [config.headDim / 2], type: "f32" });
  const { header, ranges, size } = layoutGguf(metadata, plan);
  await writeNewFile(path, async (temporary) => {
    const writer = await TensorFileWriter.open(temporary, header, ranges, size);
    try {
      if (config.ropeScaling) await writer.write(ropeTable, encode(ropeDivisors(config), "f32", ropeTable));
      for await (const [name, tensor] of weights) {
        const data = interleaved(name, tensor, config);
        await writer.write(ggufName(name), encode(data, typeOf(tensor.dims, type), name));
      }
    } catch (error) {
      await writer.close();
      throw error;
    }
    await writer.finish();
  });
  const narrower = ([, { dims, type: own }]: [string, { dims: readonly number[]; type: GgufType }]) =>
    dims.length > 1 && own !== type;
  return { unquantised: [...plan].filter(narrower).map(([name]) => name) };
}

function typeOf(dims: readonly number[], type: GgufType): GgufType {
  if (dims.length === 1) return "f32";
  return rowBytes(type, dims[1]) === undefined ? "f16" : type;
}

function modelMetadata(config: ModelConfig, name: string, type: GgufType): Map<string, GgufField> {
  const { architecture, ropeScaling } = config;
  if (ropeScaling && architecture !== "llama") {
    throw new UserError(
      `a GGUF file cannot hold Llama 3's rope scaling for architecture ${architecture}; export with --format hf or onnx instead`,
    );
  }
  const own: Record<string, GgufField> = {
    vocab_size: { u32: config.vocab },
    context_length: { u32: config.maxContext },
    embedding_length: { u32: config.hidden },
    block_count: { u32: config.layers },
    feed_forward_length: { u32: config.intermediate },
    "rope.dimension_count": { u32: config.headDim },
    "rope.freq_base": { f32: config.ropeTheta },
    "attention.head_count": { u32: config.heads },
    "attention.head_count_kv": { u32: config.kvHeads },
    "attention.key_length": { u32: config.headDim },
    "attention.value_length": { u32: config.headDim },
    "attention.layer_norm_rms_epsilon": { f32: config.rmsEps },
  };
  const metadata = new Map<string, GgufField>([
    ["general.architecture", architecture],
    ["general.type", "model"],
    ["general.name", name],
    ["general.file_type", { u32: fileTypes[type] }],
    ["general.quantization_version", { u32: 2 }],
    ...Object.entries(own).map(([key, value]) => [`${architecture}.${key}`, value] as const),
  ]);
  if (ropeScaling) {
    metadata.set(ropeScalingKeys.factor, { f64: ropeScaling.factor });
    metadata.set(ropeScalingKeys.lowFreqFactor, { f64: ropeScaling.lowFreqFactor });
    metadata.set(ropeScalingKeys.highFreqFactor, { f64: ropeScaling.highFreqFactor });
    metadata.set(ropeScalingKeys.originalMaxContext, { f64: ropeScaling.originalMaxContext });
  }
  return metadata;
}

/** The weights in the order of the format's rows. */
function interleaved(name: string, { data }: ExportTensor, config: ModelConfig): Float32Array {
  const heads = interleavedHeads(name, config);
  if (heads === undefined) return data;
  const { headDim } = config;
  const row = data.length / (heads * headDim);
  const out = new Float32Array(data.length);
  for (let head = 0; head < heads; head++) {
    for (let to = 0; to < headDim; to++) {
      const from = (head * headDim + halfSplitRow(to, headDim)) * row;
      out.set(data.subarray(from, from + row), (head * headDim + to) * row);
    }
  }
  return out;
}

function encode(data: Float32Array, type: GgufType, name: string): Uint8Array {
  return type === "q8_0" ? quantiseQ8(data) : toBytes(data, type, name);
}

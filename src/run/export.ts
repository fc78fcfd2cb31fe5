import { join } from "node:path";
import { createLocalEngine, type LocalEngine, type LocalModel } from "../engine/local/index.ts";
import type { HeadSpec, ModelSpec } from "../engine/types.ts";
import { nearest, UserError } from "../errors.ts";
import { type AdapterPair, exportHuggingFace, exportPeft, tokenRowsName, type Weights } from "../model/export.ts";
import { exportGguf } from "../model/gguf-export.ts";
import { readSafetensors, readSafetensorsHeader, SafetensorsWriter } from "../model/safetensors.ts";
import { widen } from "../model/widen.ts";
import { exportOnnx } from "../onnx/folder.ts";
import { loadTask } from "../task/load.ts";
import { modelDir } from "./checkpoint.ts";
import { requireRun } from "./folder.ts";
import { createSpec, findCheckpoint, headsAt, recipeOf } from "./models.ts";
import { scoreOnnx } from "./onnx-scores.ts";
import { compareScores, probeTexts, scoreProbes, type Verification } from "./verify.ts";

/** How weights may be stored in each format, the default first. */
const dtypes = {
  hf: ["f32", "f16", "bf16"],
  merged: ["f32", "f16", "bf16"],
  peft: ["f32"],
  gguf: ["f16", "q8_0", "bf16", "f32"],
  onnx: ["f32", "f16"],
} as const;
export type ExportFormat = keyof typeof dtypes;
export const exportFormats = ["hf", "merged", "peft", "gguf", "onnx"] as const satisfies ExportFormat[];
export const exportTypes = ["f32", "f16", "bf16", "q8_0"] as const;
export type ExportDtype = (typeof exportTypes)[number];

export interface ExportOptions {
  /** The run folder. */
  run: string;
  /** Which of its checkpoints, as of `modelFolder`; the newest intact one when absent. */
  checkpoint?: string;
  /**
   * `hf`: all weights of a full fine-tuning; `merged`: the base with its adapter added; `peft`: the adapter alone; `gguf`, `onnx`: the
   * whole model, an adapter added to its base.
   */
  format: ExportFormat;
  /** A new folder; with `gguf` a new file. */
  out: string;
  /** How matrices are stored; the format's default when absent. */
  type?: ExportDtype;
  /** Scores tokens with the run's model and with what was written. */
  verify?: boolean;
  /** Stops before the next tensor; nothing is left behind. */
  signal?: AbortSignal;
}

export interface ExportResult {
  run: string;
  format: ExportFormat;
  out: string;
  dtype: ExportDtype;
  /** Tensors of a quantised GGUF file whose rows are no whole blocks, and which are f16 therefore. */
  unquantised?: string[];
  verification?: Verification;
}

/** Writes what a run has trained for other programs: `transformers`, `peft`, llama.cpp and its kin, transformers.js. */
export async function exportRun(options: ExportOptions): Promise<ExportResult> {
  const { run, checkpoint, format, out, verify, signal } = options;
  const dtype = checkType(format, options.type);
  requireRun(run);
  const recipe = recipeOf(run);
  const { lora } = recipe;
  if (lora === undefined && (format === "merged" || format === "peft")) {
    throw new UserError(`${run} trained all weights and has no adapter: export it with --format hf`);
  }
  if (lora !== undefined && format === "hf") {
    throw new UserError(
      `${run} trained an adapter: export it with --format merged (whole model) or peft (adapter alone)`,
    );
  }
  const { path, state } = await findCheckpoint(run, checkpoint);
  const from = { dir: modelDir(path), optimizer: false };
  const task = await loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed });
  const engine = createLocalEngine({ memoryGb: recipe.memory });
  try {
    const heads = headsAt(recipe, state);
    const spec = createSpec(recipe, task, from, heads);
    const model = await engine.create(spec);
    const result: ExportResult = { run, format, out, dtype };
    const weights = interruptible(model.tensors(), signal);
    const { files } = model;
    if (format === "gguf") {
      const { unquantised } = await exportGguf(out, files, weights, dtype);
      if (unquantised.length > 0 && dtype === "q8_0") result.unquantised = unquantised;
    } else if (format === "onnx") await exportOnnx(out, files, weights, dtype === "f16" ? "f16" : "f32");
    else if (format === "peft" && lora !== undefined) {
      await exportPeft(out, files, recipe.model, lora, adaptersOf(model), tokenRowsOf(model));
    } else if (dtype !== "q8_0") await exportHuggingFace(out, files, weights, dtype);
    if (format !== "gguf" && format !== "onnx") await exportHeads(out, model, heads);
    if (verify) {
      const probes = await probeTexts(model, task);
      const before = await scoreProbes(model, probes);
      await model.close();
      const after =
        format === "onnx"
          ? await scoreOnnx(engine.runtime, out, dtype === "f16" ? "f16" : "f32", files.config, probes)
          : await scoreProbes(await reopen(engine, format, out, spec), probes);
      result.verification = compareScores(before, after);
    }
    return result;
  } finally {
    await engine.close();
    await task.close();
  }
}

function checkType(format: ExportFormat, type: ExportDtype | undefined): ExportDtype {
  const possible: readonly ExportDtype[] = dtypes[format];
  if (type === undefined || possible.includes(type)) return type ?? possible[0];
  const guess = nearest(type, possible);
  throw new UserError(
    `--format ${format} cannot store ${type}; expected --dtype ${possible.join(", ")}${guess ? `; did you mean ${guess}?` : ""}`,
  );
}

/** What `signal` ends an export with. */
export class Interrupted extends UserError {
  constructor() {
    super("interrupted: nothing was written");
  }
}

async function* interruptible(weights: Weights, signal: AbortSignal | undefined): AsyncGenerator<Awaited<Entry>> {
  for await (const entry of weights) {
    if (signal?.aborted) throw new Interrupted();
    yield entry;
  }
}
type Entry = Weights extends Iterable<infer T> | AsyncIterable<infer T> ? T : never;

/** The adapter's factors by module, such as `layers.0.self_attn.q_proj`. */
function adaptersOf(model: LocalModel): Map<string, AdapterPair> {
  const adapters = new Map<string, AdapterPair>();
  for (const { name } of model.parameters.entries) {
    const module = /^model\.(.*)\.lora_A\.weight$/.exec(name)?.[1];
    if (module === undefined) continue;
    const b = model.parameters.value(`model.${module}.lora_B.weight`);
    adapters.set(module, { a: model.parameters.value(name), b });
  }
  return adapters;
}

/** Rows of added tokens by matrix, such as `lm_head.weight`. */
function tokenRowsOf(model: LocalModel): Map<string, Float32Array> {
  const own = model.parameters.entries.filter(({ group }) => group === "tokens");
  return new Map(own.map(({ name }) => [name.replace(/tokens$/, "weight"), model.parameters.value(name)]));
}

/** What was written, as a model. */
async function reopen(engine: LocalEngine, format: ExportFormat, out: string, spec: ModelSpec): Promise<LocalModel> {
  if (format !== "peft") return engine.create({ base: out, train: "none", context: spec.context });
  const model = await engine.create({ ...spec, from: undefined, heads: undefined });
  const path = join(out, "adapter_model.safetensors");
  const tensors = await readSafetensors(path, await readSafetensorsHeader(path));
  for (const { name, group } of model.parameters.entries) {
    const written = group === "tokens" ? tokenRowsName(name.replace(/\.tokens$/, "")) : `base_model.model.${name}`;
    const tensor = tensors.get(written);
    if (tensor === undefined) throw new UserError(`${path}: tensor ${name} is missing: the export is not whole`);
    widen(tensor, model.parameters.value(name));
  }
  return model;
}

/**
 * Each scalar head in a file of its own, `value_head.safetensors`, float32: what loads the folder as a plain causal model never meets
 * it. A value head's tensors are named as TRL's (`v_head.summary.weight`), others' by the head.
 */
async function exportHeads(out: string, model: LocalModel, heads: HeadSpec[]): Promise<void> {
  for (const { name } of heads) {
    const prefix = name === "value" ? "v_head.summary" : name;
    const own = model.parameters.entries.filter(({ group }) => group === `head:${name}`);
    const named = own.map((entry) => ({ ...entry, as: `${prefix}${entry.name.slice(name.length)}` }));
    const plan = new Map(named.map(({ as, dims }) => [as, { dims, type: "f32" as const }]));
    const writer = await SafetensorsWriter.create(join(out, `${name}_head.safetensors`), plan);
    for (const { as, name: tensor } of named) {
      const { buffer, byteOffset, byteLength } = model.parameters.value(tensor);
      await writer.write(as, new Uint8Array(buffer, byteOffset, byteLength));
    }
    await writer.finish();
  }
}

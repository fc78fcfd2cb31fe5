import { join } from "node:path";
import { createLocalEngine, type LocalModel } from "../engine/local/index.ts";
import type { HeadSpec } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { type AdapterPair, exportHuggingFace, exportPeft, type ExportType } from "../model/export.ts";
import { SafetensorsWriter } from "../model/safetensors.ts";
import { loadTask } from "../task/load.ts";
import { requireRun } from "./folder.ts";
import { checkpointState, createSpec, headsAt, modelFolder, recipeOf } from "./models.ts";

export const exportFormats = ["hf", "peft", "merged"] as const;
export type ExportFormat = (typeof exportFormats)[number];

export interface ExportOptions {
  /** The run folder. */
  run: string;
  /** Which of its checkpoints, as of `modelFolder`; the newest intact one when absent. */
  checkpoint?: string;
  /** `hf`: all weights of a full fine-tuning; `merged`: the base with its adapter added; `peft`: the adapter alone. */
  format: ExportFormat;
  out: string;
  /** How weights are stored; an adapter is always float32. */
  type: ExportType;
}

/** Writes what a run has trained as an ordinary folder that `transformers` or `peft` load. */
export async function exportRun({ run, checkpoint, format, out, type }: ExportOptions): Promise<void> {
  requireRun(run);
  const recipe = recipeOf(run);
  const { lora } = recipe;
  if (lora === undefined && format !== "hf") {
    throw new UserError(`${run} trained all weights and has no adapter: export it with --format hf`);
  }
  if (lora !== undefined && format === "hf") {
    throw new UserError(
      `${run} trained an adapter: export it with --format merged (whole model) or peft (adapter alone)`,
    );
  }
  const from = { dir: await modelFolder(run, checkpoint), optimizer: false };
  const task = await loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed });
  const engine = createLocalEngine({ memoryGb: recipe.memory });
  try {
    const heads = headsAt(recipe, await checkpointState(run, checkpoint));
    const model = await engine.create(createSpec(recipe, task, from, heads));
    if (format !== "peft" || lora === undefined) {
      await exportHuggingFace(out, model.files, model.tensors(), type);
      await exportHeads(out, model, heads);
      return;
    }
    const adapters = new Map<string, AdapterPair>();
    for (const { name } of model.parameters.entries) {
      const module = /^model\.(.*)\.lora_A\.weight$/.exec(name)?.[1];
      if (module === undefined) continue;
      const b = model.parameters.value(`model.${module}.lora_B.weight`);
      adapters.set(module, { a: model.parameters.value(name), b });
    }
    await exportPeft(out, model.files, recipe.model, lora, adapters);
    await exportHeads(out, model, heads);
  } finally {
    await engine.close();
    await task.close();
  }
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

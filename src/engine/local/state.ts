import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../../errors.ts";
import { readSafetensors, readSafetensorsHeader, SafetensorsWriter } from "../../model/safetensors.ts";
import { widen } from "../../model/widen.ts";
import type { Parameter, Parameters } from "./parameters.ts";

const WEIGHTS = "weights.safetensors";
const MOMENTS = ["first.safetensors", "second.safetensors"] as const;
const STEP = "optimizer.step";
const HEAD = "head:";

/** Writes the trained tensors and, once there was an optimizer step, Adam's moments and step count. */
export async function saveState(dir: string, parameters: Parameters): Promise<void> {
  await mkdir(dir, { recursive: true });
  await writeArena(join(dir, WEIGHTS), parameters, parameters.values, null);
  if (!parameters.hasMoments) {
    for (const name of MOMENTS) await rm(join(dir, name), { force: true });
    return;
  }
  const { first, second } = parameters.adam();
  await writeArena(join(dir, MOMENTS[0]), parameters, first, parameters.step);
  await writeArena(join(dir, MOMENTS[1]), parameters, second, parameters.step);
}

/**
 * Reads what `saveState` wrote into parameters of the same shapes. Without the optimizer, heads that are not there or have another
 * shape stay as they are; returns their names.
 */
export async function loadState(dir: string, parameters: Parameters, optimizer: boolean): Promise<string[]> {
  const path = join(dir, WEIGHTS);
  const lacking = optimizer ? [] : await headsLacking(path, parameters);
  const groups = new Set(lacking.map((name) => `${HEAD}${name}`));
  const there = parameters.entries.filter(({ group }) => !groups.has(group));
  await readArena(path, there, parameters.values);
  if (!optimizer || parameters.length === 0) return lacking;
  const file = join(dir, MOMENTS[0]);
  const header = await readSafetensorsHeader(file).catch(() => null);
  if (!header) return lacking;
  const { first, second } = parameters.adam();
  parameters.step = (await readArena(file, parameters.entries, first)) ?? 0;
  await readArena(join(dir, MOMENTS[1]), parameters.entries, second);
  return lacking;
}

async function headsLacking(path: string, { entries }: Parameters): Promise<string[]> {
  const heads = entries.filter(({ group }) => group.startsWith(HEAD));
  if (heads.length === 0) return [];
  const header = await readSafetensorsHeader(path);
  const missing = heads.filter(({ name, dims }) => header.get(name)?.dims.join() !== dims.join());
  return [...new Set(missing.map(({ group }) => group.slice(HEAD.length)))];
}

async function writeArena(
  path: string,
  parameters: Parameters,
  arena: Float32Array,
  step: number | null,
): Promise<void> {
  const plan = new Map(parameters.entries.map(({ name, dims }) => [name, { dims, type: "f32" as const }]));
  if (step !== null) plan.set(STEP, { dims: [1], type: "f32" });
  const writer = await SafetensorsWriter.create(path, plan);
  try {
    for (const { name, offset, length } of parameters.entries) {
      await writer.write(name, new Uint8Array(arena.buffer, arena.byteOffset + offset * 4, length * 4));
    }
    if (step !== null) await writer.write(STEP, new Uint8Array(Float32Array.of(step).buffer));
  } catch (error) {
    await writer.close();
    throw error;
  }
  await writer.finish();
}

async function readArena(path: string, entries: readonly Parameter[], arena: Float32Array): Promise<number | null> {
  const header = await readSafetensorsHeader(path);
  for (const { name, dims } of entries) {
    const found = header.get(name);
    if (found?.dims.join() === dims.join()) continue;
    throw new UserError(
      `${path}: expected ${name} with dims [${dims.join(", ")}], found ${found ? `[${found.dims.join(", ")}]` : "no such tensor"}; ` +
        `it was saved by a model of another shape, LoRA rank or head, or with other added tokens`,
    );
  }
  for (const { name, offset, length } of entries) {
    const one = await readSafetensors(path, new Map([...header].filter(([key]) => key === name)));
    const tensor = one.get(name);
    if (tensor) widen(tensor, arena.subarray(offset, offset + length));
  }
  if (!header.has(STEP)) return null;
  const step = (await readSafetensors(path, new Map([...header].filter(([key]) => key === STEP)))).get(STEP);
  const value = new Float32Array(1);
  if (step) widen(step, value);
  return value[0];
}

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../../errors.ts";
import { readSafetensors, readSafetensorsHeader, SafetensorsWriter } from "../../model/safetensors.ts";
import { widen } from "../../model/widen.ts";
import type { Parameters } from "./parameters.ts";

const WEIGHTS = "weights.safetensors";
const MOMENTS = ["first.safetensors", "second.safetensors"] as const;
const STEP = "optimizer.step";

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

/** Reads what `saveState` wrote into parameters of the same shapes. */
export async function loadState(dir: string, parameters: Parameters, optimizer: boolean): Promise<void> {
  await readArena(join(dir, WEIGHTS), parameters, parameters.values);
  if (!optimizer || parameters.length === 0) return;
  const file = join(dir, MOMENTS[0]);
  const header = await readSafetensorsHeader(file).catch(() => null);
  if (!header) return;
  const { first, second } = parameters.adam();
  parameters.step = (await readArena(file, parameters, first)) ?? 0;
  await readArena(join(dir, MOMENTS[1]), parameters, second);
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

async function readArena(path: string, parameters: Parameters, arena: Float32Array): Promise<number | null> {
  const header = await readSafetensorsHeader(path);
  for (const { name, dims } of parameters.entries) {
    const found = header.get(name);
    if (found?.dims.join() === dims.join()) continue;
    throw new UserError(
      `${path}: expected ${name} with dims [${dims.join(", ")}], found ${found ? `[${found.dims.join(", ")}]` : "no such tensor"}; ` +
        `it was saved by a model of another shape, LoRA rank or head`,
    );
  }
  for (const { name, offset, length } of parameters.entries) {
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

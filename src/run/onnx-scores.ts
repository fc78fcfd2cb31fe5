import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ModelConfig } from "../model/types.ts";
import { graphFile, type OnnxType } from "../onnx/folder.ts";
import { allocate, type Runtime, type Session, Value } from "../runtime/index.ts";
import type { Probe } from "./verify.ts";

/**
 * Log-probs of each response's tokens by the exported graph: the prompt in one call, then the response in a second one that reads the
 * first one's keys and values.
 */
export async function scoreOnnx(
  runtime: Runtime,
  folder: string,
  type: OnnxType,
  config: ModelConfig,
  probes: Probe[],
): Promise<Float32Array[]> {
  const inside = join(folder, "onnx");
  const session = runtime.createSession(await readFile(join(inside, graphFile[type])), {
    folder: inside,
    name: graphFile[type],
  });
  const scores: Float32Array[] = [];
  for (const { prompt, response } of probes) {
    const first = await runDecoder(session, config, prompt, emptyCache(config));
    const second = await runDecoder(session, config, response, first.cache);
    // The token before each one predicts it.
    const row = (t: number) =>
      t === 0 ? first.logits.subarray(-config.vocab) : second.logits.subarray((t - 1) * config.vocab, t * config.vocab);
    scores.push(Float32Array.from(response, (id, t) => logProb(row(t), id)));
  }
  session.release();
  return scores;
}

/** Keys and values by input name without its first part, such as "0.key". */
interface Cache {
  length: number;
  values: Map<string, Value>;
}

function emptyCache(config: ModelConfig): Cache {
  return { length: 0, values: cacheOf(config, 0) };
}

function cacheOf({ layers, kvHeads, headDim }: ModelConfig, length: number): Map<string, Value> {
  const names = Array.from({ length: layers }, (_, layer) => [`${layer}.key`, `${layer}.value`]).flat();
  const make = () => new Value(allocate("float32", kvHeads * length * headDim), [1, kvHeads, length, headDim]);
  return new Map(names.map((name) => [name, make()]));
}

async function runDecoder(
  session: Session,
  config: ModelConfig,
  ids: Int32Array,
  past: Cache,
): Promise<{ logits: Float32Array; cache: Cache }> {
  const length = past.length + ids.length;
  const integers = (values: Iterable<number>, count: number) => {
    const data = allocate("int64", count);
    data.set(Array.from(values, BigInt));
    return new Value(data, [1, count]);
  };
  const present = cacheOf(config, length);
  const logits = allocate("float32", ids.length * config.vocab);
  const named = (prefix: string, values: Map<string, Value>) =>
    Object.fromEntries([...values].map(([name, value]) => [`${prefix}.${name}`, value]));
  await session
    .bind(
      {
        input_ids: integers(ids, ids.length),
        attention_mask: integers(new Int32Array(length).fill(1), length),
        position_ids: integers(
          ids.map((_, i) => past.length + i),
          ids.length,
        ),
        ...named("past_key_values", past.values),
      },
      { logits: new Value(logits, [1, ids.length, config.vocab]), ...named("present", present) },
    )
    .run();
  return { logits, cache: { length, values: present } };
}

/** log softmax(row)[id], summed in float64. */
function logProb(row: Float32Array, id: number): number {
  let largest = -Infinity;
  for (const value of row) largest = Math.max(largest, value);
  let sum = 0;
  for (const value of row) sum += Math.exp(value - largest);
  return row[id] - largest - Math.log(sum);
}

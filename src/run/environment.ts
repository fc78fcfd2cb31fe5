import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { z } from "zod";
import { threadCount } from "../runtime/index.ts";

/** What the bytes of a run's numbers depend on, beside its recipe. */
export const environmentSchema = z.strictObject({
  rifft: z.string(),
  platform: z.string(),
  cpu: z.string(),
  threads: z.number(),
  onnxruntime: z.string(),
  memoryPlan: z.string(),
});
export type Environment = z.infer<typeof environmentSchema>;

const require = createRequire(import.meta.url);

export function rifftVersion(): string {
  return packageVersion(require.resolve("rifft/package.json"));
}

/** The environment of this process; `memoryPlan` is what the model says it chose. */
export function currentEnvironment(memoryPlan: string): Environment {
  return {
    rifft: rifftVersion(),
    platform: `${process.platform} ${process.arch}`,
    cpu: cpus()[0]?.model ?? "unknown",
    threads: threadCount(),
    onnxruntime: process.env.RIFFT_ORT ?? packageVersion(require.resolve("onnxruntime-node/package.json")),
    memoryPlan,
  };
}

/** The first difference between two environments, in words, or undefined. */
export function environmentDifference(before: Environment, now: Environment): string | undefined {
  for (const key of Object.keys(environmentSchema.shape)) {
    const was: unknown = Reflect.get(before, key);
    const is: unknown = Reflect.get(now, key);
    if (was !== is) return `${key} was ${JSON.stringify(was)}, is ${JSON.stringify(is)}`;
  }
  return undefined;
}

const packageSchema = z.object({ version: z.string() });

function packageVersion(path: string): string {
  return packageSchema.parse(JSON.parse(readFileSync(path, "utf8"))).version;
}

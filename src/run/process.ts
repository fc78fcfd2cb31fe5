import { type ChildProcess, fork, type StdioOptions } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/**
 * Starts a module of this program as a process that can be talked to. `base` is the caller's `import.meta.url`, `name` the module's
 * path from there without its ending.
 */
export function startProcess(
  base: string,
  name: string,
  options: { args?: string[]; stdio: StdioOptions; env?: NodeJS.ProcessEnv },
): ChildProcess {
  // In a checkout it is TypeScript, which not every Node reads by itself.
  const inCheckout = base.endsWith(".ts");
  const entry = fileURLToPath(new URL(`${name}.${inCheckout ? "ts" : "js"}`, base));
  const jiti = dirname(createRequire(import.meta.url).resolve("jiti"));
  const execArgv = inCheckout ? ["--import", pathToFileURL(join(jiti, "jiti-register.mjs")).href] : [];
  return fork(entry, options.args ?? [], { execArgv, stdio: options.stdio, env: { ...process.env, ...options.env } });
}

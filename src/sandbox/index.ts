/** Runs Python programs that a model wrote, in processes that can reach nothing. docs/sandbox.md says what it guarantees. */
export type { Outcome } from "./protocol.ts";
export { nodeProtection, type Protection, pyodideFolder } from "./runtime.ts";
export { openSandbox, type Sandbox, type SandboxOptions } from "./sandbox.ts";

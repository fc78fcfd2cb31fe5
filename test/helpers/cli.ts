import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const bin = fileURLToPath(new URL("../../bin/rifft", import.meta.url));

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Starts `rifft` as a user does, from the built program. */
export function startRifft(args: string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}) {
  const child: ChildProcess = spawn(process.execPath, [bin, ...args], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
  });
  const ended: Ended = { code: null, signal: null, stdout: "", stderr: "" };
  child.stdout?.on("data", (data: Buffer) => (ended.stdout += data.toString()));
  child.stderr?.on("data", (data: Buffer) => (ended.stderr += data.toString()));
  const end = new Promise<Ended>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ ...ended, code, signal }));
  });
  return { child, end };
}

export function rifft(args: string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}): Promise<Ended> {
  return startRifft(args, options).end;
}

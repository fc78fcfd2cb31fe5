import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { HARNESS } from "./harness.ts";
import { SandboxProcess } from "./process.ts";
import type { Outcome, Start } from "./protocol.ts";
import { pyodideFolder } from "./runtime.ts";

export interface SandboxOptions {
  /** Processes; as many as the machine runs threads, at most 4, when absent. About 200 MB each. */
  workers?: number;
  /** Seconds that a program may take; 2 when absent. */
  seconds?: number;
  /** Megabytes of the interpreter's memory, 30 of which it takes itself; 256 when absent. */
  memory?: number;
  /** A folder of wheels of sympy and mpmath: makes `import sympy` work. */
  wheels?: string;
  /**
   * False leaves what a program changed in the interpreter for the next one, which is some 30 times as fast: for programs that are
   * known. A program that is stopped is followed by a fresh interpreter all the same.
   */
  restore?: boolean;
}

/** Runs Python programs that a model wrote, each apart from the host and from the others. */
export interface Sandbox {
  /**
   * What each program's `solution()` gives, in the programs' order. One that fails costs only itself. Throws a UserError where no
   * interpreter can be started.
   */
  run(programs: string[]): Promise<Outcome[]>;
  close(): Promise<void>;
}

interface Job {
  program: string;
  resolve(outcome: Outcome): void;
  reject(error: unknown): void;
}

/** What a program may print; a gold solution prints nothing. */
const PRINTED_BYTES = 64 * 2 ** 10;

/** Opens a pool of processes, each started when it is first needed and kept. Throws a UserError where pyodide or a wheel is missing. */
export function openSandbox(options: SandboxOptions = {}): Sandbox {
  const { workers = Math.min(4, availableParallelism()), seconds = 2, restore = true } = options;
  const start: Start = {
    pyodide: pyodideFolder(),
    harness: HARNESS,
    memory: (options.memory ?? 256) * 2 ** 20,
    output: PRINTED_BYTES,
    wheels: options.wheels === undefined ? [] : readWheels(options.wheels),
  };
  const queue: Job[] = [];
  const processes = new Map<number, SandboxProcess>();
  const idle = Array.from({ length: workers }, (_, i) => i);
  let closed = false;

  const processOf = (place: number): SandboxProcess => {
    let found = processes.get(place);
    if (found === undefined || !found.alive) processes.set(place, (found = new SandboxProcess(start)));
    return found;
  };
  const drain = async (place: number): Promise<void> => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      await processOf(place).run({ program: job.program, seconds, restore }).then(job.resolve, job.reject);
    }
    idle.push(place);
    // What replaces a process is ready by the time that it is needed.
    if (!closed && processes.get(place)?.alive === false) processOf(place);
  };
  return {
    run(programs) {
      if (closed) return Promise.reject(new Error("the sandbox is closed"));
      const outcomes = programs.map(
        (program) => new Promise<Outcome>((resolve, reject) => queue.push({ program, resolve, reject })),
      );
      // The places that have a process first.
      idle.sort((a, b) => Number(processes.has(b)) - Number(processes.has(a)) || a - b);
      for (const place of idle.splice(0, queue.length)) void drain(place);
      return Promise.all(outcomes);
    },
    async close() {
      closed = true;
      queue.length = 0;
      await Promise.all([...processes.values()].map((process) => process.close()));
    },
  };
}

/** The wheels of sympy and of mpmath, which it needs, in a folder. */
function readWheels(folder: string): Uint8Array[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    throw new UserError(`${folder}: cannot read the folder of wheels; ${GET_WHEELS}`);
  }
  return ["sympy", "mpmath"].map((name) => {
    const found = names.find((file) => file.startsWith(`${name}-`) && file.endsWith("-none-any.whl"));
    if (found === undefined) throw new UserError(`${folder}: there is no wheel of ${name} here; ${GET_WHEELS}`);
    return new Uint8Array(readFileSync(join(folder, found)));
  });
}

const GET_WHEELS =
  "fill a folder with `pip download sympy mpmath --no-deps -d FOLDER` and name it in `programs.wheels`";

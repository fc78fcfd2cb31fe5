/** What a worker is told as it starts. */
export interface Start {
  /** Folder of the pyodide package, with a slash at its end. */
  pyodide: string;
  /** Python that defines `harness`: how a program is run, and how sympy is loaded. */
  harness: string;
  /** Bytes that the interpreter's memory may have. */
  memory: number;
  /** Bytes that one program may print. */
  output: number;
  /** Python packages that are unpacked beside the standard library. */
  wheels: Uint8Array[];
}

/** One program to run. */
export interface Request {
  program: string;
  seconds: number;
  /** Whether the interpreter is put back as it was afterwards. It always is where a program was stopped. */
  restore: boolean;
}

/** What a program came to. */
export interface Outcome {
  /** Python's `float(result)`, infinities and NaN included; absent where that raises, and where there is no result. */
  number?: number;
  /** Python's `str(result)`, its first 1,000 characters; absent where that raises, and where there is no result. */
  text?: string;
  /** Why there is no result, in a line: the exception, the limit, or the door that is closed. */
  failure?: string;
}

/** What a worker says: once `ready` or `broken`, then `done` for each program. */
export type Reply =
  | { kind: "ready" }
  | { kind: "broken"; message: string }
  /** `last`: the worker could not be put back as it was, and has to be replaced. */
  | { kind: "done"; outcome: Outcome; last: boolean };

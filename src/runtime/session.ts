import { nearest, UserError } from "../errors.ts";
import { library, type Pointer } from "./library.ts";
import { assertAttached, assertUsable, disown, nativeValue, own, type Handle, type Value } from "./value.ts";

type Values = Readonly<Record<string, Value>>;

const terminated = new Map<string, Uint8Array>();

/** The address of a name as C reads it, valid for ever. */
export function cString(name: string): Pointer {
  let bytes = terminated.get(name);
  if (!bytes) {
    bytes = new Uint8Array(new TextEncoder().encode(`${name}\0`));
    void bytes.buffer; // see Value: tiny arrays move
    terminated.set(name, bytes);
  }
  return library().addressOf(bytes);
}

export function pointers(addresses: readonly Pointer[]): BigUint64Array {
  return BigUint64Array.from(addresses.length ? addresses : [0n]);
}

let nativeSession: (session: Session) => Handle;

/** A graph made ready to run. Made by `Runtime.createSession`; any number of calls may run at once. */
export class Session {
  readonly name: string;
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly #handle: Handle;
  readonly #weights: readonly [string, Value][];
  #released = false;

  constructor(handle: Handle, name: string, weights: Values) {
    this.#handle = handle;
    this.name = name;
    this.#weights = Object.entries(weights);
    this.inputNames = readNames(handle.pointer, "Input");
    this.outputNames = readNames(handle.pointer, "Output");
    own(this, handle);
  }

  /**
   * Fixes the memory that a run reads and writes. Every input is needed; an output that is not named is not computed where the
   * graph allows. Shapes are checked at each run. An output may share memory with an input only if no operator that runs after
   * the one that writes it still reads that input.
   */
  bind(inputs: Values, outputs: Values): Call {
    this.#assertLive();
    for (const name of Object.keys(inputs)) this.#known("input", name, this.inputNames);
    for (const name of Object.keys(outputs)) this.#known("output", name, this.outputNames);
    const missing = this.inputNames.filter((name) => !(name in inputs));
    if (missing.length) {
      throw new Error(`"${this.name}" lacks input ${missing.join(", ")}; it expects ${this.inputNames.join(", ")}`);
    }
    if (Object.keys(outputs).length === 0) {
      throw new Error(`"${this.name}" was bound without outputs; it has ${this.outputNames.join(", ")}`);
    }
    return new Call(this, inputs, outputs);
  }

  /** Writes the trace that `profile` asked for and returns its path. */
  endProfiling(): string {
    this.#assertLive();
    const native = library();
    const allocator = native.make("GetAllocatorWithDefaultOptions");
    return takeString(native.make("SessionEndProfiling", this.#handle.pointer, allocator), allocator);
  }

  /** Ends the use of this session; native memory goes when the runs under way have ended. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    disown(this, this.#handle);
  }

  #known(kind: string, name: string, names: readonly string[]): void {
    if (names.includes(name)) return;
    const guess = nearest(name, names);
    throw new Error(
      `"${this.name}" has no ${kind} ${name}${guess ? `; did you mean ${guess}?` : ""}; it has ${names.join(", ")}`,
    );
  }

  #assertLive(): void {
    if (this.#released) throw new Error(`session "${this.name}" was released`);
  }

  static {
    nativeSession = (session) => {
      session.#assertLive();
      for (const [name, value] of session.#weights) assertAttached(value, name);
      return session.#handle;
    };
  }
}

/** A session with its inputs and outputs bound, made by `Session.bind`. It keeps their memory alive. */
export class Call {
  readonly #session: Session;
  readonly #values: readonly [string, Value][];
  readonly #arguments: readonly [BigUint64Array, BigUint64Array, number, BigUint64Array, number, BigUint64Array];
  #running = false;

  constructor(session: Session, inputs: Values, outputs: Values) {
    this.#session = session;
    const ins = Object.entries(inputs);
    const outs = Object.entries(outputs);
    this.#values = [...ins, ...outs];
    const names = (entries: [string, Value][]): BigUint64Array => pointers(entries.map(([name]) => cString(name)));
    const values = (entries: [string, Value][]): BigUint64Array =>
      pointers(entries.map(([, value]) => nativeValue(value).pointer));
    this.#arguments = [names(ins), values(ins), ins.length, names(outs), outs.length, values(outs)];
  }

  /**
   * Runs on another thread, so that the event loop goes on. Inputs must not be written, nor outputs read, until the promise
   * settles. Many calls may run at once, the same one only once.
   */
  async run(): Promise<void> {
    const session = this.#ready();
    const held = [session, ...this.#values.map(([, value]) => nativeValue(value))];
    for (const handle of held) handle.retain();
    this.#running = true;
    try {
      await library().callAsync("Run", session.pointer, null, ...this.#arguments);
    } catch (error) {
      throw this.#explain(error);
    } finally {
      this.#running = false;
      for (const handle of held) handle.drop();
    }
  }

  /** Runs here and now: for what takes microseconds. */
  runSync(): void {
    const session = this.#ready();
    try {
      library().call("Run", session.pointer, null, ...this.#arguments);
    } catch (error) {
      throw this.#explain(error);
    }
  }

  #ready(): Handle {
    if (this.#running) throw new Error(`this call of "${this.#session.name}" is running already`);
    for (const [name, value] of this.#values) assertUsable(value, name);
    return nativeSession(this.#session);
  }

  #explain(error: unknown): Error {
    const words = (error as Error).message;
    if (/failed to allocate|bad_alloc|bad allocation/i.test(words)) {
      return new UserError(
        `not enough memory to run "${this.#session.name}" (${words}); use smaller batches or fewer rows`,
      );
    }
    return new Error(`running "${this.#session.name}" failed: ${words}`);
  }
}

function readNames(session: Pointer, kind: "Input" | "Output"): string[] {
  const native = library();
  const allocator = native.make("GetAllocatorWithDefaultOptions");
  const count = Number(native.make(`SessionGet${kind}Count`, session));
  return Array.from({ length: count }, (_, i) =>
    takeString(native.make(`SessionGet${kind}Name`, session, i, allocator), allocator),
  );
}

function takeString(at: Pointer, allocator: Pointer): string {
  const native = library();
  const string = native.readString(at);
  native.call("AllocatorFree", allocator, at);
  return string;
}

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { library, type Library, type Pointer } from "./library.ts";
import { cString, pointers, Session } from "./session.ts";
import { threadCount } from "./threads.ts";
import { assertUsable, disown, Handle, nativeValue, own, type Value } from "./value.ts";

/** The file that src/tensor says external initializers live in; it is never read. */
const EXTERNAL_LOCATION = "weights";
/** Bytes from which a weight is worth not copying. */
const LARGE = 2 ** 20;

export interface RuntimeOptions {
  /** Threads that compute, the calling one included; `threadCount()` when absent. */
  threads?: number;
  /** Where graphs run. */
  device?: "cpu";
}

export interface SessionOptions {
  /**
   * The graph's external initializers by name: bound to this memory, not copied, whatever number of sessions name them. Without
   * `prepacked` every run reads the memory as it then is. Except for what the optimizer computed from it when the session was
   * created: an operator whose inputs are all constant is evaluated once.
   */
  weights?: Readonly<Record<string, Value>>;
  /**
   * Stores what constant matrices become for the fastest product (a copy, made once for all sessions that share the container and
   * a weight). A later change to the weight's memory is then not seen by matrix products; make a new container and new sessions.
   * Without it no constant is repacked.
   */
  prepacked?: PrepackedWeights;
  /** Stands in error messages. */
  name?: string;
  /** Whether the library may rewrite the graph (fusions, constant folding); true when absent. */
  optimize?: boolean;
  /** Prefix of the file that a trace of every operator's time is written to (Chrome's format) at `endProfiling`. */
  profile?: string;
}

let nativeContainer: (container: PrepackedWeights) => Handle;

/** Repacked weights that sessions share. Freed with the last session that uses it, once released or forgotten. */
export class PrepackedWeights {
  readonly #handle = new Handle("PrepackedWeightsContainer", library().make("CreatePrepackedWeightsContainer"));
  #released = false;

  constructor() {
    own(this, this.#handle);
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    disown(this, this.#handle);
  }

  static {
    nativeContainer = (container) => {
      if (container.#released) throw new Error("these prepacked weights were released");
      return container.#handle;
    };
  }
}

/** ONNX Runtime with one pool of threads and one arena of temporaries for all sessions. There is one in a process. */
export class Runtime {
  static #open: Runtime | undefined;
  readonly version: string;
  readonly threads: number;
  readonly #native: Library;
  readonly #env: Pointer;

  /** The process's runtime, made by the first call. Throws a UserError where no library serves this platform. */
  static open(options: RuntimeOptions = {}): Runtime {
    const open = Runtime.#open;
    const threads = options.threads ?? open?.threads ?? threadCount();
    if (!Number.isInteger(threads) || threads < 1) {
      throw new UserError(`threads must be a positive whole number, found ${threads}`);
    }
    if (open && open.threads !== threads) {
      throw new UserError(
        `this process computes with ${open.threads} threads already; ${threads} need a process of their own`,
      );
    }
    return (Runtime.#open = open ?? new Runtime(library(), threads));
  }

  private constructor(native: Library, threads: number) {
    this.#native = native;
    this.version = native.version;
    this.threads = threads;
    const threading = native.make("CreateThreadingOptions");
    native.call("SetGlobalIntraOpNumThreads", threading, threads);
    native.call("SetGlobalInterOpNumThreads", threading, 1);
    // Between the operators of a run threads spin: waking one takes longer than most operators. Runs end it (below). A spinning
    // thread takes a core from other programs, so who shares the machine can have them sleep.
    native.call("SetGlobalSpinControl", threading, process.env.RIFFT_SPIN === "0" ? 0 : 1);
    const fatalOnly = 4; // errors come back as statuses
    this.#env = native.make("CreateEnvWithGlobalThreadPools", fatalOnly, "rifft", threading);
    native.release("ThreadingOptions", threading);
    // Grow by what is asked for instead of by powers of two, so that peak memory is what the graphs need.
    const arena = native.make("CreateArenaCfg", 0, 1, -1, -1);
    native.call("CreateAndRegisterAllocator", this.#env, native.make("CreateCpuMemoryInfo", 1, 0), arena);
    native.release("ArenaCfg", arena);
  }

  /** @param model a serialised ONNX ModelProto; it may be dropped afterwards. Throws the library's reason where it is invalid. */
  createSession(model: Uint8Array, options: SessionOptions = {}): Session {
    const name = options.name ?? "graph";
    const weights = options.weights ?? {};
    for (const [key, value] of Object.entries(weights)) assertUsable(value, key);
    try {
      return new Session(this.#create(model, options), name, weights);
    } catch (error) {
      const words = (error as Error).message;
      const unbound = /External (?:data|initializer).*?initializer: (\S+?)\.? /.exec(words);
      const reason = unbound
        ? `weight ${unbound[1]} is not bound; bound are ${Object.keys(weights).join(", ") || "none"}`
        : words;
      throw new Error(`cannot create a session for "${name}": ${reason}`);
    }
  }

  /**
   * The library copies a weight that it hands to its optimizer for as long as the session is being created, and evaluates
   * operators on constants only with those. So large weights, which are rarely folded, are handed over only when it asks for them.
   */
  #create(model: Uint8Array, options: SessionOptions): Handle {
    const weights = Object.entries(options.weights ?? {});
    const small = weights.filter(([, value]) => value.data.byteLength <= LARGE);
    if (small.length < weights.length) {
      const folder = mkdtempSync(join(tmpdir(), "rifft-"));
      try {
        writeFileSync(join(folder, EXTERNAL_LOCATION), "");
        return this.#createWith(model, options, small, folder);
      } catch (error) {
        if (!/External (initializer|data)/.test((error as Error).message)) throw error;
      } finally {
        rmSync(folder, { recursive: true });
      }
    }
    return this.#createWith(model, options, weights);
  }

  /** @param visible the weights that the optimizer may read; it takes the others for the contents of an empty file in `folder` */
  #createWith(model: Uint8Array, options: SessionOptions, visible: [string, Value][], folder?: string): Handle {
    const native = this.#native;
    const settings = native.make("CreateSessionOptions");
    const set = (key: string, value: string): void => native.call("AddSessionConfigEntry", settings, key, value);
    try {
      native.call("DisablePerSessionThreads", settings);
      native.call("DisableMemPattern", settings); // plans for one shape; ours vary
      native.call("SetSessionGraphOptimizationLevel", settings, options.optimize === false ? 0 : 99);
      set("session.use_env_allocators", "1");
      set("session.force_spinning_stop", "1"); // between runs JavaScript wants the cores
      if (!options.prepacked) set("session.disable_prepacking", "1");
      if (folder) set("session.model_external_initializers_file_folder_path", folder);
      if (options.profile !== undefined) native.call("EnableProfiling", settings, options.profile);
      for (const [key, value] of Object.entries(options.weights ?? {})) {
        native.call("AddInitializer", settings, key, nativeValue(value).pointer);
      }
      if (visible.length) {
        const names = pointers(visible.map(([key]) => cString(key)));
        const values = pointers(visible.map(([, value]) => nativeValue(value).pointer));
        native.call("AddExternalInitializers", settings, names, values, visible.length);
      }
      if (!options.prepacked) {
        const pointer = native.make("CreateSessionFromArray", this.#env, model, model.byteLength, settings);
        return new Handle("Session", pointer);
      }
      const container = nativeContainer(options.prepacked);
      const create = "CreateSessionFromArrayWithPrepackedWeightsContainer";
      const pointer = native.make(create, this.#env, model, model.byteLength, settings, container.pointer);
      return new Handle("Session", pointer, [container]);
    } finally {
      native.release("SessionOptions", settings);
      native.trimHeap(); // what was repacked in vain, because the container had it, leaves large holes
    }
  }
}

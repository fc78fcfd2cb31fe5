import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import type * as Koffi from "koffi";
import { UserError } from "../errors.ts";

/** An address in native memory, or an opaque handle of the library. Never leaves src/runtime. */
export type Pointer = bigint;

/** What a C parameter takes from JavaScript. A typed array passes the address of its memory, in place. */
interface Kinds {
  int: number;
  size: number;
  str: string;
  path: string;
  ptr: Pointer | NodeJS.TypedArray | null;
}
const C_TYPES: Record<keyof Kinds, string> = {
  int: "int",
  size: "size_t",
  str: "str",
  path: process.platform === "win32" ? "str16" : "str", // ORTCHAR_T
  ptr: "void *",
};

/** The first API version whose table has every function below; tables only ever grow at the end. */
const API_VERSION = 21;

/** Functions that return a status: their index in OrtApi (onnxruntime_c_api.h) and their parameters. */
const FUNCTIONS = {
  CreateSessionFromArray: [8, "ptr", "ptr", "size", "ptr", "ptr"],
  Run: [9, "ptr", "ptr", "ptr", "ptr", "size", "ptr", "size", "ptr"],
  CreateSessionOptions: [10, "ptr"],
  EnableProfiling: [14, "ptr", "path"],
  DisableMemPattern: [17, "ptr"],
  SetSessionGraphOptimizationLevel: [23, "ptr", "int"],
  SessionGetInputCount: [30, "ptr", "ptr"],
  SessionGetOutputCount: [31, "ptr", "ptr"],
  SessionGetInputName: [36, "ptr", "size", "ptr", "ptr"],
  SessionGetOutputName: [37, "ptr", "size", "ptr", "ptr"],
  CreateTensorWithDataAsOrtValue: [49, "ptr", "ptr", "size", "ptr", "size", "int", "ptr"],
  CreateCpuMemoryInfo: [69, "int", "int", "ptr"],
  AllocatorFree: [76, "ptr", "ptr"],
  GetAllocatorWithDefaultOptions: [78, "ptr"],
  SessionEndProfiling: [110, "ptr", "ptr", "ptr"],
  CreateEnvWithGlobalThreadPools: [119, "int", "str", "ptr", "ptr"],
  DisablePerSessionThreads: [120, "ptr"],
  CreateThreadingOptions: [121, "ptr"],
  AddSessionConfigEntry: [130, "ptr", "str", "str"],
  CreateAndRegisterAllocator: [144, "ptr", "ptr", "ptr"],
  SetGlobalIntraOpNumThreads: [147, "ptr", "int"],
  SetGlobalInterOpNumThreads: [148, "ptr", "int"],
  SetGlobalSpinControl: [149, "ptr", "int"],
  AddInitializer: [150, "ptr", "str", "ptr"],
  CreateArenaCfg: [156, "size", "int", "int", "int", "ptr"],
  CreatePrepackedWeightsContainer: [166, "ptr"],
  CreateSessionFromArrayWithPrepackedWeightsContainer: [169, "ptr", "ptr", "size", "ptr", "ptr", "ptr"],
  AddExternalInitializers: [210, "ptr", "ptr", "ptr", "size"],
} as const satisfies Record<string, readonly [number, ...(keyof Kinds)[]]>;

const RELEASES = {
  Status: 93,
  Session: 95,
  Value: 96,
  SessionOptions: 100,
  ThreadingOptions: 122,
  ArenaCfg: 157,
  PrepackedWeightsContainer: 167,
} as const;

type Functions = typeof FUNCTIONS;
type Name = keyof Functions;
type Parameters<K extends readonly unknown[]> = {
  [I in keyof K]: K[I] extends keyof Kinds ? Kinds[K[I]] : never;
};
type Arguments<N extends Name> = Functions[N] extends readonly [number, ...infer K] ? Parameters<K> : never;
/** Arguments without the last one, the place of the result. */
type Leading<N extends Name> = Arguments<N> extends [...infer L, unknown] ? L : never;

/** ONNX Runtime's C API. A status that is not OK is thrown as an Error with the library's own words. */
export interface Library {
  readonly path: string;
  readonly version: string;
  call<N extends Name>(name: N, ...args: Arguments<N>): void;
  /** Calls a function whose last parameter is where it writes the handle (or count) that it makes. */
  make<N extends Name>(name: N, ...args: Leading<N>): Pointer;
  /** Runs on another thread; every buffer named by `args` must stay alive until the promise settles. */
  callAsync<N extends Name>(name: N, ...args: Arguments<N>): Promise<void>;
  release(kind: keyof typeof RELEASES, handle: Pointer): void;
  addressOf(memory: NodeJS.TypedArray | ArrayBuffer): Pointer;
  readString(at: Pointer): string;
  /** Asks the kernel to back this range with huge pages; does nothing where that is unknown. */
  adviseHugePages(start: Pointer, bytes: number): void;
  /** Gives the holes of the C heap back to the system; does nothing where that is unknown. */
  trimHeap(): void;
}

type Native = ((...args: unknown[]) => unknown) & { async(...args: unknown[]): void };

let loaded: Library | undefined;
// koffi unloads a library when its handle is collected, though decoded functions still point into it.
const handles: Koffi.LibraryHandle[] = [];

/** The library, loaded on first use and kept for the life of the process. Throws a UserError where there is none. */
export function library(): Library {
  return (loaded ??= load());
}

function load(): Library {
  const require = createRequire(import.meta.url);
  const path = libraryPath(require);
  const koffi = loadKoffi(require);
  let handle: Koffi.LibraryHandle;
  try {
    handle = koffi.load(path);
  } catch (error) {
    throw new UserError(`cannot load ONNX Runtime from ${path}: ${text(error)}; ${ADVICE}`);
  }
  handles.push(handle);

  let getBase: Native;
  try {
    getBase = handle.func("OrtGetApiBase", "void *", []);
  } catch {
    throw new UserError(`${path} is not ONNX Runtime (it has no OrtGetApiBase); ${ADVICE}`);
  }
  const decode = (at: Pointer, result: string, parameters: string[]): Native =>
    koffi.decode(at, koffi.proto(result, parameters));
  const slot = (table: Pointer, index: number): Pointer => koffi.decode(table, index * 8, "void *");
  const base = getBase() as Pointer;
  const version = decode(slot(base, 1), "str", [])() as string;
  const [major, minor] = version.split(".").map(Number);
  if (major !== 1 || minor < API_VERSION) {
    throw new UserError(`ONNX Runtime 1.${API_VERSION} or later is needed, found ${version} at ${path}; ${ADVICE}`);
  }
  const api = decode(slot(base, 0), "void *", ["uint32_t"])(API_VERSION) as Pointer;

  const message = decode(slot(api, 2), "str", ["void *"]);
  const releases = mapValues(RELEASES, (index) => decode(slot(api, index), "void", ["void *"]));
  const functions = mapValues(FUNCTIONS, ([index, ...kinds]: readonly [number, ...(keyof Kinds)[]]) =>
    decode(
      slot(api, index),
      "void *",
      kinds.map((kind) => C_TYPES[kind]),
    ),
  );
  const check = (status: unknown): void => {
    if (!status) return;
    const words = oneLine(message(status) as string);
    releases.Status(status);
    throw new Error(words);
  };
  const madvise = systemFunction(koffi, "madvise", ["void *", "size_t", "int"]);
  const mallocTrim = systemFunction(koffi, "malloc_trim", ["size_t"]);
  const result = new BigUint64Array(1);
  return {
    path,
    version,
    call: (name, ...args) => check(functions[name](...args)),
    make: (name, ...args) => {
      result[0] = 0n; // a count may be written as 32 bits
      check(functions[name](...args, result));
      return result[0];
    },
    callAsync: (name, ...args) =>
      new Promise((settle, reject) => {
        functions[name].async(...args, (error: unknown, status: unknown) => {
          try {
            if (error) throw error;
            check(status);
            settle();
          } catch (thrown) {
            reject(thrown);
          }
        });
      }),
    release: (kind, handle) => void releases[kind](handle),
    addressOf: (memory) => koffi.address(memory),
    readString: (at) => koffi.decode.string(at),
    adviseHugePages: (start, bytes) => void madvise?.(start, bytes, 14), // MADV_HUGEPAGE
    trimHeap: () => void mallocTrim?.(0),
  };
}

const ADVICE = "RIFFT_ORT may name another ONNX Runtime library";

function libraryPath(require: NodeJS.Require): string {
  const named = process.env.RIFFT_ORT;
  if (named) {
    const path = resolve(named);
    if (!existsSync(path)) throw new UserError(`RIFFT_ORT names ${path}, which does not exist`);
    return path;
  }
  const { platform, arch } = process;
  let root: string;
  try {
    root = dirname(require.resolve("onnxruntime-node/package.json"));
  } catch {
    throw new UserError(
      `the package onnxruntime-node is not installed (for ${platform} ${arch}); install it, or set RIFFT_ORT`,
    );
  }
  const file =
    platform === "win32" ? "onnxruntime.dll" : platform === "darwin" ? "libonnxruntime.1.dylib" : "libonnxruntime.so.1";
  const bin = join(root, "bin");
  const binding = existsSync(bin)
    ? (readdirSync(bin).find((name) => name.startsWith("napi-v")) ?? "napi-v6")
    : "napi-v6";
  const path = join(bin, binding, platform, arch, file);
  if (!existsSync(path)) {
    throw new UserError(
      `onnxruntime-node carries no library for ${platform} ${arch} (looked for ${path}); RIFFT_ORT may name one that was built for it`,
    );
  }
  return path;
}

function loadKoffi(require: NodeJS.Require): typeof Koffi {
  let koffi: typeof Koffi;
  try {
    koffi = require("koffi") as typeof Koffi;
  } catch (error) {
    throw new UserError(
      `koffi, which calls native libraries, does not load on ${process.platform} ${process.arch}: ${text(error)}; ` +
        `reinstall without --omit=optional`,
    );
  }
  // koffi runs native functions on stacks of its own; ONNX Runtime's kernels outgrow the default of 128 KiB.
  const stack = 8 * 2 ** 20;
  try {
    if ((koffi.config().async_stack_size ?? 0) < stack)
      koffi.config({ async_stack_size: stack, sync_stack_size: stack });
  } catch {
    throw new UserError(
      "koffi already loaded another library with small stacks; open rifft first, or call koffi.config({ async_stack_size: 8388608, sync_stack_size: 8388608 }) before",
    );
  }
  return koffi;
}

/** A function that some systems' C libraries have. */
function systemFunction(koffi: typeof Koffi, name: string, parameters: string[]): Native | undefined {
  if (process.platform !== "linux") return undefined;
  try {
    const self = koffi.load(null);
    handles.push(self);
    return self.func(name, "int", parameters);
  } catch {
    return undefined;
  }
}

function mapValues<K extends string, V, R>(record: Readonly<Record<K, V>>, map: (value: V) => R): Record<K, R> {
  return Object.fromEntries(Object.entries<V>(record).map(([key, value]) => [key, map(value)])) as Record<K, R>;
}

function text(error: unknown): string {
  return oneLine(error instanceof Error ? error.message : String(error));
}

const oneLine = (words: string): string => words.replace(/\s*\n\s*/g, " ").trim();

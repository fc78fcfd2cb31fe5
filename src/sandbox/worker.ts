import type { Outcome, Reply, Request, Start } from "./protocol.ts";

// Node's types lack WebAssembly.
interface Instance {
  exports: Record<string, unknown>;
}
type Imports = Record<string, Record<string, unknown>>;
declare const WebAssembly: {
  instantiate(source: unknown, imports?: Imports): Promise<{ instance: Instance } | Instance>;
};

/**
 * The whole program of a worker process. Its source is handed to the process as text: it may use nothing but its argument and
 * globals. `load` imports a module by its URL.
 *
 * WebAssembly reaches the outside through its imports alone. Once the interpreter is ready every import is closed but those below, which
 * read the clock, the memory's size and the standard library's files. No open import changes anything but the interpreter's
 * memory and, of the file system, the list of open files. So with the memory's image and the stack pointer put back and the files
 * closed, the interpreter is what it was, however the program ended.
 */
export function serve(load: (url: string) => Promise<unknown>): void {
  type Callable = (...args: unknown[]) => unknown;
  const isCallable = (value: unknown): value is Callable => typeof value === "function";
  const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

  /** Ends a program from within an import: unwinds the interpreter, which Python cannot catch. */
  class Stop {
    readonly reason: string;
    constructor(reason: string) {
      this.reason = reason;
    }
  }

  const send = process.send?.bind(process);
  const exit = process.exit.bind(process);
  const say = (reply: Reply): void => void send?.(reply);
  const fs = process.getBuiltinModule("node:fs");
  const os = process.getBuiltinModule("node:os");
  const { Script } = process.getBuiltinModule("node:vm");
  const { pathToFileURL } = process.getBuiltinModule("node:url");

  /** Bytes of memory beyond the image that are still cleared after each program; with more the worker is replaced. */
  const GROWTH_KEPT = 64 * 2 ** 20;
  const LOAD_SECONDS = 120;
  const ENOENT = 44;
  const EBADF = 8;
  const EINVAL = 28;
  const ENOTTY = 59;

  let sealed = false;
  let limits = { memory: 0, output: 0 };
  let printed = 0;
  let random = 0;
  /** The import with state of its own that is at work: set where a program was ended in the middle of it. */
  let inside: string | undefined;
  const opened = new Set<number>();
  let closeFile: Callable = () => 0;
  let instance: Instance | undefined;

  const memory = (): Uint8Array => {
    const found = instance?.exports.memory;
    if (!isRecord(found) || !(found.buffer instanceof ArrayBuffer)) throw new Error("the interpreter has no memory");
    return new Uint8Array(found.buffer);
  };
  const word = (bytes: Uint8Array, at: number): number => new DataView(bytes.buffer).getUint32(at, true);
  const setWord = (at: number, value: number): void => new DataView(memory().buffer).setUint32(at, value, true);

  const call = (name: string, ...args: number[]): number => {
    const found = instance?.exports[name];
    if (!isCallable(found)) throw new Error(`the interpreter has no ${name}`);
    return Number(found(...args));
  };

  /** Whether a path in memory lies in the standard library, the only files that there are. */
  const inLibrary = (at: unknown): boolean => {
    const bytes = memory();
    const start = Number(at) >>> 0;
    const end = bytes.indexOf(0, start);
    if (end < 0 || end - start > 4096) return false;
    const path = new TextDecoder().decode(bytes.subarray(start, end));
    return (path === "/lib" || path.startsWith("/lib/")) && !path.split("/").includes("..");
  };

  /** Runs an import that has state of its own. */
  const within = (name: string, original: Callable, args: unknown[]): unknown => {
    inside = name;
    const result = original(...args);
    inside = undefined;
    return result;
  };

  /** Bytes that a list of buffers in memory holds. */
  const buffersLength = (at: unknown, count: unknown): number => {
    const bytes = memory();
    let total = 0;
    for (let i = 0; i < Number(count); i++) total += word(bytes, (Number(at) >>> 0) + 8 * i + 4);
    return total;
  };

  const onFile =
    (failure: number) =>
    (name: string, original: Callable): Callable =>
    (...args) =>
      opened.has(Number(args[0])) ? within(name, original, args) : failure;

  const onPath =
    (position: number) =>
    (name: string, original: Callable): Callable =>
    (...args) =>
      inLibrary(args[position]) ? within(name, original, args) : -ENOENT;

  const pass = (_name: string, original: Callable): Callable => original;
  const answer = (value: unknown) => (): Callable => () => value;

  /** The imports that stay open. Everything else ends the program. */
  const OPEN: Record<string, (name: string, original: Callable) => Callable> = {
    _PyEM_TrampolineCall_JS: pass,
    clock_time_get: pass,
    clock_res_get: pass,
    emscripten_get_now: pass,
    emscripten_date_now: pass,
    _tzset_js: pass,
    _localtime_js: pass,
    _gmtime_js: pass,
    _mktime_js: pass,
    _timegm_js: pass,
    environ_sizes_get: pass,
    environ_get: pass,
    __syscall_getcwd: pass,
    _Py_CheckEmscriptenSignals_Helper: answer(0),
    can_run_sync_js: answer(0),
    __syscall_ioctl: answer(-ENOTTY),
    emscripten_get_heap_max: () => () => limits.memory,
    emscripten_resize_heap: (name, original) => (size) =>
      Number(size) >>> 0 > limits.memory ? 0 : within(name, original, [size]),
    __syscall_openat: (name, original) => (folder, path, flags, rest) => {
      // Whatever writes, creates, appends or cuts.
      if ((Number(flags) & (3 | 0o100 | 0o1000 | 0o2000)) !== 0) {
        throw new Stop("opens a file for writing; the sandbox has none");
      }
      if (!inLibrary(path)) return -ENOENT;
      const file = within(name, original, [folder, path, flags, rest]);
      if (Number(file) > 2) opened.add(Number(file));
      return file;
    },
    __syscall_stat64: onPath(0),
    __syscall_lstat64: onPath(0),
    __syscall_newfstatat: onPath(1),
    __syscall_faccessat: onPath(1),
    __syscall_readlinkat: onPath(1),
    __syscall_fstat64: onFile(-EBADF),
    __syscall_getdents64: onFile(-EBADF),
    __syscall_fcntl64: (name, original) => {
      const allowed = onFile(-EBADF)(name, original);
      // Close-on-exec and the flags; a copy of a descriptor would be one that nobody closes.
      return (...args) => ([1, 2, 3].includes(Number(args[1])) ? allowed(...args) : -EINVAL);
    },
    fd_seek: onFile(EBADF),
    fd_fdstat_get: onFile(EBADF),
    fd_read: (name, original) => {
      const allowed = onFile(EBADF)(name, original);
      return (...args) => {
        if (args[0] !== 0) return allowed(...args);
        setWord(Number(args[3]) >>> 0, 0);
        return 0;
      };
    },
    fd_close: (name, original) => (file) => {
      if (!opened.delete(Number(file))) return EBADF;
      return within(name, original, [file]);
    },
    fd_write: () => (file, buffers, count, written) => {
      if (file !== 1 && file !== 2) return EBADF;
      const length = buffersLength(buffers, count);
      printed += length;
      if (printed > limits.output) throw new Stop(`prints more than ${limits.output} bytes`);
      setWord(Number(written) >>> 0, length);
      return 0;
    },
    // The same numbers for every program: what it gives is a function of its text.
    random_get: () => (at, count) => {
      const bytes = memory().subarray(Number(at) >>> 0, (Number(at) >>> 0) + Number(count));
      for (let i = 0; i < bytes.length; i++) {
        random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
        bytes[i] = random >>> 24;
      }
      return 0;
    },
  };
  const ENDS = new Set(["exit", "proc_exit", "_abort_js", "__assert_fail"]);

  const gated = (name: string, original: Callable): Callable => {
    const open = Object.hasOwn(OPEN, name) ? OPEN[name](name, original) : undefined;
    if (open === original) return original;
    if (name === "fd_close") closeFile = original;
    const reason = ENDS.has(name)
      ? "ends the interpreter"
      : `asks for ${name.replace(/^(__syscall|_)_?/, "")}, which the sandbox does not have`;
    const closed: Callable = (...args) => {
      // What Python draws its own seeds from while it starts is the same in every process, too.
      if (!sealed && name !== "random_get") return original(...args);
      if (open === undefined) throw new Stop(reason);
      return open(...args);
    };
    // Emscripten keeps a function's signature as its property.
    return Object.assign(closed, original);
  };
  const gate = (imports: Imports): void => {
    // Emscripten hands in one object under two names.
    for (const space of new Set(Object.values(imports))) {
      for (const [name, value] of Object.entries(space)) if (isCallable(value)) space[name] = gated(name, value);
    }
  };

  /** Takes away what a JavaScript that got loose could use, beside what Node's permission model denies. */
  function scrub(): void {
    const lost =
      "fetch,WebSocket,EventSource,XMLHttpRequest,Request,Response,FormData,BroadcastChannel,Worker,navigator,localStorage";
    for (const name of lost.split(",")) Reflect.deleteProperty(globalThis, name);
    for (const name of Object.keys(process.env)) Reflect.deleteProperty(process.env, name);
    Reflect.deleteProperty(WebAssembly, "Suspending");
    Reflect.deleteProperty(WebAssembly, "promising");
    Reflect.set(process, "binding", (name: string) => {
      if (name === "constants") return { fs: fs.constants, os: os.constants };
      throw new Error(`no binding ${name}`);
    });
  }

  const { instantiate } = WebAssembly;

  async function start(options: Start): Promise<void> {
    scrub();
    limits = { memory: options.memory, output: options.output };
    WebAssembly.instantiate = async (source, imports) => {
      const main = imports !== undefined && Object.hasOwn(imports, "wasi_snapshot_preview1");
      if (main) gate(imports);
      const result = await instantiate(source, imports);
      if (main && "instance" in result && isRecord(result.instance))
        instance = { exports: { ...result.instance.exports } };
      return result;
    };
    // JavaScript functions that Emscripten puts into the table of functions come in modules of their own.
    const Small = Reflect.get(WebAssembly, "Instance");
    if (typeof Small !== "function") throw new Error("this Node has no WebAssembly.Instance");
    Reflect.set(
      WebAssembly,
      "Instance",
      new Proxy(Small, {
        construct(target, args: unknown[]) {
          const [, imports] = args;
          if (isRecord(imports)) {
            for (const space of Object.values(imports)) {
              if (!isRecord(space)) continue;
              for (const [name, value] of Object.entries(space)) {
                if (isCallable(value)) space[name] = gated(`JavaScript (${name})`, value);
              }
            }
          }
          return Reflect.construct(target, args);
        },
      }),
    );
    const library = await load(pathToFileURL(`${options.pyodide}pyodide.mjs`).href);
    if (!isRecord(library) || !isCallable(library.loadPyodide))
      throw new Error("the pyodide package has no loadPyodide");
    const python = await library.loadPyodide({
      indexURL: options.pyodide,
      jsglobals: Object.freeze(Object.create(null)),
      env: { HOME: "/", PYTHONHASHSEED: "0" },
    });
    if (!isRecord(python) || !isCallable(python.unpackArchive) || !isCallable(python.runPython)) {
      throw new Error("the pyodide package is another than expected");
    }
    for (const wheel of options.wheels) {
      python.unpackArchive(wheel, "wheel", {
        extractDir: String(python.runPython("import site; site.getsitepackages()[0]")),
      });
    }
    python.runPython(options.harness);
    seal();
  }

  let run = 0;
  let loadSympy = 0;
  let stack: { value: number } = { value: 0 };
  let stackAtRest = 0;
  let references = 0;
  type Image = Uint8Array;
  let plain: Image = new Uint8Array();
  /** undefined: not tried yet; null: it is not there. */
  let withSympy: Image | null | undefined;
  let current = plain;

  const put = (bytes: Uint8Array): number => {
    const at = call("malloc", bytes.length) >>> 0;
    if (at === 0) throw new Stop("is longer than the memory has room for");
    memory().set(bytes, at);
    return at;
  };
  const textIn = (text: string): number => put(new TextEncoder().encode(`${text}\0`));

  function seal(): void {
    const names = call("PyModule_GetDict", call("PyImport_AddModule", textIn("__main__")));
    const pair = call("PyDict_GetItemString", names, textIn("harness"));
    run = call("PyTuple_GetItem", pair, 0);
    loadSympy = call("PyTuple_GetItem", pair, 1);
    call("Py_IncRef", run);
    call("Py_IncRef", loadSympy);
    call("PyDict_DelItemString", names, textIn("harness"));
    const pointer = instance?.exports.__stack_pointer;
    if (!isRecord(pointer) || typeof pointer.value !== "number" || run === 0 || loadSympy === 0) {
      throw new Error("the interpreter is another than expected");
    }
    stack = {
      get value() {
        return Number(pointer.value);
      },
      set value(at) {
        pointer.value = at;
      },
    };
    stackAtRest = stack.value;
    references = call("hiwire_num_refs");
    sealed = true;
    // A first call fills what is made on first use.
    execute(run, "def solution():\n    return 1");
    plain = current = imageOf();
  }

  /** The memory as it is now, without the zeros at its end. */
  function imageOf(): Image {
    const bytes = memory();
    let end = bytes.length;
    while (end > 0 && bytes[end - 1] === 0) end--;
    return bytes.slice(0, end);
  }

  function restore(image: Image): void {
    const bytes = memory();
    bytes.set(image);
    bytes.fill(0, image.length);
    stack.value = stackAtRest;
    current = image;
  }

  /** Calls a function of the harness with a text; gives the lines it answers. */
  function execute(what: number, text: string): string {
    const bytes = new TextEncoder().encode(text);
    const source = put(bytes);
    const argument = call("PyUnicode_FromStringAndSize", source, bytes.length);
    call("free", source);
    const result = argument === 0 ? 0 : call("PyObject_CallOneArg", what, argument);
    if (result === 0) throw new Stop("fails inside the interpreter");
    const length = call("PyBytes_Size", result);
    if (length < 0 || length > 2 ** 16) throw new Stop("puts something else in the place of its result");
    const at = call("PyBytes_AsString", result) >>> 0;
    const answered = new TextDecoder().decode(memory().slice(at, at + length));
    call("Py_DecRef", result);
    call("Py_DecRef", argument);
    return answered;
  }

  const WORK = "__work";
  let work = (): void => {};
  Object.defineProperty(globalThis, WORK, { value: () => work() });
  const script = new Script(`${WORK}()`);

  /** Runs something in the interpreter, at most so long; gives its answer, or why there is none. */
  function timed(seconds: number, task: () => string): { answer: string } | { failure: string } {
    let found = "";
    work = () => {
      found = task();
    };
    try {
      script.runInThisContext({ timeout: Math.max(1, Math.ceil(seconds * 1000)) });
      return { answer: found };
    } catch (error) {
      if (error instanceof Stop) return { failure: `the program ${error.reason}` };
      if (isRecord(error) && error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT") {
        return { failure: `the program takes longer than ${seconds} s` };
      }
      return {
        failure: `the program breaks the interpreter (${error instanceof Error ? error.message : String(error)})`,
      };
    }
  }

  function sympyImage(): Image | null {
    if (withSympy === undefined) {
      restore(plain);
      const loaded = timed(LOAD_SECONDS, () => execute(loadSympy, ""));
      withSympy = "answer" in loaded && loaded.answer === "ok" ? imageOf() : null;
      if (withSympy === null) restore(plain);
      closeFiles();
    }
    return withSympy;
  }

  function closeFiles(): void {
    for (const file of opened) closeFile(file);
    opened.clear();
  }

  function outcomeOf(answered: string): Outcome {
    const [head, number, hasText, ...text] = answered.split("\n");
    if (head === "no") return { failure: [number, hasText, ...text].join(" ").trim() };
    if (head !== "ok") return { failure: "the program puts something else in the place of its result" };
    const values: Record<string, number> = { inf: Infinity, "-inf": -Infinity, nan: NaN };
    return {
      ...(number === "" ? {} : { number: Object.hasOwn(values, number) ? values[number] : Number(number) }),
      ...(hasText === "text" ? { text: text.join("\n") } : {}),
    };
  }

  function handle(request: Request): void {
    printed = 0;
    random = 0;
    inside = undefined;
    const image = (request.program.includes("sympy") ? sympyImage() : null) ?? plain;
    if (image !== current) restore(image);
    const result = timed(request.seconds, () => execute(run, request.program));
    let outcome = "answer" in result ? outcomeOf(result.answer) : { failure: result.failure };
    let last = inside !== undefined;
    if (request.restore || "failure" in result || call("hiwire_num_refs") !== references) {
      const released = call("hiwire_num_refs") !== references;
      restore(image);
      if (!last) closeFiles();
      if (released) {
        // References to JavaScript live in a table that cannot be put back.
        last = true;
        outcome = { failure: "the program reaches for JavaScript" };
      }
    }
    if (memory().length > Math.max(plain.length, withSympy?.length ?? 0) + GROWTH_KEPT) last = true;
    say({ kind: "done", outcome, last });
  }

  process.on("disconnect", () => exit());
  process.once("message", (options: Start) => {
    start(options).then(
      () => {
        process.on("message", handle);
        say({ kind: "ready" });
      },
      (error: unknown) => say({ kind: "broken", message: error instanceof Error ? error.message : String(error) }),
    );
  });
}

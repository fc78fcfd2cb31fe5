import type { createGate, Gate, Imports } from "./gate.ts";
import type { Outcome, Reply, Request, Start } from "./protocol.ts";

// Node's types lack WebAssembly.
interface Instance {
  exports: Record<string, unknown>;
}
declare const WebAssembly: {
  instantiate(source: unknown, imports?: Imports): Promise<{ instance: Instance } | Instance>;
};

/**
 * The whole program of a worker process. Its source is handed to the process as text: it may use nothing but its arguments and
 * globals. `load` imports a module by its URL.
 */
export function serve(load: (url: string) => Promise<unknown>, gateWith: typeof createGate): void {
  type Callable = (...args: unknown[]) => unknown;
  const isCallable = (value: unknown): value is Callable => typeof value === "function";
  const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

  const isSpaces = (value: unknown): value is Imports => isRecord(value) && Object.values(value).every(isRecord);

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

  let gate: Gate = gateWith({ memory: 0, output: 0 }, () => memory());
  let instance: Instance | undefined;

  const memory = (): Uint8Array => {
    const found = instance?.exports.memory;
    if (!isRecord(found) || !(found.buffer instanceof ArrayBuffer)) throw new Error("the interpreter has no memory");
    return new Uint8Array(found.buffer);
  };
  const call = (name: string, ...args: number[]): number => {
    const found = instance?.exports[name];
    if (!isCallable(found)) throw new Error(`the interpreter has no ${name}`);
    return Number(found(...args));
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
    gate = gateWith(options, memory);
    WebAssembly.instantiate = async (source, imports) => {
      const main = imports !== undefined && Object.hasOwn(imports, "wasi_snapshot_preview1");
      if (main) gate.guard(imports);
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
          if (isSpaces(imports)) gate.guard(imports, (name) => `JavaScript (${name})`);
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
    if (at === 0) gate.stop("is longer than the memory has room for");
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
    gate.sealed = true;
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
    if (result === 0) gate.stop("fails inside the interpreter");
    const length = call("PyBytes_Size", result);
    if (length < 0 || length > 2 ** 16) gate.stop("puts something else in the place of its result");
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
      const reason = gate.reasonOf(error);
      if (reason !== undefined) return { failure: `the program ${reason}` };
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
      gate.closeFiles();
    }
    return withSympy;
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
    gate.begin();
    const image = (request.program.includes("sympy") ? sympyImage() : null) ?? plain;
    if (image !== current) restore(image);
    const result = timed(request.seconds, () => execute(run, request.program));
    let outcome = "answer" in result ? outcomeOf(result.answer) : { failure: result.failure };
    let last = gate.inside !== undefined;
    if (request.restore || "failure" in result || call("hiwire_num_refs") !== references) {
      const released = call("hiwire_num_refs") !== references;
      restore(image);
      if (!last) gate.closeFiles();
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

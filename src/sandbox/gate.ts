/** Functions by name that a WebAssembly module takes from outside. */
export type Imports = Record<string, Record<string, unknown>>;

/** What stands between the interpreter and JavaScript. */
export interface Gate {
  /** From when on the imports are closed but those below. */
  sealed: boolean;
  /** The import with state of its own that is at work: set where a program was ended in the middle of it. */
  inside: string | undefined;
  /** Puts every import behind the gate, in place. `label` is how a name is reported. */
  guard(imports: Imports, label?: (name: string) => string): void;
  /** Before a program: nothing printed, the first random number. */
  begin(): void;
  /** Closes the files that a program left open. */
  closeFiles(): void;
  /** Why a program that was unwound was stopped; undefined where it was not the gate. */
  reasonOf(error: unknown): string | undefined;
  /** Ends a program from within: unwinds the interpreter, which Python cannot catch. */
  stop(reason: string): never;
}

/**
 * WebAssembly reaches the outside through its imports alone. Once the gate is sealed every import is closed but those below, which read
 * the clock, the memory's size and the standard library's files. No open import changes anything but the interpreter's memory and, of
 * the file system, the list of open files. So with the memory's image and the stack pointer put back and the files closed, the
 * interpreter is what it was, however the program ended.
 *
 * Its source is handed to a worker process as text: it may use nothing but its arguments and globals.
 */
export function createGate(limits: { memory: number; output: number }, memory: () => Uint8Array): Gate {
  type Callable = (...args: unknown[]) => unknown;
  const isCallable = (value: unknown): value is Callable => typeof value === "function";

  class Stop {
    readonly reason: string;
    constructor(reason: string) {
      this.reason = reason;
    }
  }

  const ENOENT = 44;
  const EBADF = 8;
  const EINVAL = 28;
  const ENOTTY = 59;

  let printed = 0;
  let random = 0;
  const opened = new Set<number>();
  let closeFile: Callable = () => 0;

  const word = (bytes: Uint8Array, at: number): number => new DataView(bytes.buffer).getUint32(at, true);
  const setWord = (at: number, value: number): void => new DataView(memory().buffer).setUint32(at, value, true);

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
    gate.inside = name;
    const result = original(...args);
    gate.inside = undefined;
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
      if (!gate.sealed && name !== "random_get") return original(...args);
      if (open === undefined) throw new Stop(reason);
      return open(...args);
    };
    // Emscripten keeps a function's signature as its property.
    return Object.assign(closed, original);
  };
  const gate: Gate = {
    sealed: false,
    inside: undefined,
    guard(imports, label = (name) => name) {
      // Emscripten hands in one object under two names.
      for (const space of new Set(Object.values(imports))) {
        for (const [name, value] of Object.entries(space)) {
          if (isCallable(value)) space[name] = gated(label(name), value);
        }
      }
    },
    begin() {
      printed = 0;
      random = 0;
      gate.inside = undefined;
    },
    closeFiles() {
      for (const file of opened) closeFile(file);
      opened.clear();
    },
    reasonOf: (error) => (error instanceof Stop ? error.reason : undefined),
    stop(reason) {
      throw new Stop(reason);
    },
  };
  return gate;
}

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openSandbox, type Outcome, type Sandbox } from "./index.ts";

// Programs that try to get out, to change the next program, or to take the machine. Each is followed by honest programs on the same
// interpreter, whose results must be those of before; and the host is looked at, not only what the program says. The next 100 honest
// programs follow an attack at once with RIFFT_ATTACKS=full (90 s); otherwise they follow it and the nine attacks after it, ten each.

const SECONDS = 2;
const folder = mkdtempSync(join(tmpdir(), "rifft-sandbox-"));
const canary = join(folder, "canary.txt");
const SECRET = "the canary sings";
let server: Server;
let connections = 0;
let port = 0;
let sandbox: Sandbox;
let before: Outcome[];

const program = (body: string): string =>
  `def solution():\n${body
    .split("\n")
    .map((line) => `    ${line}`)
    .join("\n")}\n`;

/** What a program can see of the interpreter, and everyday programs whose results a poisoned one would change. */
const FINGERPRINTS = [
  "import sys; return sorted(sys.modules)",
  "import builtins; return [(n, type(v).__name__) for n, v in sorted(vars(builtins).items())]",
  "return [(n, type(v).__name__) for n, v in sorted(vars(math).items())]",
  "import sys; return [sys.gettrace(), sys.getprofile(), sys.getrecursionlimit(), sys.get_int_max_str_digits(), sys.path, len(sys.meta_path), len(sys.path_hooks), sys.flags, str(sys.stdout)[:20]]",
  "import gc; return [len(gc.get_objects()), gc.isenabled(), gc.get_threshold(), len(gc.callbacks), gc.get_freeze_count()]",
  "import os; return [dict(os.environ), os.getcwd(), os.listdir('/lib')]",
  "import signal; return [str(signal.getsignal(2)), signal.getitimer(signal.ITIMER_REAL)]",
  "import locale; return [locale.setlocale(locale.LC_ALL), f'{1.5:n}']",
  "import warnings; return [len(warnings.filters)]",
  "import _thread, atexit, weakref; return [_thread._count(), atexit._ncallbacks()]",
  "return __import__('fractions').Fraction(3, 4) + 1",
  "return __import__('decimal').Decimal('0.1') * 3",
  "import random; return [random.random(), random.randint(1, 10**9)]",
  "return list({'a', 'b', 'c', 'spam'})",
  "import re; return re.findall(r'\\d+', 'a1b22')",
  "import json; return json.loads(json.dumps({'a': [1, 2.5, None]}))",
  "return math.pi, math.sqrt(2), math.floor(-0.5)",
  "return sum([1, 2, 3]), len('abc'), max(3, 4), round(2.5), abs(-1), repr(0.1), str(1e16), int('7')",
  "try:\n    open('/lib/x.txt')\nexcept OSError as e:\n    return str(e)",
  "return 'é𝔘'.encode(), '\\u00df'.upper()",
];
const FOLLOWERS = Array.from({ length: 100 }, (_, i) =>
  program(
    // Every fifth, so that each slice has some of them.
    i % 5 === 0 ? FINGERPRINTS[i / 5] : `a = ${i}\nb = a * 7 / 3\nreturn math.floor(b) + len(str(b)) + float(a)`,
  ),
);

const any = /[^]*/;
const closed = /sandbox does not have|ModuleNotFoundError|ImportError|AttributeError|NameError/;
const READ = `open(${JSON.stringify(canary)}).read()`;

/** Name, body, and what its failure says; `any` where the program itself may end well, harmlessly. */
const attacks: [string, string, RegExp][] = [
  // Limits.
  ["an endless loop", "while True: pass", /takes longer than 2 s/],
  [
    "an endless loop that catches everything",
    "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    /takes longer/,
  ],
  ["an endless loop in C", "return sum(range(10**15))", /takes longer/],
  ["a power without end", "return len(str(9**9**9))", /takes longer|Memory/],
  ["a regular expression without end", "import re; return re.match(r'(a+)+$', 'a' * 60 + 'b')", /takes longer/],
  ["sleep", "import time; time.sleep(1e6)", /takes longer/],
  ["a memory bomb", "x = []\nwhile True: x.append(bytearray(10**7))", /MemoryError/],
  ["a memory bomb in one piece", "return len('x' * 10**10)", /MemoryError|OverflowError/],
  ["an output flood", "while True: print('x' * 1000)", /prints more than/],
  ["an output flood past Python's own streams", "import os\nwhile True: os.write(2, b'x' * 1000)", /prints more than/],
  ["deep recursion", "def f(n): return f(n + 1)\nreturn f(0)", /RecursionError/],
  [
    "deep recursion without a limit",
    "import sys\nsys.setrecursionlimit(2**30)\ndef f(n): return f(n + 1)\nreturn f(0)",
    /Recursion|breaks|Memory|takes/,
  ],
  ["deep recursion in C", "x = []\nfor _ in range(10**6): x = [x]\nreturn repr(x)", /Recursion|breaks|Memory/],
  ["a parser's recursion", "return eval('(' * 5000 + ')' * 5000)", /Error|breaks/],
  [
    "open files without end",
    "import os\nx = []\nwhile True: x.append(os.open('/lib/python314.zip', 0))",
    /OSError|takes/,
  ],
  // The end of the interpreter.
  ["sys.exit", "import sys; sys.exit(0)", /SystemExit/],
  ["os._exit", "import os; os._exit(3)", /ends the interpreter/],
  ["os.abort", "import os; os.abort()", /ends the interpreter/],
  ["a signal to itself", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\nreturn 'alive'", any],
  ["a crash of the interpreter", "import faulthandler; faulthandler._sigsegv()", any],
  [
    "forged byte code",
    "f = lambda: 1\nf.__code__ = f.__code__.replace(co_code=bytes([255, 1, 100, 250] * 50))\nreturn f()",
    any,
  ],
  [
    "a forged stack size",
    "f = lambda: (1, 2, 3)\nf.__code__ = f.__code__.replace(co_stacksize=0, co_consts=())\nreturn f()",
    any,
  ],
  // Processes, files, network.
  ["os.system", `import os; return os.system("touch ${folder}/escaped")`, closed],
  ["fork", "import os; return os.fork()", any],
  ["subprocess", `import subprocess; return subprocess.run(["touch", "${folder}/escaped"])`, /Error|sandbox/],
  ["os.popen", `import os; return os.popen("touch ${folder}/escaped").read()`, /Error|sandbox/],
  [
    "posix_spawn",
    `import posix; return posix.posix_spawn("/bin/touch", ["touch", "${folder}/escaped"], {})`,
    /Error|sandbox/,
  ],
  ["multiprocessing", "import multiprocessing as m; m.Process(target=print).start()", /Error|sandbox/],
  ["the host's files", "return open('/etc/passwd').read()", /FileNotFoundError/],
  ["the canary", `return ${READ}`, /FileNotFoundError/],
  ["a way around", "return open('/lib/../etc/passwd').read()", /FileNotFoundError/],
  ["/proc", "import os; return os.listdir('/proc/self'), open('/proc/self/environ').read()", /FileNotFoundError/],
  ["/dev", "return open('/dev/random', 'rb').read(4)", /FileNotFoundError/],
  ["standard input", "import os; return os.read(0, 10).decode() + input()", /EOFError/],
  ["a written file", `open(${JSON.stringify(canary)}, "w").write("dead")`, /for writing/],
  ["a changed library", "open('/lib/python314.zip', 'r+b').write(b'0' * 100)", /for writing/],
  ["a removed library", "import os; os.remove('/lib/python314.zip')", closed],
  ["a made folder", "import os; os.mkdir('/lib/x')", closed],
  ["chdir", "import os; os.chdir('/lib')", closed],
  ["a link", `import os; os.symlink("/etc", "/lib/etc")`, closed],
  [
    "closed streams",
    "import os\nfor f in range(20):\n    try: os.close(f)\n    except OSError: pass\nos.dup2(1, 2)",
    closed,
  ],
  ["a socket", `import socket; socket.create_connection(("127.0.0.1", PORT), 1)\nreturn "connected"`, /Error|sandbox/],
  [
    "a raw socket",
    `import _socket; s = _socket.socket(); s.connect(("127.0.0.1", PORT)); s.send(b"x")`,
    /Error|sandbox/,
  ],
  ["a web request", `import urllib.request; urllib.request.urlopen("http://127.0.0.1:PORT/")`, /Error|sandbox/],
  // Pyodide's doors.
  ["js", `import js; return js.constructor.constructor("return process.pid")()`, closed],
  [
    "mountNodeFS",
    `import pyodide_js; pyodide_js.mountNodeFS("/mnt", "${folder}")\nreturn open("/mnt/canary.txt").read()`,
    closed,
  ],
  ["pyodide_js", `import pyodide_js; return pyodide_js.constructor.constructor("return process.pid")()`, closed],
  ["to_js", `from pyodide.ffi import to_js; return to_js([1]).constructor.constructor("return process.pid")()`, closed],
  ["run_js", `from pyodide.code import run_js; return run_js("process.pid")`, closed],
  ["loadPackage", `import pyodide_js; pyodide_js.loadPackage("http://127.0.0.1:PORT/x.whl")`, closed],
  ["the core", `import _pyodide_core as c; return c.to_js({}).constructor.constructor("return process.pid")()`, closed],
  [
    "the core's proxies",
    "import importlib.machinery as m; c = m.BuiltinImporter.load_module('_pyodide_core'); return c.create_proxy(print)",
    closed,
  ],
  ["the core's fatal error", "import _pyodide_core as c; c.trigger_fatal_error()", any],
  ["the core's calls", "import _pyodide_core as c; return c.run_sync(1), c.raw_call(1)", any],
  ["ctypes", `import ctypes; return ctypes.CDLL(None).system(b"touch ${folder}/escaped")`, closed],
  ["emscripten_run_script", `import ctypes; return ctypes.CDLL(None).emscripten_run_script(b"process.exit()")`, closed],
  ["_ctypes' calls", "import _ctypes; return _ctypes.dlopen(None, 0)", closed],
  [
    "JavaScript found among the objects",
    "import gc\nfound = []\nfor o in gc.get_objects():\n    if 'Js' in type(o).__name__: found.append(o)\nreturn [o.constructor.constructor('return process.pid')() for o in found] or 'nothing'",
    any,
  ],
  [
    "JavaScript found among the classes",
    "def walk(c):\n    yield c\n    for s in type.__subclasses__(c): yield from walk(s)\nfor c in walk(object):\n    if 'Js' in c.__name__:\n        try: c().constructor\n        except Exception: pass\nreturn 'tried'",
    any,
  ],
  [
    "every reference to JavaScript dropped",
    "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict):\n        for k in [k for k, v in list(o.items()) if 'Js' in type(v).__name__]: del o[k]\ngc.collect()\nreturn 'dropped'",
    any,
  ],
  [
    "sleeping in JavaScript",
    "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return 1\nreturn asyncio.run(f())",
    any,
  ],
  [
    "a callback after the end",
    "import asyncio\nloop = asyncio.new_event_loop()\nloop.call_soon(exec, 'import builtins; builtins.len = lambda x: 0')\nreturn 'scheduled'",
    any,
  ],
  ["the environment", "import os; return sorted(os.environ.values())", any],
  // The next program.
  [
    "poisoned builtins",
    "import builtins\nbuiltins.float = lambda x: 5.0\nbuiltins.len = lambda x: 0\nbuiltins.str = builtins.repr = lambda x: 'x'\nbuiltins.__import__ = None\nreturn 1",
    any,
  ],
  ["poisoned math", "math.sqrt = lambda x: 0\nmath.pi = 3\nmath.floor = lambda x: 1\ndel math.sin\nreturn 1", any],
  ["another math", "import sys\nsys.modules['math'] = sys.modules['sys']\nsys.modules['re'] = None\nreturn 1", any],
  [
    "every module cleared",
    "import sys\nfor m in list(sys.modules.values()):\n    if hasattr(m, '__dict__'): m.__dict__.clear()\nreturn 1",
    any,
  ],
  ["a trace function", "import sys\nsys.settrace(lambda *a: 1 / 0)\nsys.setprofile(lambda *a: 1 / 0)\nreturn 1", any],
  [
    "monitoring",
    "import sys\nm = sys.monitoring\nm.use_tool_id(3, 'x')\nm.register_callback(3, m.events.PY_START, lambda *a: 1 / 0)\nm.set_events(3, m.events.PY_START)\nreturn 1",
    any,
  ],
  ["a thread", "import threading\nt = threading.Thread(target=lambda: 1)\nt.start()\nreturn 1", /start new thread/],
  ["atexit", "import atexit, os\natexit.register(os._exit, 1)\nreturn 1", any],
  [
    "an import hook",
    "import sys\nclass F:\n    @staticmethod\n    def find_spec(*a): raise SystemExit\nsys.meta_path.insert(0, F)\nsys.path_hooks.insert(0, F)\nsys.path.clear()\nreturn 1",
    any,
  ],
  [
    "the harness's frames",
    "import sys\nf = sys._getframe(1)\nwhile f:\n    for k in list(f.f_globals): f.f_globals[k] = None\n    f = f.f_back\nreturn 1",
    any,
  ],
  [
    "the harness's cells",
    "import gc, types\nfor o in gc.get_objects():\n    if isinstance(o, types.CellType):\n        try: o.cell_contents = lambda *a: b'ok\\n42\\ntext\\n42'\n        except Exception: pass\nreturn 1",
    any,
  ],
  [
    "the harness's code",
    "import gc, types\nf = lambda *a: b'ok\\n42\\ntext\\n42'\nfor o in gc.get_objects():\n    if isinstance(o, types.FunctionType):\n        try: o.__code__ = f.__code__\n        except Exception: pass\nreturn 1",
    any,
  ],
  [
    "a codec",
    "import codecs\ncodecs.register(lambda n: 1 / 0)\ncodecs.register_error('backslashreplace', lambda e: ('?', e.end))\nreturn '\\ud800'",
    any,
  ],
  ["signals", "import signal\nsignal.signal(2, lambda *a: 1 / 0)\nsignal.raise_signal(2)\nreturn 1", any],
  ["a timer", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\nreturn 1", any],
  [
    "the limits of integers",
    "import sys\nsys.set_int_max_str_digits(0)\nsys.setrecursionlimit(100)\nsys.setswitchinterval(1e-9)\nreturn 1",
    any,
  ],
  [
    "the garbage collector",
    "import gc\ngc.disable(); gc.set_threshold(1, 1, 1); gc.freeze()\ngc.callbacks.append(lambda *a: 1 / 0)\nreturn 1",
    any,
  ],
  [
    "finalizers",
    "import weakref, builtins\nclass A:\n    def __del__(self): builtins.kept = self; builtins.len = None\nclass B: pass\nb = B(); b.me = b\nweakref.finalize(b, setattr, builtins, 'max', None)\nA()\nreturn 1",
    any,
  ],
  [
    "a living generator",
    "import builtins\ndef g():\n    try:\n        while True: yield 1\n    finally: builtins.sum = None\nbuiltins.g = g(); next(builtins.g)\nreturn 1",
    any,
  ],
  [
    "locale",
    "import locale\nlocale.setlocale(locale.LC_ALL, 'C')\nlocale._override_localeconv['decimal_point'] = ','\nreturn 1",
    any,
  ],
  [
    "os.environ",
    "import os\nos.environ['PYTHONPATH'] = '/x'; os.putenv('TZ', 'Asia/Tokyo')\nimport time; time.tzset()\nreturn 1",
    any,
  ],
  [
    "decimal's context",
    "import decimal\ndecimal.getcontext().prec = 1\ndecimal.DefaultContext.prec = 1\ndecimal.setcontext(decimal.Context(prec=1))\nreturn 1",
    any,
  ],
  ["streams", "import sys\nsys.stdout = sys.stderr = sys.__stdout__ = None\nreturn 1", any],
  [
    "the cache of imports",
    "import zipimport, sys\nfor d in zipimport._zip_directory_cache.values(): d.clear()\nsys.path_importer_cache.clear()\nreturn 1",
    any,
  ],
  [
    "a small integer's value",
    "import _ctypes\nclass P(_ctypes._SimpleCData): _type_ = 'i'\nfor i in range(64): P.from_address(id(7) + i).value = 99\nreturn 1",
    any,
  ],
  [
    "all of the memory",
    "import _ctypes\nclass P(_ctypes._SimpleCData): _type_ = 'Q'\nfor i in range(10**6, 30 * 2**20, 64): P.from_address(i).value = 2**64 - 1\nreturn 1",
    any,
  ],
  [
    "memory above the heap",
    "import _ctypes\nclass P(_ctypes._SimpleCData): _type_ = 'Q'\nfor i in range(26 * 2**20, 30 * 2**20, 8): P.from_address(i).value = 2**64 - 1\nreturn 1",
    any,
  ],
  [
    "another interpreter",
    "import _interpreters\ni = _interpreters.create()\n_interpreters.exec(i, 'import os; os._exit(1)')\nreturn 1",
    any,
  ],
  ["memory that grew", "x = bytearray(b'\\xff') * (80 * 2**20)\nreturn len(x)", any],
  // The result.
  [
    "an exception that cannot be printed",
    "class E(Exception):\n    def __str__(self): raise self\nraise E",
    /cannot be printed/,
  ],
  [
    "an exception that never ends",
    "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
    /takes longer/,
  ],
  [
    "a float that never ends",
    "class R:\n    def __float__(self):\n        while True: pass\nreturn R()",
    /takes longer/,
  ],
  ["a text that exits", "class R:\n    def __str__(self): raise SystemExit\nreturn R()", any],
  [
    "a text of another kind",
    "class S(str):\n    def encode(self, *a): return b'ok\\n42\\ntext\\n42'\n    def __getitem__(self, i): return self\n    def __format__(self, f): return self * 10**6\nclass R:\n    def __str__(self): return S('x' * 10**6)\nreturn R()",
    any,
  ],
  [
    "a result within itself",
    "x = []\nx.append(x)\nclass R:\n    def __repr__(self): return repr([self])\nreturn [R()]",
    any,
  ],
  ["lone surrogates", "return '\\ud83d' * 10", any],
];

beforeAll(async () => {
  writeFileSync(canary, SECRET);
  server = createServer((socket) => {
    connections++;
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  port = typeof address === "object" && address !== null ? address.port : 0;
  sandbox = openSandbox({ workers: 1, seconds: SECONDS, memory: 128 });
  before = await sandbox.run(FOLLOWERS);
});
afterAll(async () => {
  await sandbox.close();
  server.close();
  rmSync(folder, { recursive: true });
});

/** The processes that descend from this one; empty where the machine has no /proc. */
function descendants(): number[] {
  try {
    const parents = readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map((name) => {
        try {
          return [
            Number(name),
            Number(readFileSync(`/proc/${name}/stat`, "utf8").replace(/^.*\) . (\d+) [^]*$/, "$1")),
          ];
        } catch {
          return [0, 0];
        }
      });
    const found = [process.pid];
    for (const of of found) found.push(...parents.filter(([, parent]) => parent === of).map(([child]) => child));
    return found.slice(1);
  } catch {
    return [];
  }
}

const AT_ONCE = process.env.RIFFT_ATTACKS === "full" ? 100 : 10;

describe("attacks", () => {
  test("the followers see what they should", () => {
    expect(before.map(({ failure }) => failure).filter(Boolean)).toEqual([]);
    expect(before[99].number).toBe(231 + 5 + 99);
    expect(new Set(FOLLOWERS).size).toBe(100);
  });

  test.each(attacks.map((attack, i) => [...attack, i] as const))("%s", async (_, body, expected, i) => {
    const [outcome] = await sandbox.run([program(body.replaceAll("PORT", String(port)))]);
    if (expected !== any) expect(outcome.failure ?? `none: ${outcome.text}`).toMatch(expected);
    expect(JSON.stringify(outcome)).not.toContain(SECRET);
    expect(JSON.stringify(outcome)).not.toContain("root:");
    const from = (i * AT_ONCE) % 100;
    expect(await sandbox.run(FOLLOWERS.slice(from, from + AT_ONCE))).toEqual(before.slice(from, from + AT_ONCE));
    expect(readdirSync(folder)).toEqual(["canary.txt"]);
    expect(readFileSync(canary, "utf8")).toBe(SECRET);
    expect(connections).toBe(0);
    // One worker, and while one is being replaced the killed one.
    expect(descendants().length).toBeLessThanOrEqual(2);
  });
});

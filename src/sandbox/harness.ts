/**
 * Runs inside the interpreter. `run` gives bytes: "ok", float(result) and whether there is a text, a line each, then the text; or
 * "no" and a line that says why. A program sees `math` (and `sympy`, where it was loaded) as globals; what it defines goes into a
 * namespace of its own, so that `solution` does not see other functions beside it (ReFT's executor, arXiv 2401.08967). Every builtin
 * that is used after the program is bound before.
 */
export const HARNESS = `
def harness():
    import gc, math, sys

    # What Pyodide adds to Python: the ways to JavaScript.
    for name in list(sys.modules):
        if name.partition(".")[0] in ("js", "pyodide", "pyodide_js", "_pyodide", "_pyodide_core", "webbrowser", "micropip"):
            del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]
    sys.path[:] = [entry for entry in sys.path if entry.startswith("/lib/")]
    sys.path_importer_cache.clear()
    sys.dont_write_bytecode = True

    known = {"math": math}
    own_exec, own_eval, own_compile, own_float, own_str, own_type = exec, eval, compile, float, str, type
    represent, encode, base = float.__repr__, str.encode, BaseException

    def told(error):
        try:
            place = ""
            step = error.__traceback__
            while step is not None:
                if step.tb_frame.f_code.co_filename == "<program>":
                    place = f" (line {step.tb_lineno})"
                step = step.tb_next
            line = " ".join(f"{own_type(error).__name__}: {error}".split())[:300] + place
            return encode("no\\n" + line, "utf-8", "backslashreplace")
        except base:
            return b"no\\nan exception that cannot be printed"

    def run(source):
        try:
            names = {**known}
            own = {}
            own_exec(own_compile(source, "<program>", "exec"), names, own)
            result = own_eval("solution()", names, own)
        except base as error:
            return told(error)
        number = text = ""
        printed = "text"
        try:
            number = represent(own_float(result))
        except base:
            pass
        try:
            text = own_str(result)[:1000]
        except base:
            printed = "none"
        try:
            return encode(f"ok\\n{number}\\n{printed}\\n{text}", "utf-8", "backslashreplace")
        except base:
            return b"no\\na result that cannot be printed"

    def load_sympy(_):
        # All that sympy wants of ctypes, which the sandbox does not have, is how long a C long is.
        stand_in = own_type(sys)("ctypes")
        stand_in.c_long, stand_in.sizeof = None, lambda kind: 4
        sys.modules["ctypes"] = stand_in
        try:
            import sympy
            # What is imported and made on first use would be lost after every program.
            x, y = sympy.symbols("x y")
            sympy.solve([x + y - 3, x - y - 1], [x, y])
            sympy.solve(x**2 - 2, x)
            known["sympy"] = sympy
            return b"ok"
        except base as error:
            return told(error)
        finally:
            del sys.modules["ctypes"]

    gc.collect()
    return run, load_sympy

harness = harness()
`;

import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UserError } from "../errors.ts";
import { nodeProtection, openSandbox, type Outcome, pyodideFolder, type Sandbox } from "./index.ts";

let sandbox: Sandbox;
beforeAll(() => {
  sandbox = openSandbox({ workers: 2, seconds: 5 });
});
afterAll(() => sandbox.close());

const solution = (...lines: string[]): string => ["def solution():", ...lines.map((line) => `    ${line}`)].join("\n");
const run = async (program: string): Promise<Outcome> => (await sandbox.run([program]))[0];

describe("results", () => {
  test.each<[string, string, Outcome]>([
    ["an integer", "return 6 * 7", { number: 42, text: "42" }],
    ["a float as Python prints it", "return 0.1 + 0.2", { number: 0.30000000000000004, text: "0.30000000000000004" }],
    ["a large float", "return 1e22", { number: 1e22, text: "1e+22" }],
    ["a boolean is a number", "return True", { number: 1, text: "True" }],
    ["nothing", "pass", { text: "None" }],
    ["a text that is a number", "return ' 1_000.5e1 '", { number: 10005, text: " 1_000.5e1 " }],
    ["a text that is none", "return '1,234'", { text: "1,234" }],
    ["NaN", "return float('nan')", { number: NaN, text: "nan" }],
    ["infinity", "return -math.inf", { number: -Infinity, text: "-inf" }],
    ["a list", "return [1, 2]", { text: "[1, 2]" }],
    ["a complex number", "return 1j", { text: "1j" }],
    ["an integer beyond floats", "return 10 ** 400", { text: `1${"0".repeat(400)}` }],
    ["an integer beyond what Python prints", "return 10 ** 5000", {}],
    ["lines", "return 'a\\nb'", { text: "a\nb" }],
    ["Unicode", "return 'é𝔘 ' + '\\u20ac'", { text: "é𝔘 €" }],
    ["a long text is cut", "return 'x' * 5000", { text: "x".repeat(1000) }],
    ["a fraction", "from fractions import Fraction\n    return Fraction(1, 4)", { number: 0.25, text: "1/4" }],
    ["math is there", "return math.floor(2.5)", { number: 2, text: "2" }],
  ])("%s", async (_, body, expected) => {
    expect(await run(solution(body))).toEqual(expected);
  });

  test.each([
    ["a syntax error", "def solution(:\n    return 1", /^SyntaxError: .*line 1/],
    ["an exception and its line", solution("x = 1", "return x / 0"), "ZeroDivisionError: division by zero (line 3)"],
    ["no function", "x = 1", "NameError: name 'solution' is not defined"],
    ["an empty program", "", "NameError: name 'solution' is not defined"],
    ["a zero character", "def solution(): return '\0'", /null/],
    ["a module that is not there", solution("import numpy"), /^ModuleNotFoundError: No module named 'numpy'/],
    ["sympy that is not there", solution("import sympy"), /^ModuleNotFoundError: No module named 'sympy'/],
  ])("%s fails", async (_, program, expected) => {
    expect((await run(program)).failure).toMatch(expected);
  });

  test("a function does not see others beside it: definitions are not globals", async () => {
    const helper = "def helper():\n    return 3\n";
    expect((await run(helper + solution("return helper()"))).failure).toMatch(/NameError: name 'helper'/);
    expect(await run(solution("def helper(): return 3", "return helper()"))).toMatchObject({ number: 3 });
  });

  test("what a program gives is a function of its text", async () => {
    const program = solution("import random", "return [random.random(), list({'a', 'b', 'c'}), hash('x')]");
    const outcomes = await sandbox.run(Array.from({ length: 8 }, () => program));
    expect(new Set(outcomes.map(({ text }) => text)).size).toBe(1);
  });

  test("results come in the programs' order, whichever process is first", async () => {
    const programs = Array.from({ length: 60 }, (_, i) =>
      solution(`return sum(range(${i % 7 === 0 ? 10 ** 6 : 1})) * 0 + ${i}`),
    );
    expect((await sandbox.run(programs)).map(({ number }) => number)).toEqual(programs.map((_, i) => i));
  });
});

describe("between programs", () => {
  const poison = solution("import builtins", "builtins.kept = 1", "math.pi = 3", "return 1");
  const look = solution("import builtins", "return [hasattr(builtins, 'kept'), math.pi]");

  test("nothing stays; without the guarantee it does, until a program is stopped", async () => {
    const apart = openSandbox({ workers: 1 });
    const together = openSandbox({ workers: 1, restore: false });
    const texts = async (pool: Sandbox, ...programs: string[]) => (await pool.run(programs)).map(({ text }) => text);
    expect(await texts(apart, poison, look)).toEqual(["1", "[False, 3.141592653589793]"]);
    expect(await texts(together, poison, look, solution("import os", "os._exit(1)"), look)).toEqual([
      "1",
      "[True, 3]",
      undefined,
      "[False, 3.141592653589793]",
    ]);
    await Promise.all([apart.close(), together.close()]);
  });

  const shared = resolve(process.env.RIFFT_SHARED ?? "../shared", "data/svamp/svamp_python_sdp.json");
  test.skipIf(!existsSync(shared))("SVAMP's 3,043 training programs give their answers", async () => {
    const rows: { answer_cot: string; answer_value: string }[] = JSON.parse(readFileSync(shared, "utf8"));
    const outcomes = await sandbox.run(rows.map((row) => row.answer_cot));
    const right = outcomes.filter(({ number }, i) => Math.abs((number ?? NaN) - Number(rows[i].answer_value)) <= 0.01);
    expect([rows.length, right.length]).toEqual([3043, 3043]);
    const whole = outcomes.filter(({ text }) => /^-?\d+$/.test(text ?? ""));
    expect([whole.length, outcomes.length - whole.length]).toEqual([2468, 575]);
  });
});

describe("what is missing", () => {
  test("pyodide", () => {
    const absent = () => {
      throw new Error("Cannot find module");
    };
    expect(() => pyodideFolder(absent)).toThrow(UserError);
    expect(() => pyodideFolder(absent)).toThrow(/npm package pyodide, which is not installed: .*text work without it/);
    expect(existsSync(`${pyodideFolder()}pyodide.asm.wasm`)).toBe(true);
  });

  test("wheels", () => {
    expect(() => openSandbox({ wheels: "/no/such/folder" })).toThrow(
      /cannot read the folder of wheels; .*pip download/,
    );
    expect(() => openSandbox({ wheels: import.meta.dirname })).toThrow(/there is no wheel of sympy here/);
  });

  test("what Node denies, by its version", () => {
    const old = nodeProtection("20.19.0", new Set(["--experimental-permission"]));
    expect(old.flags).toEqual(["--experimental-permission"]);
    expect(old.weaker).toEqual([expect.stringMatching(/experimental/), expect.stringMatching(/network/)]);
    expect(nodeProtection("24.0.0", new Set(["--permission"])).weaker).toEqual([expect.stringMatching(/network/)]);
    expect(nodeProtection("26.0.0", new Set(["--permission"]))).toEqual({ flags: ["--permission"], weaker: [] });
  });
});

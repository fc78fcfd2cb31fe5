import { readFileSync, rmSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { UserError } from "../errors.ts";
import { add, Graph, matmul, mul, transpose, type DType } from "../tensor/index.ts";
import { library } from "./library.ts";
import { allocate, memory, PrepackedWeights, Runtime, Value, type Session, type SessionOptions } from "./index.ts";

const runtime = Runtime.open({ threads: 2 });

const f32 = (dims: number[], data: number[]): Value => new Value(Float32Array.from(data), dims);
const zeros = (...dims: number[]): Value =>
  new Value(
    allocate(
      "float32",
      dims.reduce((a, b) => a * b, 1),
    ),
    dims,
  );
const numbers = (value: Value): number[] => Array.from(value.data, Number);

function session(define: (graph: Graph) => void, options?: SessionOptions): Session {
  const graph = new Graph();
  define(graph);
  return runtime.createSession(graph.build(), options);
}

const addition = (options?: SessionOptions): Session =>
  session((g) => g.output("sum", add(g.input("left", ["n"]), g.input("right", ["n"]))), options);

/** y = x w; w is [inner, columns]. */
const product = (inner: number, columns: number, options: SessionOptions): Session =>
  session((g) => g.output("y", matmul(g.input("x", ["rows", inner]), g.weight("w", [inner, columns]))), options);

describe("running a graph", () => {
  it("reads and writes the arrays' own memory, views included", async () => {
    const memory = new Float32Array([0, 1, 2, 3, 0, 10, 20, 30, 0, 0, 0, 0]);
    const sum = new Value(memory.subarray(8, 11), [3]);
    const call = addition().bind(
      { left: new Value(memory.subarray(1, 4), [3]), right: new Value(memory.subarray(5, 8), [3]) },
      { sum },
    );
    call.runSync();
    expect([...memory]).toEqual([0, 1, 2, 3, 0, 10, 20, 30, 11, 22, 33, 0]);
    memory[1] = 100;
    await call.run();
    expect(numbers(sum)).toEqual([110, 22, 33]);
  });

  it("takes any length where the shape is symbolic, zero included", () => {
    const s = addition();
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer(), fc.integer()), { maxLength: 40 }), (pairs) => {
        const n = pairs.length;
        const sum = zeros(n);
        s.bind(
          {
            left: f32(
              [n],
              pairs.map((p) => p[0]),
            ),
            right: f32(
              [n],
              pairs.map((p) => p[1]),
            ),
          },
          { sum },
        ).runSync();
        expect(numbers(sum)).toEqual(pairs.map(([a, b]) => Math.fround(Math.fround(a) + Math.fround(b))));
      }),
      { numRuns: 50 },
    );
  });

  it("knows every element type that a graph may have", () => {
    const cases: [DType, Value][] = [
      ["float32", new Value(new Float32Array([1.5]), [1])],
      ["float64", new Value(new Float64Array([0.1]), [1])],
      ["int32", new Value(new Int32Array([-7]), [1])],
      ["int64", new Value(new BigInt64Array([-(2n ** 40n)]), [1])],
      ["bool", new Value(new Uint8Array([1]), [1], "bool")],
      ["float16", new Value(new Uint16Array([0x3c00]), [1], "float16")],
      ["bfloat16", new Value(new Uint16Array([0x3f80]), [1], "bfloat16")],
    ];
    for (const [type, x] of cases) {
      const s = session((g) =>
        g.output("y", g.node("Identity", [g.input("x", [1], { type })], [{ dims: [1], type }])[0]),
      );
      const y = new Value(allocate(x.type, 1), [1], x.type);
      s.bind({ x }, { y }).runSync();
      expect(y.data).toEqual(x.data);
    }
  });

  it("may write an elementwise result over its input", () => {
    const x = f32([4], [1, 2, 3, 4]);
    const s = session((g) => g.output("y", mul(g.input("x", ["n"]), 3)));
    s.bind({ x }, { y: x }).runSync();
    expect(numbers(x)).toEqual([3, 6, 9, 12]);
  });

  it("runs many calls at once without blocking the event loop, through garbage collections", async () => {
    const size = 256;
    const s = session((g) => g.output("y", matmul(g.input("x", ["n", size]), g.input("w", [size, size]))));
    let ticks = 0;
    const ticking = setInterval(() => ticks++, 1);
    const results = Array.from({ length: 24 }, async (_, i) => {
      // Nothing but the running call refers to these inputs.
      const y = zeros(size, size);
      const eye = zeros(size, size);
      for (let j = 0; j < size; j++) eye.data[j * size + j] = i;
      const ones = zeros(size, size);
      ones.data.fill(1 as never);
      const call = s.bind({ x: eye, w: ones }, { y });
      for (let repeat = 0; repeat < 10; repeat++) await call.run();
      return numbers(y).every((v) => v === i);
    });
    let garbage = 0;
    for (let i = 0; i < 200; i++) {
      garbage += Array.from({ length: 2000 }, (_, j) => new Float32Array(32).fill(j)).length;
      await setTimeout(0);
    }
    expect(garbage).toBe(400_000);
    expect((await Promise.all(results)).every(Boolean)).toBe(true);
    clearInterval(ticking);
    expect(ticks).toBeGreaterThan(10);
  });
});

describe("weights", () => {
  const identity = (size: number): Value => {
    const value = zeros(size, size);
    for (let i = 0; i < size; i++) value.data[i * size + i] = 1;
    return value;
  };

  it.each([4, 1024])("are shared between sessions and read at every run (%i wide)", (size) => {
    const w = identity(size);
    const x = zeros(1, size);
    x.data[0] = 5;
    for (const s of [product(size, size, { weights: { w } }), product(size, size, { weights: { w } })]) {
      const y = zeros(1, size);
      const call = s.bind({ x }, { y });
      w.data[0] = 1;
      call.runSync();
      expect(y.data[0]).toBe(5);
      w.data[0] = 7;
      call.runSync();
      expect(y.data[0]).toBe(35);
    }
  });

  it.each([4, 1024])("once repacked keep their values (%i wide), and outlive the container's release", (size) => {
    const w = identity(size);
    const prepacked = new PrepackedWeights();
    const sessions = [1, 2].map(() => product(size, size, { weights: { w }, prepacked }));
    prepacked.release();
    w.data[0] = 7;
    const x = zeros(1, size);
    x.data[0] = 5;
    for (const s of sessions) {
      const y = zeros(1, size);
      s.bind({ x }, { y }).runSync();
      expect(y.data[0]).toBe(5);
      s.release();
    }
    expect(() => product(size, size, { weights: { w }, prepacked })).toThrow("released");
  });

  it("share one repacked copy", () => {
    const size = 2048; // 16 MiB
    const w = identity(size);
    const before = process.memoryUsage.rss();
    const prepacked = new PrepackedWeights();
    const sessions = Array.from({ length: 8 }, () => product(size, size, { weights: { w }, prepacked }));
    const grown = process.memoryUsage.rss() - before;
    expect(grown).toBeLessThan(4 * w.data.byteLength);
    for (const s of sessions) s.release();
  });

  it.each([4, 1024])("may be folded into new constants by the optimizer (%i wide)", (size) => {
    const w = zeros(size, size);
    w.data[1] = 3;
    const s = session(
      (g) => {
        const folded = transpose(mul(g.weight("w", [size, size]), 2), [1, 0]);
        g.output("y", matmul(g.input("x", ["n", size]), folded));
      },
      { weights: { w } },
    );
    const x = zeros(1, size);
    x.data[1] = 10;
    const y = zeros(1, size);
    s.bind({ x }, { y }).runSync();
    expect(y.data[0]).toBe(60);
  });

  it("that are missing are named", () => {
    expect(() => product(2, 2, { name: "block" })).toThrow(
      'cannot create a session for "block": weight w is not bound; bound are none',
    );
    const other = zeros(1024, 1024);
    expect(() => product(1024, 1024, { weights: { other } })).toThrow(
      /weight w is not bound; bound are other|no.*other/,
    );
  });
});

describe("guards", () => {
  const x = (): Value => f32([2], [1, 2]);

  it("says both shapes when data and shape differ", () => {
    expect(() => new Value(new Float32Array(5), [2, 3])).toThrow(
      "shape [2, 3] needs 6 elements, found an array of shape [5]",
    );
    expect(() => new Value(new Float32Array(2), [-2, -1])).toThrow("non-negative");
    expect(() => new Value(new Float32Array(2), [2], "int64")).toThrow(
      "a int64 value needs a BigInt64Array, found a Float32Array",
    );
  });

  it("names the graph when a run meets a shape or type that it can't take", async () => {
    const s = addition({ name: "adder" });
    const left = x();
    await expect(s.bind({ left, right: zeros(3) }, { sum: zeros(3) }).run()).rejects.toThrow('running "adder" failed');
    expect(() => s.bind({ left, right: x() }, { sum: zeros(3) }).runSync()).toThrow('running "adder" failed');
    expect(() => s.bind({ left, right: x() }, { sum: new Value(new Float64Array(2), [2]) }).runSync()).toThrow(/type/);
  });

  it("refuses names that are missing or unknown", () => {
    const s = addition({ name: "adder" });
    expect(() => s.bind({ left: x() }, { sum: x() })).toThrow('"adder" lacks input right; it expects left, right');
    expect(() => s.bind({ left: x(), rigth: x() }, { sum: x() })).toThrow(
      '"adder" has no input rigth; did you mean right?; it has left, right',
    );
    expect(() => s.bind({ left: x(), right: x() }, { total: x() })).toThrow('"adder" has no output total; it has sum');
    expect(() => s.bind({ left: x(), right: x() }, {})).toThrow("without outputs");
  });

  it("refuses what was released", async () => {
    const s = addition();
    const left = x();
    const call = s.bind({ left, right: x() }, { sum: x() });
    left.release();
    left.release();
    expect(() => call.runSync()).toThrow('value "left" was released');
    await expect(call.run()).rejects.toThrow('value "left" was released');
    const other = s.bind({ left: x(), right: x() }, { sum: x() });
    s.release();
    expect(() => other.runSync()).toThrow("was released");
    expect(() => s.bind({ left: x(), right: x() }, { sum: x() })).toThrow("was released");
  });

  it("finishes runs under way before a release takes effect", async () => {
    const size = 512;
    const s = session((g) => g.output("y", matmul(g.input("x", ["n", size]), g.input("w", [size, size]))));
    const [input, w, y] = [zeros(size, size), zeros(size, size), zeros(size, size)];
    input.data.fill(1 as never);
    w.data.fill(1 as never);
    const call = s.bind({ x: input, w }, { y });
    const running = call.run();
    await expect(call.run()).rejects.toThrow("is running already");
    for (const value of [input, w, y]) value.release();
    s.release();
    await running;
    expect(numbers(y).every((v) => v === size)).toBe(true);
  });

  it("notices memory that was transferred away", () => {
    const s = addition();
    const left = x();
    const call = s.bind({ left, right: x() }, { sum: x() });
    structuredClone(left.data, { transfer: [left.data.buffer as ArrayBuffer] });
    expect(() => call.runSync()).toThrow('the memory of value "left" [2] was transferred away');

    const w = zeros(2, 2);
    const y = zeros(1, 2);
    const weighted = product(2, 2, { weights: { w } }).bind({ x: zeros(1, 2) }, { y });
    structuredClone(w.data, { transfer: [w.data.buffer as ArrayBuffer] });
    expect(() => weighted.runSync()).toThrow('the memory of value "w"');
  });

  it("gives the library's reason for a broken model in one line", () => {
    const broken = () => runtime.createSession(new Uint8Array([1, 2, 3]), { name: "broken" });
    expect(broken).toThrow(/^cannot create a session for "broken": .*protobuf.*$/i);
    const unknown = () =>
      session((g) => g.output("y", g.node("NoSuchOperator", [g.input("x", [1])], [{ dims: [1] }])[0]));
    expect(unknown).toThrow(/^cannot create a session for "graph": .*NoSuchOperator.*$/);
  });

  it("has one thread count in a process", () => {
    expect(Runtime.open()).toBe(runtime);
    expect(Runtime.open({ threads: 2 })).toBe(runtime);
    expect(() => Runtime.open({ threads: 3 })).toThrow(UserError);
    expect(() => Runtime.open({ threads: 0 })).toThrow("positive");
  });
});

describe("what is forgotten", () => {
  it("is released: sessions and weights that nobody holds don't pile up", async () => {
    const size = 512; // 1 MiB a weight, one more repacked
    const peak: number[] = [];
    for (let round = 0; round < 40; round++) {
      const w = zeros(size, size);
      const prepacked = new PrepackedWeights();
      product(size, size, { weights: { w }, prepacked })
        .bind({ x: zeros(1, size) }, { y: zeros(1, size) })
        .runSync();
      for (let i = 0; i < 20; i++) new ArrayBuffer(8 * 2 ** 20);
      await setTimeout(0);
      peak.push(process.memoryUsage.rss());
    }
    expect(Math.max(...peak) - peak[0]).toBeLessThan(200 * 2 ** 20);
  });
});

describe("allocate", () => {
  it("gives zeroed memory at multiples of 64 bytes, large or small", () => {
    for (const length of [0, 1, 1000, 3_000_000]) {
      const array = allocate("float32", length);
      expect(array).toBeInstanceOf(Float32Array);
      expect(array.length).toBe(length);
      expect(array.every((v) => v === 0)).toBe(true);
      if (length > 0) expect(library().addressOf(array) % 64n).toBe(0n);
    }
    expect(allocate("int64", 3)).toEqual(new BigInt64Array(3));
  });
});

describe("memory", () => {
  it("is in bytes", () => {
    const { total, available, peak } = memory();
    expect(available).toBeLessThanOrEqual(total);
    expect(available).toBeGreaterThan(2 ** 20);
    const held = new Uint8Array(200 * 2 ** 20).fill(1);
    expect(memory().peak).toBeGreaterThanOrEqual(process.memoryUsage.rss() * 0.99);
    expect(memory().peak).toBeLessThan(total);
    expect(memory().peak).toBeGreaterThanOrEqual(peak);
    expect(held[held.length - 1]).toBe(1);
  });
});

describe("profiling", () => {
  it("writes a trace of every operator", () => {
    const s = addition({ profile: "rifft-profile-test" });
    s.bind({ left: zeros(2), right: zeros(2) }, { sum: zeros(2) }).runSync();
    const file = s.endProfiling();
    const events = JSON.parse(readFileSync(file, "utf8")) as { name: string }[];
    rmSync(file);
    expect(events.some((event) => event.name.includes("Add"))).toBe(true);
  });
});

import { linearDims, LINEARS } from "../engine/local/layers.ts";
import type { ModelConfig } from "../model/types.ts";
import { allocate, type Call, PrepackedWeights, type Runtime, type Session, Value } from "../runtime/index.ts";
import { Graph, matmul, max, sum } from "../tensor/index.ts";
import { tile } from "./shapes.ts";

/** What a probe found so far; each `measure` may raise it. */
export interface Rate {
  /** FLOP or bytes a second. */
  best: number;
  /** What reached it. */
  by: string;
}

/** Short calls are repeated until they take this long. */
const SHORTEST = 0.1;

/** The best float32 rate of matrix products over a model's own shapes at a number of rows. */
export class GemmProbe {
  readonly rate: Rate = { best: 0, by: "" };
  private readonly sessions: Session[] = [];
  private readonly trials: { call: Call; flops: number; by: string; times: number }[] = [];
  private readonly prepacked = new PrepackedWeights();

  constructor(runtime: Runtime, config: ModelConfig, rows: number) {
    const shapes = gemmShapes(config);
    const input = filled(rows * Math.max(...shapes.map(([width]) => width)));
    const weight = filled(Math.max(...shapes.map(([width, out]) => width * out)));
    const output = allocate("float32", rows * Math.max(...shapes.map(([, out]) => out)));
    for (const [width, out] of shapes) {
      const x = new Value(input.subarray(0, rows * width), [rows, width]);
      const y = new Value(output.subarray(0, rows * out), [rows, out]);
      const weights = weight.subarray(0, width * out);
      const add = (by: string, session: Session, inputs: Record<string, Value>): void => {
        this.sessions.push(session);
        const call = session.bind(inputs, { y });
        this.trials.push({
          call,
          flops: 2 * rows * width * out,
          times: 1,
          by: `${rows}x${width} by ${width}x${out}, ${by}`,
        });
      };
      const packed = new Graph();
      packed.output("y", matmul(packed.input("x", [rows, width]), packed.weight("w", [width, out])));
      const constants = { w: new Value(weights, [width, out]) };
      add("prepacked", runtime.createSession(packed.build(), { weights: constants, prepacked: this.prepacked }), { x });
      const plain = new Graph();
      const w = plain.input("w", [out, width]);
      plain.output("y", matmul(plain.input("x", [rows, width]), w, { transB: true }));
      add("transposed", runtime.createSession(plain.build()), { x, w: new Value(weights, [out, width]) });
    }
  }

  /** One trial of every shape, with weights that are packed before and with weights that are not. */
  measure(): void {
    for (const trial of this.trials) {
      let seconds = timed(trial.call, trial.times);
      while (seconds < SHORTEST) {
        trial.times = Math.ceil((trial.times * SHORTEST * 1.2) / Math.max(seconds, SHORTEST / 50));
        seconds = timed(trial.call, trial.times);
      }
      const rate = (trial.flops * trial.times) / seconds;
      if (rate > this.rate.best) Object.assign(this.rate, { best: rate, by: trial.by });
    }
  }

  release(): void {
    for (const session of this.sessions) session.release();
    this.prepacked.release();
  }
}

/** [in, out] of a model's matrices, each shape once. */
function gemmShapes(config: ModelConfig): [number, number][] {
  const dims = linearDims(config);
  const all = [...LINEARS.map((name) => dims[name]), [config.vocab, config.hidden]];
  return [
    ...new Map(all.map(([out, width]): [string, [number, number]] => [`${out} ${width}`, [width, out]])).values(),
  ];
}

/** The fastest way to read memory: a one-row product with prepacked weights, or a sum or maximum, over distinct float32. */
export class BandwidthProbe {
  readonly rate: Rate = { best: 0, by: "" };
  private readonly bytes: number;
  private readonly sessions: Session[] = [];
  private readonly trials: { call: Call; by: string }[] = [];
  private readonly prepacked = new PrepackedWeights();

  /** `side` squared floats: 16,384 make 1 GiB, which the product holds once more. */
  constructor(runtime: Runtime, side = 16384, product = true) {
    this.bytes = 4 * side * side;
    const data = new Value(filled(side * side), [side, side]);
    for (const [by, reduce] of [["sum", sum] as const, ["maximum", max] as const]) {
      const graph = new Graph();
      graph.output("y", reduce(graph.input("x", [side, side]), [1]));
      const session = runtime.createSession(graph.build());
      this.sessions.push(session);
      const y = new Value(allocate("float32", side), [side]);
      this.trials.push({ by, call: session.bind({ x: data }, { y }) });
    }
    if (!product) return;
    const graph = new Graph();
    graph.output("y", matmul(graph.input("x", [1, side]), graph.weight("w", [side, side])));
    const session = runtime.createSession(graph.build(), { weights: { w: data }, prepacked: this.prepacked });
    this.sessions.push(session);
    const x = new Value(filled(side), [1, side]);
    this.trials.push({
      by: "one-row product",
      call: session.bind({ x }, { y: new Value(allocate("float32", side), [1, side]) }),
    });
  }

  measure(): void {
    for (const { call, by } of this.trials) {
      const rate = this.bytes / timed(call, 1);
      if (rate > this.rate.best) Object.assign(this.rate, { best: rate, by });
    }
  }

  release(): void {
    for (const session of this.sessions) session.release();
    this.prepacked.release();
  }
}

/** Two cores that multiply at such a rate read faster than this: what is below shows a slow probe. */
const FAST_PAIR = 140e9;
const SLOW_PROBE = 30e9;
const USUAL = 32.5e9;

/** The bandwidth that floors use, and whether it is the measured one. */
export function trustedBandwidth(measured: number, gemm: number, threads: number): { bytes: number; assumed: boolean } {
  const assumed = threads === 2 && gemm >= FAST_PAIR && measured < SLOW_PROBE;
  return { bytes: assumed ? USUAL : measured, assumed };
}

function timed(call: Call, times: number): number {
  const start = performance.now();
  for (let i = 0; i < times; i++) call.runSync();
  return (performance.now() - start) / 1000;
}

/** Numbers of ordinary size: zeros and denormals have other speeds on some processors. */
function filled(length: number): Float32Array {
  const data = allocate("float32", length);
  const pattern = Float32Array.from({ length: 4093 }, (_, i) => ((i * 2654435761) % 4096) / 4096 - 0.5 + 1e-3);
  tile(data, pattern, 0);
  return data;
}

import { decodeMatrices } from "../engine/local/decode-graph.ts";
import { linearDims, LINEARS } from "../engine/local/layers.ts";
import { RandomStream } from "../engine/random.ts";
import type { ModelConfig } from "../model/types.ts";
import { allocate, type Call, PrepackedWeights, Runtime, Value } from "../runtime/index.ts";
import { gemm, Graph, type Tensor } from "../tensor/index.ts";
import { tile } from "./shapes.ts";

/*
 * The products of a step and nothing else: what the library's matrix product leaves of a floor, and so the least that a step made of its
 * operators can take.
 */

/** As a workload, but for the plan. */
interface Products {
  facts: Record<string, number>;
  repeat(): Promise<Record<string, number>>;
}

/** Rows that the engine hands to one product in training. */
const CHUNK = 1024;

/** Every matrix of the model once, prepacked, in one graph, as a decode step of `rows` sequences multiplies them. */
export function decodeProducts(config: ModelConfig, rows: number): Products {
  const graph = new Graph();
  const fill = filler();
  const inputs = new Map<number, { tensor: Tensor; value: Value }>();
  const weights: Record<string, Value> = {};
  const outputs: Record<string, Value> = {};
  const head: [number, number] = [config.vocab, config.hidden];
  const matrices = [...decodeMatrices(config), { name: "head", dims: head }];
  for (const { name, dims } of matrices) {
    const [out, width] = dims;
    const x = inputs.get(width) ?? { tensor: graph.input(`x${width}`, [rows, width]), value: fill([rows, width]) };
    inputs.set(width, x);
    weights[name] = fill([out, width]);
    graph.output(`${name}.y`, gemm([rows, out], x.tensor, graph.weight(name, [out, width]), { transB: true }));
    outputs[`${name}.y`] = new Value(allocate("float32", rows * out), [rows, out]);
  }
  const session = Runtime.open().createSession(graph.build(), { weights, prepacked: new PrepackedWeights() });
  const given = Object.fromEntries([...inputs.values()].map(({ tensor, value }) => [tensor.name, value]));
  const flops = matrices.reduce((sum, { dims }) => sum + 2 * rows * dims[0] * dims[1], 0);
  return products([session.bind(given, outputs)], { rows, flops });
}

/**
 * Forward products and input gradients of every layer, in the engine's chunks, with weights that no session has packed, because one
 * session serves all layers.
 */
export function trainingProducts(config: ModelConfig, rows: number): Products {
  const fill = filler();
  const dims = linearDims(config);
  const calls: Call[] = [];
  let flops = 0;
  // Forward reads `width` and writes `out`, the gradient the other way round; what is written is not read, and so stays of ordinary size.
  const buffers = () => ({
    width: fill([CHUNK, Math.max(...LINEARS.map((name) => dims[name][1]))]),
    out: fill([CHUNK, Math.max(...LINEARS.map((name) => dims[name][0]))]),
  });
  const chunks = Array.from({ length: rows / CHUNK }, () => ({ read: buffers(), written: buffers() }));
  const sessions = LINEARS.map((name) => {
    const [out, width] = dims[name];
    const product = (x: number, y: number, transB: boolean) => {
      const graph = new Graph();
      const w = graph.input("w", [out, width]);
      graph.output("y", gemm([CHUNK, y], graph.input("x", [CHUNK, x]), w, { transB }));
      return Runtime.open().createSession(graph.build());
    };
    return { out, width, forward: product(width, out, true), backward: product(out, width, false) };
  });
  const part = ({ data }: Value, length: number) => new Value(data.subarray(0, CHUNK * length), [CHUNK, length]);
  for (let layer = 0; layer < config.layers; layer++) {
    for (const { out, width, forward, backward } of sessions) {
      const w = fill([out, width]);
      for (const { read, written } of chunks) {
        calls.push(
          forward.bind({ x: part(read.width, width), w }, { y: part(written.out, out) }),
          backward.bind({ x: part(read.out, out), w }, { y: part(written.width, width) }),
        );
        flops += 4 * CHUNK * out * width;
      }
    }
  }
  return products(calls, { rows, flops });
}

function products(calls: Call[], facts: Products["facts"]): Products {
  const repeat = async () => {
    const start = performance.now();
    for (const call of calls) await call.run();
    return { seconds: (performance.now() - start) / 1000 };
  };
  return { facts, repeat };
}

/** Makes matrices of small random numbers, no two alike. */
function filler(): (dims: [number, number]) => Value {
  const random = new RandomStream("products");
  const pattern = Float32Array.from({ length: 1048573 }, () => 0.02 * random.normal());
  let at = 0;
  return (dims) => {
    const data = allocate("float32", dims[0] * dims[1]);
    at = tile(data, pattern, at);
    return new Value(data, dims);
  };
}

import { DivergedError, UserError } from "../../errors.ts";
import { type Call, type Runtime, type Session, Value } from "../../runtime/index.ts";
import { add, div, Graph, mul, sqrt, sub, sum } from "../../tensor/index.ts";
import type { AdamSettings, OptimSettings } from "../types.ts";
import type { Parameter, Parameters } from "./parameters.ts";

/** Floats of one call: small enough that its passes stay in the cache. */
const CHUNK = 1 << 18;

/**
 * AdamW (Loshchilov and Hutter 2019, algorithm 2, decoupled decay) with clipping of the global gradient norm, as graphs over
 * chunks of the arenas: the library's threads do the work, and the updates are written where the values stand.
 */
export class AdamW {
  private readonly update: Session;
  private readonly squares: Session;
  private readonly calls = new Map<string, { squares: Call; update: Call }>();
  private readonly square = new Value(new Float32Array(1), []);
  /** clip, beta1, 1 - beta1, beta2, 1 - beta2, 1 / sqrt(1 - beta2^t), eps, lr / (1 - beta1^t), 1 - lr * decay. */
  private readonly scalars = Array.from({ length: 9 }, () => new Value(new Float32Array(1), []));
  private readonly parameters: Parameters;
  private readonly chunks: Chunk[];

  constructor(runtime: Runtime, parameters: Parameters) {
    this.parameters = parameters;
    this.chunks = chunksOf(parameters.entries);
    this.update = runtime.createSession(updateGraph(), { name: "adamw" });
    this.squares = runtime.createSession(squaresGraph(), { name: "squares" });
  }

  /**
   * One step from the summed gradients, which are zero afterwards. Throws before any weight is touched when a gradient is not
   * finite, naming the tensor.
   */
  async step(settings: OptimSettings): Promise<{ gradNorm: number }> {
    const { parameters } = this;
    const chunks = this.chunks;
    const settingsOf = (group: string): AdamSettings => {
      const own = settings.groups[group] ?? (group === "tokens" ? settings.groups.body : undefined);
      if (own) return own;
      throw new UserError(`optimStep: no settings for the parameter group "${group}"; add groups["${group}"]`);
    };
    for (const { group } of chunks) settingsOf(group);
    let total = 0;
    for (const chunk of chunks) {
      await this.bound(chunk).squares.run();
      total += (this.square.data as Float32Array)[0];
    }
    const gradNorm = Math.sqrt(total);
    if (!Number.isFinite(gradNorm))
      throw new DivergedError(`the gradient of ${this.firstNotFinite()} is not finite; no weight was changed`);
    const limit = settings.maxGradNorm ?? Infinity;
    const clip = gradNorm > limit ? limit / gradNorm : 1;
    parameters.step++;
    const grads = parameters.grads();
    for (const chunk of chunks) {
      const adam = settingsOf(chunk.group);
      const [beta1, beta2] = adam.betas;
      const decay = chunk.decays ? adam.weightDecay : 0;
      const values = [
        clip,
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        1 / Math.sqrt(1 - beta2 ** parameters.step),
        adam.eps,
        adam.lr / (1 - beta1 ** parameters.step),
        1 - adam.lr * decay,
      ];
      values.forEach((value, i) => ((this.scalars[i].data as Float32Array)[0] = value));
      await this.bound(chunk).update.run();
      grads.fill(0, chunk.from, chunk.to);
    }
    parameters.cleared();
    return { gradNorm };
  }

  release(): void {
    this.update.release();
    this.squares.release();
  }

  private bound(chunk: Chunk): { squares: Call; update: Call } {
    const key = `${chunk.from}`;
    let calls = this.calls.get(key);
    if (!calls) {
      const dims = [chunk.to - chunk.from];
      const { first, second } = this.parameters.adam();
      const [p, g, m, v] = [this.parameters.values, this.parameters.grads(), first, second].map(
        (arena) => new Value(arena.subarray(chunk.from, chunk.to), dims),
      );
      const scalars = Object.fromEntries(this.scalars.map((value, i) => [SCALARS[i], value]));
      calls = {
        squares: this.squares.bind({ g }, { squares: this.square }),
        update: this.update.bind({ p, g, m, v, ...scalars }, { newP: p, newM: m, newV: v }),
      };
      this.calls.set(key, calls);
    }
    return calls;
  }

  private firstNotFinite(): string {
    const bad = this.parameters.entries.find((entry) => !this.parameters.gradient(entry.name).every(Number.isFinite));
    return bad?.name ?? "the whole model (its norm overflows)";
  }
}

interface Chunk {
  group: string;
  decays: boolean;
  from: number;
  to: number;
}

/** Neighbours in the arena that share their settings are updated together. */
function chunksOf(entries: readonly Parameter[]): Chunk[] {
  const ranges: Chunk[] = [];
  const add = (group: string, decays: boolean, from: number, to: number): void => {
    const last = ranges[ranges.length - 1];
    if (last?.group === group && last.decays === decays) last.to = to;
    else if (to > from) ranges.push({ group, decays, from, to });
  };
  for (const { group, dims, offset, length, tokens = [] } of entries) {
    const decays = dims.length > 1;
    let done = offset;
    for (const row of Array.from(tokens).sort((a, b) => a - b)) {
      const at = offset + row * dims[1];
      add(group, decays, done, at);
      add("tokens", decays, at, (done = at + dims[1]));
    }
    add(group, decays, done, offset + length);
  }
  return ranges.flatMap((range) => {
    const count = Math.ceil((range.to - range.from) / CHUNK);
    return Array.from({ length: count }, (_, i) => {
      const from = range.from + i * CHUNK;
      return { ...range, from, to: Math.min(range.to, from + CHUNK) };
    });
  });
}

const SCALARS = ["clip", "beta1", "rest1", "beta2", "rest2", "debias2", "eps", "rate", "keep"];

function updateGraph(): Uint8Array {
  const graph = new Graph();
  const [p, g, m, v] = ["p", "g", "m", "v"].map((name) => graph.input(name, ["n"]));
  const [clip, beta1, rest1, beta2, rest2, debias2, eps, rate, keep] = SCALARS.map((name) => graph.input(name, []));
  const clipped = mul(g, clip);
  const newM = add(mul(m, beta1), mul(clipped, rest1));
  const newV = add(mul(v, beta2), mul(mul(clipped, clipped), rest2));
  const step = mul(div(newM, add(mul(sqrt(newV), debias2), eps)), rate);
  graph.output("newM", newM);
  graph.output("newV", newV);
  graph.output("newP", sub(mul(p, keep), step));
  return graph.build();
}

function squaresGraph(): Uint8Array {
  const graph = new Graph();
  const g = graph.input("g", ["n"]);
  graph.output("squares", sum(mul(g, g), [0]));
  return graph.build();
}

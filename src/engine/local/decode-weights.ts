import type { ModelConfig } from "../../model/types.ts";
import { PrepackedWeights, type Runtime, type Session, Value } from "../../runtime/index.ts";
import { biasName, decodeGraph, decodeMatrices, FUSED, fusedOf } from "./decode-graph.ts";
import { FINAL_NORM, headName, linearDims, type LinearName, moduleName, vectors } from "./layers.ts";
import { floats } from "./buffers.ts";
import type { Adapters, WeightView } from "./weights.ts";

/** Sessions that decode with one set of matrices, which they hold prepacked. */
export class DecodeSessions {
  private readonly runtime: Runtime;
  private readonly config: ModelConfig;
  private readonly rank: number;
  private readonly tokens: number;
  private readonly weights: Record<string, Value>;
  private readonly prepacked = new PrepackedWeights();
  private readonly sessions = new Map<string, Session>();

  private constructor(
    runtime: Runtime,
    config: ModelConfig,
    rank: number,
    tokens: number,
    weights: Record<string, Value>,
  ) {
    this.runtime = runtime;
    this.config = config;
    this.rank = rank;
    this.tokens = tokens;
    this.weights = weights;
  }

  /** `rank` is that of the adapters which come as inputs, `tokens` how many rows of the head do; 0 for none. */
  static async create(
    runtime: Runtime,
    config: ModelConfig,
    view: WeightView,
    rank: number,
    tokens = 0,
  ): Promise<DecodeSessions> {
    const weights: Record<string, Value> = {};
    const dims = new Map(decodeMatrices(config).map((matrix) => [matrix.name, matrix.dims]));
    for (let l = 0; l < config.layers; l++) {
      const layer = await view.layer(l);
      for (const [part, members] of Object.entries(FUSED)) {
        const name = `${l}.${part}`;
        const matrices = members.map((member) => layer[member]);
        weights[name] = new Value(view.lasting ? joined(matrices) : copied(matrices), dims.get(name) ?? []);
      }
      for (const { name, length } of Object.values(vectors(config, l))) {
        if (!name.endsWith(".bias")) weights[name] = new Value(view.tensor(name), [length]);
      }
      if (config.qkvBias) {
        const bias = copied(["qBias", "kBias", "vBias"].map((input) => view.tensor(vectors(config, l)[input].name)));
        weights[biasName(l)] = new Value(bias, [bias.length]);
      }
    }
    const head = headName(config);
    weights[head] = new Value(view.tensor(head), [config.vocab, config.hidden]);
    weights[FINAL_NORM] = new Value(view.tensor(FINAL_NORM), [config.hidden]);
    return new DecodeSessions(runtime, config, rank, tokens, weights);
  }

  get(masked: boolean, truncated: boolean): Session {
    const key = `${masked} ${truncated}`;
    let session = this.sessions.get(key);
    if (!session) {
      const graph = decodeGraph({ config: this.config, masked, truncated, rank: this.rank, tokens: this.tokens });
      session = this.runtime.createSession(graph, {
        weights: this.weights,
        prepacked: this.prepacked,
        name: "decode",
        optimize: false,
      });
      this.sessions.set(key, session);
    }
    return session;
  }

  release(): void {
    for (const session of this.sessions.values()) session.release();
    this.sessions.clear();
    this.prepacked.release();
  }
}

/**
 * The adapters of one policy as the decode graph reads them: for each fused matrix the members' a above one another, and b scaled and
 * block-diagonal, so that all members of a matrix take two small products.
 */
export class DecodeAdapters {
  readonly inputs: Record<string, Value> = {};
  private readonly config: ModelConfig;
  private readonly rank: number;

  constructor(config: ModelConfig, rank: number) {
    this.config = config;
    this.rank = rank;
    for (const { name, dims } of decodeMatrices(config)) {
      const width = rank * FUSED[fusedOf(name)].length;
      this.inputs[`${name}.a`] = new Value(floats(width * dims[1]), [width, dims[1]]);
      this.inputs[`${name}.b`] = new Value(floats(dims[0] * width), [dims[0], width]);
    }
  }

  /** Takes a policy's factors; null: the base, whose update is zero. */
  set(adapters: Adapters | null): void {
    const { config, rank } = this;
    const dims = linearDims(config);
    for (const { name } of decodeMatrices(config)) {
      const members: readonly LinearName[] = FUSED[fusedOf(name)];
      const a = this.inputs[`${name}.a`].data as Float32Array;
      const b = (this.inputs[`${name}.b`].data as Float32Array).fill(0);
      if (!adapters) continue;
      const width = rank * members.length;
      let row = 0;
      members.forEach((member, m) => {
        const [out, input] = dims[member];
        if (adapters.targets.has(member)) {
          const module = moduleName(Number(name.split(".")[0]), member);
          a.set(adapters.a(module), m * rank * input);
          const factor = adapters.b(module);
          for (let i = 0; i < out; i++) {
            for (let r = 0; r < rank; r++) b[(row + i) * width + m * rank + r] = adapters.scale * factor[i * rank + r];
          }
        }
        row += out;
      });
    }
  }
}

/** Matrices that stand beside each other in memory, as one. */
function joined(parts: Float32Array[]): Float32Array {
  const [first] = parts;
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  let end = first.byteOffset;
  const beside = parts.every((part) => {
    const fits = part.buffer === first.buffer && part.byteOffset === end;
    end += part.byteLength;
    return fits;
  });
  return beside ? new Float32Array(first.buffer, first.byteOffset, length) : copied(parts);
}

function copied(parts: Float32Array[]): Float32Array {
  const all = floats(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

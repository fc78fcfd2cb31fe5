import type { ModelConfig, ModelFiles, StoredTensor } from "../../model/types.ts";
import { widen } from "../../model/widen.ts";
import { type Runtime, type Session, Value } from "../../runtime/index.ts";
import { Graph, gemm } from "../../tensor/index.ts";
import { floats } from "./buffers.ts";
import {
  linearDims,
  type LinearName,
  LINEARS,
  moduleName,
  tensorOrder,
  tokenRows,
  vocabMatrices,
  weightName,
} from "./layers.ts";

export type LayerMatrices = Record<LinearName, Float32Array>;

/** The weights of one policy as the graphs read them: adapters merged, everything float32. */
export interface WeightView {
  /** A layer's matrices, each [out, in]; q, k, v and gate, up stand beside each other. Valid until the next call of `layer`. */
  layer(layer: number): Promise<LayerMatrices>;
  /** What `layer` gave stays valid, and follows the weights when they are trained. */
  readonly lasting: boolean;
  /** A vector, the embedding or the head. */
  tensor(name: string): Float32Array;
}

/** Where the matrices of a layer stand in a scratch of their own. */
export function layerScratch(config: ModelConfig): LayerMatrices {
  const dims = linearDims(config);
  const sizes = LINEARS.map((linear) => dims[linear][0] * dims[linear][1]);
  const memory = floats(sizes.reduce((a, b) => a + b, 0));
  let offset = 0;
  const views = LINEARS.map((linear, i) => [linear, memory.subarray(offset, (offset += sizes[i]))] as const);
  return Object.fromEntries(views) as LayerMatrices;
}

/**
 * Frozen weights, shared by every model over one base. Layer matrices are either widened once or kept as stored (half the
 * space and less) and widened into a scratch each time a layer is used: the same numbers.
 */
export class BaseWeights implements WeightView {
  readonly config: ModelConfig;
  private readonly wide = new Map<string, Float32Array>();
  private readonly stored = new Map<string, StoredTensor>();

  /** Takes the tensors out of `files`. */
  constructor(files: ModelFiles, keepStored: boolean) {
    this.config = files.config;
    const { config } = this;
    const matrices = new Set<string>();
    for (let layer = 0; layer < config.layers; layer++) {
      for (const linear of LINEARS) matrices.add(weightName(layer, linear));
    }
    const order = tensorOrder(config);
    const take = (name: string): StoredTensor => {
      const tensor = files.tensors.get(name);
      if (!tensor) throw new Error(`the loader gave no tensor ${name}`);
      return tensor;
    };
    const kept = new Set(keepStored ? [...matrices].filter((name) => take(name).type !== "f32") : []);
    const widened = order.filter(({ name }) => !kept.has(name));
    const memory = floats(widened.reduce((sum, { dims }) => sum + product(dims), 0));
    let offset = 0;
    for (const { name, dims } of widened) {
      const view = memory.subarray(offset, (offset += product(dims)));
      widen(take(name), view);
      const newRows = files.added?.rows.get(name);
      if (newRows) setRows(view, files.added?.newIds ?? [], newRows);
      this.wide.set(name, view);
    }
    for (const name of kept) this.stored.set(name, take(name));
    files.tensors.clear();
  }

  get lasting(): boolean {
    return this.stored.size === 0;
  }

  /** Bytes in memory. */
  get bytes(): number {
    let sum = 0;
    for (const view of this.wide.values()) sum += view.byteLength;
    for (const tensor of this.stored.values()) sum += tensor.bytes.byteLength;
    return sum;
  }

  /** The same weights with a scratch of one user's own: models over one base run between each other's awaits. */
  view(): WeightView {
    const scratch = this.lasting ? undefined : layerScratch(this.config);
    return { lasting: this.lasting, tensor: (name) => this.tensor(name), layer: (layer) => this.layer(layer, scratch) };
  }

  async layer(layer: number, scratch?: LayerMatrices): Promise<LayerMatrices> {
    const views: Partial<LayerMatrices> = {};
    for (const linear of LINEARS) {
      const name = weightName(layer, linear);
      const view = this.wide.get(name);
      if (view) {
        views[linear] = view;
        continue;
      }
      const stored = this.stored.get(name);
      if (!stored || !scratch) throw new Error(`no widened tensor ${name}; stored ones are read through a view`);
      widen(stored, scratch[linear]);
      views[linear] = scratch[linear];
    }
    return views as LayerMatrices;
  }

  tensor(name: string): Float32Array {
    const view = this.wide.get(name);
    if (!view) throw new Error(`no widened tensor ${name}`);
    return view;
  }

  /** Everything into an arena in the order of `tensorOrder`. */
  copyTo(arena: Float32Array): void {
    let offset = 0;
    for (const { name, dims } of tensorOrder(this.config)) {
      arena.set(this.tensor(name), offset);
      offset += product(dims);
    }
  }
}

/** Fully trained weights, or a frozen copy of them: an arena in the order of `tensorOrder`. */
export class FullWeights implements WeightView {
  readonly lasting = true;
  private readonly views = new Map<string, Float32Array>();

  constructor(config: ModelConfig, arena: Float32Array) {
    let offset = 0;
    for (const { name, dims } of tensorOrder(config)) {
      this.views.set(name, arena.subarray(offset, (offset += product(dims))));
    }
  }

  async layer(layer: number): Promise<LayerMatrices> {
    return Object.fromEntries(
      LINEARS.map((linear) => [linear, this.tensor(weightName(layer, linear))] as const),
    ) as LayerMatrices;
  }

  tensor(name: string): Float32Array {
    const view = this.views.get(name);
    if (!view) throw new Error(`no tensor ${name}`);
    return view;
  }
}

export interface Adapters {
  rank: number;
  /** alpha / rank. */
  scale: number;
  targets: ReadonlySet<LinearName>;
  /** a is [rank, in], b is [out, rank]; by module name. */
  a(module: string): Float32Array;
  b(module: string): Float32Array;
}

export const adapterNames = (module: string): { a: string; b: string } => ({
  a: `${module}.lora_A.weight`,
  b: `${module}.lora_B.weight`,
});

/**
 * W + scale * b a, made for one layer at a time: forward then costs what the base costs, and the merge a thousandth of it
 * (Hu et al. 2021, equation 3).
 */
export class LoraWeights implements WeightView {
  readonly lasting = false;
  private readonly scratch: LayerMatrices;
  private readonly base: WeightView;
  private readonly adapters: Adapters;
  private readonly merge: Session;
  private readonly config: ModelConfig;
  private readonly tokens: TokenMatrices | null;

  constructor(
    config: ModelConfig,
    base: WeightView,
    adapters: Adapters,
    merge: Session,
    scratch: LayerMatrices,
    tokens: TokenMatrices | null,
  ) {
    this.tokens = tokens;
    this.config = config;
    this.base = base;
    this.adapters = adapters;
    this.merge = merge;
    this.scratch = scratch;
  }

  async layer(layer: number): Promise<LayerMatrices> {
    const below = await this.base.layer(layer);
    const dims = linearDims(this.config);
    const { rank, targets } = this.adapters;
    const inputs: Record<string, Value> = {};
    const outputs: Record<string, Value> = {};
    for (const linear of LINEARS) {
      if (!targets.has(linear)) {
        this.scratch[linear].set(below[linear]);
        continue;
      }
      const module = moduleName(layer, linear);
      const [out, width] = dims[linear];
      inputs[linear] = new Value(below[linear], [out, width]);
      inputs[`${linear}.a`] = new Value(this.adapters.a(module), [rank, width]);
      inputs[`${linear}.b`] = new Value(this.adapters.b(module), [out, rank]);
      outputs[`merged.${linear}`] = new Value(this.scratch[linear], [out, width]);
    }
    await this.merge.bind(inputs, outputs).run();
    return this.scratch;
  }

  tensor(name: string): Float32Array {
    return this.tokens?.matrices.get(name) ?? this.base.tensor(name);
  }
}

/** Copies of a frozen base's embedding and head, whose rows of some ids are a policy's own. */
export class TokenMatrices {
  readonly ids: Int32Array;
  readonly matrices = new Map<string, Float32Array>();

  constructor(config: ModelConfig, base: WeightView, ids: Int32Array) {
    this.ids = ids;
    for (const name of vocabMatrices(config)) {
      const own = floats(config.vocab * config.hidden);
      own.set(base.tensor(name));
      this.matrices.set(name, own);
    }
  }

  /** Turns to a policy: `rows` gives its rows of a matrix, [ids, hidden]. */
  set(rows: (name: string) => Float32Array): this {
    for (const [name, matrix] of this.matrices) setRows(matrix, this.ids, rows(tokenRows(name)));
    return this;
  }
}

/** Merges the adapters of one layer. */
export function mergeSession(
  runtime: Runtime,
  config: ModelConfig,
  scale: number,
  targets: ReadonlySet<LinearName>,
): Session {
  const graph = new Graph();
  for (const [linear, [out, width]] of Object.entries(linearDims(config))) {
    if (!(targets as ReadonlySet<string>).has(linear)) continue;
    const w = graph.input(linear, [out, width]);
    const a = graph.input(`${linear}.a`, ["rank", width]);
    const b = graph.input(`${linear}.b`, [out, "rank"]);
    graph.output(`merged.${linear}`, gemm([out, width], b, a, { alpha: scale, add: w }));
  }
  return runtime.createSession(graph.build(), { name: "merge" });
}

/** target[ids[i]] = source[i], a row at a time; `source` holds a row for each id. */
export function setRows(target: Float32Array, ids: ArrayLike<number>, source: Float32Array): void {
  const width = source.length / ids.length;
  for (let i = 0; i < ids.length; i++) target.set(source.subarray(i * width, (i + 1) * width), ids[i] * width);
}

/** The rows of some ids, [ids, width]. */
export function takeRows(source: Float32Array, ids: ArrayLike<number>, width: number): Float32Array {
  const rows = new Float32Array(ids.length * width);
  for (let i = 0; i < ids.length; i++) rows.set(source.subarray(ids[i] * width, (ids[i] + 1) * width), i * width);
  return rows;
}

const product = (dims: number[]): number => dims.reduce((a, b) => a * b, 1);

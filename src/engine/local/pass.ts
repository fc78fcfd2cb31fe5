import type { ModelConfig } from "../../model/types.ts";
import { type Runtime, type Session, Value } from "../../runtime/index.ts";
import type { Dim, SplitGraph } from "../../tensor/index.ts";
import { afterGraph, attentionGraphs, beforeGraph, type Trained } from "./blocks.ts";
import { Buffers } from "./buffers.ts";
import { EMBEDDING, linearDims, LINEARS, moduleName, vectors, weightName } from "./layers.ts";
import type { AttentionGroup, Pack } from "./pack.ts";
import type { Parameters } from "./parameters.ts";
import { ropeRows, type RopeTable, ropeTable } from "./rope.ts";
import { adapterNames, type LayerMatrices, type WeightView } from "./weights.ts";

/** What a forward pass leaves for the backward: everything, each layer's input (the rest is computed again), or nothing. */
export type Keep = "all" | "inputs" | "none";

interface SplitSessions {
  graph: SplitGraph;
  forward: Session;
  backward: Session;
}

export type Feeds = Record<string, Value>;

/** Keys and values that stand before the rows of a pass, by layer; and where a pass writes its own. */
export interface PastKeys {
  rows: number;
  keys: Float32Array[];
  values: Float32Array[];
}

/** The decoder's layers over one pack, one compiled block run for all of them. */
export class LayerPass {
  private readonly runtime: Runtime;
  private readonly config: ModelConfig;
  private readonly trained: Trained;
  private readonly sessions = new Map<string, unknown>();
  private readonly buffers = new Buffers();
  private table: RopeTable = { cos: new Float32Array(0), sin: new Float32Array(0) };

  constructor(runtime: Runtime, config: ModelConfig, trained: Trained) {
    this.runtime = runtime;
    this.config = config;
    this.trained = trained;
  }

  get bytes(): number {
    return this.buffers.bytes;
  }

  /**
   * Runs all layers; returns the hidden states before the final norm, [rows, hidden], in memory that the next pass reuses.
   * `past` stands before the rows (its keys have been rotated); `onKeys` sees each layer's new keys and values.
   */
  async forward(
    pack: Pack,
    weights: WeightView,
    keep: Keep,
    past?: PastKeys,
    onKeys?: (layer: number, keys: Float32Array, values: Float32Array) => void,
  ): Promise<Float32Array> {
    const { hidden, layers } = this.config;
    this.setPositions(pack);
    const embedding = weights.tensor(EMBEDDING);
    const first = this.input(pack, keep, 0);
    for (let row = 0; row < pack.rows; row++) {
      const from = pack.tokens[row] * hidden;
      first.set(embedding.subarray(from, from + hidden), row * hidden);
    }
    for (let layer = 0; layer < layers; layer++) {
      const matrices = await weights.layer(layer);
      await this.layerForward(pack, weights, matrices, layer, keep, past, onKeys);
    }
    return this.input(pack, keep, layers);
  }

  /**
   * From the gradient of the last hidden states ([rows, hidden], overwritten) back to the embedding's rows, adding onto the sums
   * in `parameters`. Must follow the forward pass of the same pack that kept something. Returns the embedding rows' gradient.
   */
  async backward(
    pack: Pack,
    weights: WeightView,
    keep: "all" | "inputs",
    parameters: Parameters,
    dx: Float32Array,
  ): Promise<Float32Array> {
    let dy = dx;
    for (let layer = this.config.layers - 1; layer >= 0; layer--) {
      const matrices = await weights.layer(layer);
      if (keep === "inputs") await this.layerForward(pack, weights, matrices, layer, keep);
      dy = await this.layerBackward(pack, weights, matrices, layer, keep, parameters, dy);
    }
    return dy;
  }

  /** What `forward` of this pack returned. */
  output(pack: Pack, keep: Keep): Float32Array {
    return this.input(pack, keep, this.config.layers);
  }

  release(): void {
    this.buffers.clear();
    for (const entry of this.sessions.values()) {
      const { forward, backward } = entry as { forward: Session; backward: Session };
      forward.release();
      backward.release();
    }
    this.sessions.clear();
  }

  private async layerForward(
    pack: Pack,
    weights: WeightView,
    matrices: LayerMatrices,
    layer: number,
    keep: Keep,
    past?: PastKeys,
    onKeys?: (layer: number, keys: Float32Array, values: Float32Array) => void,
  ): Promise<void> {
    const { rows } = pack;
    const { hidden, heads, kvHeads, headDim } = this.config;
    const wide = heads * headDim;
    const narrow = kvHeads * headDim;
    const before = this.before(pack);
    const after = this.after(pack);
    const feeds = this.layerFeeds(pack, weights, matrices, layer);
    const x = new Value(this.input(pack, keep, layer), [rows, hidden]);

    const pastRows = past?.rows ?? 0;
    const keys = this.own(keep, layer, "k", (pastRows + rows) * narrow);
    const values = this.own(keep, layer, "v", (pastRows + rows) * narrow);
    if (past) {
      keys.set(past.keys[layer]);
      values.set(past.values[layer]);
    }
    const q = new Value(this.own(keep, layer, "q", rows * wide), [rows, wide]);
    const newKeys = keys.subarray(pastRows * narrow);
    const newValues = values.subarray(pastRows * narrow);
    const made = { query: q, key: new Value(newKeys, [rows, narrow]), value: new Value(newValues, [rows, narrow]) };
    const residuals = keep === "none" ? {} : this.residuals(before.graph, keep, layer, "before", rows);
    await run(before.forward, { ...feeds, x }, { ...made, ...residuals });
    onKeys?.(layer, newKeys, newValues);

    const attended = this.own(keep, layer, "attended", pack.outputRows * wide);
    for (const group of pack.groups) {
      const session = this.attention(group);
      const from = group.firstOutput * wide;
      const length = group.batch * group.queries * wide;
      const inputs = this.groupFeeds(group, q.data as Float32Array, keys, values, rows, pastRows + rows);
      const out = new Value(attended.subarray(from, from + length), [group.batch, group.queries, wide]);
      await session.forward.bind(inputs, { attended: out }).run();
    }

    const y = new Value(this.input(pack, keep, layer + 1), [rows, hidden]);
    const kept = keep === "none" ? {} : this.residuals(after.graph, keep, layer, "after", rows);
    const inputs = { ...feeds, x, attended: new Value(attended, [pack.outputRows, wide]) };
    await run(after.forward, inputs, { y, ...kept });
  }

  private async layerBackward(
    pack: Pack,
    weights: WeightView,
    matrices: LayerMatrices,
    layer: number,
    keep: "all" | "inputs",
    parameters: Parameters,
    dy: Float32Array,
  ): Promise<Float32Array> {
    const { rows } = pack;
    const { hidden, heads, kvHeads, headDim } = this.config;
    const wide = heads * headDim;
    const narrow = kvHeads * headDim;
    const before = this.before(pack);
    const after = this.after(pack);
    const { feeds, sums, newSums } = this.trainedFeeds(layer, parameters);
    const all = { ...this.layerFeeds(pack, weights, matrices, layer), ...feeds, ...sums };
    const x = new Value(this.input(pack, keep, layer), [rows, hidden]);
    const q = this.own(keep, layer, "q", rows * wide);
    const keys = this.own(keep, layer, "k", rows * narrow);
    const values = this.own(keep, layer, "v", rows * narrow);
    const attended = new Value(this.own(keep, layer, "attended", pack.outputRows * wide), [pack.outputRows, wide]);

    const dxAfter = new Value(this.buffers.get("dxAfter", rows * hidden), [rows, hidden]);
    const dAttended = this.buffers.get("dAttended", rows * wide);
    await run(
      after.backward,
      {
        ...all,
        x,
        attended,
        dy: new Value(dy, [rows, hidden]),
        ...this.residuals(after.graph, keep, layer, "after", rows),
      },
      { dx: dxAfter, dAttended: new Value(dAttended, [rows, wide]), ...pickSums(newSums, after.graph) },
    );

    const dq = this.buffers.get("dq", pack.outputRows * wide);
    const dk = this.buffers.get("dk", rows * narrow);
    const dv = this.buffers.get("dv", rows * narrow);
    const direct = pack.groups.length === 1 && pack.groups[0].queryRows === null;
    if (!direct) {
      dk.fill(0);
      dv.fill(0);
    }
    for (const group of pack.groups) {
      const length = group.batch * group.keys * narrow;
      const dkGroup = direct ? dk : this.buffers.get("dkGroup", length);
      const dvGroup = direct ? dv : this.buffers.get("dvGroup", length);
      const from = group.firstOutput * wide;
      const shape = [group.batch, group.keys, narrow];
      const gradient = group.queryRows
        ? new Value(dAttended, [rows, wide])
        : new Value(dAttended, [group.batch, group.queries, wide]);
      const inputs: Feeds = { ...this.groupFeeds(group, q, keys, values, rows, rows), dAttended: gradient };
      if (group.valid) inputs.valid = new Value(group.valid, [group.batch, group.queries, 1]);
      const dqGroup = dq.subarray(from, from + group.batch * group.queries * wide);
      await this.attention(group)
        .backward.bind(inputs, {
          dq: new Value(dqGroup, [group.batch, group.queries, wide]),
          dk: new Value(dkGroup, shape),
          dv: new Value(dvGroup, shape),
        })
        .run();
      if (!direct) {
        addRows(dk, dkGroup, group, narrow);
        addRows(dv, dvGroup, group, narrow);
      }
    }

    const dx = this.buffers.get("dx", rows * hidden);
    const gradients = {
      dq: new Value(dq, [pack.outputRows, wide]),
      dk: new Value(dk, [rows, narrow]),
      dv: new Value(dv, [rows, narrow]),
      dxAfter,
    };
    await run(
      before.backward,
      { ...all, x, ...gradients, ...this.residuals(before.graph, keep, layer, "before", rows) },
      { dx: new Value(dx, [rows, hidden]), ...pickSums(newSums, before.graph) },
    );
    return dx;
  }

  private setPositions(pack: Pack): void {
    const half = this.config.headDim / 2;
    const highest = pack.positions.reduce((a, b) => Math.max(a, b), 0);
    if (this.table.cos.length < (highest + 1) * half) this.table = ropeTable(this.config, Math.max(64, 2 * highest));
    const size = pack.rows * half;
    ropeRows(this.table, pack.positions, half, {
      cos: this.buffers.get("cos", size),
      sin: this.buffers.get("sin", size),
    });
  }

  /** The hidden states that enter a layer (or, after the last, leave it). */
  private input(pack: Pack, keep: Keep, layer: number): Float32Array {
    return this.buffers.get(keep === "none" ? `x.${layer % 2}` : `x.${layer}`, pack.rows * this.config.hidden);
  }

  private own(keep: Keep, layer: number, name: string, length: number): Float32Array {
    return this.buffers.get(keep === "all" ? `${name}.${layer}` : name, length);
  }

  private residuals(graph: SplitGraph, keep: Keep, layer: number, part: string, rows: number): Feeds {
    return Object.fromEntries(
      graph.residuals.map(({ name, dims }) => {
        const shape = dims.map((dim) => dimOf(dim, rows));
        const length = shape.reduce((a, b) => a * b, 1);
        return [name, new Value(this.own(keep, layer, `${part}.${name}`, length), shape)];
      }),
    );
  }

  /** Weights and tables of a layer by graph input. */
  private layerFeeds(pack: Pack, weights: WeightView, matrices: LayerMatrices, layer: number): Feeds {
    const { rows } = pack;
    const half = this.config.headDim / 2;
    const dims = linearDims(this.config);
    const feeds: Feeds = {
      cos: new Value(this.buffers.get("cos", rows * half), [rows, half]),
      sin: new Value(this.buffers.get("sin", rows * half), [rows, half]),
    };
    for (const linear of LINEARS) feeds[linear] = new Value(matrices[linear], dims[linear]);
    for (const [input, { name, length }] of Object.entries(vectors(this.config, layer))) {
      feeds[input] = new Value(weights.tensor(name), [length]);
    }
    if (pack.outputRow) feeds.outputRow = new Value(pack.outputRow, [rows]);
    return feeds;
  }

  /** Adapters, the sums of gradients, and the same memory once more as the sums' outputs. */
  private trainedFeeds(layer: number, parameters: Parameters): { feeds: Feeds; sums: Feeds; newSums: Feeds } {
    const feeds: Feeds = {};
    const sums: Feeds = {};
    const newSums: Feeds = {};
    const add = (input: string, parameter: string, dims: number[]): void => {
      sums[`sum.${input}`] = newSums[`newSum.${input}`] = new Value(parameters.gradient(parameter), dims);
    };
    const dims = linearDims(this.config);
    if (this.trained === "full") {
      for (const linear of LINEARS) add(linear, weightName(layer, linear), dims[linear]);
      for (const [input, { name, length }] of Object.entries(vectors(this.config, layer))) add(input, name, [length]);
    } else if (this.trained !== "none") {
      for (const linear of this.trained.targets) {
        const names = adapterNames(moduleName(layer, linear));
        const [out, width] = dims[linear];
        const rank = parameters.value(names.a).length / width;
        feeds[`${linear}.a`] = new Value(parameters.value(names.a), [rank, width]);
        feeds[`${linear}.b`] = new Value(parameters.value(names.b), [out, rank]);
        add(`${linear}.a`, names.a, [rank, width]);
        add(`${linear}.b`, names.b, [out, rank]);
      }
    }
    return { feeds, sums, newSums };
  }

  private groupFeeds(
    group: AttentionGroup,
    q: Float32Array,
    keys: Float32Array,
    values: Float32Array,
    rows: number,
    kvRows: number,
  ): Feeds {
    const { heads, kvHeads, headDim } = this.config;
    const wide = heads * headDim;
    const narrow = kvHeads * headDim;
    const mask = new Value(group.mask, [group.maskBatch, 1, group.queries, group.keys]);
    if (!group.queryRows || !group.keyRows) {
      const shape = [group.batch, group.keys, narrow];
      const dims = [group.batch, group.queries, wide];
      return { q: new Value(q, dims), k: new Value(keys, shape), v: new Value(values, shape), mask };
    }
    return {
      q: new Value(q, [rows, wide]),
      k: new Value(keys, [kvRows, narrow]),
      v: new Value(values, [kvRows, narrow]),
      queryRows: new Value(group.queryRows, [group.batch, group.queries]),
      keyRows: new Value(group.keyRows, [group.batch, group.keys]),
      mask,
    };
  }

  private before(pack: Pack): SplitSessions {
    return this.split("before", pack, beforeGraph);
  }

  private after(pack: Pack): SplitSessions {
    return this.split("after", pack, afterGraph);
  }

  private split(part: string, pack: Pack, build: typeof beforeGraph): SplitSessions {
    const gathered = pack.outputRow !== null;
    return this.cached(`${part} ${gathered}`, () => {
      const graph = build({ config: this.config, trained: this.trained, gathered });
      return {
        graph,
        forward: this.runtime.createSession(graph.forward, { name: `${part} attention` }),
        backward: this.runtime.createSession(graph.backward, { name: `${part} attention, backward` }),
      };
    });
  }

  private attention(group: AttentionGroup): { forward: Session; backward: Session } {
    const gathered = group.queryRows !== null;
    const padded = group.valid !== null;
    const sharedMask = group.maskBatch === 1;
    return this.cached(`attention ${gathered} ${padded} ${sharedMask}`, () => {
      const graphs = attentionGraphs({ config: this.config, gathered, padded, sharedMask });
      return {
        forward: this.runtime.createSession(graphs.forward, { name: "attention" }),
        backward: this.runtime.createSession(graphs.backward, { name: "attention, backward" }),
      };
    });
  }

  private cached<T>(key: string, make: () => T): T {
    if (!this.sessions.has(key)) this.sessions.set(key, make());
    return this.sessions.get(key) as T;
  }
}

/** Runs a session with those of the feeds that it reads. */
export function run(session: Session, feeds: Feeds, outputs: Feeds): Promise<void> {
  const inputs: Feeds = {};
  for (const name of session.inputNames) {
    const value = feeds[name];
    if (!value) throw new Error(`no value for the graph input "${name}"`);
    inputs[name] = value;
  }
  return session.bind(inputs, outputs).run();
}

const pickSums = (newSums: Feeds, graph: SplitGraph): Feeds =>
  Object.fromEntries(
    Object.entries(newSums).filter(([name]) => graph.backwardInputs.includes(name.replace("newSum.", "sum."))),
  );

/** Adds each key's gradient onto its row; padded keys have none. */
function addRows(target: Float32Array, source: Float32Array, group: AttentionGroup, width: number): void {
  const rows = group.keyRows;
  if (!rows) return;
  for (let b = 0; b < group.batch; b++) {
    for (let j = 0; j < group.lengths[b]; j++) {
      const from = (b * group.keys + j) * width;
      const to = rows[b * group.keys + j] * width;
      for (let i = 0; i < width; i++) target[to + i] += source[from + i];
    }
  }
}

function dimOf(dim: Dim, rows: number): number {
  if (typeof dim === "number") return dim;
  return dim.split("*").reduce((product, factor) => product * (factor === "rows" ? rows : Number(factor)), 1);
}

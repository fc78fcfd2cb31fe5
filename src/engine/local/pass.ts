import type { ModelConfig } from "../../model/types.ts";
import { type Runtime, type Session, Value } from "../../runtime/index.ts";
import type { SplitGraph } from "../../tensor/index.ts";
import type { Trained } from "./blocks.ts";
import { LayerSessions } from "./layer-sessions.ts";
import { Buffers } from "./buffers.ts";
import { type Chunk, chunksOf } from "./chunk.ts";
import { EMBEDDING, linearDims, LINEARS, moduleName, vectors, weightName } from "./layers.ts";
import type { AttentionGroup, Pack } from "./pack.ts";
import type { Parameters } from "./parameters.ts";
import { ropeRows, type RopeTable, ropeTable } from "./rope.ts";
import { adapterNames, type LayerMatrices, type WeightView } from "./weights.ts";

/** What a forward pass leaves for the backward: everything, each layer's input (the rest is computed again), or nothing. */
export type Keep = "all" | "inputs" | "none";

export type Feeds = Record<string, Value>;

/** Keys and values that stand before the rows of a pass, by layer; and where a pass writes its own. */
export interface PastKeys {
  rows: number;
  keys: Float32Array[];
  values: Float32Array[];
}

/** The decoder's layers over one pack, one compiled block run for all of them. */
export class LayerPass {
  private readonly config: ModelConfig;
  private readonly trained: Trained;
  private readonly probBytes: number;
  private readonly sessions: LayerSessions;
  private readonly buffers = new Buffers();
  private table: RopeTable = { cos: new Float32Array(0), sin: new Float32Array(0) };

  /** `probBytes`: how much of the attention's probabilities may stay between forward and backward. */
  constructor(runtime: Runtime, config: ModelConfig, trained: Trained, probBytes: number) {
    this.probBytes = probBytes;
    this.sessions = new LayerSessions(runtime, config, trained);
    this.config = config;
    this.trained = trained;
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
    this.sessions.release();
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
    const before = this.sessions.before(pack);
    const after = this.sessions.after(pack);
    const feeds = this.layerFeeds(weights, matrices, layer);
    const x = this.input(pack, keep, layer);
    const y = this.input(pack, keep, layer + 1);
    const pastRows = past?.rows ?? 0;
    const q = this.own(keep, layer, "q", rows * wide);
    const keys = this.own(keep, layer, "k", (pastRows + rows) * narrow);
    const values = this.own(keep, layer, "v", (pastRows + rows) * narrow);
    if (past) {
      keys.set(past.keys[layer]);
      values.set(past.values[layer]);
    }
    const newKeys = keys.subarray(pastRows * narrow);
    const newValues = values.subarray(pastRows * narrow);
    for (const chunk of chunksOf(rows)) {
      await run(
        before.forward,
        { ...feeds, ...this.rotation(chunk), x: chunk.of(x, hidden) },
        {
          query: chunk.of(q, wide),
          key: chunk.of(newKeys, narrow),
          value: chunk.of(newValues, narrow),
          ...(keep === "none" ? {} : this.residuals(before.graph, keep, layer, "before", rows, chunk)),
        },
      );
    }
    onKeys?.(layer, newKeys, newValues);

    const attended = this.own(keep, layer, "attended", pack.outputRows * wide);
    for (const [g, group] of pack.groups.entries()) {
      const kept = keep === "all" && this.keepsProbs(pack);
      const inputs = this.groupFeeds(group, q, keys, values, rows, pastRows + rows);
      const outputs: Feeds = { attended: this.groupOutput(group, attended) };
      if (kept) outputs.probs = this.probs(pack, layer, g);
      await run(this.sessions.attention(group, kept).forward, inputs, outputs);
    }

    for (const chunk of chunksOf(rows)) {
      await run(
        after.forward,
        { ...feeds, x: chunk.of(x, hidden), ...this.attendedRows(pack, attended, chunk) },
        {
          y: chunk.of(y, hidden),
          ...(keep === "none" ? {} : this.residuals(after.graph, keep, layer, "after", rows, chunk)),
        },
      );
    }
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
    const before = this.sessions.before(pack);
    const after = this.sessions.after(pack);
    const { feeds, sums, newSums } = this.trainedFeeds(layer, parameters);
    const all = { ...this.layerFeeds(weights, matrices, layer), ...feeds, ...sums };
    const x = this.input(pack, keep, layer);
    const q = this.own(keep, layer, "q", rows * wide);
    const keys = this.own(keep, layer, "k", rows * narrow);
    const values = this.own(keep, layer, "v", rows * narrow);
    const attended = this.own(keep, layer, "attended", pack.outputRows * wide);
    const dxAfter = this.buffers.get("dxAfter", rows * hidden);
    const dAttended = this.buffers.get("dAttended", rows * wide);
    for (const chunk of chunksOf(rows)) {
      await run(
        after.backward,
        {
          ...all,
          x: chunk.of(x, hidden),
          ...this.attendedRows(pack, attended, chunk),
          dy: chunk.of(dy, hidden),
          ...this.residuals(after.graph, keep, layer, "after", rows, chunk),
        },
        { dx: chunk.of(dxAfter, hidden), dAttended: chunk.of(dAttended, wide), ...pickSums(newSums, after.backward) },
      );
    }

    const dq = this.buffers.get("dq", pack.outputRows * wide);
    const dk = this.buffers.get("dk", rows * narrow);
    const dv = this.buffers.get("dv", rows * narrow);
    const direct = pack.groups.length === 1 && pack.groups[0].queryRows === null;
    if (!direct) {
      dk.fill(0);
      dv.fill(0);
    }
    for (const [g, group] of pack.groups.entries()) {
      const kept = keep === "all" && this.keepsProbs(pack);
      const length = group.batch * group.keys * narrow;
      const dkGroup = direct ? dk : this.buffers.get("dkGroup", length);
      const dvGroup = direct ? dv : this.buffers.get("dvGroup", length);
      const shape = [group.batch, group.keys, narrow];
      const inputs: Feeds = {
        ...this.groupFeeds(group, q, keys, values, rows, rows),
        attended: this.groupOutput(group, attended),
        dAttended: new Value(dAttended, group.queryRows ? [rows, wide] : [group.batch, group.queries, wide]),
      };
      if (group.valid) inputs.valid = new Value(group.valid, [group.batch, group.queries, 1]);
      if (kept) inputs.probs = this.probs(pack, layer, g);
      await run(this.sessions.attention(group, kept).backward, inputs, {
        dq: this.groupOutput(group, dq),
        dk: new Value(dkGroup, shape),
        dv: new Value(dvGroup, shape),
      });
      if (!direct) {
        addRows(dk, dkGroup, group, narrow);
        addRows(dv, dvGroup, group, narrow);
      }
    }

    const dx = this.buffers.get("dx", rows * hidden);
    for (const chunk of chunksOf(rows)) {
      const dqRows = pack.outputRow ? new Value(dq, [pack.outputRows, wide]) : chunk.of(dq, wide);
      await run(
        before.backward,
        {
          ...all,
          ...this.rotation(chunk),
          x: chunk.of(x, hidden),
          dq: dqRows,
          ...(pack.outputRow ? { outputRow: chunk.indices(pack.outputRow) } : {}),
          dk: chunk.of(dk, narrow),
          dv: chunk.of(dv, narrow),
          dxAfter: chunk.of(dxAfter, hidden),
          ...this.residuals(before.graph, keep, layer, "before", rows, chunk),
        },
        { dx: chunk.of(dx, hidden), ...pickSums(newSums, before.backward) },
      );
    }
    return dx;
  }

  /** Whether the attention's probabilities stay between forward and backward. */
  private keepsProbs(pack: Pack): boolean {
    return pack.pairs * this.config.heads * this.config.layers * 4 <= this.probBytes;
  }

  /** A group's part of a layer's probabilities, [batch, heads, queries, keys]. */
  private probs(pack: Pack, layer: number, index: number): Value {
    const { heads } = this.config;
    const size = ({ batch, queries, keys }: AttentionGroup): number => batch * heads * queries * keys;
    const from = pack.groups.slice(0, index).reduce((sum, group) => sum + size(group), 0);
    const group = pack.groups[index];
    const all = this.buffers.get(`probs.${layer}`, pack.pairs * heads);
    return new Value(all.subarray(from, from + size(group)), [group.batch, heads, group.queries, group.keys]);
  }

  /** A group's part of what all groups give, [batch, queries, heads * headDim]. */
  private groupOutput(group: AttentionGroup, all: Float32Array): Value {
    const wide = this.config.heads * this.config.headDim;
    const from = group.firstOutput * wide;
    return new Value(all.subarray(from, from + group.batch * group.queries * wide), [group.batch, group.queries, wide]);
  }

  /** Where a chunk's rows find what attention gave: in order, or through the index. */
  private attendedRows(pack: Pack, attended: Float32Array, chunk: Chunk): Feeds {
    const wide = this.config.heads * this.config.headDim;
    if (!pack.outputRow) return { attended: chunk.of(attended, wide) };
    return { attended: new Value(attended, [pack.outputRows, wide]), outputRow: chunk.indices(pack.outputRow) };
  }

  private rotation(chunk: Chunk): Feeds {
    const half = this.config.headDim / 2;
    const table = (name: string) => chunk.of(this.buffers.get(name, chunk.all * half), half);
    return { cos: table("cos"), sin: table("sin") };
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

  private residuals(graph: SplitGraph, keep: Keep, layer: number, part: string, rows: number, chunk: Chunk): Feeds {
    return Object.fromEntries(
      graph.residuals.map(({ name, dims }) => {
        const width = dims.slice(1).reduce<number>((product, dim) => product * Number(dim), 1);
        const all = this.own(keep, layer, `${part}.${name}`, rows * width);
        const mine = all.subarray(chunk.from * width, chunk.to * width);
        return [name, new Value(mine, [chunk.to - chunk.from, ...dims.slice(1).map(Number)])];
      }),
    );
  }

  /** Weights of a layer by graph input. */
  private layerFeeds(weights: WeightView, matrices: LayerMatrices, layer: number): Feeds {
    const dims = linearDims(this.config);
    const feeds: Feeds = {};
    for (const linear of LINEARS) feeds[linear] = new Value(matrices[linear], dims[linear]);
    for (const [input, { name, length }] of Object.entries(vectors(this.config, layer))) {
      feeds[input] = new Value(weights.tensor(name), [length]);
    }
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

const pickSums = (newSums: Feeds, session: Session): Feeds =>
  Object.fromEntries(Object.entries(newSums).filter(([name]) => session.outputNames.includes(name)));

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

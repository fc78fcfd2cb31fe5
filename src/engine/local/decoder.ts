import type { ModelConfig } from "../../model/types.ts";
import { type Call, type Session, Value } from "../../runtime/index.ts";
import { DecodeAdapters, type DecodeSessions } from "./decode-weights.ts";
import { maskAllowed } from "./head.ts";
import { type KvNode, KvTree } from "./kv.ts";
import { EMBEDDING } from "./layers.ts";
import { type Chain, groupChains, type Pack } from "./pack.ts";
import type { LayerPass, PastKeys } from "./pass.ts";
import { type RopeTable, ropeTable } from "./rope.ts";
import { bucketOf, type Choice, type Decoder, rowsWithin, type StepRow } from "./sampler.ts";
import { type Adapters, floats, type WeightView } from "./weights.ts";

/** Slots grow by this many tokens, so that a cache is seldom laid out anew. */
const CAPACITY_STEP = 64;
/** Tokens of one prefill pass. */
const PREFILL_ROWS = 2048;

export interface DecoderBudget {
  maxRows: number;
  /** Bytes for the slots, and for prefixes kept besides. */
  slotBytes: number;
  prefixBytes: number;
}

/** The weights of one policy, as decoding needs them. */
export interface DecodeSource {
  /** Names policy and version: another key means other keys and values. */
  key: string;
  /** For prefixes, which the layers' own pass computes, and for the embedding. */
  view: WeightView;
  sessions: DecodeSessions;
  /** Null: the base. */
  adapters: Adapters | null;
}

/** Decodes: a slot of keys and values for each row, and the tree of prefixes that were computed before with the same weights. */
export class LocalDecoder implements Decoder {
  /** Tokens whose keys were computed because no cache held them. */
  prefilled = 0;
  private readonly config: ModelConfig;
  private readonly pass: LayerPass;
  private readonly budget: DecoderBudget;
  private readonly adapters: DecodeAdapters | null;
  private readonly prefixes: KvTree;
  private readonly calls = new Map<string, BoundStep>();
  private source: DecodeSource | null = null;
  private keys: Float32Array[] = [];
  private values: Float32Array[] = [];
  private slots = 0;
  private capacity = 0;
  private table: RopeTable = { cos: new Float32Array(0), sin: new Float32Array(0) };

  /** `rank` is that of the adapters; 0 for none. */
  constructor(config: ModelConfig, pass: LayerPass, budget: DecoderBudget, rank: number) {
    this.config = config;
    this.pass = pass;
    this.budget = budget;
    this.adapters = rank > 0 ? new DecodeAdapters(config, rank) : null;
    this.prefixes = new KvTree(config.kvHeads * config.headDim, budget.prefixBytes);
  }

  /** Turns to a policy; what other weights left in the caches goes. */
  use(source: DecodeSource): void {
    if (this.source?.key === source.key) return;
    this.prefixes.clear();
    if (this.source?.sessions !== source.sessions) this.calls.clear();
    this.adapters?.set(source.adapters);
    this.source = source;
  }

  /** Forgets every prefix: the weights of some policy have changed. */
  forget(): void {
    this.prefixes.clear();
    this.source = null;
  }

  maxRows(length: number): number {
    const { kvHeads, headDim, layers } = this.config;
    const perRow = this.capacityFor(length) * kvHeads * headDim * layers * 8;
    return Math.min(this.budget.maxRows, rowsWithin(Math.floor(this.budget.slotBytes / perRow)));
  }

  get bytes(): number {
    return this.prefixes.bytes + this.keys.reduce((sum, k) => sum + 2 * k.byteLength, 0);
  }

  reserve(rows: number, length: number): void {
    const capacity = this.capacityFor(length);
    // Longer slots may leave memory for fewer of them.
    const slots = capacity > this.capacity ? bucketOf(rows) : Math.max(this.slots, bucketOf(rows));
    if (slots === this.slots && capacity === this.capacity) return;
    const { layers, kvHeads, headDim } = this.config;
    const grow = (old: Float32Array | undefined): Float32Array => {
      const fresh = floats(slots * kvHeads * capacity * headDim);
      if (!old) return fresh;
      const length = this.capacity * headDim;
      for (let block = 0; block < Math.min(slots, this.slots) * kvHeads; block++) {
        fresh.set(old.subarray(block * length, (block + 1) * length), block * capacity * headDim);
      }
      return fresh;
    };
    for (let l = 0; l < layers; l++) {
      this.keys[l] = grow(this.keys[l]);
      this.values[l] = grow(this.values[l]);
    }
    this.slots = slots;
    this.capacity = capacity;
    if (this.table.cos.length < (capacity * headDim) / 2) this.table = ropeTable(this.config, capacity);
    this.calls.clear();
  }

  async prefill(rows: { slot: number; tokens: Int32Array }[]): Promise<void> {
    const fresh = new Map<Int32Array, number>();
    const first = rows.filter(({ slot, tokens }) => {
      const same = [...fresh.keys()].some(
        (other) =>
          other.buffer === tokens.buffer && other.byteOffset === tokens.byteOffset && other.length === tokens.length,
      );
      if (!same) fresh.set(tokens, slot);
      return !same;
    });
    for (const { tokens } of first) {
      // A long prefix becomes several nodes, each a pass of its own.
      for (let end = PREFILL_ROWS; end < tokens.length; end += PREFILL_ROWS)
        this.prefixes.insert(tokens.subarray(0, end));
      this.prefixes.insert(tokens);
    }
    const paths = first.map(({ tokens }) => this.prefixes.insert(tokens));
    await this.compute(paths);
    first.forEach(({ slot }, i) => this.load(slot, paths[i]));
    for (const { slot, tokens } of rows) {
      const source = [...fresh].find(
        ([other]) =>
          other.buffer === tokens.buffer && other.byteOffset === tokens.byteOffset && other.length === tokens.length,
      )?.[1];
      if (source !== undefined && source !== slot) this.move(source, slot, tokens.length);
    }
    const pinned = new Set(paths.flat());
    this.prefixes.trim((node) => pinned.has(node));
  }

  move(from: number, to: number, length: number): void {
    const { kvHeads, headDim } = this.config;
    const block = this.capacity * headDim;
    for (const cache of [...this.keys, ...this.values]) {
      for (let head = 0; head < kvHeads; head++) {
        const source = (from * kvHeads + head) * block;
        cache.copyWithin((to * kvHeads + head) * block, source, source + length * headDim);
      }
    }
  }

  /** The last token's keys were never computed: nobody read it. */
  keep(slot: number, tokens: Int32Array): void {
    if (this.budget.prefixBytes === 0) return;
    const path = this.prefixes.insert(tokens.subarray(0, -1));
    for (const node of path) {
      if (node.data) continue;
      const read = (caches: Float32Array[]): Float32Array[] => caches.map((cache) => this.slotRows(cache, slot, node));
      this.prefixes.fill(node, { keys: read(this.keys), values: read(this.values) });
    }
    const pinned = new Set(path);
    this.prefixes.trim((node) => pinned.has(node));
  }

  async step(rows: (StepRow | null)[]): Promise<Choice[]> {
    const size = bucketOf(rows.length);
    const masked = rows.some((row) => row?.allowed);
    const truncated = rows.some((row) => row && (row.topK > 0 || row.topP < 1));
    const step = this.bound(size, masked, truncated);
    const { hidden, vocab, headDim } = this.config;
    const half = headDim / 2;
    const embedding = this.policy.view.tensor(EMBEDDING);
    let longest = 0;
    for (let i = 0; i < size; i++) {
      const row = rows[i] ?? null;
      const from = (row?.token ?? 0) * hidden;
      step.x.set(embedding.subarray(from, from + hidden), i * hidden);
      const past = row?.past ?? 0;
      const at = past * half;
      step.cos.set(this.table.cos.subarray(at, at + half), i * half);
      step.sin.set(this.table.sin.subarray(at, at + half), i * half);
      step.past[i] = past;
      longest = Math.max(longest, past + 1);
      step.uniform[i] = row?.uniform ?? 0;
      const greedy = !row || row.temperature === 0;
      step.greedy[i] = greedy ? 1 : 0;
      step.inverseTemperature[i] = greedy ? 1 : 1 / row.temperature;
      if (step.topK) step.topK[i] = row && row.topK > 0 ? row.topK : vocab;
      if (step.topP) step.topP[i] = row?.topP ?? 1;
    }
    step.total[0] = longest;
    if (step.mask)
      maskAllowed(
        step.mask,
        Array.from({ length: size }, (_, i) => rows[i]?.allowed ?? null),
        vocab,
      );
    const scored = rows.some((row) => row?.scoreIds);
    await (scored ? step.scoring() : step.call).run();
    return rows.map((row, i) => ({
      token: Number(step.token[i]),
      logprob: step.logprob[i],
      ...(row?.scoreIds
        ? { idLogprobs: idLogprobs(step.logits().subarray(i * vocab, (i + 1) * vocab), row.scoreIds) }
        : {}),
    }));
  }

  release(): void {
    this.forget();
    this.calls.clear();
    this.keys = this.values = [];
    this.slots = this.capacity = 0;
  }

  private capacityFor(length: number): number {
    return Math.max(this.capacity, CAPACITY_STEP, Math.ceil(length / CAPACITY_STEP) * CAPACITY_STEP);
  }

  private get policy(): DecodeSource {
    if (!this.source) throw new Error("the decoder has no policy");
    return this.source;
  }

  /** Computes the nodes of these paths that hold nothing yet, shared ones once, a budget of rows at a time. */
  private async compute(paths: KvNode[][]): Promise<void> {
    const missing = [...new Set(paths.flat().filter((node) => !node.data))];
    missing.sort((a, b) => a.depth - b.depth);
    while (missing.length > 0) {
      let rows = 0;
      const batch: KvNode[] = [];
      while (missing.length > 0 && (batch.length === 0 || rows + missing[0].tokens.length <= PREFILL_ROWS)) {
        const node = missing.shift();
        if (!node) break;
        batch.push(node);
        rows += node.tokens.length;
      }
      await this.computeBatch(batch, rows);
      this.prefilled += rows;
    }
  }

  private async computeBatch(batch: KvNode[], rows: number): Promise<void> {
    const inBatch = new Map<KvNode, number>();
    let at = 0;
    for (const node of batch) {
      inBatch.set(node, at);
      at += node.tokens.length;
    }
    const above = [...new Set(batch.flatMap((node) => ancestors(node).filter((a) => !inBatch.has(a))))];
    const past = this.pastKeys(above);
    const pastAt = new Map<KvNode, number>();
    let offset = 0;
    for (const node of above) {
      pastAt.set(node, offset);
      offset += node.tokens.length;
    }
    const range = (from: number, length: number): number[] => Array.from({ length }, (_, i) => from + i);
    const chains: Chain[] = batch.map((node) => ({
      rows: Int32Array.from(range(inBatch.get(node) ?? 0, node.tokens.length)),
      ancestors: Int32Array.from(
        ancestors(node).flatMap((a) => range(pastAt.get(a) ?? past.rows + (inBatch.get(a) ?? 0), a.tokens.length)),
      ),
    }));
    const tokens = new Int32Array(rows);
    const positions = new Int32Array(rows);
    for (const [node, start] of inBatch) {
      tokens.set(node.tokens, start);
      for (let i = 0; i < node.tokens.length; i++) positions[start + i] = node.depth + i;
    }
    const pack: Pack = { trees: [], start: [], rows, tokens, positions, ...groupChains(chains, rows, past.rows) };
    const made = { keys: [] as Float32Array[], values: [] as Float32Array[] };
    await this.pass.forward(pack, this.policy.view, "none", past.rows > 0 ? past : undefined, (layer, keys, values) => {
      made.keys[layer] = keys.slice();
      made.values[layer] = values.slice();
    });
    const width = this.config.kvHeads * this.config.headDim;
    for (const [node, start] of inBatch) {
      const part = (data: Float32Array) => data.slice(start * width, (start + node.tokens.length) * width);
      this.prefixes.fill(node, { keys: made.keys.map(part), values: made.values.map(part) });
    }
  }

  private pastKeys(nodes: KvNode[]): PastKeys {
    const { layers, kvHeads, headDim } = this.config;
    const rows = nodes.reduce((sum, node) => sum + node.tokens.length, 0);
    const join = (pick: (node: KvNode) => Float32Array | undefined): Float32Array => {
      const all = new Float32Array(rows * kvHeads * headDim);
      let at = 0;
      for (const node of nodes) {
        const data = pick(node);
        if (!data) throw new Error("a prefix is used before it was computed");
        all.set(data, at);
        at += data.length;
      }
      return all;
    };
    const each = Array.from({ length: layers }, (_, l) => l);
    return {
      rows,
      keys: each.map((l) => join((n) => n.data?.keys[l])),
      values: each.map((l) => join((n) => n.data?.values[l])),
    };
  }

  /** Writes a path's keys and values into a slot, head by head. */
  private load(slot: number, path: KvNode[]): void {
    const { layers, kvHeads, headDim } = this.config;
    const width = kvHeads * headDim;
    const write = (cache: Float32Array, data: Float32Array, node: KvNode): void => {
      for (let head = 0; head < kvHeads; head++) {
        let to = ((slot * kvHeads + head) * this.capacity + node.depth) * headDim;
        for (let from = head * headDim; from < data.length; from += width, to += headDim) {
          cache.set(data.subarray(from, from + headDim), to);
        }
      }
    };
    for (const node of path) {
      if (!node.data) throw new Error("a prefix is used before it was computed");
      for (let l = 0; l < layers; l++) {
        write(this.keys[l], node.data.keys[l], node);
        write(this.values[l], node.data.values[l], node);
      }
    }
  }

  /** A node's tokens as a slot holds them, back in the order of the tree. */
  private slotRows(cache: Float32Array, slot: number, node: KvNode): Float32Array {
    const { kvHeads, headDim } = this.config;
    const rows = new Float32Array(node.tokens.length * kvHeads * headDim);
    for (let head = 0; head < kvHeads; head++) {
      let from = ((slot * kvHeads + head) * this.capacity + node.depth) * headDim;
      for (let i = 0; i < node.tokens.length; i++, from += headDim) {
        rows.set(cache.subarray(from, from + headDim), (i * kvHeads + head) * headDim);
      }
    }
    return rows;
  }

  private bound(size: number, masked: boolean, truncated: boolean): BoundStep {
    const key = `${size} ${masked} ${truncated}`;
    let step = this.calls.get(key);
    if (!step) {
      step = this.bind(size, this.policy.sessions.get(masked, truncated), masked, truncated);
      this.calls.set(key, step);
    }
    return step;
  }

  private bind(size: number, session: Session, masked: boolean, truncated: boolean): BoundStep {
    const { hidden, vocab, layers, kvHeads, headDim } = this.config;
    const column = () => new Float32Array(size);
    const arrays = {
      x: new Float32Array(size * hidden),
      cos: new Float32Array((size * headDim) / 2),
      sin: new Float32Array((size * headDim) / 2),
      past: new Int32Array(size),
      total: new Int32Array(1),
      uniform: column(),
      inverseTemperature: column(),
      greedy: new Uint8Array(size),
      token: new BigInt64Array(size),
      logprob: column(),
      ...(masked ? { mask: new Float32Array(size * vocab) } : {}),
      ...(truncated ? { topK: column(), topP: column() } : {}),
    };
    const inputs: Record<string, Value> = {
      ...this.adapters?.inputs,
      x: new Value(arrays.x, [size, hidden]),
      past: new Value(arrays.past, [size]),
      total: new Value(arrays.total, [1]),
      cos: new Value(arrays.cos, [size, headDim / 2]),
      sin: new Value(arrays.sin, [size, headDim / 2]),
      uniform: new Value(arrays.uniform, [size, 1]),
      inverseTemperature: new Value(arrays.inverseTemperature, [size, 1]),
      greedy: new Value(arrays.greedy, [size, 1], "bool"),
    };
    if (arrays.mask) inputs.mask = new Value(arrays.mask, [size, vocab]);
    if (arrays.topK) inputs.topK = new Value(arrays.topK, [size, 1]);
    if (arrays.topP) inputs.topP = new Value(arrays.topP, [size, 1]);
    const outputs: Record<string, Value> = {
      token: new Value(arrays.token, [size, 1]),
      logprob: new Value(arrays.logprob, [size, 1]),
    };
    for (let l = 0; l < layers; l++) {
      const length = size * kvHeads * this.capacity * headDim;
      const shape = [size, kvHeads, this.capacity, headDim];
      inputs[`keys.${l}`] = outputs[`newKeys.${l}`] = new Value(this.keys[l].subarray(0, length), shape);
      inputs[`values.${l}`] = outputs[`newValues.${l}`] = new Value(this.values[l].subarray(0, length), shape);
    }
    let logits: Float32Array | null = null;
    const allLogits = (): Float32Array => (logits ??= new Float32Array(size * vocab));
    return {
      ...arrays,
      call: session.bind(inputs, outputs),
      scoring: () => session.bind(inputs, { ...outputs, logits: new Value(allLogits(), [size, vocab]) }),
      logits: allLogits,
    };
  }
}

/** The memory of a bound decode step; what is written here is what the next run reads. */
interface BoundStep {
  x: Float32Array;
  cos: Float32Array;
  sin: Float32Array;
  past: Int32Array;
  total: Int32Array;
  uniform: Float32Array;
  inverseTemperature: Float32Array;
  greedy: Uint8Array;
  token: BigInt64Array;
  logprob: Float32Array;
  mask?: Float32Array;
  topK?: Float32Array;
  topP?: Float32Array;
  call: Call;
  /** The same step, which also gives the logits. */
  scoring(): Call;
  logits(): Float32Array;
}

function ancestors(node: KvNode): KvNode[] {
  const path: KvNode[] = [];
  for (let at = node.parent; at?.parent; at = at.parent) path.unshift(at);
  return path;
}

/** Raw log-probs of some ids: log softmax(logits) at temperature 1. */
function idLogprobs(logits: Float32Array, ids: Int32Array): Float32Array {
  let max = -Infinity;
  for (const logit of logits) if (logit > max) max = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  const lse = max + Math.log(sum);
  return Float32Array.from(ids, (id) => logits[id] - lse);
}

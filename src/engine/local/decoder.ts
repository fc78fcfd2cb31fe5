import type { ModelConfig } from "../../model/types.ts";
import { type Call, type Session, Value } from "../../runtime/index.ts";
import { rotatesInside } from "./decode-graph.ts";
import { DecodeAdapters, type DecodeSessions } from "./decode-weights.ts";
import { MASKED, maskAllowed } from "./head.ts";
import { KvTree } from "./kv.ts";
import { EMBEDDING, headName } from "./layers.ts";
import type { LayerPass } from "./pass.ts";
import { Prefill } from "./prefill.ts";
import { ropeRows, type RopeTable, ropeTable } from "./rope.ts";
import { bucketOf, type Choice, type Decoder, rowsWithin, type StepRow } from "./sampler.ts";
import { Slots } from "./slots.ts";
import { type Adapters, takeRows, type WeightView } from "./weights.ts";

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
  private readonly budget: DecoderBudget;
  private readonly adapters: DecodeAdapters | null;
  /** Rows of the head that change while its matrix is frozen: of which ids, and those of the policy. */
  private readonly tokens: { ids: Int32Array; rows: Value } | null;
  private readonly prefixes: KvTree;
  private readonly filler: Prefill;
  private readonly slots: Slots;
  private readonly calls = new Map<string, BoundStep>();
  private source: DecodeSource | null = null;
  /** Of the policy to which adapters and prefixes belong; null: to none any more. */
  private key: string | null = null;
  private table: RopeTable = { cos: new Float32Array(0), sin: new Float32Array(0) };

  /** `rank` is that of the adapters, 0 for none; `tokens` are the ids whose rows are trained beside them. */
  constructor(
    config: ModelConfig,
    pass: LayerPass,
    budget: DecoderBudget,
    rank: number,
    tokens: Int32Array | null = null,
  ) {
    const { hidden } = config;
    this.tokens = tokens && {
      ids: tokens,
      rows: new Value(new Float32Array(tokens.length * hidden), [tokens.length, hidden]),
    };
    this.config = config;
    this.budget = budget;
    this.adapters = rank > 0 ? new DecodeAdapters(config, rank) : null;
    this.prefixes = new KvTree(config.kvHeads * config.headDim, budget.prefixBytes);
    this.filler = new Prefill(config, pass, this.prefixes);
    this.slots = new Slots(config);
  }

  /** Turns to a policy; what other weights left in the caches goes. */
  use(source: DecodeSource): void {
    if (this.key === source.key) return;
    this.prefixes.clear();
    if (this.source?.sessions !== source.sessions) this.calls.clear();
    this.adapters?.set(source.adapters);
    if (this.tokens) {
      const head = source.view.tensor(headName(this.config));
      (this.tokens.rows.data as Float32Array).set(takeRows(head, this.tokens.ids, this.config.hidden));
    }
    this.source = source;
    this.key = source.key;
  }

  /** Forgets every prefix: the weights of some policy have changed. */
  forget(): void {
    this.prefixes.clear();
    this.key = null;
  }

  maxRows(length: number): number {
    return Math.min(
      this.budget.maxRows,
      rowsWithin(Math.floor(this.budget.slotBytes / this.slots.bytesPerSlot(length))),
    );
  }

  get bytes(): number {
    return this.prefixes.bytes + this.slots.bytes;
  }

  reserve(rows: number, length: number): void {
    if (!this.slots.reserve(rows, length)) return;
    const { capacity } = this.slots;
    const { headDim } = this.config;
    if (this.table.cos.length < (capacity * headDim) / 2) this.table = ropeTable(this.config, capacity);
    this.calls.clear();
  }

  async prefill(rows: { slot: number; tokens: Int32Array }[]): Promise<void> {
    // The samples of one request share their prefix: it is loaded once and copied from slot to slot.
    const first: typeof rows = [];
    const copies: { from: number; to: number; length: number }[] = [];
    for (const row of rows) {
      const same = first.find(({ tokens }) => sameMemory(tokens, row.tokens));
      if (same) copies.push({ from: same.slot, to: row.slot, length: row.tokens.length });
      else first.push(row);
    }
    for (const { tokens } of first) this.filler.plan(tokens);
    const paths = first.map(({ tokens }) => this.prefixes.insert(tokens));
    this.prefilled += await this.filler.compute(paths, this.policy.view);
    first.forEach(({ slot }, i) => this.slots.load(slot, paths[i]));
    for (const { from, to, length } of copies) this.slots.move(from, to, length);
    const pinned = new Set(paths.flat());
    this.prefixes.trim((node) => pinned.has(node));
  }

  move(from: number, to: number, length: number): void {
    this.slots.move(from, to, length);
  }

  keep(slot: number, tokens: Int32Array): void {
    if (this.budget.prefixBytes === 0) return;
    const path = this.prefixes.insert(tokens);
    for (const node of path) if (!node.data) this.prefixes.fill(node, this.slots.read(slot, node));
    const pinned = new Set(path);
    this.prefixes.trim((node) => pinned.has(node));
  }

  async step(rows: (StepRow | null)[]): Promise<Choice[]> {
    const size = bucketOf(rows.length);
    const masked = rows.some((row) => row?.allowed ?? row?.banned);
    const truncated = rows.some((row) => row && (row.topK > 0 || row.topP < 1));
    const step = this.bound(size, masked, truncated);
    const { hidden, vocab, headDim } = this.config;
    const embedding = this.policy.view.tensor(EMBEDDING);
    let longest = 0;
    for (let i = 0; i < size; i++) {
      const row = rows[i] ?? null;
      const from = (row?.token ?? 0) * hidden;
      step.x.set(embedding.subarray(from, from + hidden), i * hidden);
      const past = row?.past ?? 0;
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
    if (step.rope) ropeRows(this.table, step.past, headDim / 2, step.rope);
    const { mask } = step;
    if (mask) {
      maskAllowed(
        mask,
        Array.from({ length: size }, (_, i) => rows[i]?.allowed ?? null),
        vocab,
      );
      rows.forEach((row, i) => row?.banned?.forEach((id) => (mask[i * vocab + id] = MASKED)));
    }
    const scored = rows.some((row) => row?.scoreIds);
    await (scored ? step.scoring() : step.call).run();
    return rows.map((row, i) => ({
      token: Number(step.token[i]),
      logprob: step.logprob[i],
      ...(row && (row.topK > 0 || row.topP < 1) && step.cutMass ? { cutMass: step.cutMass[i] } : {}),
      ...(row?.scoreIds
        ? { idLogprobs: idLogprobs(step.logits().subarray(i * vocab, (i + 1) * vocab), row.scoreIds) }
        : {}),
    }));
  }

  release(): void {
    this.forget();
    this.calls.clear();
    this.slots.clear();
  }

  private get policy(): DecodeSource {
    if (!this.source) throw new Error("the decoder has no policy");
    return this.source;
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
      past: new Int32Array(size),
      total: new Int32Array(1),
      uniform: column(),
      inverseTemperature: column(),
      greedy: new Uint8Array(size),
      token: new BigInt64Array(size),
      logprob: column(),
      ...(masked ? { mask: new Float32Array(size * vocab) } : {}),
      ...(truncated ? { topK: column(), topP: column(), cutMass: column() } : {}),
    };
    const half = headDim / 2;
    // Where attention rotates it finds a row's position itself; else the step brings each row's cosines and sines.
    const rope = rotatesInside(this.config)
      ? null
      : { cos: new Float32Array(size * half), sin: new Float32Array(size * half) };
    const { cos, sin } = rope ?? this.table;
    const inputs: Record<string, Value> = {
      ...this.adapters?.inputs,
      x: new Value(arrays.x, [size, hidden]),
      past: new Value(arrays.past, [size]),
      total: new Value(arrays.total, [1]),
      cos: new Value(cos, [cos.length / half, half]),
      sin: new Value(sin, [sin.length / half, half]),
      uniform: new Value(arrays.uniform, [size, 1]),
      inverseTemperature: new Value(arrays.inverseTemperature, [size, 1]),
      greedy: new Value(arrays.greedy, [size, 1], "bool"),
    };
    if (this.tokens) {
      const { ids, rows } = this.tokens;
      inputs.tokenRows = rows;
      const each = BigInt64Array.from({ length: size * ids.length }, (_, i) => BigInt(ids[i % ids.length]));
      inputs.tokenIds = new Value(each, [size, ids.length]);
    }
    if (arrays.mask) inputs.mask = new Value(arrays.mask, [size, vocab]);
    if (arrays.topK) inputs.topK = new Value(arrays.topK, [size, 1]);
    if (arrays.topP) inputs.topP = new Value(arrays.topP, [size, 1]);
    const outputs: Record<string, Value> = {
      token: new Value(arrays.token, [size, 1]),
      logprob: new Value(arrays.logprob, [size, 1]),
    };
    if (arrays.cutMass) outputs.cutMass = new Value(arrays.cutMass, [size, 1]);
    for (let l = 0; l < layers; l++) {
      const length = size * kvHeads * this.slots.capacity * headDim;
      const shape = [size, kvHeads, this.slots.capacity, headDim];
      inputs[`keys.${l}`] = outputs[`newKeys.${l}`] = new Value(this.slots.keys[l].subarray(0, length), shape);
      inputs[`values.${l}`] = outputs[`newValues.${l}`] = new Value(this.slots.values[l].subarray(0, length), shape);
    }
    let logits: Float32Array | null = null;
    const allLogits = (): Float32Array => (logits ??= new Float32Array(size * vocab));
    return {
      ...arrays,
      rope,
      call: session.bind(inputs, outputs),
      scoring: () => session.bind(inputs, { ...outputs, logits: new Value(allLogits(), [size, vocab]) }),
      logits: allLogits,
    };
  }
}

/** The memory of a bound decode step; what is written here is what the next run reads. */
interface BoundStep {
  x: Float32Array;
  rope: RopeTable | null;
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
  /** The probability that top-k and top-p took away. */
  cutMass?: Float32Array;
  call: Call;
  /** The same step, which also gives the logits. */
  scoring(): Call;
  logits(): Float32Array;
}

const sameMemory = (a: Int32Array, b: Int32Array): boolean =>
  a.buffer === b.buffer && a.byteOffset === b.byteOffset && a.length === b.length;

/** Raw log-probs of some ids: log softmax(logits) at temperature 1. */
function idLogprobs(logits: Float32Array, ids: Int32Array): Float32Array {
  let max = -Infinity;
  for (const logit of logits) if (logit > max) max = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  const lse = max + Math.log(sum);
  return Float32Array.from(ids, (id) => logits[id] - lse);
}

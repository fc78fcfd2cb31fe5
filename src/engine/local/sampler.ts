import type { Sample, SampleRequest } from "../types.ts";
import type { StopReason } from "../../forest/types.ts";
import type { Tokenizer } from "../../model/types.ts";
import { hashKey, uniform } from "../random.ts";

/** What the sampler asks of the model: slots that each hold one sequence's keys and values, and a step for all of them. */
export interface Decoder {
  /** Slots that the memory budget allows where the longest takes `length` tokens; at least one. */
  maxRows(length: number): number;
  /** Makes room for `rows` slots of `length` tokens each; what the slots hold stays. */
  reserve(rows: number, length: number): void;
  /** Puts the keys and values of these prefixes into their slots, computing what no cache holds. */
  prefill(rows: { slot: number; tokens: Int32Array }[]): Promise<void>;
  /** Copies a slot's first `length` tokens. */
  move(from: number, to: number, length: number): void;
  /** Keeps a finished sequence's keys and values for later prefixes: of these tokens, all of which were read. */
  keep(slot: number, tokens: Int32Array): void;
  /** One token for each of slots 0 .. rows.length - 1; null marks a hole. */
  step(rows: (StepRow | null)[]): Promise<Choice[]>;
}

export interface StepRow {
  /** The token to read, and how many stand before it. */
  token: number;
  past: number;
  /** In [0, 1). */
  uniform: number;
  temperature: number;
  topK: number;
  topP: number;
  allowed: Int32Array | null;
  banned: Int32Array | null;
  scoreIds: Int32Array | null;
}

export interface Choice {
  token: number;
  logprob: number;
  /** The probability that top-k and top-p took away. */
  cutMass?: number;
  idLogprobs?: Float32Array;
}

interface Call {
  requests: SampleRequest[];
  samples: Sample[];
  /** Index in `samples` of a request's first sample. */
  first: number[];
  left: number;
  onDone?: (sample: Sample, request: number, index: number) => void;
  resolve(samples: Sample[]): void;
  reject(error: unknown): void;
}

interface Row {
  call: Call;
  request: number;
  index: number;
  key: [number, number];
  prefix: Int32Array;
  tokens: number[];
  logprobs: number[];
  cutMass: number[];
  idLogprobs?: Float32Array;
  /** The text of a row that has ended and waits for the log-probs of what comes next. */
  ended?: string;
}

/** Fixed batch sizes, so that which kernel a row meets depends only on how many rows are active. */
const BUCKETS = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128];
export const bucketOf = (rows: number): number => BUCKETS.find((size) => size >= rows) ?? rows;
/** The most rows whose bucket does not exceed `slots`. */
export const rowsWithin = (slots: number): number => BUCKETS.findLast((size) => size <= slots) ?? 1;

/** Continuous batching: finished sequences leave, waiting ones and later calls enter at the next step. */
export class Sampler {
  private readonly waiting: Row[] = [];
  private readonly slots: (Row | null)[] = [];
  private readonly calls = new Set<Call>();
  private readonly tokenizer: Tokenizer;
  private readonly eosIds: ReadonlySet<number>;
  /** Tokens chosen since the sampler was made. */
  generated = 0;

  constructor(tokenizer: Tokenizer, eosIds: number[]) {
    this.tokenizer = tokenizer;
    this.eosIds = new Set(eosIds);
  }

  /** Set when `run` has ended: calls no longer join. */
  finished = false;

  get idle(): boolean {
    return this.calls.size === 0;
  }

  /** Puts a call's rows at the end of the queue; they are sampled while `run` runs. */
  add(requests: SampleRequest[], onDone?: Call["onDone"]): Promise<Sample[]> {
    return new Promise((resolve, reject) => {
      const first: number[] = [];
      let count = 0;
      for (const request of requests) {
        first.push(count);
        count += request.n;
      }
      const call: Call = { requests, samples: new Array(count), first, left: count, onDone, resolve, reject };
      if (count === 0) return resolve([]);
      this.calls.add(call);
      requests.forEach((request, r) => {
        const key = hashKey(request.key);
        for (let index = 0; index < request.n; index++) {
          this.waiting.push({
            call,
            request: r,
            index,
            key,
            prefix: request.prefix,
            tokens: [],
            logprobs: [],
            cutMass: [],
          });
        }
      });
    });
  }

  /** Samples until nothing waits and nothing runs. */
  async run(decoder: Decoder): Promise<void> {
    while (!this.idle) {
      await this.admit(decoder);
      this.compact(decoder);
      const choices = await decoder.step(this.slots.map((row) => row && stepRow(row)));
      let ended = false;
      this.slots.forEach((row, slot) => {
        if (!row || !this.advance(row, choices[slot])) return;
        ended = true;
        this.slots[slot] = null;
        decoder.keep(slot, tokensRead(row));
      });
      // Whoever awaited an ended sample may ask for the next one before the batch goes on.
      if (ended) await new Promise((resolve) => setImmediate(resolve));
    }
    this.finished = true;
  }

  /** Fails every call that is not done. */
  fail(error: unknown): void {
    this.finished = true;
    for (const call of this.calls) call.reject(error);
    this.calls.clear();
    this.waiting.length = this.slots.length = 0;
  }

  private async admit(decoder: Decoder): Promise<void> {
    const entering: { slot: number; row: Row }[] = [];
    const active = this.slots.filter((row) => row !== null).length;
    let count = 0;
    let length = 0;
    for (const { prefix, call, request } of this.waiting) {
      const longest = Math.max(length, prefix.length + call.requests[request].maxTokens);
      if (active + count + 1 > decoder.maxRows(longest)) break;
      length = longest;
      count++;
    }
    if (count === 0) return;
    for (const row of this.waiting.splice(0, count)) {
      let slot = this.slots.indexOf(null);
      if (slot < 0) slot = this.slots.length;
      this.slots[slot] = row;
      entering.push({ slot, row });
    }
    decoder.reserve(this.slots.length, length);
    // The last token of a prefix is read by the first decode step, so that one graph makes every choice.
    await decoder.prefill(entering.map(({ slot, row }) => ({ slot, tokens: row.prefix.subarray(0, -1) })));
  }

  /** Moves rows from the end into holes where that makes the batch smaller. */
  private compact(decoder: Decoder): void {
    const active = this.slots.filter((row) => row !== null).length;
    while (this.slots.length > 0 && this.slots[this.slots.length - 1] === null) this.slots.pop();
    if (bucketOf(this.slots.length) === bucketOf(active)) return;
    for (let hole = this.slots.indexOf(null); hole >= 0; hole = this.slots.indexOf(null)) {
      const last = this.slots.length - 1;
      const row = this.slots[last];
      if (row) {
        decoder.move(last, hole, row.prefix.length + row.tokens.length - 1);
        this.slots[hole] = row;
      }
      this.slots.pop();
      while (this.slots.length > 0 && this.slots[this.slots.length - 1] === null) this.slots.pop();
    }
  }

  /** Takes a choice; true when the row has ended. */
  private advance(row: Row, choice: Choice): boolean {
    const request = row.call.requests[row.request];
    if (row.ended !== undefined) {
      this.finish(row, "stop", row.ended, choice.idLogprobs);
      return true;
    }
    if (choice.idLogprobs) row.idLogprobs = choice.idLogprobs;
    if (request.maxTokens === 0) {
      this.finish(row, "length", "");
      return true;
    }
    row.tokens.push(choice.token);
    row.logprobs.push(choice.logprob);
    if (choice.cutMass !== undefined) row.cutMass.push(choice.cutMass);
    this.generated++;
    if (this.eosIds.has(choice.token)) {
      this.finish(row, "eos", this.tokenizer.decode(row.tokens.slice(0, -1)));
      return true;
    }
    const text = this.stopped(row.tokens, request.stop);
    if (text !== null) {
      if (request.scoreNext) {
        row.ended = text;
        return false;
      }
      this.finish(row, "stop", text);
      return true;
    }
    if (row.tokens.length < request.maxTokens) return false;
    this.finish(row, "length", this.tokenizer.decode(row.tokens));
    return true;
  }

  /** The text before the stop that these tokens have just completed, or null. */
  private stopped(tokens: number[], stops: SampleRequest["stop"]): string | null {
    let found: number | null = null;
    let full: string | null = null;
    for (const stop of stops) {
      if (typeof stop !== "string") {
        const from = tokens.length - stop.length;
        if (from < 0 || !stop.every((id, i) => tokens[from + i] === id)) continue;
        const before = this.tokenizer.decode(tokens.slice(0, from));
        if (found === null || before.length < found) [found, full] = [before.length, before];
        continue;
      }
      // A window of as many tokens as the stop has bytes, for a token holds one at least, and some for characters cut in two.
      const window = this.tokenizer.decode(tokens.slice(-(Buffer.byteLength(stop) + 8)));
      if (!window.includes(stop)) continue;
      const whole = this.tokenizer.decode(tokens);
      const at = whole.indexOf(stop);
      if (at >= 0 && (found === null || at < found)) [found, full] = [at, whole];
    }
    return found === null || full === null ? null : full.slice(0, found);
  }

  private finish(row: Row, stop: StopReason, text: string, nextLogprobs?: Float32Array): void {
    const sample: Sample = {
      tokens: Int32Array.from(row.tokens),
      logprobs: Float32Array.from(row.logprobs),
      stop,
      text,
      ...(row.cutMass.length > 0 && { cutMass: Float32Array.from(row.cutMass) }),
      ...(row.idLogprobs ? { idLogprobs: row.idLogprobs } : {}),
      ...(nextLogprobs ? { nextLogprobs } : {}),
    };
    const { call } = row;
    call.samples[call.first[row.request] + row.index] = sample;
    call.onDone?.(sample, row.request, row.index);
    if (--call.left > 0) return;
    this.calls.delete(call);
    call.resolve(call.samples);
  }
}

/** What the model has read of a row that has ended: all but its last token, or that too where something was scored after it. */
function tokensRead(row: Row): Int32Array {
  const tokens = new Int32Array(row.prefix.length + row.tokens.length);
  tokens.set(row.prefix);
  tokens.set(row.tokens, row.prefix.length);
  return row.tokens.length === 0 || row.ended !== undefined ? tokens : tokens.subarray(0, -1);
}

function stepRow(row: Row): StepRow {
  const request = row.call.requests[row.request];
  const position = row.tokens.length;
  return {
    token: position > 0 ? row.tokens[position - 1] : row.prefix[row.prefix.length - 1],
    past: row.prefix.length - 1 + position,
    uniform: uniform(row.key, row.index, position),
    temperature: request.temperature,
    topK: request.topK ?? 0,
    topP: request.topP ?? 1,
    allowed: position === 0 ? (request.allowed ?? null) : null,
    banned: request.banned ?? null,
    scoreIds: (row.ended === undefined ? position === 0 && request.scoreIds : request.scoreNext) || null,
  };
}

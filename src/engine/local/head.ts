import type { ModelConfig } from "../../model/types.ts";
import { type Runtime, type Session, Value } from "../../runtime/index.ts";
import { Buffers } from "./buffers.ts";
import { headBackwardAgain, headBackwardKept, headForward } from "./head-graphs.ts";
import type { HeadRows } from "./pack.ts";

/** Scored tokens of one call. */
const CHUNK = 512;

export interface HeadGradients {
  logprob: Float32Array;
  /** Null where the loss gives none. */
  entropy: Float32Array | null;
}

/** What full fine-tuning needs besides: the sum of the embedding's (or head's) gradients, [vocab, hidden]. */
export interface HeadSums {
  gradient: Float32Array;
}

/** Log-probs and entropies of scored tokens and the way back to the hidden states, chunk by chunk. */
export class HeadPass {
  private readonly runtime: Runtime;
  private readonly config: ModelConfig;
  private readonly buffers = new Buffers();
  private readonly sessions = new Map<string, Session>();

  constructor(runtime: Runtime, config: ModelConfig) {
    this.runtime = runtime;
    this.config = config;
  }

  /**
   * Scores entries from .. to of `rows` given the normalised hidden states of the pass. With `keep` the probabilities stay for
   * `backward` of the same entries, which then does no work twice.
   */
  async forward(
    hidden: Float32Array,
    rows: HeadRows,
    range: { from: number; to: number },
    embedding: Float32Array,
    options: { keep: boolean; entropy: boolean },
  ): Promise<{ logprob: Float32Array; entropy: Float32Array }> {
    const count = range.to - range.from;
    const logprob = new Float32Array(count);
    const entropy = new Float32Array(count);
    const { hidden: width, vocab } = this.config;
    const h = this.buffers.get("h", count * width);
    const probs = options.keep ? this.buffers.get("probs", count * vocab) : null;
    for (const chunk of chunks(count)) {
      this.gather(hidden, rows, range.from, chunk, h);
      const { inputs, masked } = this.inputs(rows, range.from, chunk, h, embedding);
      const outputs: Record<string, Value> = {
        logprob: new Value(logprob.subarray(chunk.from, chunk.to), [chunk.size]),
      };
      if (options.entropy) outputs.entropy = new Value(entropy.subarray(chunk.from, chunk.to), [chunk.size]);
      if (probs) outputs.probs = new Value(probs.subarray(chunk.from * vocab, chunk.to * vocab), [chunk.size, vocab]);
      await this.session("forward", { masked, entropy: options.entropy }).bind(inputs, outputs).run();
    }
    return { logprob, entropy };
  }

  /** Adds the gradient of the entries' scores onto `dHidden` (rows of the pass) and, in full fine-tuning, onto the embedding's. */
  async backward(
    rows: HeadRows,
    range: { from: number; to: number },
    embedding: Float32Array,
    gradients: HeadGradients,
    kept: boolean,
    dHidden: Float32Array,
    sums: HeadSums | null,
  ): Promise<void> {
    const count = range.to - range.from;
    const { hidden: width, vocab } = this.config;
    const h = this.buffers.get("h", count * width);
    const probs = this.buffers.get("probs", kept ? count * vocab : 0);
    const useKept = kept && gradients.entropy === null;
    for (const chunk of chunks(count)) {
      const { inputs, masked } = this.inputs(rows, range.from, chunk, h, embedding);
      inputs.g = new Value(gradients.logprob.subarray(chunk.from, chunk.to), [chunk.size, 1]);
      if (gradients.entropy)
        inputs.gEntropy = new Value(gradients.entropy.subarray(chunk.from, chunk.to), [chunk.size, 1]);
      if (useKept) {
        inputs.probs = new Value(probs.subarray(chunk.from * vocab, chunk.to * vocab), [chunk.size, vocab]);
        delete inputs.mask;
      }
      const dh = this.buffers.get("dh", chunk.size * width);
      const outputs: Record<string, Value> = { dh: new Value(dh, [chunk.size, width]) };
      const push = this.buffers.get("push", sums ? chunk.size * width : 0);
      if (sums) {
        inputs.sum = outputs.newSum = new Value(sums.gradient, [vocab, width]);
        outputs.push = new Value(push, [chunk.size, width]);
      }
      const kind = useKept ? "kept" : "again";
      const options = { masked: masked && !useKept, entropy: gradients.entropy !== null };
      const session = this.session(`${kind}${sums ? " full" : ""}`, options);
      await session.bind(inputs, outputs).run();
      this.scatter(rows, range.from, chunk, dh, dHidden);
      if (sums) addToRows(sums.gradient, rows.target, range.from + chunk.from, push, chunk.size, width);
    }
  }

  release(): void {
    this.buffers.clear();
    for (const session of this.sessions.values()) session.release();
    this.sessions.clear();
  }

  /** Predictors' hidden states, divided by the temperature. */
  private gather(hidden: Float32Array, rows: HeadRows, first: number, chunk: Chunk, h: Float32Array): void {
    const width = this.config.hidden;
    for (let i = chunk.from; i < chunk.to; i++) {
      const from = rows.predictor[first + i] * width;
      h.set(hidden.subarray(from, from + width), i * width);
      const temperature = rows.temperature[first + i];
      if (temperature === 1) continue;
      for (let j = i * width; j < (i + 1) * width; j++) h[j] /= temperature;
    }
  }

  private scatter(rows: HeadRows, first: number, chunk: Chunk, dh: Float32Array, dHidden: Float32Array): void {
    const width = this.config.hidden;
    for (let i = 0; i < chunk.size; i++) {
      const entry = first + chunk.from + i;
      const to = rows.predictor[entry] * width;
      const scale = 1 / rows.temperature[entry];
      for (let j = 0; j < width; j++) dHidden[to + j] += scale * dh[i * width + j];
    }
  }

  private inputs(
    rows: HeadRows,
    first: number,
    chunk: Chunk,
    h: Float32Array,
    embedding: Float32Array,
  ): { inputs: Record<string, Value>; masked: boolean } {
    const { hidden, vocab } = this.config;
    const target = BigInt64Array.from({ length: chunk.size }, (_, i) => BigInt(rows.target[first + chunk.from + i]));
    const inputs: Record<string, Value> = {
      h: new Value(h.subarray(chunk.from * hidden, chunk.to * hidden), [chunk.size, hidden]),
      embedding: new Value(embedding, [vocab, hidden]),
      target: new Value(target, [chunk.size]),
    };
    const allowed = rows.allowed?.slice(first + chunk.from, first + chunk.to);
    if (!allowed?.some((ids) => ids !== null)) return { inputs, masked: false };
    const mask = this.buffers.get("mask", chunk.size * vocab);
    maskAllowed(mask, allowed, vocab);
    inputs.mask = new Value(mask, [chunk.size, vocab]);
    return { inputs, masked: true };
  }

  private session(kind: string, options: { masked: boolean; entropy: boolean }): Session {
    const key = `${kind} ${options.masked} ${options.entropy}`;
    let session = this.sessions.get(key);
    if (!session) {
      const o = { config: this.config, ...options };
      const full = kind.endsWith("full");
      const bytes =
        kind === "forward"
          ? headForward(o)
          : kind.startsWith("kept")
            ? headBackwardKept(o, full)
            : headBackwardAgain(o, full);
      session = this.runtime.createSession(bytes, { name: `head ${kind}` });
      this.sessions.set(key, session);
    }
    return session;
  }
}

interface Chunk {
  from: number;
  to: number;
  size: number;
}

function chunks(count: number): Chunk[] {
  return Array.from({ length: Math.ceil(count / CHUNK) }, (_, i) => {
    const from = i * CHUNK;
    const to = Math.min(count, from + CHUNK);
    return { from, to, size: to - from };
  });
}

/** Additive mask: 0 for allowed ids (all of them where a row has no set), -1e30 elsewhere. */
export function maskAllowed(mask: Float32Array, allowed: (Int32Array | null)[], vocab: number): void {
  allowed.forEach((ids, row) => {
    mask.fill(ids ? -1e30 : 0, row * vocab, (row + 1) * vocab);
    if (ids) for (const id of ids) mask[row * vocab + id] = 0;
  });
}

/** target[ids[i]] += source[i], a row at a time. */
export function addToRows(
  target: Float32Array,
  ids: Int32Array,
  first: number,
  source: Float32Array,
  count: number,
  width: number,
): void {
  for (let i = 0; i < count; i++) {
    const to = ids[first + i] * width;
    for (let j = 0; j < width; j++) target[to + j] += source[i * width + j];
  }
}

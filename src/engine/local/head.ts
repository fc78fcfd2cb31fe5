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
   * Scores the entries of `rows` given the normalised hidden states of the pass. With `keep` the probabilities stay for
   * `backward` of the same entries, which then does no work twice.
   */
  async forward(
    hidden: Float32Array,
    rows: HeadRows,
    embedding: Float32Array,
    options: { keep: boolean; entropy: boolean },
  ): Promise<{ logprob: Float32Array; entropy: Float32Array }> {
    const { count } = rows;
    const logprob = new Float32Array(count);
    const entropy = new Float32Array(count);
    const { hidden: width, vocab } = this.config;
    const h = this.buffers.get("h", count * width);
    const probs = options.keep ? this.buffers.get("probs", count * vocab) : null;
    for (const chunk of chunks(count)) {
      this.gather(hidden, rows, chunk, h);
      const inputs = this.inputs(rows, chunk, h, embedding);
      const masked = this.addMask(inputs, rows, chunk);
      const outputs: Record<string, Value> = {
        logprob: new Value(logprob.subarray(chunk.from, chunk.to), [chunk.size]),
      };
      if (options.entropy) outputs.entropy = new Value(entropy.subarray(chunk.from, chunk.to), [chunk.size]);
      if (probs) outputs.probs = new Value(probs.subarray(chunk.from * vocab, chunk.to * vocab), [chunk.size, vocab]);
      await this.session("forward", { masked, entropy: options.entropy }).bind(inputs, outputs).run();
    }
    return { logprob, entropy };
  }

  /**
   * Adds the gradient of the entries' scores onto `dHidden` (rows of the pass) and, in full fine-tuning, onto `sums`: the gradients
   * of the embedding or head so far, [vocab, hidden].
   */
  async backward(
    rows: HeadRows,
    embedding: Float32Array,
    gradients: HeadGradients,
    kept: boolean,
    dHidden: Float32Array,
    sums: Float32Array | null,
  ): Promise<void> {
    const { count } = rows;
    const { hidden: width, vocab } = this.config;
    const h = this.buffers.get("h", count * width);
    const probs = this.buffers.get("probs", kept ? count * vocab : 0);
    const useKept = kept && gradients.entropy === null;
    for (const chunk of chunks(count)) {
      const inputs = this.inputs(rows, chunk, h, embedding);
      const masked = !useKept && this.addMask(inputs, rows, chunk);
      inputs.g = new Value(gradients.logprob.subarray(chunk.from, chunk.to), [chunk.size, 1]);
      if (gradients.entropy)
        inputs.gEntropy = new Value(gradients.entropy.subarray(chunk.from, chunk.to), [chunk.size, 1]);
      if (useKept) {
        inputs.probs = new Value(probs.subarray(chunk.from * vocab, chunk.to * vocab), [chunk.size, vocab]);
      }
      const dh = this.buffers.get("dh", chunk.size * width);
      const outputs: Record<string, Value> = { dh: new Value(dh, [chunk.size, width]) };
      const push = this.buffers.get("push", sums ? chunk.size * width : 0);
      if (sums) {
        inputs.sum = outputs.newSum = new Value(sums, [vocab, width]);
        outputs.push = new Value(push, [chunk.size, width]);
      }
      const kind = useKept ? "kept" : "again";
      const options = { masked, entropy: gradients.entropy !== null };
      const session = this.session(`${kind}${sums ? " full" : ""}`, options);
      await session.bind(inputs, outputs).run();
      this.scatter(rows, chunk, dh, dHidden);
      if (sums) addToRows(sums, rows.target, chunk.from, push, chunk.size, width);
    }
  }

  release(): void {
    this.buffers.clear();
    for (const session of this.sessions.values()) session.release();
    this.sessions.clear();
  }

  /** Predictors' hidden states, divided by the temperature. */
  private gather(hidden: Float32Array, rows: HeadRows, chunk: Chunk, h: Float32Array): void {
    const width = this.config.hidden;
    for (let i = chunk.from; i < chunk.to; i++) {
      const from = rows.predictor[i] * width;
      h.set(hidden.subarray(from, from + width), i * width);
      const temperature = rows.temperature[i];
      if (temperature === 1) continue;
      for (let j = i * width; j < (i + 1) * width; j++) h[j] /= temperature;
    }
  }

  private scatter(rows: HeadRows, chunk: Chunk, dh: Float32Array, dHidden: Float32Array): void {
    const width = this.config.hidden;
    for (let i = 0; i < chunk.size; i++) {
      const entry = chunk.from + i;
      const to = rows.predictor[entry] * width;
      const scale = 1 / rows.temperature[entry];
      for (let j = 0; j < width; j++) dHidden[to + j] += scale * dh[i * width + j];
    }
  }

  private inputs(rows: HeadRows, chunk: Chunk, h: Float32Array, embedding: Float32Array): Record<string, Value> {
    const { hidden, vocab } = this.config;
    return {
      h: new Value(h.subarray(chunk.from * hidden, chunk.to * hidden), [chunk.size, hidden]),
      embedding: new Value(embedding, [vocab, hidden]),
      target: new Value(BigInt64Array.from(rows.target.subarray(chunk.from, chunk.to), BigInt), [chunk.size]),
    };
  }

  /** Adds the mask of allowed ids to the inputs; false where no entry of the chunk has any. */
  private addMask(inputs: Record<string, Value>, rows: HeadRows, chunk: Chunk): boolean {
    const { vocab } = this.config;
    const allowed = rows.allowed?.slice(chunk.from, chunk.to);
    if (!allowed?.some((ids) => ids !== null)) return false;
    const mask = this.buffers.get("mask", chunk.size * vocab);
    maskAllowed(mask, allowed, vocab);
    inputs.mask = new Value(mask, [chunk.size, vocab]);
    return true;
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

import type { ModelConfig } from "../../model/types.ts";
import { type Runtime, type Session, Value } from "../../runtime/index.ts";
import { Buffers } from "./buffers.ts";
import { headBackwardAgain, headBackwardKept, headForward, type HeadTrained } from "./head-graphs.ts";
import type { HeadRows } from "./pack.ts";

/** Scored tokens of one call. */
const CHUNK = 512;

/** The gradients so far of the matrix's rows: of all, [vocab, hidden], or of some ids, [ids, hidden]. */
export interface RowSums {
  ids: Int32Array | null;
  sums: Float32Array;
}

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
   * Adds the gradient of the entries' scores onto `dHidden` (rows of the pass) and, where rows of the embedding or head are trained,
   * onto their sums.
   */
  async backward(
    rows: HeadRows,
    embedding: Float32Array,
    gradients: HeadGradients,
    kept: boolean,
    dHidden: Float32Array,
    trained: RowSums | null,
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
      const push = this.buffers.get("push", trained ? chunk.size * width : 0);
      if (trained) {
        const { ids, sums } = trained;
        inputs.sum = outputs.newSum = new Value(sums, [ids?.length ?? vocab, width]);
        if (ids) inputs.ids = new Value(BigInt64Array.from(ids, BigInt), [ids.length]);
        outputs.push = new Value(push, [chunk.size, width]);
      }
      const kind = useKept ? "kept" : "again";
      const options = { masked, entropy: gradients.entropy !== null };
      const session = this.session(kind, options, trained ? (trained.ids ? "rows" : "all") : "none");
      await session.bind(inputs, outputs).run();
      this.scatter(rows, chunk, dh, dHidden);
      if (trained) addToRows(trained, rows.target.subarray(chunk.from, chunk.to), push, width);
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

  private session(
    kind: "forward" | "kept" | "again",
    options: { masked: boolean; entropy: boolean },
    trained: HeadTrained = "none",
  ): Session {
    const key = `${kind} ${trained} ${options.masked} ${options.entropy}`;
    let session = this.sessions.get(key);
    if (!session) {
      const o = { config: this.config, ...options };
      const bytes =
        kind === "forward"
          ? headForward(o)
          : kind === "kept"
            ? headBackwardKept(o, trained)
            : headBackwardAgain(o, trained);
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

/** What the mask adds to a logit that counts for nothing. */
export const MASKED = -1e30;

/** Additive mask: 0 for allowed ids (all of them where a row has no set), `MASKED` elsewhere. */
export function maskAllowed(mask: Float32Array, allowed: (Int32Array | null)[], vocab: number): void {
  allowed.forEach((ids, row) => {
    mask.fill(ids ? MASKED : 0, row * vocab, (row + 1) * vocab);
    if (ids) for (const id of ids) mask[row * vocab + id] = 0;
  });
}

/** Adds a row of `source` for each token onto the sums of its row, where that is trained. */
export function addToRows({ ids, sums }: RowSums, tokens: Int32Array, source: Float32Array, width: number): void {
  tokens.forEach((token, i) => {
    const row = ids ? ids.indexOf(token) : token;
    if (row < 0) return;
    for (let j = 0; j < width; j++) sums[row * width + j] += source[i * width + j];
  });
}

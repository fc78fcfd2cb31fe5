import { DivergedError, UserError } from "../../errors.ts";
import { cutTree, joinPieces, type Piece, splitPieces } from "../../forest/cut.ts";
import type { Forest, Tree } from "../../forest/types.ts";
import { countTokens } from "../../forest/walk.ts";
import type { ModelConfig } from "../../model/types.ts";
import { type Runtime, Value } from "../../runtime/index.ts";
import type { HeadSpec, Loss, LossResult, ScoreGradient, Scores, StepResult } from "../types.ts";
import { Buffers } from "./buffers.ts";
import { finalNormGraph, valueHeadGraphs } from "./head-graphs.ts";
import { addToRows, HeadPass, type RowSums } from "./head.ts";
import { EMBEDDING, FINAL_NORM, headName, tokenRows } from "./layers.ts";
import { hasWeightFields, type HeadRows, headRows, matters, type Pack, packTrees } from "./pack.ts";
import type { Parameters } from "./parameters.ts";
import { type Keep, LayerPass, run } from "./pass.ts";
import type { MemoryPlan } from "./plan.ts";
import type { Trained } from "./blocks.ts";
import type { WeightView } from "./weights.ts";

/** No token is scored: a pass for the heads alone. */
const NO_ROWS: HeadRows = {
  count: 0,
  predictor: new Int32Array(0),
  target: new Int32Array(0),
  temperature: new Float32Array(0),
  allowed: null,
  tree: new Int32Array(0),
  segment: new Int32Array(0),
  token: new Int32Array(0),
};

/** A policy's weights and scalar heads. */
export interface ScoringPolicy {
  weights: WeightView;
  head(name: string): { weight: Float32Array; bias: Float32Array };
}

/** Scores forests and differentiates losses over them: packing, cutting, the layers, the heads. */
export class Trainer {
  readonly pass: LayerPass;
  private readonly config: ModelConfig;
  private readonly heads: HeadSpec[];
  private readonly plan: MemoryPlan;
  private readonly full: boolean;
  private readonly tokens: Int32Array | null;
  private readonly headPass: HeadPass;
  private readonly buffers = new Buffers();
  private readonly finalNorm;
  private readonly valueHeads;

  /** `tokens`: ids whose rows of the embedding and the head are trained beside an adapter. */
  constructor(
    runtime: Runtime,
    config: ModelConfig,
    trained: Trained,
    heads: HeadSpec[],
    plan: MemoryPlan,
    tokens: Int32Array | null,
  ) {
    this.tokens = tokens;
    this.config = config;
    this.heads = heads;
    this.plan = plan;
    this.full = trained === "full";
    this.pass = new LayerPass(runtime, config, trained, plan.probBytes);
    this.headPass = new HeadPass(runtime, config);
    const norm = finalNormGraph(config, this.full);
    this.finalNorm = {
      graph: norm,
      forward: runtime.createSession(norm.forward, { name: "final norm" }),
      backward: runtime.createSession(norm.backward, { name: "final norm, backward" }),
    };
    const graphs = valueHeadGraphs(config);
    this.valueHeads = {
      forward: runtime.createSession(graphs.forward, { name: "scalar head" }),
      backward: runtime.createSession(graphs.backward, { name: "scalar head, backward" }),
    };
  }

  /** Scores of every token, no gradient; without `logprobs` of the heads alone. */
  async forward(forest: Forest, policy: ScoringPolicy, logprobs = true): Promise<Scores[]> {
    const scores: Scores[] = [];
    for (const batch of this.batches(forest)) {
      const parts: Scores[] = [];
      for (const group of batch.passes) {
        const pack = packTrees(group.map((piece) => piece.tree));
        const rows = logprobs ? headRows(pack, false) : NO_ROWS;
        parts.push(...(await this.score(pack, policy, rows, "none", true)).scores);
      }
      scores.push(...reassemble(batch.trees, parts));
    }
    return scores;
  }

  /** Adds the loss's gradient onto the sums in `parameters`. Trees in which nothing carries weight are not computed. */
  async forwardBackward(
    forest: Forest,
    loss: Loss,
    policy: ScoringPolicy,
    parameters: Parameters,
  ): Promise<StepResult> {
    const live = forest.filter(matters);
    const total: LossResult = { loss: 0, grads: [], metrics: {} };
    const byTree = new Map<Tree, Scores>();
    const batches = loss.scope === "forest" ? [this.asOneBatch(live)] : this.batches(live);
    for (const batch of batches) {
      const { result, scores } = await this.trainBatch(batch, loss, policy, parameters);
      total.loss += result.loss;
      for (const [name, value] of Object.entries(result.metrics))
        total.metrics[name] = (total.metrics[name] ?? 0) + value;
      batch.trees.forEach(({ tree }, i) => byTree.set(tree, scores[i]));
    }
    return {
      loss: total.loss,
      metrics: total.metrics,
      scores: forest.map((tree) => byTree.get(tree) ?? { logprobs: [], entropy: [], heads: {} }),
      skipped: forest.length - live.length,
    };
  }

  release(): void {
    this.pass.release();
    this.headPass.release();
    this.buffers.clear();
    for (const { forward, backward } of [this.finalNorm, this.valueHeads]) {
      forward.release();
      backward.release();
    }
  }

  /** A batch whose trees fit one pass is computed once; else all scores come first, then the loss, then each pass again. */
  private async trainBatch(
    batch: Batch,
    loss: Loss,
    policy: ScoringPolicy,
    parameters: Parameters,
  ): Promise<{ result: LossResult; scores: Scores[] }> {
    const entropy = loss.entropy ?? false;
    const trees = batch.trees.map(({ tree }) => tree);
    const single = batch.passes.length === 1 && batch.trees.every(({ pieces }) => pieces.length === 1);
    if (single) {
      const pack = packTrees(trees);
      const rows = loss.logprobs === false ? NO_ROWS : headRows(pack, true);
      const scored = await this.score(pack, policy, rows, this.plan.keep, entropy, this.plan.headBytes);
      const result = checked(loss.fn(trees, scored.scores), loss, trees);
      await this.differentiate(pack, rows, policy, parameters, result.grads, scored.keptProbs);
      return { result, scores: scored.scores };
    }
    // A piece without fields of its own is part of a tree that has some.
    const whole = new Set(batch.trees.flatMap(({ tree, pieces }) => (hasWeightFields(tree) ? [] : pieces)));
    const rowsOf = (pack: Pack, group: Piece[]) =>
      loss.logprobs === false ? NO_ROWS : headRows(pack, true, (t) => whole.has(group[t]));
    const parts: Scores[] = [];
    for (const group of batch.passes) {
      const pack = packTrees(group.map((piece) => piece.tree));
      parts.push(...(await this.score(pack, policy, rowsOf(pack, group), "none", entropy)).scores);
    }
    const scores = reassemble(batch.trees, parts);
    const result = checked(loss.fn(trees, scores), loss, trees);
    const grads = distribute(batch.trees, result.grads);
    for (const group of batch.passes) {
      const pack = packTrees(group.map((piece) => piece.tree));
      const rows = rowsOf(pack, group);
      const { keptProbs } = await this.score(pack, policy, rows, this.plan.keep, entropy, this.plan.headBytes);
      await this.differentiate(
        pack,
        rows,
        policy,
        parameters,
        group.map((piece) => grads.get(piece) ?? {}),
        keptProbs,
      );
    }
    return { result, scores };
  }

  private async score(
    pack: Pack,
    policy: ScoringPolicy,
    rows: HeadRows,
    keep: Keep,
    entropy: boolean,
    headBytes = 0,
  ): Promise<{ scores: Scores[]; keptProbs: boolean }> {
    const { hidden, vocab } = this.config;
    const { weights } = policy;
    const x = await this.pass.forward(pack, weights, keep);
    const normed = this.buffers.get("normed", pack.rows * hidden);
    const shape = [pack.rows, hidden];
    const norm = new Value(weights.tensor(FINAL_NORM), [hidden]);
    const outputs: Record<string, Value> = { y: new Value(normed, shape) };
    if (keep !== "none") Object.assign(outputs, this.normResiduals(pack));
    await this.finalNorm.forward.bind({ x: new Value(x, shape), norm }, outputs).run();

    const scores = emptyScores(pack, this.heads);
    const keptProbs = headBytes > 0 && rows.count * vocab * 4 <= headBytes;
    if (rows.count > 0) {
      const scored = await this.headPass.forward(normed, rows, this.headMatrix(weights), {
        keep: keptProbs,
        entropy,
      });
      for (let i = 0; i < rows.count; i++) {
        const target = scores[rows.tree[i]];
        target.logprobs[rows.segment[i]][rows.token[i]] = scored.logprob[i];
        target.entropy[rows.segment[i]][rows.token[i]] = scored.entropy[i];
      }
    }
    for (const spec of this.heads) await this.scalarHead(spec, policy, pack, normed, scores);
    return { scores, keptProbs };
  }

  /** What the final norm's backward reads of its forward. */
  private normResiduals(pack: Pack): Record<string, Value> {
    return Object.fromEntries(
      this.finalNorm.graph.residuals.map(({ name, dims }) => {
        const sizes = dims.map((dim) => (dim === "rows" ? pack.rows : Number(dim)));
        const length = sizes.reduce((a, b) => a * b, 1);
        return [name, new Value(this.buffers.get(`norm.${name}`, length), sizes)];
      }),
    );
  }

  private async scalarHead(
    spec: HeadSpec,
    policy: ScoringPolicy,
    pack: Pack,
    normed: Float32Array,
    scores: Scores[],
  ): Promise<void> {
    const { hidden } = this.config;
    const { weight, bias } = policy.head(spec.name);
    const values = new Float32Array(pack.rows * spec.width);
    const inputs = {
      h: new Value(normed, [pack.rows, hidden]),
      weight: new Value(weight, [spec.width, hidden]),
      bias: new Value(bias, [spec.width]),
    };
    await this.valueHeads.forward.bind(inputs, { value: new Value(values, [pack.rows, spec.width]) }).run();
    pack.trees.forEach((tree, t) => {
      scores[t].heads[spec.name] = tree.segments.map(({ tokens }, s) => {
        const from = pack.start[t][s] * spec.width;
        return values.slice(from, from + tokens.length * spec.width);
      });
    });
  }

  private async differentiate(
    pack: Pack,
    rows: HeadRows,
    policy: ScoringPolicy,
    parameters: Parameters,
    grads: ScoreGradient[],
    keptProbs: boolean,
  ): Promise<void> {
    const { hidden } = this.config;
    const { weights } = policy;
    const shape = [pack.rows, hidden];
    const dHidden = this.buffers.get("dHidden", pack.rows * hidden).fill(0);
    const sums = this.rowSums(headName(this.config), parameters);
    if (rows.count > 0) {
      const pick = (part: "logprobs" | "entropy") =>
        Float32Array.from(
          { length: rows.count },
          (_, i) => grads[rows.tree[i]][part]?.[rows.segment[i]]?.[rows.token[i]] ?? 0,
        );
      const gradients = { logprob: pick("logprobs"), entropy: grads.some((g) => g.entropy) ? pick("entropy") : null };
      await this.headPass.backward(rows, this.headMatrix(weights), gradients, keptProbs, dHidden, sums);
    }
    for (const spec of this.heads) await this.scalarHeadBackward(spec, policy, pack, parameters, grads, dHidden);

    const dx = this.buffers.get("dx", pack.rows * hidden);
    const inputs: Record<string, Value> = {
      x: new Value(this.pass.output(pack, this.plan.keep), shape),
      norm: new Value(weights.tensor(FINAL_NORM), [hidden]),
      dy: new Value(dHidden, shape),
      ...this.normResiduals(pack),
    };
    const outputs: Record<string, Value> = { dx: new Value(dx, shape) };
    if (this.full) {
      inputs["sum.norm"] = outputs["newSum.norm"] = new Value(parameters.gradient(FINAL_NORM), [hidden]);
    }
    await run(this.finalNorm.backward, inputs, outputs);
    const dEmbedded = await this.pass.backward(pack, weights, this.plan.keep, parameters, dx);
    const embedded = this.rowSums(EMBEDDING, parameters);
    if (embedded) addToRows(embedded, pack.tokens, dEmbedded, hidden);
  }

  /** Where the gradients of the embedding's or the head's rows are summed; null where none is trained. */
  private rowSums(matrix: string, parameters: Parameters): RowSums | null {
    if (this.full) return { ids: null, sums: parameters.gradient(matrix) };
    return this.tokens && { ids: this.tokens, sums: parameters.gradient(tokenRows(matrix)) };
  }

  private async scalarHeadBackward(
    spec: HeadSpec,
    policy: ScoringPolicy,
    pack: Pack,
    parameters: Parameters,
    grads: ScoreGradient[],
    dHidden: Float32Array,
  ): Promise<void> {
    if (!grads.some((g) => g.heads?.[spec.name])) return;
    const { hidden } = this.config;
    const dv = new Float32Array(pack.rows * spec.width);
    grads.forEach((grad, t) =>
      grad.heads?.[spec.name]?.forEach((part, s) => dv.set(part, pack.start[t][s] * spec.width)),
    );
    const { weight } = policy.head(spec.name);
    const dh = new Value(dHidden, [pack.rows, hidden]);
    const sumWeight = new Value(parameters.gradient(`${spec.name}.weight`), [spec.width, hidden]);
    const sumBias = new Value(spec.bias ? parameters.gradient(`${spec.name}.bias`) : new Float32Array(spec.width), [
      spec.width,
    ]);
    const inputs = {
      dv: new Value(dv, [pack.rows, spec.width]),
      h: new Value(this.buffers.get("normed", pack.rows * hidden), [pack.rows, hidden]),
      weight: new Value(weight, [spec.width, hidden]),
      dhIn: dh,
      "sum.weight": sumWeight,
      "sum.bias": sumBias,
    };
    await this.valueHeads.backward.bind(inputs, { dh, "newSum.weight": sumWeight, "newSum.bias": sumBias }).run();
  }

  private headMatrix(weights: WeightView): Float32Array {
    return weights.tensor(headName(this.config));
  }

  /** Trees in order, as many to a batch as fit the rows of one pass; a larger tree is a batch of its own, cut. */
  private batches(forest: Forest): Batch[] {
    const batches: Batch[] = [];
    let open: Batch | null = null;
    let rows = 0;
    for (const tree of forest) {
      const size = countTokens(tree);
      if (size === 0) throw new UserError(`tree ${tree.id} has no tokens`);
      if (size > this.plan.rows) {
        batches.push(this.asOneBatch([tree]));
        open = null;
        continue;
      }
      if (!open || rows + size > this.plan.rows) {
        batches.push((open = { trees: [], passes: [[]] }));
        rows = 0;
      }
      const pieces = cutTree(tree, this.plan.rows);
      open.trees.push({ tree, pieces });
      open.passes[0].push(...pieces);
      rows += size;
    }
    return batches;
  }

  private asOneBatch(forest: Forest): Batch {
    const trees = forest.map((tree) => ({ tree, pieces: cutTree(tree, this.plan.rows) }));
    const passes: Piece[][] = [];
    let rows = Infinity;
    for (const piece of trees.flatMap(({ pieces }) => pieces)) {
      const size = countTokens(piece.tree);
      if (rows + size > this.plan.rows) {
        passes.push([]);
        rows = 0;
      }
      passes[passes.length - 1].push(piece);
      rows += size;
    }
    return { trees, passes };
  }
}

/** Trees whose loss is computed at once, and the passes that hold their pieces in order. */
interface Batch {
  trees: { tree: Tree; pieces: Piece[] }[];
  passes: Piece[][];
}

function emptyScores(pack: Pack, heads: HeadSpec[]): Scores[] {
  return pack.trees.map(({ segments }) => ({
    logprobs: segments.map(({ tokens }) => new Float32Array(tokens.length)),
    entropy: segments.map(({ tokens }) => new Float32Array(tokens.length)),
    heads: Object.fromEntries(heads.map(({ name }) => [name, []])),
  }));
}

/** Pieces' scores, in order, as scores of whole trees. */
function reassemble(trees: Batch["trees"], parts: Scores[]): Scores[] {
  let next = 0;
  return trees.map(({ pieces }) => {
    const own = pieces.map(() => parts[next++]);
    if (pieces.length === 1) return own[0];
    const names = Object.keys(own[0].heads);
    return {
      logprobs: joinPieces(
        pieces,
        own.map((part) => part.logprobs),
      ),
      entropy: joinPieces(
        pieces,
        own.map((part) => part.entropy),
      ),
      heads: Object.fromEntries(
        names.map((name) => [
          name,
          joinPieces(
            pieces,
            own.map((part) => part.heads[name]),
          ),
        ]),
      ),
    };
  });
}

/** Whole trees' gradients, handed to the pieces that own the tokens. */
function distribute(trees: Batch["trees"], grads: ScoreGradient[]): Map<Piece, ScoreGradient> {
  const parts = new Map<Piece, ScoreGradient>();
  trees.forEach(({ pieces }, t) => {
    const grad = grads[t];
    const logprobs = grad.logprobs && splitPieces(pieces, grad.logprobs);
    const entropy = grad.entropy && splitPieces(pieces, grad.entropy);
    const heads = Object.entries(grad.heads ?? {}).map(([name, whole]) => [name, splitPieces(pieces, whole)] as const);
    pieces.forEach((piece, p) =>
      parts.set(piece, {
        ...(logprobs ? { logprobs: logprobs[p] } : {}),
        ...(entropy ? { entropy: entropy[p] } : {}),
        ...(heads.length > 0 ? { heads: Object.fromEntries(heads.map(([name, split]) => [name, split[p]])) } : {}),
      }),
    );
  });
  return parts;
}

/** A loss that is not finite stops before any gradient is computed, naming the trees. */
function checked(result: LossResult, loss: Loss, trees: Tree[]): LossResult {
  if (result.grads.length !== trees.length)
    throw new Error(`loss ${loss.name} gave ${result.grads.length} gradients for ${trees.length} trees`);
  const finite = (parts: Float32Array[] = []) => parts.every((part) => part.every(Number.isFinite));
  const bad = trees.filter((_, t) => {
    const { logprobs, entropy, heads } = result.grads[t];
    return ![logprobs, entropy, ...Object.values(heads ?? {})].every(finite);
  });
  if (Number.isFinite(result.loss) && bad.length === 0) return result;
  const names = (bad.length > 0 ? bad : trees).slice(0, 4).map((tree) => tree.id);
  throw new DivergedError(
    `loss ${loss.name} is ${result.loss} or its gradient is not finite for ${names.join(", ")}; no weight was changed`,
  );
}

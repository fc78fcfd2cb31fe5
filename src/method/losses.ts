import type { Loss, LossResult, Scores } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { Segment, Tree } from "../forest/types.ts";

/*
 * Losses are sums over tokens of functions of lp = now.logprobs, q = segment.logprobs (the old policy's) and fields that the
 * method has filled; every mean is already in those fields. r = exp(lp - q).
 *
 * A is the field `advantages`. A token that several paths share with advantages of their own has instead
 *   advantagesUp   = sum over paths of weight * max(A, 0)
 *   advantagesDown = sum over paths of weight * max(-A, 0)
 * from which every loss here is the exact sum over the un-packed paths, being linear in A on either side of zero.
 */

/** Where the ratio stops counting: 1 - eps and 1 + eps of PPO. */
export interface ClipThresholds {
  low: number;
  high: number;
}

/** Value and derivative with respect to lp. */
type Term = [value: number, gradient: number];

/** Sum of -w lp (`weights`; any sign). */
export function crossEntropy(): Loss {
  return tokenLoss("cross_entropy", {}, (segment, i, lp) => {
    const weight = segment.fields.weights?.[i] ?? 0;
    return weight === 0 ? null : { term: [-weight * lp, -weight] };
  });
}

/** Sum of -r A. Policy gradient with importance weights; its gradient at q = lp is REINFORCE's. */
export function importanceSampling(): Loss {
  return tokenLoss("importance_sampling", {}, (segment, i, lp) => {
    const { up, down } = advantagesOf(segment, i);
    if (up === 0 && down === 0) return null;
    const ratio = Math.exp(lp - oldLogprob(segment, i));
    return { term: [-ratio * (up - down), -ratio * (up - down)], metrics: { ratio } };
  });
}

/** Sum of -min(r A, clip(r, low, high) A): PPO's clipped surrogate (Schulman et al. 2017, eq. 7). */
export function ppo(clip: ClipThresholds): Loss {
  return tokenLoss("ppo", clipConfig(clip), (segment, i, lp) => {
    const { up, down } = advantagesOf(segment, i);
    if (up === 0 && down === 0) return null;
    const ratio = Math.exp(lp - oldLogprob(segment, i));
    const { term, clipped } = clippedSurrogate(ratio, up, down, clip);
    return { term, metrics: { ratio, clipped } };
  });
}

/** Sum of -sg(clip(r, low, high)) lp A: clips the weight, not the token (CISPO, MiniMax-M1 2025, eq. 4). */
export function cispo(clip: ClipThresholds): Loss {
  return tokenLoss("cispo", clipConfig(clip), (segment, i, lp) => {
    const { up, down } = advantagesOf(segment, i);
    if (up === 0 && down === 0) return null;
    const ratio = Math.exp(lp - oldLogprob(segment, i));
    const weight = Math.min(Math.max(ratio, clip.low), clip.high) * (up - down);
    const clipped = ratio < clip.low || ratio > clip.high ? 1 : 0;
    return { term: [-weight * lp, -weight], metrics: { ratio, clipped } };
  });
}

/**
 * Sum of -min(s A, clip(s, low, high) A), where all tokens of a response share the ratio s = exp(mean of lp - q over them): GSPO (arXiv
 * 2507.18071, eq. 5 and 7). Its gradient in a token's lp is s A within the bounds: that of the sum where w A is one number a response, and
 * GSPO-token's (eq. 15) where tokens have advantages of their own. A response is a segment's tokens with `weights` other than 0, which all of its
 * tokens must have for their log-probs to be computed; one that continues another such segment is a UserError.
 */
export function gspo(clip: ClipThresholds): Loss {
  const fn = (trees: Tree[], now: Scores[]): LossResult => {
    let loss = 0;
    const metrics = { tokens: 0, ratio: 0, clipped: 0 };
    const grads = trees.map((tree, t) => ({
      logprobs: tree.segments.map((segment, s) => {
        const gradient = new Float32Array(segment.tokens.length);
        const lps = now[t].logprobs[s];
        const ratio = sequenceRatio(tree, segment, lps);
        if (ratio === undefined) return gradient;
        for (let i = 0; i < gradient.length; i++) {
          const { up, down } = advantagesOf(segment, i);
          if (up === 0 && down === 0) continue;
          const { term, clipped } = clippedSurrogate(ratio, up, down, clip);
          loss += term[0];
          gradient[i] = term[1];
          metrics.tokens++;
          metrics.ratio += ratio;
          metrics.clipped += clipped;
        }
        return gradient;
      }),
    }));
    return { loss, grads, metrics };
  };
  return { name: "gspo", config: clipConfig(clip), scope: "tree", fn };
}

/** exp of the mean log ratio of a segment's tokens that have a weight; undefined where none has one. */
function sequenceRatio(tree: Tree, segment: Segment, lps: Float32Array): number | undefined {
  const { weights, advantages, advantagesUp, advantagesDown } = segment.fields;
  if (weights === undefined || weights.every((weight) => weight === 0)) {
    if ([advantages, advantagesUp, advantagesDown].some((field) => field?.some((value) => value !== 0))) {
      throw new UserError(`tree ${tree.id}: a ratio of whole responses needs the field weights on all of their tokens`);
    }
    return undefined;
  }
  for (let above = segment.parent; above >= 0; above = tree.segments[above].parent) {
    if (tree.segments[above].fields.weights?.some((weight) => weight !== 0)) {
      throw new UserError(
        `tree ${tree.id}: a ratio of whole responses needs each of them in one segment, and here one continues another`,
      );
    }
  }
  let sum = 0;
  let count = 0;
  weights.forEach((weight, i) => {
    if (weight === 0) return;
    sum += lps[i] - oldLogprob(segment, i);
    count++;
  });
  return Math.exp(sum / count);
}

/**
 * A surrogate plus the sum of w beta k3 (DeepSeekMath, arXiv 2402.03300, eq. 3 and 4), where `weights` is each token's weight w in the mean, which
 * the surrogate's advantages hold already. Reads `refLogprobs`. Adds the metric `kl`, a sum over the tokens with weight.
 */
export function withKl(surrogate: Loss, beta: number): Loss {
  const penalty = tokenLoss("k3", {}, (segment, i, lp) => {
    const weight = segment.fields.weights?.[i] ?? 0;
    if (weight === 0) return null;
    const [kl, slope] = k3(lp, required(segment.fields.refLogprobs, "the field refLogprobs")[i]);
    return { term: [weight * beta * kl, weight * beta * slope], metrics: { kl } };
  });
  const fn = (trees: Tree[], now: Scores[]): LossResult => {
    const [of, by] = [surrogate.fn(trees, now), penalty.fn(trees, now)];
    const grads = of.grads.map(({ logprobs = [] }, t) => ({
      logprobs: logprobs.map((part, s) => part.map((g, i) => g + (by.grads[t].logprobs?.[s][i] ?? 0))),
    }));
    return { loss: of.loss + by.loss, grads, metrics: { ...by.metrics, ...of.metrics } };
  };
  const { name, config, scope } = surrogate;
  return { name: name === "ppo" ? "grpo" : `${name}_kl`, config: { ...config, beta }, scope, fn };
}

/**
 * Sum of w / 2 max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2): PPO's clipped value loss (Schulman et al.'s code; ReFT, arXiv
 * 2401.08967, section 3.2), where V is what the scalar head `head` says before the token: the value of the state in which it was
 * chosen. Reads `weights` (w), `returns` (R) and `oldValues` (V_old). eps 0: no clipping. Sums as metrics: `valueClipped`, `valueTokens`.
 */
export function clippedValue({ head, clip }: { head: string; clip: number }): Loss {
  const fn = (trees: Tree[], now: Scores[]): LossResult => {
    let loss = 0;
    const metrics = { valueClipped: 0, valueTokens: 0 };
    const grads = trees.map((tree, t) => {
      const values = now[t].heads[head];
      const gradient = values.map((part) => new Float32Array(part.length));
      eachDecision(tree, (segment, i, before) => {
        const weight = segment.fields.weights?.[i] ?? 0;
        if (weight === 0 || before === undefined) return;
        const target = required(segment.fields.returns, "the field returns")[i];
        const old = required(segment.fields.oldValues, "the field oldValues")[i];
        const value = values[before.segment][before.token];
        const limited = clip === 0 ? value : Math.min(Math.max(value, old - clip), old + clip);
        const free = (value - target) ** 2;
        const held = (limited - target) ** 2;
        const clipped = held > free && limited !== value;
        loss += (weight / 2) * Math.max(free, held);
        if (!clipped) gradient[before.segment][before.token] += weight * (value - target);
        metrics.valueClipped += Number(clipped);
        metrics.valueTokens++;
      });
      return { heads: { [head]: gradient } };
    });
    return { loss, grads, metrics };
  };
  return { name: "clipped_value", config: { value_clip: clip }, scope: "tree", logprobs: false, fn };
}

/** `ppo` plus `coefficient` times `clippedValue`; the metrics `policyLoss` and `valueLoss` (without the coefficient) are its parts. */
export function ppoValue(settings: {
  clip: ClipThresholds;
  head: string;
  valueClip: number;
  coefficient: number;
}): Loss {
  const { head, coefficient } = settings;
  const policy = ppo(settings.clip);
  const value = clippedValue({ head, clip: settings.valueClip });
  const fn = (trees: Tree[], now: Scores[]): LossResult => {
    const ofPolicy = policy.fn(trees, now);
    const ofValue = value.fn(trees, now);
    const grads = ofPolicy.grads.map((grad, t) => ({
      ...grad,
      heads: { [head]: ofValue.grads[t].heads?.[head].map((part) => part.map((g) => coefficient * g)) ?? [] },
    }));
    const loss = ofPolicy.loss + coefficient * ofValue.loss;
    const parts = { policyLoss: ofPolicy.loss, valueLoss: ofValue.loss };
    return { loss, grads, metrics: { ...ofPolicy.metrics, ...ofValue.metrics, ...parts } };
  };
  return { name: "ppo_value", config: { ...policy.config, ...value.config, coefficient }, scope: "tree", fn };
}

/** What a scalar head says before each token of a segment: the value of the state in which that token was chosen. */
export function valuesBefore(tree: Tree, { heads }: Scores, head: string): Float32Array[] {
  const values = tree.segments.map(({ tokens }) => new Float32Array(tokens.length));
  eachDecision(tree, (_, i, before, s) => {
    if (before !== undefined) values[s][i] = heads[head][before.segment][before.token];
  });
  return values;
}

/** Each token of a tree with the place of the one before it on its path; a path's first token has none. */
function eachDecision(
  { segments }: Tree,
  visit: (segment: Segment, i: number, before: Place | undefined, s: number) => void,
): void {
  const last: (Place | undefined)[] = [];
  segments.forEach((segment, s) => {
    let before = segment.parent < 0 ? undefined : last[segment.parent];
    for (let i = 0; i < segment.tokens.length; i++) {
      visit(segment, i, before, s);
      before = { segment: s, token: i };
    }
    last[s] = before;
  });
}

/** A token: its segment, and its place there. */
interface Place {
  segment: number;
  token: number;
}

/** Schulman's k1, lp - ref: the unbiased estimate of KL(policy || reference) from the policy's own tokens. */
export function k1(lp: number, ref: number): number {
  return lp - ref;
}

/** Schulman's k3, exp(ref - lp) - (ref - lp) - 1 (DeepSeekMath, eq. 4): unbiased, never negative; with its derivative in lp. */
export function k3(lp: number, ref: number): Term {
  const difference = ref - lp;
  return [Math.exp(difference) - difference - 1, 1 - Math.exp(difference)];
}

/** -(up min(r, high) - down max(r, low)) and its derivative in lp. */
function clippedSurrogate(ratio: number, up: number, down: number, clip: ClipThresholds) {
  const cutUp = up > 0 && ratio > clip.high;
  const cutDown = down > 0 && ratio < clip.low;
  const value = down * Math.max(ratio, clip.low) - up * Math.min(ratio, clip.high);
  const gradient = ratio * ((cutDown ? 0 : down) - (cutUp ? 0 : up));
  const term: Term = [value, gradient];
  return { term, clipped: cutUp || cutDown ? 1 : 0 };
}

function advantagesOf(segment: Segment, i: number): { up: number; down: number } {
  const { advantages, advantagesUp, advantagesDown } = segment.fields;
  const advantage = advantages?.[i] ?? 0;
  return {
    up: Math.max(advantage, 0) + (advantagesUp?.[i] ?? 0),
    down: Math.max(-advantage, 0) + (advantagesDown?.[i] ?? 0),
  };
}

const oldLogprob = (segment: Segment, i: number) => required(segment.logprobs, "logprobs of the old policy")[i];

function required(values: Float32Array | undefined, what: string): Float32Array {
  if (!values) throw new UserError(`a segment that carries weight in the loss lacks ${what}`);
  return values;
}

const clipConfig = (clip: ClipThresholds) => ({ clip_low_threshold: clip.low, clip_high_threshold: clip.high });

/** A loss that is a sum over tokens; `term` gives null for a token without weight. Metrics count such tokens as `tokens`. */
function tokenLoss(
  name: string,
  config: Record<string, number>,
  term: (segment: Segment, i: number, lp: number) => { term: Term; metrics?: Record<string, number> } | null,
): Loss {
  const fn = (trees: Tree[], now: Scores[]): LossResult => {
    let loss = 0;
    const metrics: Record<string, number> = { tokens: 0 };
    const grads = trees.map((tree, t) => ({
      logprobs: tree.segments.map((segment, s) => {
        const gradient = new Float32Array(segment.tokens.length);
        for (let i = 0; i < gradient.length; i++) {
          const found = term(segment, i, now[t].logprobs[s][i]);
          if (!found) continue;
          loss += found.term[0];
          gradient[i] = found.term[1];
          metrics.tokens++;
          for (const key in found.metrics) metrics[key] = (metrics[key] ?? 0) + found.metrics[key];
        }
        return gradient;
      }),
    }));
    return { loss, grads, metrics };
  };
  return { name, config, scope: "tree", fn };
}

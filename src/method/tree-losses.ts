import type { Loss, LossResult, Scores } from "../engine/types.ts";
import type { Tree } from "../forest/types.ts";

/**
 * Sum over the decisions of a search of -w sum_a pi(a) Q(a): the policy gradient of a choice among actions whose values are known, all of
 * them at once instead of the one that was taken (Sutton et al. 2000; Ciosek and Whiteson 2018, arXiv 1706.05374). Its gradient in log pi(a) is
 * -w pi(a) (Q(a) - sum_b pi(b) Q(b)). The actions are the children of one segment that have the field `actionValues` (Q), one token each; pi is
 * renormalised over them; w is `weights`, the same for all of a decision. Metric `decisions`.
 */
export function allActions(): Loss {
  const fn = (trees: Tree[], now: Scores[]): LossResult => {
    let loss = 0;
    let decisions = 0;
    const grads = trees.map(({ segments }, t) => {
      const logprobs = segments.map(({ tokens }) => new Float32Array(tokens.length));
      const found = new Map<number, number[]>();
      segments.forEach(({ parent, fields }, s) => {
        if (fields.actionValues !== undefined) found.set(parent, [...(found.get(parent) ?? []), s]);
      });
      for (const actions of found.values()) {
        const weight = segments[actions[0]].fields.weights[0];
        if (weight === 0) continue;
        const values = actions.map((s) => segments[s].fields.actionValues[0]);
        const policy = renormalised(actions.map((s) => now[t].logprobs[s][0]));
        const mean = policy.reduce((sum, p, a) => sum + p * values[a], 0);
        loss -= weight * mean;
        actions.forEach((s, a) => (logprobs[s][0] = -weight * policy[a] * (values[a] - mean)));
        decisions++;
      }
      return { logprobs };
    });
    return { loss, grads, metrics: { decisions } };
  };
  return { name: "all_actions", config: {}, scope: "tree", fn };
}

/** The probabilities of these log-probs among themselves. */
export function renormalised(logprobs: readonly number[]): number[] {
  const most = Math.max(...logprobs);
  const parts = logprobs.map((logprob) => Math.exp(logprob - most));
  const total = parts.reduce((sum, part) => sum + part, 0);
  return parts.map((part) => part / total);
}

/**
 * Sum of -w (y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))), x being what the scalar head says at a segment's last token and y the field
 * `stepValues` there, a value from 0 to 1; w is `weights` there. Metrics: `processLoss` (without the coefficient), `processError`, the
 * sum of |sigmoid(x) - y|, and `processSteps`.
 */
export function stepValues({ head, coefficient }: { head: string; coefficient: number }): Loss {
  const fn = (trees: Tree[], now: Scores[]): LossResult => {
    const metrics = { processLoss: 0, processError: 0, processSteps: 0 };
    const grads = trees.map(({ segments }, t) => {
      const heads = now[t].heads[head].map((part) => new Float32Array(part.length));
      segments.forEach(({ fields, tokens }, s) => {
        const last = tokens.length - 1;
        const weight = fields.stepValues === undefined ? 0 : fields.weights[last];
        if (weight === 0) return;
        const target = fields.stepValues[last];
        const score = now[t].heads[head][s][last];
        const slope = sigmoid(score) - target;
        metrics.processLoss += weight * (Math.max(0, score) + Math.log1p(Math.exp(-Math.abs(score))) - target * score);
        metrics.processError += Math.abs(slope);
        metrics.processSteps++;
        heads[s][last] = coefficient * weight * slope;
      });
      return { heads: { [head]: heads } };
    });
    return { loss: coefficient * metrics.processLoss, grads, metrics };
  };
  return { name: "step_values", config: { coefficient }, scope: "tree", logprobs: false, fn };
}

export const sigmoid = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

/** The sum of losses; their metrics side by side. */
export function sumOf(name: string, losses: readonly Loss[]): Loss {
  const fn = (trees: Tree[], now: Scores[]): LossResult => {
    const results = losses.map((loss) => loss.fn(trees, now));
    const grads = trees.map(({ segments }, t) => {
      const logprobs = segments.map(({ tokens }) => new Float32Array(tokens.length));
      for (const { grads } of results) {
        grads[t].logprobs?.forEach((part, s) => part.forEach((g, i) => (logprobs[s][i] += g)));
      }
      return { logprobs, heads: Object.assign({}, ...results.map(({ grads }) => grads[t].heads ?? {})) };
    });
    const metrics = Object.assign({}, ...results.map((result) => result.metrics));
    return { loss: results.reduce((sum, { loss }) => sum + loss, 0), grads, metrics };
  };
  const config = Object.assign({}, ...losses.map((loss) => loss.config));
  return { name, config, scope: "tree", fn };
}

import type { Loss } from "../engine/types.ts";
import type { Segment } from "../forest/types.ts";
import {
  checkFinite,
  groupAdvantages,
  leaveOneOutAdvantages,
  type Normalization,
  tokenWeights,
  whiten,
} from "./advantages.ts";
import { cispo, gspo, importanceSampling, k1, ppo, withKl } from "./losses.ts";

/*
 * The parts that the group-relative methods are made of. `tokenAdvantages` turns the rewards of a step into an advantage a token, `setFields` puts
 * a minibatch's normalisation into the forest's fields, `objective` is the loss over them.
 */

/** What a reward is compared with. */
export const BASELINES = ["group", "leave-one-out", "batch", "running"] as const;
/** Whose standard deviation an advantage is divided by. */
export const SCALES = ["group", "batch", "none"] as const;
/** What has a probability ratio of its own: each token, or a response as a whole. */
export const RATIOS = ["token", "sequence"] as const;
/** What is clipped at the ratio's bounds: PPO's surrogate, the weight of a token's log-prob, or nothing. */
export const CLIPS = ["surrogate", "weight", "none"] as const;
/** Where the KL penalty acts: k3 inside the loss; k1 charged to its token, to the whole response's reward, or to its token and all before it. */
export const KLS = ["k3", "k1", "reward", "return"] as const;

export interface AdvantageParts {
  baseline: (typeof BASELINES)[number];
  scale: (typeof SCALES)[number];
  kl: (typeof KLS)[number];
  /** Weight of the KL penalty; 0: none. */
  beta: number;
}

export interface LossParts {
  ratio: (typeof RATIOS)[number];
  clip: (typeof CLIPS)[number];
  /** The ratio counts within [1 - clipLow, 1 + clipHigh]; absent where nothing is clipped. */
  clipLow?: number;
  clipHigh?: number;
  normalize: Normalization;
  kl: (typeof KLS)[number];
  beta: number;
}

/** A group's rewards and responses, which hold `logprobs` and, with a KL penalty, the field `refLogprobs`. */
export interface ScoredGroup {
  /** Its tree's id, for errors. */
  tree: string;
  rewards_G: number[];
  responses_G: Segment[];
}

/**
 * Each token's advantage, [group][sample][token]. Where `kl = "reward"`, the rewards hold it already (`klRewards`). `running`: the mean reward so far, for the baseline of that name; absent before the first step,
 * which is compared with its own mean.
 */
export function tokenAdvantages(
  groups: ScoredGroup[],
  { baseline, scale, kl, beta }: AdvantageParts,
  running?: number,
): Float64Array[][] {
  for (const { tree, rewards_G } of groups) checkFinite(rewards_G, tree);
  const mean = running ?? meanOf(groups.flatMap(({ rewards_G }) => rewards_G));
  const advantages = groups.map(({ tree, rewards_G, responses_G }) => {
    const centred_G = {
      group: () => groupAdvantages(rewards_G, tree, scale === "group"),
      "leave-one-out": () => leaveOneOutAdvantages(rewards_G, tree),
      batch: () => Float64Array.from(rewards_G),
      running: () => Float64Array.from(rewards_G, (reward) => reward - mean),
    }[baseline]();
    return responses_G.map((response, i) => {
      const advantages_T = new Float64Array(response.tokens.length).fill(centred_G[i]);
      if (beta === 0 || kl === "k3" || kl === "reward") return advantages_T;
      const costs_T = kl === "k1" ? k1s(response) : k1Sums(response);
      return advantages_T.map((advantage, t) => advantage - beta * costs_T[t]);
    });
  });
  if (scale !== "batch" && baseline !== "batch") return advantages;
  const white = whiten(advantages.flat(), scale === "batch");
  let at = 0;
  return advantages.map((samples) => samples.map(() => white[at++]));
}

/** Each response's reward less beta times its sum of k1 (`kl = "reward"`; RLOO, arXiv 2402.14740, eq. 2). */
export function klRewards(rewards_G: number[], responses_G: Segment[], beta: number): number[] {
  return rewards_G.map((reward, i) => reward - beta * k1Sums(responses_G[i])[0]);
}

/** k1 of each token: log p_old - log p_ref. */
function k1s({ logprobs, fields }: Segment): Float64Array {
  return Float64Array.from(logprobs ?? [], (lp, t) => k1(lp, fields.refLogprobs[t]));
}

/** At each token the sum of k1 over it and all that follow. */
function k1Sums(response: Segment): Float64Array {
  const sums_T = k1s(response);
  for (let t = sums_T.length - 2; t >= 0; t--) sums_T[t] += sums_T[t + 1];
  return sums_T;
}

const meanOf = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** A response with its tokens' advantages. */
export interface CreditedResponse {
  response: Segment;
  advantages_T: Float64Array;
}

/**
 * Fills the fields of a minibatch's responses: `advantages`, each token's advantage times its weight in the minibatch's mean, and `weights`, that
 * weight, where the loss reads it. `maxTokens`: the longest response, for the normalisation of that name.
 */
export function setFields(
  minibatch: CreditedResponse[],
  { normalize, ratio, kl, beta }: Pick<LossParts, "normalize" | "ratio" | "kl" | "beta">,
  maxTokens?: number,
): void {
  const lengths = minibatch.map(({ response }) => response.tokens.length);
  const weights = tokenWeights(lengths, normalize, maxTokens);
  minibatch.forEach(({ response: { fields }, advantages_T }, i) => {
    fields.advantages = Float32Array.from(advantages_T, (advantage) => weights[i] * advantage);
    const penalised = kl === "k3" && beta > 0;
    // A response's ratio needs the log-probs of all its tokens; without an advantage it has nothing to weigh.
    const whole = ratio === "sequence" && advantages_T.some((advantage) => advantage !== 0);
    if (penalised || whole) fields.weights = new Float32Array(lengths[i]).fill(weights[i]);
  });
}

/** The loss over these fields: a clipped surrogate, with the k3 penalty where there is one (k1's stands in the advantages). */
export function objective({
  ratio,
  clip,
  clipLow = 1,
  clipHigh = Infinity,
  kl,
  beta,
}: Omit<LossParts, "normalize">): Loss {
  const bounds = clip === "none" ? { low: 0, high: Infinity } : { low: 1 - clipLow, high: 1 + clipHigh };
  const ofTokens = { surrogate: ppo, weight: cispo, none: importanceSampling };
  const surrogate = ratio === "sequence" ? gspo(bounds) : ofTokens[clip](bounds);
  return { ...(kl === "k3" && beta > 0 ? withKl(surrogate, beta) : surrogate), entropy: true };
}

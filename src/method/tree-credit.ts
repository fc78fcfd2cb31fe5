import type { Segment, Tree } from "../forest/types.ts";
import type { SearchNode } from "../rollout/search.ts";
import { groupAdvantages, isFlat, meanAndStd } from "./advantages.ts";
import { k1 } from "./losses.ts";
import { renormalised } from "./tree-losses.ts";

/** A way from the prompt to an end. */
export interface Path {
  /** Its segments after the prompt, in order. */
  segments: number[];
  /** How often it counts. */
  count: number;
  reward: number;
  /** What its steps earn where they end, instead of the reward at the path's end: segment and amount. */
  placed?: { segment: number; reward: number }[];
}

/** What one question came to. */
export interface Explored {
  tree: Tree;
  /** Of a search; none of plain samples. */
  nodes: SearchNode[];
  paths: Path[];
  /** The process reward model's score after each node's step, by node. */
  scores: Map<number, number>;
}

export interface CreditSettings {
  advantages: "group" | "tree" | "whiten";
  /** Where V comes from: the children's values weighed by the policy, or the search's visits. */
  values: "policy" | "visits";
  searchTokens: "expected" | "paper" | "masked";
  /** Weight of the KL cost inside the reward. */
  beta: number;
  scaleByStd: boolean;
  /** Leaves out questions whose paths all have the same reward. */
  dropFlatGroups: boolean;
  /** Weight of the difference that a step makes to the process reward model's score. */
  stepCredit: number;
}

/** Advantages of a path's trained tokens, by segment. */
export interface PathCredit {
  path: Path;
  advantages: Map<number, Float64Array>;
}

/** The actions among which a search chose at a node, by the segments of their tokens, where at least two have values. */
export interface Decision {
  actions: { segment: number; value: number }[];
}

/** What a question's tokens are to learn, before it is weighed. */
export interface Credit {
  tree: Tree;
  /** All rewards are equal. */
  flat: boolean;
  /** Paths with advantages of their own; none where each token counts once. */
  paths: PathCredit[];
  /** Advantages of tokens that count once, by segment. */
  once: Map<number, Float64Array>;
  decisions: Decision[];
}

/** Whether a question is trained; with `stepCredit` one of equal rewards teaches too. */
export const isKept = (
  { flat }: Pick<Credit, "flat">,
  s: Pick<CreditSettings, "dropFlatGroups" | "stepCredit">,
): boolean => !(flat && s.dropFlatGroups && s.stepCredit === 0);

/** A function's token that a search chose, and nothing else. */
export const isChoice = ({ allowed }: Segment): boolean => allowed !== undefined;

/** Whether a segment's tokens are trained as if the policy had sampled them. */
function trained(segment: Segment, { searchTokens }: CreditSettings): boolean {
  return isChoice(segment) ? searchTokens === "paper" : segment.source === "policy";
}

/**
 * V of every node that a rollout visited: Q/N of the search's visits, which its exploration bends away from the policy, or, where the policy says
 * how likely each function is, V(n) = sum over the expanded functions of pi(a) Q(a) with pi renormalised over them and Q(a) the mean of V over the
 * function's texts, which the policy sampled; of a leaf its value.
 */
export function nodeValues(nodes: readonly SearchNode[], from: CreditSettings["values"]): Map<number, number> {
  const values = new Map<number, number>();
  for (const node of nodes.toReversed()) {
    if (node.N === 0) continue;
    if (node.end !== undefined) values.set(node.id, node.value ?? 0);
    else if (from === "visits") values.set(node.id, node.Q / node.N);
    else {
      const actions = actionsOf(nodes, node, values, from);
      const policy = renormalised(actions.map(({ fn }) => node.logprobs[node.allowed.indexOf(fn)]));
      values.set(
        node.id,
        actions.reduce((sum, { value }, a) => sum + policy[a] * value, 0),
      );
    }
  }
  return values;
}

/** The functions that were expanded at a node, and what each is worth. */
function actionsOf(
  nodes: readonly SearchNode[],
  { id, allowed }: SearchNode,
  values: ReadonlyMap<number, number>,
  from: CreditSettings["values"],
) {
  const children = nodes.filter(({ parent, N }) => parent === id && N > 0);
  return allowed.flatMap((fn) => {
    const own = children.filter((child) => child.fn === fn);
    if (own.length === 0) return [];
    const sum = (of: (child: SearchNode) => number) => own.reduce((total, child) => total + of(child), 0);
    const value =
      from === "visits"
        ? sum(({ Q }) => Q) / sum(({ N }) => N)
        : sum((child) => values.get(child.id) ?? 0) / own.length;
    return [{ fn, segment: own[0].choice, value }];
  });
}

/**
 * Advantages of a step's trees.
 *
 * - `group`: the path's reward relative to its question's other paths, minus beta times the KL cost still to come (k1).
 * - `whiten`: the returns of the rewards as they are placed, minus that cost, whitened over all tokens of all paths that are trained (REINFORCE++, arXiv
 *   2501.03262; RFTT). A token that several paths share has a return on each of them, and counts in mean and variance once for each.
 * - `tree`: V(n) - V(parent) for the tokens of step n, each once, minus beta times their own KL cost.
 *
 * Only the KL of trained tokens is a cost; functions that are trained by all actions have their own cost in their value. Their values are on the scale of
 * the advantages around them: divided by the group's deviation, or by the whitening's.
 *
 * With `stepCredit` a step, its function included, also gets that times the difference which it made to the process reward model's score, never a
 * sum of scores: that would pay for length.
 */
export function creditOf(explored: readonly Explored[], settings: CreditSettings): Credit[] {
  const credits = explored.map((one): Credit => {
    const { tree, paths } = one;
    const rewards = paths.map(({ reward }) => reward);
    const flat = isFlat(rewards);
    const divided = settings.scaleByStd && settings.advantages !== "whiten";
    // Of equal rewards only the KL cost is left.
    const scale = flat ? 0 : divided ? 1 / (stdOf(paths) + 1e-4) : 1;
    const values = nodeValues(one.nodes, settings.values);
    const empty = { tree, flat, paths: [], once: new Map<number, Float64Array>() };
    const decisions =
      settings.searchTokens === "expected" && !(flat && settings.beta === 0 && settings.stepCredit === 0)
        ? decisionsOf(one, values, scale, settings)
        : [];
    if (settings.advantages === "tree") {
      return { ...empty, once: stepAdvantages(one, values, scale, settings), decisions };
    }
    return { ...empty, paths: pathAdvantages(one, settings), decisions };
  });
  if (settings.advantages === "whiten") whiten(credits.filter((credit) => isKept(credit, settings)));
  for (const [i, credit] of credits.entries()) addStepCredit(credit, explored[i], settings);
  return credits;
}

/** Of a group's rewards, each as often as it counts. */
const rewardsOf = (paths: readonly Path[]) =>
  paths.flatMap(({ reward, count }) => Array.from({ length: count }, () => reward));

const stdOf = (paths: readonly Path[]) => (paths.length === 0 ? 0 : meanAndStd(rewardsOf(paths)).std);

function pathAdvantages({ tree, paths }: Explored, settings: CreditSettings): PathCredit[] {
  const relative = groupAdvantages(rewardsOf(paths), tree.id, settings.scaleByStd);
  let at = 0;
  return paths.map((path) => {
    const outcome = relative[at];
    at += path.count;
    const advantages = new Map<number, Float64Array>();
    const placed = path.placed ?? [{ segment: path.segments[path.segments.length - 1], reward: path.reward }];
    let toCome = settings.advantages === "group" ? outcome : 0;
    for (const s of path.segments.toReversed()) {
      const segment = tree.segments[s];
      if (settings.advantages === "whiten") {
        for (const one of placed) if (one.segment === s) toCome += one.reward;
      }
      if (!trained(segment, settings)) continue;
      const values = new Float64Array(segment.tokens.length);
      for (let i = values.length - 1; i >= 0; i--) values[i] = toCome -= klCost(segment, i, settings.beta);
      advantages.set(s, values);
    }
    return { path, advantages };
  });
}

/** beta (log p_old - log p_ref) of a token. */
export function klCost({ logprobs, fields }: Segment, i: number, beta: number): number {
  return beta === 0 || logprobs === undefined ? 0 : beta * k1(logprobs[i], fields.refLogprobs[i]);
}

/**
 * (A - mean) / sqrt(max(var, 1e-8)) over all tokens of all paths, each as often as its path counts; the population's variance (as OpenRLHF has it). Actions
 * are compared with each other, so that theirs need the scale alone.
 */
function whiten(credits: readonly Credit[]): void {
  const paths = credits.flatMap((credit) => credit.paths);
  let tokens = 0;
  let sum = 0;
  let squares = 0;
  const each = (visit: (value: number, count: number) => void) => {
    for (const { path, advantages } of paths) {
      for (const values of advantages.values()) for (const value of values) visit(value, path.count);
    }
  };
  each((value, count) => {
    tokens += count;
    sum += count * value;
  });
  const mean = sum / tokens;
  each((value, count) => (squares += count * (value - mean) ** 2));
  const scale = Math.sqrt(Math.max(squares / tokens, 1e-8));
  for (const { advantages } of paths) {
    for (const values of advantages.values()) values.forEach((value, i) => (values[i] = (value - mean) / scale));
  }
  for (const { decisions } of credits) {
    for (const { actions } of decisions) for (const action of actions) action.value /= scale;
  }
}

function stepAdvantages(
  { tree, nodes }: Explored,
  values: ReadonlyMap<number, number>,
  scale: number,
  settings: CreditSettings,
): Map<number, Float64Array> {
  const once = new Map<number, Float64Array>();
  const set = (s: number, advantage: number) => {
    const segment = tree.segments[s];
    if (!trained(segment, settings)) return;
    once.set(
      s,
      Float64Array.from(segment.tokens, (_, i) => scale * advantage - klCost(segment, i, settings.beta)),
    );
  };
  for (const node of nodes) {
    const value = values.get(node.id);
    const before = values.get(node.parent);
    if (value === undefined || before === undefined) continue;
    set(node.segment, value - before);
    const action = actionsOf(nodes, nodes[node.parent], values, settings.values).find(({ fn }) => fn === node.fn);
    set(node.choice, (action?.value ?? value) - before);
  }
  return once;
}

function decisionsOf(
  { tree, nodes }: Explored,
  values: ReadonlyMap<number, number>,
  scale: number,
  settings: CreditSettings,
): Decision[] {
  return nodes.flatMap((node) => {
    const actions = actionsOf(nodes, node, values, settings.values);
    if (actions.length < 2) return [];
    return [
      {
        actions: actions.map(({ segment, value }) => ({
          segment,
          // As for the tokens around it, KL is a cost of the action itself.
          value: scale * value - klCost(tree.segments[segment], 0, settings.beta),
        })),
      },
    ];
  });
}

/**
 * Adds stepCredit (s(n) - s(parent)) to a step's tokens, and to the value of an action the mean over its texts; the first steps of a question are compared with
 * their mean.
 */
function addStepCredit(
  { paths, once, decisions }: Credit,
  { nodes, scores }: Explored,
  { stepCredit }: CreditSettings,
): void {
  if (stepCredit === 0) return;
  const ofChoice = new Map<number, number[]>();
  for (const [id, difference] of stepDifferences(nodes, scores)) {
    const { segment, choice } = nodes[id];
    ofChoice.set(choice, [...(ofChoice.get(choice) ?? []), difference]);
    for (const advantages of [once, ...paths.map((path) => path.advantages)]) {
      for (const s of [segment, choice]) {
        advantages.get(s)?.forEach((value, i, own) => (own[i] = value + stepCredit * difference));
      }
    }
  }
  for (const action of decisions.flatMap(({ actions }) => actions)) {
    const differences = ofChoice.get(action.segment);
    if (differences !== undefined) action.value += stepCredit * meanAndStd(differences).mean;
  }
}

/** What each step changes of the process reward model's score, by node. */
export function stepDifferences(
  nodes: readonly SearchNode[],
  scores: ReadonlyMap<number, number>,
): Map<number, number> {
  const first = nodes.filter(({ id, depth }) => depth === 1 && scores.has(id)).map(({ id }) => scores.get(id) ?? 0);
  const start = scores.get(0) ?? (first.length === 0 ? 0 : meanAndStd(first).mean);
  const differences = new Map<number, number>();
  for (const { id, parent, depth } of nodes) {
    const after = scores.get(id);
    const before = depth === 1 ? start : scores.get(parent);
    if (depth > 0 && after !== undefined && before !== undefined) differences.set(id, after - before);
  }
  return differences;
}

/**
 * Writes a minibatch's fields: `advantagesUp` and `advantagesDown`, the sums over the paths through a token (each as often as it counts) of its weight
 * in the minibatch's mean times its advantage's positive and negative part; `advantages` of tokens that count once; `actionValues` and `weights` of
 * decisions, a decision weighing as much as the paths that go on from it. The mean is over all tokens of all paths, or over each path's tokens and then
 * over paths.
 */
export function setFields(minibatch: readonly Credit[], normalize: "token" | "sequence"): void {
  const decided = minibatch.map(({ decisions }) => {
    const of = new Map<number, Decision>();
    for (const decision of decisions) for (const { segment } of decision.actions) of.set(segment, decision);
    return of;
  });
  const size = (advantages: ReadonlyMap<number, Float64Array>) =>
    [...advantages.values()].reduce((sum, { length }) => sum + length, 0);
  const lengthOf = ({ path, advantages }: PathCredit, t: number) =>
    size(advantages) + path.segments.filter((s) => decided[t].has(s)).length;
  let tokens = 0;
  let paths = 0;
  minibatch.forEach((credit, t) => {
    tokens += size(credit.once);
    if (credit.once.size > 0) tokens += credit.decisions.length;
    for (const one of credit.paths) {
      tokens += one.path.count * lengthOf(one, t);
      paths += one.path.count;
    }
  });
  minibatch.forEach(({ tree, paths: own, once, decisions }, t) => {
    for (const { tokens: ids, fields } of tree.segments) {
      for (const name of ["advantages", "advantagesUp", "advantagesDown", "actionValues", "weights"])
        delete fields[name];
      if (own.length === 0) continue;
      fields.advantagesUp = new Float32Array(ids.length);
      fields.advantagesDown = new Float32Array(ids.length);
    }
    const weights = new Map<Decision, number>();
    for (const one of own) {
      const { path, advantages } = one;
      const weight = path.count / (normalize === "token" ? tokens : paths * lengthOf(one, t));
      for (const [s, values] of advantages) {
        const { advantagesUp, advantagesDown } = tree.segments[s].fields;
        values.forEach((value, i) => {
          advantagesUp[i] += weight * Math.max(value, 0);
          advantagesDown[i] += weight * Math.max(-value, 0);
        });
      }
      for (const s of path.segments) {
        const decision = decided[t].get(s);
        if (decision !== undefined) weights.set(decision, (weights.get(decision) ?? 0) + weight);
      }
    }
    for (const [s, values] of once) {
      tree.segments[s].fields.advantages = Float32Array.from(values, (value) => value / tokens);
    }
    for (const decision of decisions) {
      const weight = weights.get(decision) ?? (once.size > 0 ? 1 / tokens : 0);
      for (const { segment, value } of decision.actions) {
        const { fields } = tree.segments[segment];
        fields.actionValues = Float32Array.of(value);
        fields.weights = Float32Array.of(weight);
      }
    }
  });
}

/** Whether anything is to be learnt from a tree. */
export const carriesWeight = ({ segments }: Tree): boolean =>
  segments.some(({ fields }) =>
    ["advantages", "advantagesUp", "advantagesDown", "weights"].some((name) => fields[name]?.some((w) => w !== 0)),
  );

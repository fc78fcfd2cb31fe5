import { existsSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { nearest, UserError } from "../errors.ts";
import type { Tree } from "../forest/types.ts";
import { requireRun } from "../run/folder.ts";
import { closeTag, FUNCTIONS, openTag, parseTolerant } from "../tags/index.ts";
import { readRollouts } from "./rollouts.ts";

/** A step of a tree as a person sees it: a function with its text, or any other stretch of tokens. */
export interface TreeNode {
  /** The function; of other segments their source, and of a tree that continues another one `tree`. */
  label: string;
  text: string;
  tokens: number;
  /** Of search nodes: how often rollouts went through, and their mean value. */
  visits?: number;
  value?: number;
  /** The policy's probability of this function, or of a node of the search. */
  prior?: number;
  /** Of leaves: the outcome, and how many rollouts ended here. */
  reward?: number;
  rollouts?: number;
  stop?: string;
  /** On the chosen path: from the root the child with most visits, then the highest value (or reward), then the first. */
  chosen: boolean;
  /** Index of its last segment in its tree. */
  segment: number;
  children: TreeNode[];
}

export interface DrawnTree {
  id: string;
  problem: string;
  /** What was asked, as the policy read it. */
  prompt: string;
  roots: TreeNode[];
}

export interface StepTrees {
  stage: string;
  step: number;
  trees: DrawnTree[];
  notes: string[];
}

/** The trees of a step that a run has stored. `place` is a step, or `stage/step` where several stages have it; `problem` leaves out all others. */
export function stepTrees(path: string, place: string, problem?: string): StepTrees {
  const dir = resolve(path);
  requireRun(dir);
  const [, stage, number] = /^(?:(.+)\/)?(\d{1,9})$/.exec(place) ?? [];
  if (number === undefined) {
    throw new UserError(`tree: expected a step such as 12, or stage/step, found ${JSON.stringify(place)}`);
  }
  const step = Number(number);
  const having = stepsOf(dir);
  const found = having.filter((one) => one.steps.includes(step) && (stage === undefined || one.stage === stage));
  if (found.length === 0) {
    const known = having.filter(({ steps }) => steps.length > 0);
    const list = known.map((one) => `${one.stage}: ${Math.min(...one.steps)} to ${Math.max(...one.steps)}`).join(", ");
    throw new UserError(
      `${path} has no samples of step ${place}; ${list === "" ? "it has none at all (supervised stages keep none)" : `it has ${list}`}`,
    );
  }
  if (found.length > 1) {
    const names = found.map((one) => `${one.stage}/${step}`).join(" or ");
    throw new UserError(`tree: ${found.length} stages have samples of step ${step}: say ${names}`);
  }
  const notes: string[] = [];
  const read = readRollouts(dir, (note) => notes.push(note), [step, step]).find((one) => one.stage === found[0].stage);
  const trees = read === undefined ? [] : drawnTrees(read.trees, read.texts);
  const names = [...new Set(trees.map((tree) => tree.problem))];
  if (problem !== undefined && !names.includes(problem)) {
    const near = nearest(problem, names);
    const hint = near === undefined ? `it has ${names.slice(0, 5).join(", ")}${names.length > 5 ? ", ..." : ""}` : `did you mean ${near}?`; // prettier-ignore
    throw new UserError(`step ${place} of ${path} has no problem ${JSON.stringify(problem)} (${hint})`);
  }
  const shown = trees.filter((tree) => problem === undefined || tree.problem === problem);
  return { stage: found[0].stage, step, trees: shown, notes };
}

function stepsOf(dir: string): { stage: string; steps: number[] }[] {
  const root = join(dir, "rollouts");
  if (!existsSync(root)) return [];
  return readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => ({
      stage: name,
      steps: readdirSync(join(root, name)).flatMap((file) => (/^\d+\.jsonl$/.test(file) ? [Number.parseInt(file, 10)] : [])), // prettier-ignore
    }));
}

/** Stored trees with each segment's text as trees of nodes; one that continues another stands beneath the segment that caused it. */
export function drawnTrees(trees: readonly Tree[], texts: readonly (readonly string[])[]): DrawnTree[] {
  const caused = new Map<string, number[]>();
  const byId = new Map(trees.map((tree, t) => [tree.id, t]));
  const roots: number[] = [];
  for (const [t, { cause }] of trees.entries()) {
    // Causes that go in a circle cannot arise where a tree is caused by an earlier one.
    if (cause === undefined || (byId.get(cause.tree) ?? t) >= t) roots.push(t);
    else caused.set(`${cause.tree}#${cause.segment}`, [...(caused.get(`${cause.tree}#${cause.segment}`) ?? []), t]);
  }
  const nodes = (t: number): { prompt: string; roots: TreeNode[] } => {
    const { id, segments } = trees[t];
    const children: number[][] = segments.map(() => []);
    segments.forEach(({ parent }, s) => parent >= 0 && children[parent].push(s));
    const below = (s: number): TreeNode[] => [
      ...children[s].flatMap(node),
      ...(caused.get(`${id}#${s}`) ?? []).map((other): TreeNode => {
        const made = nodes(other);
        return { label: "tree", text: made.prompt, tokens: 0, chosen: false, segment: 0, children: made.roots };
      }),
    ];
    /** A function's token and each of its texts are one node. */
    const node = (s: number): TreeNode[] => {
      const text = texts[t][s] ?? "";
      const fn = FUNCTIONS.find((name) => openTag(name) === text.trim());
      if (fn === undefined) return [nodeOf(s, sourceLabel(segments[s].source, text), text, below(s))];
      const { logprobs, tokens } = segments[s];
      const prior = logprobs === undefined ? undefined : Math.exp(logprobs.reduce((sum, x) => sum + x, 0));
      const own = children[s].map((child) => {
        const whole = nodeOf(child, fn, withoutClose(texts[t][child] ?? "", closeTag(fn)), below(child));
        return { ...whole, tokens: whole.tokens + tokens.length, prior: whole.prior ?? prior };
      });
      return own.length > 0 ? own : [{ ...nodeOf(s, fn, "", []), prior }];
    };
    const nodeOf = (s: number, label: string, text: string, under: TreeNode[]): TreeNode => {
      const { outcome = {}, stop, tokens } = segments[s];
      const { visits, value, prior, reward, rollouts } = outcome;
      return { label, text, tokens: tokens.length, visits, value, prior, reward, rollouts, stop, chosen: false, segment: s, children: under }; // prettier-ignore
    };
    const tops = segments.flatMap(({ parent }, s) => (parent < 0 ? [s] : []));
    const asked = tops.filter((s) => segments[s].source === "prompt");
    return {
      prompt: asked.map((s) => texts[t][s] ?? "").join("\n"),
      roots: tops.flatMap((s) => (segments[s].source === "prompt" ? below(s) : node(s))),
    };
  };
  return roots.map((t) => {
    const { prompt, roots: top } = nodes(t);
    choose(top);
    return { id: trees[t].id, problem: trees[t].problem, prompt, roots: top };
  });
}

/** Marks the chosen path. */
function choose(siblings: readonly TreeNode[]): void {
  for (let level = siblings; level.length > 0;) {
    const best = level.reduce((a, b) => (better(b, a) ? b : a));
    best.chosen = true;
    level = best.children;
  }
}

function better(a: TreeNode, b: TreeNode): boolean {
  const worth = (node: TreeNode) => node.value ?? node.reward ?? bestReward(node);
  if ((a.visits ?? 0) !== (b.visits ?? 0)) return (a.visits ?? 0) > (b.visits ?? 0);
  return worth(a) > worth(b);
}

function bestReward(node: TreeNode): number {
  return Math.max(node.reward ?? -Infinity, ...node.children.map(bestReward));
}

const withoutClose = (text: string, tag: string) => (text.trimEnd().endsWith(tag) ? text.trimEnd().slice(0, -tag.length) : text); // prettier-ignore

/** A sample written with functions in one stretch names them. */
function sourceLabel(source: string, text: string): string {
  const { steps } = parseTolerant(text);
  if (steps.length === 0) return source;
  return steps.map(({ fn }) => fn).join(" > ");
}

/** All nodes, parents before children. */
export function countNodes(nodes: readonly TreeNode[]): number {
  return nodes.reduce((sum, { children }) => sum + 1 + countNodes(children), 0);
}

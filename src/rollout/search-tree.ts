import type { Sample, SampleRequest } from "../engine/types.ts";
import type { Segment, StopReason, Tree } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";
import { allowedNext, closeTag, type Fn, FUNCTIONS, type Grammar, openTag, type Step } from "../tags/index.ts";
import { Mcts, type Rollout, type Schedule } from "./mcts.ts";
import type { Question } from "./single.ts";

export interface SearchSettings {
  /** Rollouts a question. */
  rollouts: number;
  /** Rollouts of one tree at a time: 1 is the sequential search; more fill larger batches and choose with less knowledge. */
  inFlight: number;
  /** Texts that a function may get at a node; its children are one text of each function, then a second of each, and so on. */
  texts: number;
  /** Steps of the longest path. */
  depth: number;
  /** Exploration weight, and how it falls over the rollouts. */
  c: number;
  schedule: Schedule;
  /** Functions whose probability among the allowed ones is below this are not expanded; the most likely one always is. */
  floor: number;
  /** Of the steps' texts; functions are judged at temperature 1. */
  temperature: number;
  /** 1: the whole distribution. */
  topP: number;
  /** Longest step, and longest `direct_answer`; closing tags count. */
  stepTokens: number;
  answerTokens: number;
  /** Longest path, prompt excluded. */
  maxTokens: number;
  grammar: Grammar;
  /** Functions that the search never chooses. */
  without: readonly Fn[];
}

/** RFTT's released search (depth, c, schedule, lengths of steps), at temperature 1, with a floor for unlikely functions. */
export const SEARCH_DEFAULTS = {
  rollouts: 16,
  inFlight: 1,
  texts: 1,
  depth: 18,
  c: 2,
  schedule: "const",
  floor: 0.01,
  temperature: 1,
  topP: 1,
  stepTokens: 512,
  answerTokens: 1024,
  maxTokens: 8192,
} as const satisfies Partial<SearchSettings>;

/** Why a path ends at a node. Only `output` is a finished one. */
export const ENDS = [
  "output", // the answer was given
  "depth", // as many steps as a path may have
  "budget", // no token is left of the context or of the longest path
  "length", // the step reached its limit without a closing tag
  "eos", // the model ended its turn inside a step
  "tag", // another tag than the step's own closing one: nested, or closed by the wrong one
  "empty", // a step without text
] as const;
export type End = (typeof ENDS)[number];

/** A node of a search, as data. */
export interface SearchNode {
  /** Its place in `SearchTree.nodes`. */
  id: number;
  /** -1: the root. */
  parent: number;
  /** "root" for the question. */
  fn: Fn | "root";
  /** Which text of its function at this parent, from 0. */
  text: number;
  depth: number;
  /** The policy's probability of the function among the allowed ones; 1 for the root. */
  prior: number;
  /** Rollouts through the node that ended, and the sum of their values. 0 of a node that was never expanded. */
  N: number;
  Q: number;
  /** Index in the tree's segments of the function's token; -1 for the root and where N is 0. */
  choice: number;
  /** Of the text (of the prompt for the root); -1 where N is 0. */
  segment: number;
  /** The rollout that made its text; -1 for the root and where there is none. */
  rollout: number;
  /** What may follow, the most likely first, with the policy's log-probs among them; children below the floor included. Empty at an end. */
  allowed: Fn[];
  logprobs: number[];
  /** Of a leaf. */
  end?: End;
  value?: number;
  /** Rollouts that ended here. */
  rollouts: number;
}

/** The search of one question. */
export interface SearchTree {
  /** The id of its tree of tokens. */
  id: string;
  nodes: SearchNode[];
  /** The node where each rollout ended, in the order in which they began. */
  leaves: number[];
}

/** The end of a path, as its value is asked for. */
export interface SearchLeaf {
  /** Index of the question. */
  question: number;
  node: number;
  /** The rollout that first came here. */
  rollout: number;
  steps: Step[];
  end: End;
  /** `end` is `output`. */
  finished: boolean;
  /** The response, tags included. */
  text: string;
  /** All ids from the prompt on, and for each step the index of its last one. */
  ids: { path: Int32Array; ends: number[] };
  /** The policy's log-probs of the last step's text. */
  logprobs: Float32Array;
  /** As last given; undefined when it is asked for. */
  value?: number;
}

/** The ids of the sixteen tags. */
export interface TagIds {
  open: Record<Fn, number>;
  close: Record<Fn, number>;
  all: Int32Array[];
}

interface NodeState {
  fn: Fn | "root";
  text: number;
  prior: number;
  /** Its function is the policy's first choice. */
  first: boolean;
  path: Fn[];
  steps: Step[];
  /** From the prompt on; undefined until its text is there. */
  ids?: Int32Array;
  ends: number[];
  sample?: { tokens: Int32Array; logprobs: Float32Array; stop: StopReason };
  rollout: number;
  allowed: Fn[];
  logprobs: number[];
  end?: End;
  value?: number;
  rollouts: number;
}

/** One question's search: what it asks the model next, and what becomes of the answers. */
export class TreeSearch {
  private readonly question: Question;
  private readonly index: number;
  private readonly settings: SearchSettings;
  private readonly tags: TagIds;
  private readonly tokenizer: Tokenizer;
  private readonly mcts: Mcts;
  private readonly states: NodeState[] = [];
  private readonly active: Rollout[] = [];
  private readonly ended: (number | undefined)[] = [];
  /** Tokens that a path may have with its prompt. */
  private readonly budget: number;
  private readonly asked: number[] = [];

  constructor(
    question: Question,
    index: number,
    settings: SearchSettings,
    tags: TagIds,
    tokenizer: Tokenizer,
    maxContext: number,
  ) {
    this.question = question;
    this.index = index;
    this.settings = settings;
    this.tags = tags;
    this.tokenizer = tokenizer;
    this.mcts = new Mcts(settings);
    this.budget = Math.min(maxContext, question.prompt.length + settings.maxTokens);
    const { prompt } = question;
    this.states.push({
      ...blank("root", 0, 1, true),
      ...(this.room(prompt.length) < 1 && { ids: prompt, end: "budget" }),
    });
  }

  /** Rollouts that ended. */
  get done(): number {
    return this.ended.filter((node) => node !== undefined).length;
  }

  /** Moves every rollout as far as the tree is known; what the model is asked then. None: the search is over. */
  advance(): SampleRequest[] {
    const { rollouts, inFlight } = this.settings;
    const begin = (): void => {
      while (this.active.length < inFlight && this.mcts.started < rollouts) this.active.push(this.mcts.start());
    };
    begin();
    for (let i = 0; i < this.active.length;) {
      if (this.walk(this.active[i])) i++;
      else {
        this.active.splice(i, 1);
        begin();
      }
    }
    return this.asked.map((node) => this.request(node));
  }

  /** Takes the answers to what was asked; the leaves among them need values. */
  absorb(samples: Sample[]): SearchLeaf[] {
    const nodes = this.asked.splice(0);
    nodes.forEach((node, i) => this.grow(node, samples[i]));
    return nodes.filter((node) => this.states[node].end !== undefined).map((node) => this.leaf(node));
  }

  /** Leaves whose values are not there yet although nothing was asked: a root that leaves no room. */
  unvalued(): SearchLeaf[] {
    const { end, value } = this.states[0];
    return end !== undefined && value === undefined ? [this.leaf(0)] : [];
  }

  /** The values of leaves, new ones or again. */
  value(node: number, value: number): void {
    const state = this.states[node];
    if (state.value !== undefined) this.mcts.revalue(node, (value - state.value) * state.rollouts);
    state.value = value;
  }

  /** All leaves that have a text, in the order in which they were made. */
  leaves(): SearchLeaf[] {
    return this.states.flatMap(({ end, ids }, node) =>
      end !== undefined && ids !== undefined ? [this.leaf(node)] : [],
    );
  }

  /** The tree of tokens of what rollouts that ended have visited, and the search as data. Rollouts in flight are taken back. */
  finish(): { tree: Tree; search: SearchTree } {
    for (const rollout of this.active.splice(0)) this.mcts.drop(rollout);
    const { id, problem, prompt } = this.question;
    const segments: Segment[] = [{ parent: -1, tokens: prompt, source: "prompt", fields: {} }];
    const choices = new Map<string, number>();
    const nodes = this.mcts.nodes.map(({ id: node, parent, depth, N, Q }): SearchNode => {
      const { fn, text, prior, rollout, allowed, logprobs, end, value, rollouts } = this.states[node];
      return {
        id: node,
        parent,
        fn,
        text,
        depth,
        prior,
        N,
        Q,
        choice: -1,
        segment: node === 0 ? 0 : -1,
        rollout,
        allowed,
        logprobs,
        rollouts,
        ...(N > 0 && end !== undefined && { end, value }),
      };
    });
    for (const node of nodes) {
      const { sample, first } = this.states[node.id];
      if (node.fn === "root" || sample === undefined || node.N === 0) continue;
      const parent = nodes[node.parent];
      const key = `${node.parent} ${node.fn}`;
      node.choice = choices.get(key) ?? segments.push(this.choice(parent, node.fn, first)) - 1;
      choices.set(key, node.choice);
      node.segment = segments.push(this.textOf(node, sample)) - 1;
    }
    const leaves = this.ended.filter((node) => node !== undefined);
    return { tree: { id, problem, segments }, search: { id, nodes, leaves } };
  }

  private choice(parent: SearchNode, fn: Fn, first: boolean): Segment {
    return {
      parent: parent.segment,
      tokens: Int32Array.of(this.tags.open[fn]),
      source: first ? "policy" : "search",
      logprobs: Float32Array.of(parent.logprobs[parent.allowed.indexOf(fn)]),
      allowed: [this.idsOf(parent.allowed)],
      fields: {},
    };
  }

  private textOf(node: SearchNode, { tokens, logprobs, stop }: NonNullable<NodeState["sample"]>): Segment {
    const { temperature, topP } = this.settings;
    const { id, N, Q, prior, end, value, rollouts } = node;
    return {
      parent: node.choice,
      tokens,
      source: "policy",
      logprobs,
      ...(temperature !== 1 && temperature !== 0 && { temperature }),
      ...(topP < 1 && { truncated: true }),
      fields: {},
      outcome: {
        node: id,
        visits: N,
        value: Q / N,
        prior,
        ...(end !== undefined && { reward: value ?? 0, rollouts, finished: Number(end === "output") }),
      },
      stop,
    };
  }

  /** Moves a rollout; false when it has ended. */
  private walk(rollout: Rollout): boolean {
    for (;;) {
      const node = rollout.path[rollout.path.length - 1];
      const state = this.states[node];
      if (state.ids === undefined) {
        if (!this.asked.includes(node)) {
          if (node > 0) state.rollout = rollout.index;
          this.asked.push(node);
        }
        return true;
      }
      if (state.end !== undefined) {
        if (state.value === undefined) throw new Error(`node ${node} of ${this.question.id} has no value`);
        state.rollouts++;
        this.ended[rollout.index] = node;
        this.mcts.backup(rollout, state.value);
        return false;
      }
      this.mcts.step(rollout);
    }
  }

  private request(node: number): SampleRequest {
    const { temperature, topP } = this.settings;
    const { fn, path } = this.states[node];
    const { prompt, key } = this.question;
    const stop = this.tags.all;
    if (fn === "root") {
      const scoreIds = this.idsOf(this.next([]));
      return { prefix: prompt, n: 1, maxTokens: 0, temperature, stop: [], scoreIds, key };
    }
    const before = this.before(node);
    const prefix = concat(before, Int32Array.of(this.tags.open[fn]));
    return {
      prefix,
      n: 1,
      maxTokens: this.room(before.length, fn),
      temperature,
      ...(topP < 1 && { topP }),
      stop,
      ...(this.goesOn(node) && { scoreNext: this.idsOf(this.next(path)) }),
      key: `${key}/${this.placeOf(node)}`,
    };
  }

  /** Gives a node its text and, where it goes on, its children. */
  private grow(node: number, sample: Sample): void {
    const state = this.states[node];
    const { fn, path, steps } = state;
    if (fn === "root") {
      state.ids = this.question.prompt;
      this.expand(node, this.next([]), sample.idLogprobs);
      return;
    }
    const { tokens, logprobs, stop } = sample;
    const before = this.before(node);
    state.ids = concat(before, Int32Array.of(this.tags.open[fn]), tokens);
    state.ends = [...state.ends, state.ids.length - 1];
    state.steps = [...steps, { fn, text: sample.text.trim() }];
    state.sample = { tokens, logprobs, stop };
    state.end = this.endOf(node, sample, before.length);
    if (state.end === undefined) this.expand(node, this.next(path), sample.nextLogprobs);
  }

  private endOf(node: number, { tokens, stop, text }: Sample, before: number): End | undefined {
    const { fn } = this.states[node];
    if (fn === "root") return undefined;
    const { stepTokens, answerTokens } = this.settings;
    if (stop === "eos") return "eos";
    if (stop === "length")
      return tokens.length < (fn === "direct_answer" ? answerTokens : stepTokens) ? "budget" : "length";
    if (tokens[tokens.length - 1] !== this.tags.close[fn]) return "tag";
    if (text.trim() === "") return "empty";
    if (fn === "output") return "output";
    if (!this.goesOn(node)) return "depth";
    return this.room(before + 1 + tokens.length) < 1 ? "budget" : undefined;
  }

  /** Children in the policy's order, those below the floor left out. */
  private expand(node: number, allowed: Fn[], raw: Float32Array | undefined): void {
    if (raw === undefined) throw new Error(`node ${node} of ${this.question.id}: the engine scored no functions`);
    const most = Math.max(...raw);
    const total = most + Math.log(raw.reduce((sum, logprob) => sum + Math.exp(logprob - most), 0));
    const ranked = allowed.map((fn, i) => ({ fn, logprob: raw[i] - total })).sort((a, b) => b.logprob - a.logprob);
    const state = this.states[node];
    state.allowed = ranked.map(({ fn }) => fn);
    state.logprobs = ranked.map(({ logprob }) => logprob);
    const { floor, texts } = this.settings;
    const kept = ranked.filter(({ logprob }, rank) => rank === 0 || Math.exp(logprob) >= floor);
    this.mcts.expand(node, kept.length * texts);
    for (let text = 0; text < texts; text++) {
      kept.forEach(({ fn, logprob }, rank) => {
        const { path, steps, ends } = state;
        this.states.push({ ...blank(fn, text, Math.exp(logprob), rank === 0), path: [...path, fn], steps, ends });
      });
    }
  }

  private leaf(node: number): SearchLeaf {
    const { steps, end = "budget", ids = this.question.prompt, ends, sample, rollout, value } = this.states[node];
    return {
      question: this.index,
      node,
      rollout,
      steps,
      end,
      finished: end === "output",
      text: this.tokenizer.decode(ids.subarray(this.question.prompt.length)),
      ids: { path: ids, ends },
      logprobs: sample?.logprobs ?? new Float32Array(0),
      ...(value !== undefined && { value }),
    };
  }

  /** Whether a step may follow this one. */
  private goesOn(node: number): boolean {
    const { fn, path } = this.states[node];
    return fn !== "output" && path.length < this.settings.depth;
  }

  private next(path: Fn[]): Fn[] {
    return nextFunctions(this.settings, path);
  }

  private idsOf(fns: Fn[]): Int32Array {
    return Int32Array.from(fns, (fn) => this.tags.open[fn]);
  }

  /** The ids up to the node's function. */
  private before(node: number): Int32Array {
    const { ids } = this.states[this.mcts.nodes[node].parent];
    if (ids === undefined) throw new Error(`node ${node}: its parent has no text`);
    return ids;
  }

  /** Tokens that a step may have after a path of `length` tokens and its own function. */
  private room(length: number, fn?: Fn): number {
    const { stepTokens, answerTokens } = this.settings;
    return Math.min(fn === "direct_answer" ? answerTokens : stepTokens, this.budget - length - 1);
  }

  /** The node's name among all of its tree: the functions and texts that lead to it. */
  private placeOf(node: number): string {
    const names: string[] = [];
    for (let id = node; id > 0; id = this.mcts.nodes[id].parent) {
      const { fn, text } = this.states[id];
      names.push(text === 0 ? fn : `${fn}.${text}`);
    }
    return names.reverse().join("/");
  }
}

/** What the grammar allows after a path, in its order, without the functions that are left out. */
export function nextFunctions({ grammar, without }: Pick<SearchSettings, "grammar" | "without">, path: Fn[]): Fn[] {
  return allowedNext(grammar, path).filter((fn) => !without.includes(fn));
}

const blank = (fn: NodeState["fn"], text: number, prior: number, first: boolean): NodeState => ({
  fn,
  text,
  prior,
  first,
  path: [],
  steps: [],
  ends: [],
  rollout: -1,
  allowed: [],
  logprobs: [],
  rollouts: 0,
});

function concat(...parts: Int32Array[]): Int32Array {
  const whole = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The ids of a tokenizer's tags: added tokens, or words of its vocabulary; the tag that has none where one is lacking. */
export function tagIds(tokenizer: Tokenizer): TagIds | { missing: string } {
  const idOf = (tag: string) => tokenizer.added.get(tag) ?? tokenizer.idOf(tag);
  const missing = FUNCTIONS.flatMap((fn) => [openTag(fn), closeTag(fn)]).find((tag) => idOf(tag) === undefined);
  if (missing !== undefined) return { missing };
  const ids = (tag: (fn: Fn) => string): Record<Fn, number> => {
    const [clarify, analysis, next_step, direct_answer, subquestion, verify, refine, output] = FUNCTIONS.map(
      (fn) => idOf(tag(fn)) ?? -1,
    );
    return { clarify, analysis, next_step, direct_answer, subquestion, verify, refine, output };
  };
  const [open, close] = [ids(openTag), ids(closeTag)];
  const all = FUNCTIONS.flatMap((fn) => [Int32Array.of(open[fn]), Int32Array.of(close[fn])]);
  return { open, close, all };
}

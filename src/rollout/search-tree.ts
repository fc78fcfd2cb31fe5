import type { Sample, SampleRequest } from "../engine/types.ts";
import type { Segment, Tree } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";
import { allowedNext, type Fn, type Step } from "../tags/index.ts";
import { Mcts, type Rollout } from "./mcts.ts";
import type { End, SearchLeaf, SearchNode, SearchSettings, SearchTree, TagIds } from "./search-types.ts";
import type { Question } from "./single.ts";

/** What becomes of a node, but for its place in the tree and its counts, which `Mcts` keeps. */
interface NodeState extends Omit<SearchNode, "id" | "parent" | "depth" | "N" | "Q" | "choice" | "segment"> {
  /** Its function is the policy's first choice. */
  first: boolean;
  path: Fn[];
  steps: Step[];
  /** From the prompt on; undefined until its text is there. */
  ids?: Int32Array;
  ends: number[];
  sample?: Pick<Sample, "tokens" | "logprobs" | "stop" | "cutMass">;
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

  private textOf(node: SearchNode, { tokens, logprobs, stop, cutMass }: NonNullable<NodeState["sample"]>): Segment {
    const { temperature, topP } = this.settings;
    const { id, N, Q, prior, end, value, rollouts } = node;
    return {
      parent: node.choice,
      tokens,
      source: "policy",
      logprobs,
      ...(temperature !== 1 && temperature !== 0 && { temperature }),
      ...(topP < 1 && { truncated: true }),
      fields: cutMass === undefined ? {} : { cutMass },
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
      const scoreIds = this.idsOf(allowedNext(this.settings.grammar, []));
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
      ...(this.goesOn(node) && { scoreNext: this.idsOf(allowedNext(this.settings.grammar, path)) }),
      key: `${key}/${this.placeOf(node)}`,
    };
  }

  /** Gives a node its text and, where it goes on, its children. */
  private grow(node: number, sample: Sample): void {
    const state = this.states[node];
    const { fn, path, steps } = state;
    if (fn === "root") {
      state.ids = this.question.prompt;
      this.expand(node, allowedNext(this.settings.grammar, []), sample.idLogprobs);
      return;
    }
    const { tokens, logprobs, stop, cutMass } = sample;
    const before = this.before(node);
    state.ids = concat(before, Int32Array.of(this.tags.open[fn]), tokens);
    state.ends = [...state.ends, state.ids.length - 1];
    state.steps = [...steps, { fn, text: sample.text.trim() }];
    state.sample = { tokens, logprobs, stop, cutMass };
    state.end = this.endOf(node, sample, before.length);
    if (state.end === undefined) this.expand(node, allowedNext(this.settings.grammar, path), sample.nextLogprobs);
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
      text: this.tokenizer.decode(ids.subarray(this.question.prompt.length, end === "output" ? -1 : undefined)),
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

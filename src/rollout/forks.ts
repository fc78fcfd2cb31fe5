import type { Model, Sample, SampleRequest } from "../engine/types.ts";
import type { Forest, Segment, StopReason, Tree } from "../forest/types.ts";
import { pathTo } from "../forest/walk.ts";
import type { Tokenizer } from "../model/types.ts";
import { type Question, responseRoom } from "./single.ts";

export interface ForkSettings {
  /** Responses that a question begins with (the paper's M). */
  trajectories: number;
  /** Tokens of each at which an iteration forks (N). */
  forks: number;
  /** Continuations of each fork (T). */
  branches: number;
  /** L; 0: the trajectories alone. */
  iterations: number;
  /** Above 0. */
  temperature: number;
  /** Longest response. */
  maxTokens: number;
  stop: string[];
}

/** A complete response of a tree. */
export interface ForkLeaf {
  /** Its segments after the prompt, in order. */
  segments: number[];
  text: string;
  stop: StopReason;
}

export interface ForkRollout {
  /** One tree a question; a segment ends where something forks. */
  forest: Forest;
  /** The responses of each, in the order in which they were sampled: trajectories * (1 + iterations * forks * branches) where so many tokens can be forked at. */
  leaves: ForkLeaf[][];
}

/**
 * Entropy-guided forks (EPTree of TreeRL, arXiv 2506.11902, section 3): each question gets some responses, and then, again and again, the tokens that
 * the policy was least sure of are sampled anew, with all that follows. How sure it was is said by -log p of the token that it took, the paper's
 * entropy; the most uncertain tokens of a trajectory and its branches together are forked at, each once. What is sampled continues the very
 * tokens before the fork. One `sample` call for all trees an iteration.
 */
export async function sampleForks(
  model: Pick<Model, "sample" | "tokenizer" | "info">,
  questions: Question[],
  settings: ForkSettings,
): Promise<ForkRollout> {
  const trees = questions.map((question) => new ForkTree(question, settings, model.tokenizer, model.info.maxContext));
  for (let iteration = 0; iteration <= settings.iterations; iteration++) {
    const asked = trees.map((tree) => (iteration === 0 ? [tree.beginning()] : tree.places()));
    const requests = asked.flatMap((places, q) => places.map((place) => trees[q].request(place)));
    if (requests.length === 0) break;
    const samples = await model.sample(requests);
    let from = 0;
    asked.forEach((places, q) => {
      for (const place of places) trees[q].absorb(place, samples.slice(from, (from += place.branches)));
    });
  }
  const made = trees.map((tree) => tree.finish());
  return { forest: made.map(({ tree }) => tree), leaves: made.map(({ leaves }) => leaves) };
}

/** A sample, from where it leaves the chain that it forked from. */
interface Chain {
  /** Index of that chain; -1 for a trajectory, which begins after the prompt. */
  from: number;
  /** How many of its tokens come before this one. */
  at: number;
  /** The trajectory that it belongs to. */
  trajectory: number;
  /** Names it in its tree. */
  name: string;
  sample: Sample;
  /** The last of its tokens that can be forked at: those after it belong to the string that ended it. */
  last: number;
}

/** Where several samples are to begin. */
interface Place extends Pick<Chain, "from" | "at"> {
  branches: number;
  name: string;
}

class ForkTree {
  private readonly chains: Chain[] = [];
  private readonly forked = new Set<string>();
  private readonly room: number;
  private readonly question: Question;
  private readonly settings: ForkSettings;
  private readonly tokenizer: Tokenizer;

  constructor(question: Question, settings: ForkSettings, tokenizer: Tokenizer, maxContext: number) {
    this.question = question;
    this.settings = settings;
    this.tokenizer = tokenizer;
    this.room = responseRoom(question.problem, question.prompt, maxContext, settings.maxTokens);
  }

  beginning(): Place {
    return { from: -1, at: 0, branches: this.settings.trajectories, name: "" };
  }

  /** The tokens of each trajectory and its branches that the policy was least sure of; of equal ones the earlier. */
  places(): Place[] {
    return Array.from({ length: this.settings.trajectories }, (_, trajectory) =>
      this.chains
        .flatMap((chain, from) => (chain.trajectory === trajectory ? this.open(chain, from) : []))
        .sort((a, b) => a.logprob - b.logprob)
        .slice(0, this.settings.forks)
        .map(({ place }) => place),
    ).flat();
  }

  private open({ from: above, name, sample, last }: Chain, from: number): { place: Place; logprob: number }[] {
    // A branch's first token is the place that was forked at.
    const first = above < 0 ? 0 : 1;
    return Array.from(sample.logprobs, (logprob, at) => ({
      place: { from, at, branches: this.settings.branches, name: `${name}.${at}` },
      logprob,
    })).filter(({ place }) => place.at >= first && place.at <= last && !this.forked.has(place.name));
  }

  request({ from, at, branches, name }: Place): SampleRequest {
    const { prompt, key } = this.question;
    const { temperature, stop } = this.settings;
    const before = this.tokensTo(from, at);
    return {
      prefix: Int32Array.from([...prompt, ...before]),
      n: branches,
      maxTokens: this.room - before.length,
      temperature,
      stop,
      key: name === "" ? key : `${key}/${name}`,
    };
  }

  absorb({ from, at, name }: Place, samples: Sample[]): void {
    this.forked.add(name);
    samples.forEach((sample, i) =>
      this.chains.push({
        from,
        at,
        trajectory: from < 0 ? i : this.chains[from].trajectory,
        name: name === "" ? `${i}` : `${name}.${i}`,
        sample,
        last: this.lastOf(sample),
      }),
    );
  }

  finish(): { tree: Tree; leaves: ForkLeaf[] } {
    const { id, problem, prompt } = this.question;
    const { temperature } = this.settings;
    const segments: Segment[] = [{ parent: -1, tokens: prompt, source: "prompt", fields: {} }];
    const tree: Tree = { id, problem, segments };
    /** Of each chain, the segment that ends after so many of its tokens. */
    const ends: Map<number, number>[] = [];
    const leaves = this.chains.map((chain, c): ForkLeaf => {
      const { tokens, logprobs, stop } = chain.sample;
      const cuts = this.chains.flatMap(({ from, at }) => (from === c && at > 0 ? [at] : []));
      let parent = chain.from < 0 ? 0 : (ends[chain.from].get(chain.at) ?? 0);
      const own = new Map([[0, parent]]);
      let start = 0;
      for (const end of [...new Set([...cuts, tokens.length])].sort((a, b) => a - b)) {
        const piece: Segment = {
          parent,
          tokens: tokens.slice(start, end),
          source: "policy",
          logprobs: logprobs.slice(start, end),
          ...(temperature !== 1 && { temperature }),
          fields: {},
          ...(end === tokens.length && { stop }),
        };
        parent = segments.push(piece) - 1;
        own.set(end, parent);
        start = end;
      }
      ends.push(own);
      return { segments: pathTo(tree, parent).slice(1), text: this.textOf(chain), stop };
    });
    return { tree, leaves };
  }

  /** The response up to a place. */
  private tokensTo(chain: number, at: number): number[] {
    if (chain < 0) return [];
    const { from, at: start, sample } = this.chains[chain];
    return [...this.tokensTo(from, start), ...sample.tokens.subarray(0, at)];
  }

  /** The decoded response, without whatever ended it. */
  private textOf({ from, at, sample: { tokens, text } }: Chain): string {
    const ending = this.decode(tokens).length - text.length;
    const whole = this.decode([...this.tokensTo(from, at), ...tokens]);
    return whole.slice(0, whole.length - ending);
  }

  private lastOf({ tokens, text }: Sample): number {
    let kept = tokens.length;
    while (kept > 0 && this.decode(tokens.subarray(0, kept)).length > text.length) kept--;
    return Math.min(kept, tokens.length - 1);
  }

  private decode(ids: ArrayLike<number>): string {
    return this.tokenizer.decode(Int32Array.from(ids));
  }
}

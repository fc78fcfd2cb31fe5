import { performance } from "node:perf_hooks";
import type { Model, Sample, SampleRequest } from "../engine/types.ts";
import type { Tree } from "../forest/types.ts";
import { pathTo } from "../forest/walk.ts";
import { hashKey, uniform } from "../engine/random.ts";
import type { ModelConfig } from "../model/types.ts";
import { SEARCH_DEFAULTS, searchTrees } from "../rollout/search.ts";
import { G2, TAG_TOKENS } from "../tags/index.ts";
import { randomTokens } from "./shapes.ts";

/** Steps' lengths in tokens, drawn evenly. */
const STEP = { from: 16, to: 48 };
const TREES = 8;

/**
 * Searches of 8 questions in waves, and the same searches one after another. Random weights close no tag: a step ends at a length drawn
 * by its key, its last token stands for the closing tag, and one step more of the model is the scoring of what may follow.
 */
export async function searchWavesWorkload(
  model: Model,
  config: ModelConfig,
  prompt: number,
): Promise<{ facts: Record<string, number>; repeat(): Promise<Record<string, number>> }> {
  const questions = Array.from({ length: TREES }, (_, i) => ({
    id: `${i}`,
    problem: `${i}`,
    prompt: randomTokens(config, `question ${i}`, prompt),
    key: `question ${i}`,
  }));
  const settings = {
    ...SEARCH_DEFAULTS,
    rollouts: 2,
    depth: 4,
    stepTokens: STEP.to,
    answerTokens: STEP.to,
    grammar: G2,
    without: [],
  };
  const value = () => [0];
  const search = async (some: typeof questions): Promise<{ seconds: number; tokens: number }> => {
    const closing = new ClosingModel(model);
    await model.discard();
    const start = performance.now();
    const before = model.counts.generated;
    await searchTrees(closing, some, settings, { value: (leaves) => leaves.flatMap(value) });
    return { seconds: (performance.now() - start) / 1000, tokens: model.counts.generated - before };
  };
  await search(questions.slice(0, 1));
  const repeat = async (): Promise<Record<string, number>> => {
    const together = await search(questions);
    const apart = { seconds: 0, tokens: 0 };
    for (const one of questions) {
      const { seconds, tokens } = await search([one]);
      apart.seconds += seconds;
      apart.tokens += tokens;
    }
    if (apart.tokens !== together.tokens) throw new Error("the searches differ");
    return { seconds: together.seconds, apart: apart.seconds, tokens: together.tokens };
  };
  return { facts: { trees: TREES, prompt }, repeat };
}

/** The tree of one search of 16 rollouts by a model of random weights, and the segments of its paths. */
export async function searchedTree(
  model: Model,
  config: ModelConfig,
  prompt: number,
): Promise<{ tree: Tree; paths: number[][] }> {
  const question = { id: "0", problem: "0", prompt: randomTokens(config, "question 0", prompt), key: "question 0" };
  const { forest, trees } = await searchTrees(
    new ClosingModel(model),
    [question],
    {
      ...SEARCH_DEFAULTS,
      inFlight: 4,
      depth: 8,
      stepTokens: STEP.to,
      answerTokens: STEP.to,
      grammar: G2,
      without: [],
    },
    { value: (leaves) => leaves.map(({ node }) => draw(`value ${node}`)) },
  );
  const [tree] = forest;
  const [{ nodes, leaves }] = trees;
  return { tree, paths: leaves.map((leaf) => pathTo(tree, nodes[leaf].segment)) };
}

/** The engine's model with steps that end. What it sampled is what it goes on from; the search sees closing tags in its place. */
class ClosingModel implements Pick<Model, "sample" | "tokenizer" | "info"> {
  readonly tokenizer: Model["tokenizer"];
  readonly info: Model["info"];
  private readonly model: Model;
  /** By the tokens that the search knows: those that the model has read. */
  private readonly read = new Map<string, Int32Array>();

  constructor(model: Model) {
    this.model = model;
    this.info = model.info;
    const { tokenizer } = model;
    this.tokenizer = {
      vocabSize: tokenizer.vocabSize,
      hasChatTemplate: false,
      added: new Map(TAG_TOKENS.map((tag, i) => [tag, i])),
      encode: (text) => tokenizer.encode(text),
      decode: (ids) => tokenizer.decode(ids),
      idOf: (token) => tokenizer.idOf(token),
      renderChat: (messages) => tokenizer.renderChat(messages),
    };
  }

  async sample(requests: SampleRequest[]): Promise<Sample[]> {
    const lengths = requests.map(({ key }) => STEP.from + Math.floor(draw(key) * (STEP.to - STEP.from)));
    const samples = await this.model.sample(
      requests.map((request, r) => {
        const { prefix, maxTokens, key, temperature, scoreIds } = request;
        const asked = { n: 1, temperature, stop: [], key };
        if (maxTokens === 0) return { ...asked, prefix, maxTokens: 0, scoreIds };
        return { ...asked, prefix: this.known(prefix), maxTokens: lengths[r] + 1 };
      }),
    );
    return samples.map((sample, r): Sample => {
      const { prefix, maxTokens, key, scoreNext } = requests[r];
      if (maxTokens === 0) return sample;
      // The tag that closes stands after the one that opens.
      const close = prefix[prefix.length - 1] + 1;
      const tokens = sample.tokens.slice(0, -1);
      const shown = tokens.slice();
      shown[shown.length - 1] = close;
      this.read.set([...prefix, ...shown].join(), Int32Array.from([...this.known(prefix), ...tokens]));
      const nextLogprobs = scoreNext && Float32Array.from(scoreNext, (id) => draw(`${key} ${id}`) - 2);
      return {
        tokens: shown,
        logprobs: sample.logprobs.slice(0, -1),
        stop: "stop",
        text: "x",
        ...(nextLogprobs && { nextLogprobs }),
      };
    });
  }

  /** A prefix (a path and a function) as the model has read it. */
  private known(prefix: Int32Array): Int32Array {
    const path = this.read.get(prefix.subarray(0, -1).join());
    return path === undefined ? prefix : Int32Array.from([...path, prefix[prefix.length - 1]]);
  }
}

const draw = (key: string): number => uniform(hashKey(key), 0, 0);

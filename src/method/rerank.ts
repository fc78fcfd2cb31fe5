import { z } from "zod";
import { RandomStream } from "../engine/random.ts";
import type { HeadSpec, Loss, Model, Scores } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { sequenceTree } from "../forest/build.ts";
import type { Tree } from "../forest/types.ts";
import { encodePrompt, encodeResponse } from "../task/prompt.ts";
import type { Problem } from "../task/types.ts";
import type { DataStage } from "./stage.ts";
import { storedAnswers } from "./stored.ts";
import { accumulate, adam, optimizerSettings } from "./update.ts";

/** Defaults are those of ReFT's reranker (arXiv 2401.08967, its scripts). */
export const rerankSettings = z.strictObject({
  /** A file of samples of training questions, which `rifft eval --split train --n 100` wrote. */
  samples: z.string().min(1),
  /** Solutions a step. */
  batch: z.int().positive().default(24),
  /** The share of the questions whose solutions are not trained on, to tell how good the reranker is. */
  dev: z.number().min(0).max(0.5).default(0.1),
  /** Steps from one measurement on these to the next. */
  devEvery: z.int().positive().default(100),
  ...optimizerSettings({ lr: 1e-6, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }),
});
export type RerankSettings = z.infer<typeof rerankSettings>;

/** Two classes, wrong and right, without a bias; initialised as `transformers` does it. */
export const SCORE: HeadSpec = { name: "score", width: 2, bias: false, init: 0.02 };

/** A sampled solution and whether its answer is right. */
interface Solution {
  problem: Problem;
  text: string;
  right: boolean;
  /** Whether it states an answer: what does not is no candidate. */
  answered: boolean;
}

/** Trains a reward model that tells right solutions from wrong ones (ReFT, section 4.3; Cobbe et al. 2021). */
export async function rerank(stage: DataStage, settings: RerankSettings): Promise<void> {
  const { model } = stage;
  const { train, dev } = split(solutionsOf(stage, settings.samples), settings.dev);
  if (train.length === 0) {
    throw new UserError(
      `${settings.samples}: no solutions to train on (${dev.length} are held out by \`dev\`); expected samples of two problems at least`,
    );
  }
  if (train.every(({ right }) => right === train[0].right)) {
    throw new UserError(
      `${settings.samples}: all ${train.length} solutions to train on are ${train[0].right ? "right" : "wrong"}: there is nothing to tell apart; sample from a policy that is right in part, or more problems`,
    );
  }

  for await (const step of stage.stepsOver(train.length)) {
    const batch = step.draw(settings.batch).map((number) => train[number]);
    const trees = batch.map((solution, i) =>
      labelled(model, `${stage.name}/${step.index}/${i}`, solution, batch.length),
    );
    const lr = step.lr();
    const { loss, metrics, gradNorm } = await step.time("train", async () => {
      const { loss, metrics } = await accumulate(model, trees, classification(), settings.microBatch);
      return { loss, metrics, ...(await model.optimStep(groups(settings, lr))) };
    });
    step.log({
      loss,
      accuracy: metrics.correct / batch.length,
      right: batch.filter(({ right }) => right).length / batch.length,
      gradNorm,
      lr,
      ...(step.index === 0 && { examples: train.length }),
    });
    if (dev.length > 0 && (step.index + 1) % settings.devEvery === 0) {
      step.log(await step.time("score", () => measure(model, dev)));
    }
  }
}

/** The stored samples without duplicates of the same question, the first kept. */
const solutionsOf = (stage: DataStage, file: string): Solution[] =>
  withoutDuplicates(
    storedAnswers(stage, file).map(({ problem, sample: { text, solved, answered } }) => ({
      problem,
      text,
      right: solved,
      answered,
    })),
  );

/** Of the samples of a problem with the same text, the first. */
export function withoutDuplicates<T extends { problem: { id: string }; text: string }>(solutions: readonly T[]): T[] {
  const seen = new Set<string>();
  return solutions.filter(({ problem, text }) => {
    const key = JSON.stringify([problem.id, text]);
    const fresh = !seen.has(key);
    seen.add(key);
    return fresh;
  });
}

/** Whole questions on either side. Which ones are held out depends on their ids alone. */
function split(solutions: Solution[], share: number): { train: Solution[]; dev: Solution[] } {
  const ids = [...new Set(solutions.map(({ problem }) => problem.id))].sort();
  const held = new Set(new RandomStream("rerank/dev").shuffle(ids).slice(0, Math.round(share * ids.length)));
  return {
    train: solutions.filter(({ problem }) => !held.has(problem.id)),
    dev: solutions.filter(({ problem }) => held.has(problem.id)),
  };
}

/** A problem's prompt and a solution's text, without an end: the score stands at the last token. */
export function solutionTree({ tokenizer, info }: Model, id: string, problem: Problem, text: string): Tree {
  const prompt = encodePrompt(tokenizer, problem);
  const solution = encodeResponse(tokenizer, text);
  const length = prompt.length + solution.length;
  if (length > info.maxContext) {
    throw new UserError(
      `problem ${problem.id}: prompt and solution have ${length} tokens, the context holds ${info.maxContext}: sample with a smaller --max-tokens`,
    );
  }
  return sequenceTree({ id, problem: problem.id }, prompt, solution);
}

function labelled(model: Model, id: string, { problem, text, right }: Solution, batch: number): Tree {
  const tree = solutionTree(model, id, problem, text);
  const last = lastSegment(tree);
  last.fields.weights = new Float32Array(last.tokens.length);
  last.fields.weights[last.tokens.length - 1] = 1 / batch;
  last.outcome = { right: Number(right) };
  return tree;
}

/** The segment whose last token ends the row; of an empty solution the prompt. */
const lastSegment = ({ segments }: Tree) => (segments[1].tokens.length > 0 ? segments[1] : segments[0]);

/** Log-odds of right against wrong at the end of a solution. */
function logOdds(tree: Tree, { heads }: Scores): number {
  const segment = tree.segments.indexOf(lastSegment(tree));
  const [wrong, right] = heads[SCORE.name][segment].subarray(-SCORE.width);
  return right - wrong;
}

/** A solution's score: the probability that it is right, under softmax over the two classes. */
export const solutionScore = (tree: Tree, scores: Scores): number => sigmoid(logOdds(tree, scores));

const sigmoid = (x: number): number => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));

/** log(1 + exp(-margin)), without overflow. */
const logistic = (margin: number): number => Math.max(0, -margin) + Math.log1p(Math.exp(-Math.abs(margin)));

/** Sum over solutions of -w log softmax(score)[right], w being `weights` at the last token. Metric `correct`: how many are told rightly. */
export function classification(): Loss {
  return {
    name: "classification",
    config: {},
    scope: "tree",
    logprobs: false,
    fn(trees, now) {
      let loss = 0;
      let correct = 0;
      const grads = trees.map((tree, t) => {
        const last = lastSegment(tree);
        const weight = last.fields.weights[last.tokens.length - 1];
        const right = last.outcome?.right === 1;
        const odds = logOdds(tree, now[t]);
        const margin = right ? odds : -odds;
        loss += weight * logistic(margin);
        correct += Number(margin > 0);
        const slope = weight * (sigmoid(odds) - Number(right));
        const heads = now[t].heads[SCORE.name].map((part) => new Float32Array(part.length));
        heads[tree.segments.indexOf(last)].set([-slope, slope], last.tokens.length * SCORE.width - SCORE.width);
        return { heads: { [SCORE.name]: heads } };
      });
      return { loss, grads, metrics: { correct } };
    },
  };
}

/** Solutions a pass of measuring. */
const CHUNK = 64;

/** On held-out questions: the loss, the share told rightly, and how often the solution with the highest score is right. */
async function measure(model: Model, dev: Solution[]): Promise<Record<string, number>> {
  const scores: number[] = [];
  for (let from = 0; from < dev.length; from += CHUNK) {
    const trees = dev
      .slice(from, from + CHUNK)
      .map(({ problem, text }, i) => solutionTree(model, `${from + i}`, problem, text));
    const found = await model.forward(trees, "current", { logprobs: false });
    trees.forEach((tree, t) => scores.push(logOdds(tree, found[t])));
  }
  const margins = dev.map(({ right }, i) => (right ? scores[i] : -scores[i]));
  const best = new Map<string, number>();
  dev.forEach(({ problem, answered }, i) => {
    if (!answered) return;
    const before = best.get(problem.id);
    if (before === undefined || scores[i] > scores[before]) best.set(problem.id, i);
  });
  return {
    devLoss: margins.reduce((sum, margin) => sum + logistic(margin), 0) / dev.length,
    devAccuracy: margins.filter((margin) => margin > 0).length / dev.length,
    devRerank:
      [...best.values()].filter((i) => dev[i].right).length / new Set(dev.map(({ problem }) => problem.id)).size,
  };
}

function groups(settings: RerankSettings, lr: number) {
  const ofBody = adam(settings, lr);
  return { ...ofBody, groups: { ...ofBody.groups, [`head:${SCORE.name}`]: ofBody.groups.body } };
}

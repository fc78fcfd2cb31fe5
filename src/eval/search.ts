import type { Model } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { Tokenizer } from "../model/types.ts";
import type { ProcessReward } from "../rollout/process-reward.ts";
import {
  SEARCH_DEFAULTS,
  type SearchLeaf,
  type SearchNode,
  type SearchSettings,
  searchTrees,
  type SearchValues,
} from "../rollout/search.ts";
import type { Tree } from "../forest/types.ts";
import { pathTo } from "../forest/walk.ts";
import { type Fn, G2 } from "../tags/index.ts";
import { sameAnswer } from "../task/grading.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { Grading, Problem, Task } from "../task/types.ts";
import { gradeSample, problemFields, verdictsOf } from "./regrade.ts";
import type { EvaluatedSample } from "./samples.ts";
import type { EvaluationSearch } from "./searched.ts";

export interface SearchOptions {
  model: Model;
  tokenizer: Tokenizer;
  task: Task;
  /** Longest path. */
  maxTokens: number;
  temperature: number;
  /** Rollouts. */
  n?: number;
  seed?: number;
  without?: Fn[];
  processReward?: ProcessReward;
  interrupted?: () => boolean;
}

/** The settings of a search that an evaluation makes. */
export function searchSettings(
  search: EvaluationSearch,
  o: { n: number; maxTokens: number; temperature: number; without?: readonly Fn[] },
): SearchSettings {
  const { stepTokens, answerTokens } = SEARCH_DEFAULTS;
  return {
    ...SEARCH_DEFAULTS,
    rollouts: o.n,
    texts: search.texts,
    temperature: o.temperature,
    maxTokens: o.maxTokens,
    stepTokens: Math.min(stepTokens, o.maxTokens),
    answerTokens: Math.min(answerTokens, o.maxTokens),
    grammar: G2,
    without: o.without ?? [],
  };
}

/** Throws a UserError for a task whose answers cannot be compared without a gold. */
export function checkSearchable(task: Task): Grading {
  if (task.programs)
    throw new UserError(
      "a search reads answers of its leaves as it goes, and programs are run afterwards; choose another task",
    );
  if (task.grading !== undefined) return task.grading;
  throw new UserError(
    `task ${task.name} has a reward of its own: a search needs answers that can be compared with each other; give it \`grading\``,
  );
}

/** The share of the answers that are equal to each of them; 0 of none. */
export function consistency(problem: Problem, grading: Grading, answers: readonly (string | undefined)[]): number[] {
  const stated = answers.filter((answer) => answer !== undefined);
  const same = (a: string, b: string) => a === b || sameAnswer(problem, a, b, grading.mode ?? "math");
  return answers.map((answer) =>
    answer === undefined ? 0 : stated.filter((other) => same(other, answer)).length / stated.length,
  );
}

/** The answer that a leaf states, read as the strict verdict reads it; the gold is not looked at. */
function answerAt(
  problem: Problem,
  grading: Grading,
  { finished, text }: Pick<SearchLeaf, "finished" | "text">,
): string | undefined {
  return finished ? verdictsOf(problem, text, grading).strict.answer : undefined;
}

/** The values of leaves where no gold may be seen. */
export function valuesWithoutGold(
  search: EvaluationSearch,
  problems: Problem[],
  grading: Grading,
  processReward?: ProcessReward,
): SearchValues {
  if (search.value === "consistency") {
    return {
      value: (leaves) => leaves.map(() => 0),
      revalue(leaves) {
        const problem = problems[leaves[0].question];
        return consistency(
          problem,
          grading,
          leaves.map((leaf) => answerAt(problem, grading, leaf)),
        );
      },
    };
  }
  if (search.value === "likelihood") return { value: (leaves) => leaves.map(likelihood) };
  if (processReward === undefined) throw new Error(`nothing scores leaves for the search value ${search.value}`);
  return {
    async value(leaves) {
      const questions = problems.map((problem) => problemFields(problem).question ?? "");
      const states = leaves.map(({ question, steps, ids }) => ({ question: questions[question], steps, ids }));
      return (await processReward.score(states)).map((scores) => scores.at(-1) ?? 0);
    },
  };
}

/** The geometric mean probability of the output's tokens; 0 of a path without one. */
function likelihood({ finished, logprobs }: SearchLeaf): number {
  return finished ? Math.exp(logprobs.reduce((sum, logprob) => sum + logprob, 0) / logprobs.length) : 0;
}

/**
 * Searches problems together and grades every rollout afterwards: one sample a rollout, in the order of problems and rollouts. Interrupted, those that have
 * ended.
 */
export async function evaluateBySearch(
  problems: Problem[],
  search: EvaluationSearch,
  options: SearchOptions,
): Promise<EvaluatedSample[]> {
  const { model, tokenizer, task, n = 1, seed = 0, processReward, interrupted } = options;
  const grading = checkSearchable(task);
  const questions = problems.map((problem) => ({
    id: problem.id,
    problem: problem.id,
    prompt: encodePrompt(tokenizer, problem),
    key: `eval/${seed}/${problem.id}`,
  }));
  const settings = searchSettings(search, { ...options, n });
  const values = valuesWithoutGold(search, problems, grading, processReward);
  const { forest, trees } = await searchTrees(model, questions, settings, values, { interrupted });
  const samples: EvaluatedSample[] = [];
  for (const [q, problem] of problems.entries()) {
    const { nodes, leaves } = trees[q];
    const fresh = freshTokens(forest[q], nodes, n);
    const graded = new Map<number, Awaited<ReturnType<typeof gradeSample>>>();
    for (const [sample, leaf] of leaves.entries()) {
      const { segment, end = "budget", value = 0 } = nodes[leaf];
      const response = responseOf(forest[q], segment);
      const shown = end === "output" ? response.tokens.slice(0, -1) : response.tokens;
      const text = tokenizer.decode(shown);
      const grade = graded.get(leaf) ?? (await gradeSample(task, problem, text));
      graded.set(leaf, grade);
      const weight = search.value === "consistency" ? 1 : value;
      const searched = { node: leaf, end, weight, fresh: fresh[sample] };
      const one = {
        problem: problem.id,
        sample,
        ...problemFields(problem),
        text,
        ...response,
        search: searched,
        ...grade,
      };
      samples.push(one);
    }
  }
  return samples;
}

/** The path to a leaf without its prompt. */
function responseOf(tree: Tree, segment: number): Pick<EvaluatedSample, "tokens" | "logprobs" | "stop"> {
  const path = pathTo(tree, segment)
    .slice(1)
    .map((s) => tree.segments[s]);
  return {
    tokens: path.flatMap(({ tokens }) => [...tokens]),
    logprobs: path.flatMap(({ logprobs = [] }) => [...logprobs]),
    stop: path.at(-1)?.stop ?? "length",
  };
}

/** By rollout: the tokens of the nodes that it made, functions included. */
function freshTokens({ segments }: Tree, nodes: SearchNode[], rollouts: number): number[] {
  const fresh = new Array<number>(rollouts).fill(0);
  const counted = new Set<number>();
  for (const { rollout, segment, choice, N } of nodes) {
    if (rollout < 0 || N === 0) continue;
    fresh[rollout] += segments[segment].tokens.length + Number(!counted.has(choice));
    counted.add(choice);
  }
  return fresh;
}

import { hashKey, uniform } from "../engine/random.ts";
import type { Model } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { promptQuestion, promptSearch, type PromptSearchSettings, type PromptTree } from "../rollout/prompt-search.ts";
import type { Problem, Task } from "../task/types.ts";
import { gradeSample, problemFields } from "./regrade.ts";
import type { EvaluatedSample } from "./samples.ts";
import { checkSearchable, consistency } from "./search.ts";

/** rStar's depth (arXiv 2408.06195), with the exploration weight of RFTT's search by prompts, which it descends from. */
const DEFAULTS = { c: 2, schedule: "const", maxDepth: 5, longAnswer: Infinity, inFlight: 1 } as const;

/** What `evaluate` hands on. */
export interface PromptedOptions {
  model: Model;
  task: Task;
  /** Longest text of a step. */
  maxTokens: number;
  temperature: number;
  /** Rollouts. */
  n?: number;
  seed?: number;
  interrupted?: () => boolean;
}

/**
 * Searches problems by asking a chat model for each step (rStar), without the gold: a solution is worth the share of its tree's solutions that state an equal
 * answer. One sample a rollout, its vote 1, in the order of problems and rollouts; interrupted, of each problem those that ended before the first that had
 * not. Throws a UserError where a problem's prompt is no chat.
 */
export async function evaluateByPrompts(problems: Problem[], options: PromptedOptions): Promise<EvaluatedSample[]> {
  const { model, task, maxTokens, temperature, n = 1, seed = 0, interrupted } = options;
  const grading = checkSearchable(task);
  const questions = problems.map((problem) => {
    const key = `eval/${seed}/${problem.id}/prompts`;
    const walk = hashKey(`${key}/walk`);
    const random = (rollout: number, depth: number) => uniform(walk, rollout, depth);
    return { ...promptQuestion(problem, grading), id: problem.id, key, random };
  });
  if (!questions.every(({ chat }) => chat))
    throw new UserError(
      `task ${task.name} asks in plain text: a search by prompts tells a chat model what to write next; search by functions, or choose a task whose prompt is a chat`,
    );
  const settings: PromptSearchSettings = {
    ...DEFAULTS,
    rollouts: n,
    temperature,
    maxTokens: {
      clarify: maxTokens,
      analysis: maxTokens,
      next_step: maxTokens,
      direct_answer: maxTokens,
      subquestion: maxTokens,
    },
  };
  const { trees } = await promptSearch(
    model,
    questions,
    settings,
    (answers) => Promise.resolve(answers.map(() => false)),
    {
      revalue: (q, answers) => consistency(problems[q], grading, answers),
      interrupted,
    },
  );
  const samples: EvaluatedSample[] = [];
  for (const [q, problem] of problems.entries()) {
    const { leaves, written } = trees[q];
    for (const [sample, leaf] of leaves.entries()) {
      if (leaf === undefined) break;
      const response = responseOf(trees[q], leaf);
      samples.push({
        problem: problem.id,
        sample,
        ...problemFields(problem),
        ...response,
        search: { node: leaf, end: endOf(trees[q], leaf), weight: 1, fresh: written[sample] },
        ...(await gradeSample(task, problem, response.text)),
      });
    }
  }
  return samples;
}

function endOf({ nodes, search }: PromptTree, leaf: number): string {
  if (nodes[leaf].solution) return "output";
  return search.nodes[leaf].depth >= DEFAULTS.maxDepth ? "depth" : "empty";
}

/** The steps on the way to a node, each as it was kept, and the tokens that were written for them. */
function responseOf(
  { nodes, search }: PromptTree,
  leaf: number,
): Pick<EvaluatedSample, "text" | "tokens" | "logprobs" | "stop"> {
  const path = [];
  for (let id = leaf; id > 0; id = search.nodes[id].parent) path.unshift(nodes[id]);
  return {
    text: path.flatMap(({ step }) => step?.text ?? []).join("\n"),
    tokens: path.flatMap(({ sample }) => [...(sample?.tokens ?? [])]),
    logprobs: path.flatMap(({ sample }) => [...(sample?.logprobs ?? [])]),
    stop: path.at(-1)?.sample?.stop ?? "length",
  };
}

import { createHash } from "node:crypto";
import { join } from "node:path";
import { z } from "zod";
import { verdictsOf } from "../eval/regrade.ts";
import { type EvaluatedSample, programResultSchema } from "../eval/samples.ts";
import type { Segment } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";
import type { Recipe } from "../run/recipe.ts";
import { Order } from "../run/order.ts";
import type { Problem, ProgramResult, Task } from "../task/types.ts";
import { readJsonLines } from "./lines.ts";
import type { StepRollouts } from "./rollouts.ts";

/** The problems of a run's samples, by id, as far as the task's training split has them. */
export async function findProblems(
  task: Task,
  recipe: Recipe,
  rollouts: readonly StepRollouts[],
): Promise<Map<string, Problem>> {
  const wanted = new Set(rollouts.flatMap(({ trees }) => trees.map(({ problem }) => problem)));
  const found = new Map<string, Problem>();
  if (wanted.size === 0) return found;
  const source = await task.problems("train");
  const take = (problem: Problem) => wanted.delete(problem.id) && found.set(problem.id, problem);
  if (source.size !== Infinity) {
    for (let i = 0; i < source.size && wanted.size > 0; i++) take(source.at(i));
    return found;
  }
  for (const { name } of recipe.stages) {
    const steps = rollouts.filter(({ stage }) => stage === name);
    if (steps.length === 0) continue;
    const order = new Order(source.size, `${recipe.seed}/${name}`);
    // A stage takes its problems in order, as many a step; filters may pass some over.
    const problems = new Set(steps.flatMap(({ trees }) => trees.map(({ problem }) => problem))).size;
    const last = Math.max(...steps.map(({ step }) => step)) + 1;
    const most = 4 * Math.ceil(problems / steps.length) * last + 1000;
    for (let cursor = 0; cursor < most && wanted.size > 0; cursor++) take(source.at(order.at(cursor)));
  }
  return found;
}

/** The response of a path as the run graded it: the tokens after the prompt without the one that ended it, or up to a stop. */
export function responseText(tokenizer: Tokenizer, path: readonly Segment[], stops: readonly string[]): string {
  const tokens = path.flatMap((segment) => (segment.source === "prompt" ? [] : Array.from(segment.tokens)));
  const { stop } = path[path.length - 1];
  const text = tokenizer.decode(stop === "eos" ? tokens.slice(0, -1) : tokens);
  if (stop !== "stop") return text;
  const ends = stops.map((end) => text.indexOf(end)).filter((at) => at >= 0);
  return ends.length === 0 ? text : text.slice(0, Math.min(...ends));
}

type Verdicts = Pick<EvaluatedSample, "strict" | "flexible">;

/**
 * Verdicts by a task's grading; a response that came before is not graded again. A program is not run for a page: what it came to stands
 * in the run's journal, and without that it has no verdict.
 */
export function cachedVerdicts(
  task: Task,
): ((problem: Problem, response: string, program: ProgramResult | undefined) => Verdicts | undefined) | undefined {
  const { grading } = task;
  if (grading === undefined) return undefined;
  const known = new Map<string, Verdicts>();
  return (problem, response, program) => {
    if (task.programs && program === undefined) return undefined;
    const key = JSON.stringify([problem.id, response]);
    const verdicts = known.get(key) ?? verdictsOf(problem, response, grading, program);
    known.set(key, verdicts);
    return verdicts;
  };
}

const judgedSchema = z.object({
  stage: z.string(),
  step: z.number(),
  problem: z.string(),
  response: z.string(),
  error: z.string().optional(),
  program: programResultSchema.optional(),
});

/** What the journal of verdicts says of a response beside its reward: why grading failed, what its program came to. */
export type Judged = Pick<z.infer<typeof judgedSchema>, "error" | "program">;

/** Reads the journal: by stage, step, problem, and the response itself, whatever its number and its turn. */
export function readJudged(
  dir: string,
  note: (text: string) => void,
): (stage: string, step: number, problem: string, response: string) => Judged {
  const judged = new Map<string, Judged>();
  const key = (...parts: (string | number)[]) => JSON.stringify(parts);
  for (const line of readJsonLines(join(dir, "verdicts.jsonl"), note)) {
    const parsed = judgedSchema.safeParse(line);
    if (!parsed.success) continue;
    const { stage, step, problem, response, error, program } = parsed.data;
    if (error !== undefined || program !== undefined)
      judged.set(key(stage, step, problem, response), { error, program });
  }
  return (stage, step, problem, response) => {
    if (judged.size === 0) return {};
    const digest = createHash("sha256").update(response).digest("hex").slice(0, 16);
    return judged.get(key(stage, step, problem, digest)) ?? {};
  };
}

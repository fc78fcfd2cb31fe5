import { existsSync, readFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { problemFields } from "../eval/regrade.ts";
import { listCheckpoints } from "../run/checkpoint.ts";
import { requireRun } from "../run/folder.ts";
import { addedTokens } from "../run/functions.ts";
import { recipeOf } from "../run/models.ts";
import type { Recipe } from "../run/recipe.ts";
import { loadTask } from "../task/load.ts";
import type { Problem, Task } from "../task/types.ts";
import { ViewBuilder } from "./builder.ts";
import { readCurves } from "./curves.ts";
import type { View } from "./page.ts";
import { Pieces } from "./pieces.ts";
import { readRollouts, shownTree, type StepRollouts } from "./rollouts.ts";
import { reasonOf, tokenizerOf } from "./tokenizer.ts";
import type { ViewHead } from "./types.ts";
import { cachedVerdicts, findProblems, readJudged, responseText } from "./verdicts.ts";

export interface RunViewOptions {
  /** Samples of these steps alone, first and last; counted in each stage from 0, as in metrics.jsonl. */
  steps?: [number, number];
}

type Note = (text: string) => void;

/** What a run folder holds, as far as it is written. What is missing or cannot be shown is said in the view's notes. */
export async function runView(path: string, { steps }: RunViewOptions = {}): Promise<View> {
  const dir = resolve(path);
  requireRun(dir);
  const notes: string[] = [];
  const note: Note = (text) => void (notes.includes(text) || notes.push(text));
  const { has, ...curves } = readCurves(dir, note);
  const recipe = readRecipe(dir, note);
  const task = recipe && (await openTask(recipe, note));
  try {
    const tokenizer = recipe && (await tokenizerOf(recipe.model, task?.vocabulary, note, addedTokens(recipe)));
    const rollouts = readRollouts(dir, note, steps);
    const problems = task && recipe && (await problemsOf(task, recipe, rollouts, note));
    const verdicts = task && cachedVerdicts(task);
    const judged = readJudged(dir, note);
    if (task !== undefined && verdicts === undefined)
      note(`no verdicts: the task ${task.name} has a reward of its own`);
    let unknown = 0;
    const pieces = new Pieces(tokenizer);
    const builder = new ViewBuilder(pieces);
    const places: ViewHead["places"] = [];
    for (const { stage, step, trees, texts } of rollouts) {
      if (!has(stage, step)) note(`step ${step} of ${stage} has samples and no metrics yet: it is in progress`);
      const shown = trees.map((tree, t) => {
        const problem = problems?.get(tree.problem);
        if (problem !== undefined) builder.problem(problem.id, problemFields(problem));
        return shownTree(tree, texts[t], (leaf) => {
          if (tokenizer === undefined) return {};
          const response = responseText(tokenizer, leaf, task?.stop ?? []);
          const { error, program } = judged(stage, step, tree.problem, response);
          unknown += Number(problem === undefined);
          return {
            ...(problem === undefined ? {} : verdicts?.(problem, response, program)),
            ...(error === undefined ? {} : { error }),
          };
        });
      });
      places.push({ stage, step, samples: builder.add(shown, places.length) });
    }
    if (verdicts !== undefined && problems !== undefined && unknown > 0)
      note(`no verdicts on ${unknown} samples: the training split of ${task?.name ?? "the task"} lacks their problems`);
    const { head, columns } = builder.finish();
    if (head.samples === 0)
      note(steps === undefined ? "no samples (supervised stages keep none)" : "the chosen steps have no samples");
    if (pieces.foreign > 0)
      note(
        `${pieces.foreign} texts are not what the tokenizer of ${recipe?.model ?? ""} gives for their tokens: shown whole`,
      );
    return {
      title: basename(dir),
      facts: factsOf(dir, recipe, curves, head.samples),
      notes,
      report: "",
      head: { kind: "run", ...curves, places, sides: [], ...head },
      columns,
      blocks: builder.encoded,
    };
  } finally {
    await task?.close();
  }
}

function readRecipe(dir: string, note: Note): Recipe | undefined {
  try {
    return recipeOf(dir);
  } catch (error) {
    note(`no questions, verdicts and tokens: the recipe cannot be read (${reasonOf(error)})`);
    return undefined;
  }
}

async function openTask({ task, baseDir, seed }: Recipe, note: Note): Promise<Task | undefined> {
  try {
    return await loadTask(task, { baseDir, seed });
  } catch (error) {
    note(`no verdicts: the task cannot be loaded (${reasonOf(error)})`);
    return undefined;
  }
}

async function problemsOf(
  task: Task,
  recipe: Recipe,
  rollouts: readonly StepRollouts[],
  note: Note,
): Promise<Map<string, Problem> | undefined> {
  try {
    return await findProblems(task, recipe, rollouts);
  } catch (error) {
    note(`no questions and verdicts: the problems cannot be read (${reasonOf(error)})`);
    return undefined;
  }
}

/** What stands at the page's top. */
function factsOf(
  dir: string,
  recipe: Recipe | undefined,
  { lines, metrics }: Pick<ViewHead, "lines" | "metrics">,
  samples: number,
): [string, string][] {
  const last = (name: string) => metrics.find((metric) => metric.name === name)?.values.findLast((x) => x !== null);
  const steps = new Map<string, number>();
  for (const stage of lines.stage) steps.set(stage, (steps.get(stage) ?? 0) + 1);
  const stages = recipe?.stages.map(({ name }) => name) ?? [...steps.keys()];
  const known: [string, string | number | null | undefined][] = [
    ["model", recipe?.model],
    ["task", typeof recipe?.task === "object" ? recipe.task.name : recipe?.task],
    ["seed", recipe?.seed],
    ["state", recipe === undefined ? undefined : stateOf(dir, recipe)],
    ["steps", stages.map((stage) => `${stage} ${steps.get(stage) ?? 0}`).join(", ")],
    ["samples", samples],
    ["generated tokens", last("generated")],
    ["trained tokens", last("trained")],
    ["engine seconds", last("timings/engineSeconds")?.toFixed(1)],
  ];
  return known.flatMap(([name, value]): [string, string][] =>
    value === undefined || value === null ? [] : [[name, String(value)]],
  );
}

const stateSchema = z.looseObject({ stage: z.number() });

/** By the newest checkpoint and the lock: complete, running, or neither. */
function stateOf(dir: string, recipe: Recipe): string {
  const folder = join(dir, "checkpoints");
  const newest = listCheckpoints(folder).at(-1);
  try {
    const state = stateSchema.parse(JSON.parse(readFileSync(join(folder, newest ?? "", "state.json"), "utf8")));
    if (state.stage >= recipe.stages.length) return "complete";
  } catch {
    // No checkpoint yet, or a damaged one: the run is not complete then.
  }
  return existsSync(join(dir, "lock")) ? "in progress, or killed" : "not complete: interrupted";
}

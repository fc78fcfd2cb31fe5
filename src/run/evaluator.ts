import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Model, TokenCounts } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import { checkGolds, evaluate, takeProblems } from "../eval/evaluate.ts";
import { type EvaluationSettings, gradingSettings, reportOf } from "../eval/report.ts";
import { evaluationRounds } from "../eval/rounds.ts";
import { checkRoundBudgets } from "../rollout/rounds.ts";
import { responseRoom } from "../rollout/single.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { Problem, Task } from "../task/types.ts";
import type { RunState } from "./checkpoint.ts";
import { appendEvaluation, cutBackEvaluations } from "./curve.ts";
import { EvaluationFile } from "./evaluation.ts";
import type { EvaluationRecipe } from "./evaluation-recipe.ts";
import type { StageRecipe } from "./recipe.ts";

/** Greedy evaluation between the steps of a run. It has random streams and files of its own, and leaves the model as it found it. */
export class Evaluator {
  private readonly recipe: EvaluationRecipe;
  private readonly task: Task;
  private readonly problems: Problem[];
  private readonly settings: EvaluationSettings;

  private constructor(recipe: EvaluationRecipe, seed: number, task: Task, problems: Problem[]) {
    this.recipe = recipe;
    this.task = task;
    this.problems = problems;
    const { split, maxTokens, format } = recipe;
    const rounds = evaluationRounds(recipe, (key) => `eval.${key}`);
    const asked = { n: 1, temperature: 0, maxTokens, ...(rounds && { rounds }), seed };
    this.settings = { split, ...gradingSettings(task), ...(format && { format }), ...asked };
  }

  /** Reads and checks the problems; undefined where the recipe has no evaluation. */
  static async open(
    { eval: recipe, seed }: { eval?: EvaluationRecipe; seed: number },
    task: Task,
  ): Promise<Evaluator | undefined> {
    if (recipe === undefined) return undefined;
    let problems: Problem[];
    try {
      problems = await takeProblems(task, recipe.split, recipe.limit, recipe.format);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      throw new UserError(`\`eval.split\`: ${error.message}`);
    }
    await checkGolds(task, problems);
    return new Evaluator(recipe, seed, task, problems);
  }

  /** Throws a UserError for a prompt that leaves no room for a response, and for rounds whose budgets cannot fit. */
  check(model: Model): void {
    const { rounds } = this.settings;
    for (const problem of this.problems) {
      if (rounds !== undefined) {
        checkRoundBudgets(model, this.task, problem, { ...rounds, maxTokens: this.recipe.maxTokens });
        continue;
      }
      responseRoom(problem.id, encodePrompt(model.tokenizer, problem), model.info.maxContext, this.recipe.maxTokens);
    }
  }

  /** Whether the place where a run stands is to be evaluated and is not yet; `over`: the stage has come to its end. */
  due(state: RunState, stage: StageRecipe, over: boolean): boolean {
    if (!stage.trainsPolicy) return false;
    const last = state.evaluated?.last;
    if (last?.stage === stage.name && last.step === state.step) return false;
    // The end of the stage before is the same place.
    if (state.step === 0)
      return stage.from !== "previous" || last === undefined || last.totalSteps !== state.totalSteps;
    // Steps that only sample leave the weights with which the stage began.
    const trained = state.step - state.samplingSteps;
    return over || (trained > 0 && trained % this.recipe.every === 0);
  }

  /** Begins to count for a stage's patience. */
  begin(state: RunState): void {
    if (state.evaluated !== undefined)
      Object.assign(state.evaluated, { highest: state.evaluated.last.accuracy, without: 0 });
  }

  /**
   * Evaluates the weights as they are, writes samples and line, and notes it in the state. Undefined when it was interrupted before it
   * was done; the samples so far are kept.
   */
  async run(
    dir: string,
    model: Model,
    state: RunState,
    stage: string,
    counts: TokenCounts,
    watching: { interrupted: () => boolean; onSample: (done: number, of: number) => void },
  ): Promise<{ accuracy: number } | undefined> {
    const { problems, settings, task } = this;
    const { step, totalSteps } = state;
    const file = new EvaluationFile(dir, settings, `${stage}, step ${step}`, problems, evaluationName(stage, step));
    const samples = [...file.kept];
    try {
      file.begin(model.info.plan);
      await evaluate({
        model,
        tokenizer: model.tokenizer,
        task,
        problems,
        maxTokens: this.recipe.maxTokens,
        temperature: 0,
        rounds: settings.rounds,
        seed: settings.seed,
        done: samples.length,
        interrupted: watching.interrupted,
        onSample: (sample) => {
          file.append(sample);
          samples.push(sample);
          watching.onSample(samples.length, problems.length);
        },
      });
    } finally {
      file.close();
      await model.discard();
    }
    if (samples.length < problems.length) return undefined;
    const report = reportOf(settings, samples);
    const correct = samples.filter(({ solved }) => solved).length;
    appendEvaluation(dir, {
      stage,
      step,
      totalSteps,
      counts,
      correct,
      ...report,
      split: this.recipe.split,
      file: file.file,
    });
    this.note(state, stage, report.accuracy);
    return report;
  }

  private note(state: RunState, stage: string, accuracy: number): void {
    const { step, totalSteps, evaluated } = state;
    const first = evaluated === undefined || step === 0;
    const rises = first || accuracy > evaluated.highest;
    state.evaluated = {
      count: (evaluated?.count ?? 0) + 1,
      last: { stage, step, totalSteps, accuracy },
      highest: rises ? accuracy : evaluated.highest,
      without: rises ? 0 : evaluated.without + 1,
    };
  }
}

function evaluationName(stage: string, step: number): string {
  return `${stage}-${String(step).padStart(6, "0")}`;
}

/**
 * Brings the evaluations inside a run back to a checkpoint: what was written of later places goes. `stages` are the names of the
 * recipe's stages. What `rifft eval` wrote stays.
 */
export function cutBackEvaluated(dir: string, state: RunState, stages: string[]): void {
  cutBackEvaluations(dir, state.evaluated?.count ?? 0);
  const evals = join(dir, "evals");
  if (!existsSync(evals)) return;
  for (const file of readdirSync(evals)) {
    const [, stage = "", step = ""] = /^(.+)-(\d{6,})\.(?:jsonl|json|json\.new|lock)$/.exec(file) ?? [];
    const index = stages.indexOf(stage);
    if (index > state.stage || (index === state.stage && Number(step) > state.step)) rmSync(join(evals, file));
  }
}

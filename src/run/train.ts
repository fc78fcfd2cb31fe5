import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createLocalEngine } from "../engine/local/index.ts";
import type { Engine, TokenCounts } from "../engine/types.ts";
import { DivergedError, UserError } from "../errors.ts";
import { sourceInFormat } from "../task/formats.ts";
import { allProblems } from "../task/leaks.ts";
import { checkPrograms } from "../task/program.ts";
import { loadTask } from "../task/load.ts";
import type { Task } from "../task/types.ts";
import { type Best, bestOf, CHOSEN_ON_TEST, sparedCheckpoints } from "./best.ts";
import { Boundary } from "./boundary.ts";
import {
  checkpointName,
  latestCheckpoint,
  pruneCheckpoints,
  removeCheckpoint,
  type RunState,
  setAside,
  writeCheckpoint,
} from "./checkpoint.ts";
import { RunCounters } from "./counters.ts";
import { readCurve } from "./curve.ts";
import { currentEnvironment, environmentDifference } from "./environment.ts";
import { cutBackEvaluated, Evaluator } from "./evaluator.ts";
import { isRunFolder, RunFolder, type RunRecord } from "./folder.ts";
import { VerdictJournal } from "./journal.ts";
import { checkCapabilities, checkFiles, checkProblems } from "./preflight.ts";
import { type TrainingProblems, trainingProblems } from "./profile.ts";
import { combineProgress, PlainProgress, type Progress, silentProgress } from "./progress.ts";
import { parseRecipe, type Recipe, differenceText, recipeDifference, recipeTable, recipeToml } from "./recipe.ts";
import { RunModel, type StartingPoint } from "./run-model.ts";
import { checkSpace, estimateSpace, freeSpace, spaceText } from "./space.ts";
import { RunStage } from "./stage.ts";

export interface TrainOptions {
  /** The run folder; `runs/` and the time when absent. */
  run?: string;
  /** The local engine when absent. Closed by its owner. */
  engine?: Engine;
  progress?: Progress;
  /** Aborting it ends the run after the step in progress, with a checkpoint. */
  signal?: AbortSignal;
}

export interface RunResult {
  /** The run folder. */
  run: string;
  /** False when it was interrupted. */
  complete: boolean;
  /** The metrics of each stage's last step. */
  stages: { name: string; steps: number; metrics: Record<string, unknown> }[];
  counts: TokenCounts;
  engineSeconds: number;
  /** The best checkpoint, where the recipe says by what. */
  best?: Best;
  /** The marks that were passed. */
  marks?: NonNullable<RunState["marks"]>;
}

const beginning: RunState = {
  stage: 0,
  step: 0,
  totalSteps: 0,
  samplingSteps: 0,
  cursor: 0,
  memory: {},
  counts: { generated: 0, prefilled: 0, scored: 0, trained: 0 },
  engineSeconds: 0,
  atStageStart: { generated: 0, engineSeconds: 0 },
  stageEnds: {},
  sizes: {},
};

/** Runs a recipe in a new run folder. Everything that can be checked is checked before the folder is made. */
export async function train(recipe: Recipe, options: TrainOptions = {}): Promise<RunResult> {
  const dir = resolve(options.run ?? join("runs", new Date().toISOString().slice(0, 19).replace(/[T:]/g, "-")));
  if (isRunFolder(dir)) {
    throw new UserError(
      `${dir} holds a run already; continue it with \`rifft resume ${dir}\`, or choose another folder with --run`,
    );
  }
  return withRun(recipe, options, async (run) => {
    const state = run.beginning();
    await run.prepare(state, undefined);
    run.checkSpace(dir);
    const record = { ...run.record(), baseDir: recipe.baseDir, recipe: recipeTable(recipe) };
    const folder = RunFolder.create(dir, recipeToml(recipe), record);
    return run.go(folder, state, undefined);
  });
}

export interface ResumeOptions extends Omit<TrainOptions, "run"> {
  /** Continues although threads, memory plan, library or processor changed; the numbers may then differ. */
  force?: boolean;
}

/** Continues a run from its newest intact checkpoint; it ends as if it had never stopped. */
export async function resume(dir: string, options: ResumeOptions = {}): Promise<RunResult> {
  const folder = RunFolder.open(resolve(dir));
  try {
    const before = folder.record();
    const file = join(folder.dir, "recipe.toml");
    const recipe = parseRecipe(readFileSync(file, "utf8"), { source: file, baseDir: before.baseDir });
    const changed = recipeDifference(before.recipe, recipeTable(recipe));
    if (changed !== undefined) {
      throw new UserError(`${file}: ${differenceText(changed, "the run began")}; put it back, or start a new run`);
    }
    const progress = options.progress ?? silentProgress;
    const found = await latestCheckpoint(folder.checkpoints, (name, reason) => {
      const text = `checkpoint ${name} is damaged (${reason}); using the one before`;
      folder.log(text);
      progress.note(text);
      setAside(folder.checkpoints, name);
    });
    if (found === undefined) progress.note("no checkpoint yet: starting from the beginning");
    if (found?.state.stage === recipe.stages.length) {
      progress.note(`${folder.dir} is complete: all ${found.state.totalSteps} steps are done`);
      return resultOf(folder, recipe, found.state, true);
    }
    return await withRun(recipe, options, async (run) => {
      const state = found?.state ?? run.beginning();
      if (before.profile !== run.profile) {
        throw new UserError(
          `${recipe.profile} is not as it was when ${folder.dir} began, and its problems were chosen by it; put it back, or start a new run`,
        );
      }
      await run.prepare(state, { folder, checkpoint: found?.path });
      checkEnvironment(folder, before, run.record(), options.force === true, progress);
      const names = recipe.stages.map((stage) => stage.name);
      folder.cutBack(state.sizes, names, state.stage, state.step);
      cutBackEvaluated(folder.dir, state, names);
      return run.go(folder, state, found?.name);
    });
  } finally {
    folder.close();
  }
}

function checkEnvironment(
  folder: RunFolder,
  before: RunRecord,
  now: Pick<RunRecord, "environment">,
  force: boolean,
  progress: Progress,
): void {
  const difference = environmentDifference(before.environment, now.environment);
  if (difference === undefined) return;
  if (!force) {
    throw new UserError(
      `this is not the environment in which ${folder.dir} began: ${difference}; the numbers could differ. Go back to it, or resume with --force`,
    );
  }
  const text = `resumed in another environment: ${difference}`;
  folder.log(text);
  progress.note(text);
  folder.rewriteRecord({ ...before, ...now });
}

/** Opens what a run needs, and closes it whatever happens. */
async function withRun(
  recipe: Recipe,
  options: TrainOptions,
  work: (run: Run) => Promise<RunResult>,
): Promise<RunResult> {
  const engine = options.engine ?? createLocalEngine({ memoryGb: recipe.memory });
  let opened: { close(): Promise<void> } | undefined;
  try {
    checkCapabilities(recipe, engine.capabilities());
    checkFiles(recipe);
    const task = await loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed });
    opened = task;
    const training = await trainingProblems(recipe, task);
    const run = new Run(recipe, options, engine, task, training, await Evaluator.open(recipe, task));
    opened = run;
    return await work(run);
  } finally {
    await opened?.close();
    if (options.engine === undefined) await engine.close();
  }
}

/** A run in progress. */
class Run {
  private readonly recipe: Recipe;
  private readonly options: TrainOptions;
  private readonly task: Task;
  private readonly training: TrainingProblems;
  private readonly evaluator: Evaluator | undefined;
  private readonly model: RunModel;
  /** What it needs of the disk, in words. */
  private space: string | undefined;

  constructor(
    recipe: Recipe,
    options: TrainOptions,
    engine: Engine,
    task: Task,
    training: TrainingProblems,
    evaluator: Evaluator | undefined,
  ) {
    this.recipe = recipe;
    this.options = options;
    this.task = task;
    this.training = training;
    this.evaluator = evaluator;
    this.model = new RunModel(recipe, engine, task);
  }

  async close(): Promise<void> {
    await this.model.close();
    await this.task.close();
  }

  record(): Pick<RunRecord, "environment" | "profile"> {
    return {
      environment: currentEnvironment(this.model.opened.info.plan),
      profile: this.profile,
    };
  }

  /** The digest of the profile by which the training problems are chosen. */
  get profile(): string | undefined {
    return this.training.profile?.sha256;
  }

  /** The state before the first step, in which what a profile cost is counted. */
  beginning(): RunState {
    const cost = this.training.profile?.cost;
    const state = structuredClone(beginning);
    if (cost === undefined) return state;
    Object.assign(state.counts, { generated: cost.generated, prefilled: cost.prefilled });
    return { ...state, engineSeconds: cost.seconds };
  }

  /** Opens the model with which the run goes on, and checks the problems against it. */
  async prepare(state: RunState, at: StartingPoint | undefined): Promise<void> {
    const { source } = this.training;
    const model = await this.model.open(state, at);
    checkProblems(this.recipe, this.task, source, model);
    this.evaluator?.check(model);
    if (at === undefined) await checkPrograms(this.task, allProblems(source) ?? []);
  }

  /** Refuses a disk on which the run does not fit. */
  checkSpace(dir: string): void {
    const estimate = estimateSpace(this.recipe, this.model.trainable, this.training.source.size);
    const free = freeSpace(dir);
    checkSpace(estimate, free, dir);
    this.space = spaceText(estimate, free);
  }

  /** Runs what is left of the recipe. `checkpoint` names the one that the open model came from. */
  async go(folder: RunFolder, state: RunState, checkpoint: string | undefined): Promise<RunResult> {
    const { recipe, options, task } = this;
    const log = new PlainProgress((line) => folder.log(line));
    const progress = combineProgress(options.progress ?? silentProgress, log);
    const counters = new RunCounters(state.counts, state.engineSeconds);
    const interrupted = () => options.signal?.aborted === true;
    let where = () => "";
    try {
      const { source, profile } = this.training;
      const names = recipe.stages.map((stage) => stage.name);
      const journal = new VerdictJournal(folder, { stage: names[state.stage], step: state.step });
      progress.note(this.model.opened.info.plan);
      if (recipe.selection === "reference") progress.note(CHOSEN_ON_TEST);
      if (this.space !== undefined) progress.note(this.space);
      if (profile !== undefined) progress.note(profile.text);
      progress.curve(readCurve(folder.dir), bestOf(recipe, state));
      let newest = checkpoint;
      while (state.stage < recipe.stages.length) {
        const current = recipe.stages[state.stage];
        const model = this.model.opened;
        counters.attach(model, ...(this.model.critic === undefined ? [] : [this.model.critic]));
        // The first stage's budget includes what came before it, a profile's cost.
        if (state.step === 0 && state.stage > 0) {
          state.atStageStart = { generated: counters.now().generated, engineSeconds: counters.engineSeconds };
        }
        const save = async () => {
          progress.activity("save");
          newest = await this.save(folder, state, counters);
        };
        const boundary = new Boundary({
          recipe,
          evaluator: this.evaluator,
          dir: folder.dir,
          model,
          counters,
          progress,
          state,
          interrupted,
        });
        const stage: RunStage = new RunStage({
          recipe: current,
          seed: recipe.seed,
          model,
          critic: this.model.critic,
          task,
          baseDir: recipe.baseDir,
          source: sourceInFormat(source, current.format),
          folder,
          journal,
          counters,
          progress,
          position: {
            step: state.step,
            samplingSteps: state.samplingSteps,
            cursor: state.cursor,
            memory: state.memory,
            atStart: state.atStageStart,
          },
          place: { position: state.stage + 1, of: recipe.stages.length },
          interrupted,
          startPolicy: () => this.model.startPolicy(folder, state),
          ended: () => boundary.outOfPatience,
          onStep: async ({ metrics }) => {
            state.step = stage.position.step;
            state.samplingSteps = stage.position.samplingSteps;
            state.cursor = stage.position.cursor;
            state.totalSteps++;
            if (await boundary.leave(stage, metrics)) await save();
          },
        });
        where = () => stage.where ?? `stage ${stage.name}`;
        const start = current.from === "previous-best" ? state.best?.[names[state.stage - 1]] : undefined;
        if (start !== undefined && state.step === 0) {
          progress.note(`${stage.name} begins with ${start.checkpoint}, the best of ${names[state.stage - 1]}`);
        }
        for (const line of state.step === 0 ? this.model.newHeads() : []) progress.note(`${stage.name}: ${line}`);
        if (await boundary.enter(stage)) await save();
        await current.run(stage);
        if (interrupted() && (!stage.over || boundary.pending(stage))) return resultOf(folder, recipe, state, false);
        state.stageEnds[stage.name] = checkpointName(state);
        Object.assign(state, { stage: state.stage + 1, step: 0, samplingSteps: 0, cursor: 0, memory: {} });
        await save();
        removeCheckpoint(join(folder.dir, "snapshots"), stage.name);
        if (state.stage === recipe.stages.length) break;
        if (interrupted()) return resultOf(folder, recipe, state, false);
        await this.model.open(state, { folder, checkpoint: newest && join(folder.checkpoints, newest) });
      }
      return resultOf(folder, recipe, state, true);
    } catch (error) {
      folder.log(error instanceof Error ? (error.stack ?? error.message) : String(error));
      if (!(error instanceof UserError)) throw error;
      const place = where();
      const Kind = error instanceof DivergedError ? DivergedError : UserError;
      throw new Kind(
        `${place === "" ? "" : `${place}: `}${error.message} (kept in ${folder.dir} up to the last checkpoint; \`rifft resume\` continues it)`,
      );
    } finally {
      progress.end();
      folder.close();
    }
  }

  /** Writes a checkpoint of the run as it stands, and drops those that nobody needs. Returns its name. */
  private async save(folder: RunFolder, state: RunState, counters: RunCounters): Promise<string> {
    state.counts = counters.now();
    state.engineSeconds = counters.engineSeconds;
    state.sizes = folder.sync();
    const name = checkpointName(state);
    await writeCheckpoint(folder.checkpoints, name, state, (dir) => this.model.save(dir));
    pruneCheckpoints(folder.checkpoints, this.recipe.checkpoint.keep, sparedCheckpoints(this.recipe, state));
    return name;
  }
}

function resultOf(folder: RunFolder, recipe: Recipe, state: RunState, complete: boolean): RunResult {
  const last = folder.lastMetrics();
  return {
    run: folder.dir,
    complete,
    stages: recipe.stages.flatMap(({ name }) => {
      const line = last.get(name);
      return line === undefined ? [] : [{ name, steps: line.step + 1, metrics: line.metrics }];
    }),
    counts: state.counts,
    engineSeconds: state.engineSeconds,
    best: bestOf(recipe, state),
    marks: state.marks,
  };
}

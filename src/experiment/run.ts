import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { replaceFile } from "../run/disk.ts";
import { lockFolder } from "../run/lock.ts";
import { differenceText, recipeDifference, recipeToml } from "../run/recipe.ts";
import { memory, threadCount } from "../runtime/index.ts";
import { analyse, type Analysis, type Ran } from "./analyse.ts";
import { type ArmRecipe, armRecipes } from "./arms.ts";
import { type CellResult, hasAlso, readCellResult } from "./cell.ts";
import { type CheckedQuestions, checkQuestions } from "./check.ts";
import { type Choices, choose, freezeChoices, statePower } from "./choose.ts";
import { type Also, alsoOf, askedOf, type EvaluationSpec, type ExperimentFile, type ProfileSpec } from "./file.ts";
import { writePage } from "./page.ts";
import { type Cell, finalPlan, type Plan, tuningPlan } from "./plan.ts";
import { type PoolJob, runJobs } from "./pool.ts";
import type { CellJob } from "./run-cell.ts";
import type { ExperimentProgress } from "./progress.ts";

export interface ExperimentOptions {
  /** The experiment's folder; `runs/` and the file's name when absent. */
  dir?: string;
  /** Where the page is written besides, in place of the file's `out`. */
  out?: string;
  progress: ExperimentProgress;
  /** Aborting it ends every cell after the step in progress, with a checkpoint. */
  signal: AbortSignal;
  /** Cells go on although threads, memory plan, library or processor changed. */
  force?: boolean;
}

export interface ExperimentResult {
  dir: string;
  /** False when it was interrupted, or cells are missing. */
  complete: boolean;
  interrupted: boolean;
  /** Absent when no cell of the final table could be begun. */
  analysis?: Analysis;
  /** The pages written. */
  pages: string[];
}

/** Runs what is missing of an experiment, and writes its table and page. */
export async function runExperiment(experiment: ExperimentFile, options: ExperimentOptions): Promise<ExperimentResult> {
  const dir = folderOf(experiment, options.dir);
  const arms = armRecipes(experiment);
  const checked = await checkQuestions(experiment, arms);
  freezeExperiment(dir, experiment);
  const unlock = lockFolder(dir);
  try {
    return await new Running(experiment, arms, dir, checked, options).run();
  } finally {
    options.progress.close();
    unlock();
  }
}

export const folderOf = (experiment: ExperimentFile, dir: string | undefined): string =>
  resolve(dir ?? join("runs", experiment.name));

/** An experiment in progress. */
class Running {
  /** Why cells failed, by their ids. */
  private readonly failures = new Map<string, string>();
  /** Ids of cells that others can start from. */
  private readonly done = new Set<string>();
  private readonly experiment: ExperimentFile;
  private readonly arms: readonly ArmRecipe[];
  private readonly dir: string;
  private readonly checked: CheckedQuestions;
  private readonly options: ExperimentOptions;

  constructor(
    experiment: ExperimentFile,
    arms: readonly ArmRecipe[],
    dir: string,
    checked: CheckedQuestions,
    options: ExperimentOptions,
  ) {
    this.experiment = experiment;
    this.arms = arms;
    this.dir = dir;
    this.checked = checked;
    this.options = options;
  }

  async run(): Promise<ExperimentResult> {
    const { experiment, arms, dir, checked } = this;
    const { progress, signal } = this.options;
    checked.notes.forEach((note) => progress.note(note));
    const tuning = tuningPlan(experiment, arms, dir);
    await this.runPlan("tuning", tuning);
    const stopped: ExperimentResult = { dir, complete: false, interrupted: true, pages: [] };
    if (signal.aborted) return stopped;
    const chosen = choose(experiment, arms, readCells(experiment, tuning.cells, dir));
    const choices = freezeChoices(dir, chosen, statePower(experiment, chosen, checked.problems));
    await this.runPlan("final", finalPlan(experiment, chosenArms(arms, choices), dir));
    if (signal.aborted) return stopped;
    const read = readExperimentFolder(experiment, arms, dir, choices, this.failures);
    read.analysis.notes.push(...checked.notes);
    const { analysis } = read;
    const pages = writePage(experiment, analysis, read, dir, this.options.out);
    return { dir, complete: analysis.complete, interrupted: false, analysis, pages };
  }

  private result(cell: Cell): CellResult | undefined {
    const found = readCellResult(cellFolder(this.dir, cell), cell, evaluationOf(this.experiment, cell));
    return found !== undefined && hasAlso(found, alsoAsked(this.experiment, cell)) ? found : undefined;
  }

  /** What a cell's samples are asked for. */
  private asked(cell: Cell): Pick<CellJob, "evaluation" | "also" | "profile"> {
    const { profile, dev, test } = this.experiment;
    if (cell.phase === "shared") return {};
    if (cell.phase === "tuning") return { evaluation: askedOf(this.experiment, cell.arm, dev) };
    if (cell.phase === "final") {
      const also = alsoOf(this.experiment, cell.arm ?? "");
      return { evaluation: askedOf(this.experiment, cell.arm, test), ...(also.length > 0 && { also }) };
    }
    if (profile === undefined) throw new Error(`${cell.id} is planned without a profile`);
    const model = cell.after === undefined ? {} : { model: join(this.dir, ...cell.after.split("/")) };
    return { profile: { ...model, spec: profile } };
  }

  /** Runs the cells that are not complete: beginnings first, then what starts from them. */
  private async runPlan(name: string, { shared, profiles, cells }: Plan): Promise<void> {
    const { experiment } = this;
    const cores = threadCount();
    const slots = Math.max(1, experiment.parallel ?? cores);
    const timed = experiment.budgets.engineSeconds !== undefined;
    // Beginnings are in no budget, so they run side by side in any case.
    if (timed) {
      await this.runCells(`${name}, shared beginnings`, shared, slots);
      await this.runCells(name, [...profiles, ...cells], 1);
    } else await this.runCells(name, [...shared, ...profiles, ...cells], slots);
  }

  private async runCells(name: string, cells: readonly Cell[], slots: number): Promise<void> {
    const { progress, signal, force = false } = this.options;
    const results = new Map(cells.map((cell) => [cell.id, this.result(cell)]));
    for (const [id, result] of results) if (result !== undefined && result.diverged === undefined) this.done.add(id);
    const waiting = cells.filter(({ id }) => results.get(id) === undefined);
    if (waiting.length === 0 || signal.aborted) return;
    const atOnce = Math.min(slots, waiting.length);
    // Side by side they share what one alone would take; the last one left too, or its memory plan would be another.
    const share = slots > 1 ? { memory: Math.floor((8 * memory().total) / 1e9 / slots) / 10 } : {};
    progress.phase(name, cells.length, cells.length - waiting.length, atOnce);
    const jobs = waiting.map((cell): PoolJob => ({
      after: cell.after,
      job: {
        id: cell.id,
        dir: cellFolder(this.dir, cell),
        recipe: { toml: recipeToml(cell.recipe), baseDir: cell.recipe.baseDir },
        marks: cell.marks,
        ...this.asked(cell),
        ...share,
        force,
      },
    }));
    await runJobs(jobs, this.done, {
      slots: atOnce,
      threads: slots > 1 ? Math.max(1, Math.floor(threadCount() / slots)) : undefined,
      signal,
      onStart: (id) => progress.start(id),
      onProgress: (id, text, done) => progress.update(id, text, done),
      onEnd: (id, outcome) => {
        if (outcome.kind === "complete") this.done.add(id);
        if (outcome.kind === "failed") this.failures.set(id, outcome.message.split("\n")[0]);
        progress.finish(id, outcome);
      },
    });
  }
}

const cellFolder = (dir: string, { id }: Cell): string => join(dir, ...id.split("/"));

const chosenArms = (arms: readonly ArmRecipe[], choices: Choices): ArmRecipe[] =>
  arms.filter(({ arm, setting }) => choices.arms[arm]?.chosen === setting);

function readCells(experiment: ExperimentFile, cells: readonly Cell[], dir: string): Ran[] {
  return cells.map((cell) => {
    const folder = cellFolder(dir, cell);
    return { cell, dir: folder, result: readCellResult(folder, cell, evaluationOf(experiment, cell)) };
  });
}

/** The cells of an experiment's folder as they are, and their table. `failures`: why cells are missing, by their ids. */
export function readExperimentFolder(
  experiment: ExperimentFile,
  arms: readonly ArmRecipe[],
  dir: string,
  choices: Choices,
  failures: ReadonlyMap<string, string> = new Map(),
): { analysis: Analysis; final: Ran[]; tuning: Ran[] } {
  const plans = [tuningPlan(experiment, arms, dir), finalPlan(experiment, chosenArms(arms, choices), dir)];
  const [tuning, final] = plans.map(({ cells }) => readCells(experiment, cells, dir));
  const shared = plans.flatMap((plan) => readCells(experiment, plan.shared, dir));
  const profiles = plans.flatMap((plan) => readCells(experiment, plan.profiles, dir));
  const missing = missingCells(experiment, [...tuning, ...shared, ...profiles, ...final], failures);
  return { analysis: analyse(experiment, choices, final, { shared, profiles }, missing), final, tuning };
}

/** What the table lacks, and why. */
function missingCells(
  { arm }: ExperimentFile,
  cells: readonly Ran[],
  failures: ReadonlyMap<string, string>,
): Analysis["missing"] {
  const found = cells.flatMap(({ cell, result }) => {
    const reason = result === undefined ? (failures.get(cell.id) ?? "not run") : result.diverged;
    // A setting that diverged is a result: it is not chosen.
    return reason === undefined || (cell.phase === "tuning" && result !== undefined) ? [] : [{ cell: cell.id, reason }];
  });
  const held = arm.filter(({ name }) => !cells.some(({ cell }) => cell.phase === "final" && cell.arm === name));
  return [
    ...found,
    ...held.map(({ name }) => ({ cell: `final/${name}`, reason: "not begun: a tuning cell of this arm is missing" })),
  ];
}

/** How a cell is evaluated; a beginning is not. */
export function evaluationOf(
  experiment: ExperimentFile,
  { phase, arm }: Cell,
): EvaluationSpec | ProfileSpec | undefined {
  if (phase === "shared") return undefined;
  if (phase === "profile") return experiment.profile;
  return askedOf(experiment, arm, phase === "tuning" ? experiment.dev : experiment.test);
}

/** A final cell's further evaluations. */
const alsoAsked = (experiment: ExperimentFile, { phase, arm }: Cell): Also[] =>
  phase === "final" ? alsoOf(experiment, arm ?? "") : [];

const frozenSchema = z.record(z.string(), z.unknown());

/** Writes down what the experiment is when it begins, and refuses another one in the same folder. */
function freezeExperiment(dir: string, experiment: ExperimentFile): void {
  const path = join(dir, "experiment.json");
  // What changes no cell and no claim may change.
  const { title: _, out: __, parallel: ___, also: ____, source, baseDir: _____, name: ______, ...fixed } = experiment;
  const now = frozenSchema.parse(JSON.parse(JSON.stringify(fixed)));
  if (existsSync(path)) {
    let before: z.infer<typeof frozenSchema>;
    try {
      before = frozenSchema.parse(JSON.parse(readFileSync(path, "utf8")));
    } catch {
      throw new UserError(`${path} is damaged; restore it, or give the experiment another folder with --run`);
    }
    const changed = recipeDifference(before, now);
    if (changed === undefined) return;
    throw new UserError(
      `${source}: ${differenceText(changed, `${dir} began`)}; put it back, or give the experiment another folder with --run`,
    );
  }
  replaceFile(path, `${JSON.stringify(now, null, 2)}\n`);
}

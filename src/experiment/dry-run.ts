import { join } from "node:path";
import { armRecipes } from "./arms.ts";
import { readCellResult } from "./cell.ts";
import { checkQuestions } from "./check.ts";
import { type ContrastPower, readChoices, statePower } from "./choose.ts";
import type { ExperimentFile } from "./file.ts";
import { type Cell, finalPlan, tuningPlan } from "./plan.ts";
import { evaluationOf, folderOf } from "./run.ts";

export interface PlannedCell {
  id: string;
  /** The shared beginning that it starts from. */
  after?: string;
  complete: boolean;
}

/** What an experiment would do. */
export interface DryRun {
  run: string;
  shared: PlannedCell[];
  profiles: PlannedCell[];
  tuning: PlannedCell[];
  final: PlannedCell[];
  /** Engine seconds that the budgets alone allow all cells; absent where they are no budget. */
  engineSeconds?: number;
  /** Generated tokens, the same. */
  generatedTokens?: number;
  problems: number;
  power: ContrastPower[];
  notes: string[];
}

/** Checks everything and lists the cells, without running one. Settings that are not chosen yet stand for the first. */
export async function dryRun(experiment: ExperimentFile, folder: string | undefined): Promise<DryRun> {
  const dir = folderOf(experiment, folder);
  const arms = armRecipes(experiment);
  const { problems, notes } = await checkQuestions(experiment, arms);
  const choices = readChoices(dir);
  const tuning = tuningPlan(experiment, arms, dir);
  const chosen = arms.filter(({ arm, setting }) => (choices?.arms[arm]?.chosen ?? 0) === setting);
  const final = finalPlan(experiment, chosen, dir);
  const planned = (cells: readonly Cell[]): PlannedCell[] =>
    cells.map((cell) => {
      const known = cell.phase !== "final" || cell.arm === undefined || choices?.arms[cell.arm] !== undefined;
      const complete =
        known && readCellResult(join(dir, ...cell.id.split("/")), cell, evaluationOf(experiment, cell)) !== undefined;
      return { id: cell.id, ...(cell.after === undefined ? {} : { after: cell.after }), complete };
    });
  const total = (budget: "generatedTokens" | "engineSeconds") =>
    [...tuning.cells, ...final.cells].filter(({ marks }) => marks.includes(budget)).length *
    (experiment.budgets[budget] ?? 0);
  return {
    run: dir,
    shared: planned([...tuning.shared, ...final.shared]),
    profiles: planned([...tuning.profiles, ...final.profiles]),
    tuning: planned(tuning.cells),
    final: planned(final.cells),
    ...(experiment.budgets.engineSeconds === undefined ? {} : { engineSeconds: total("engineSeconds") }),
    ...(experiment.budgets.generatedTokens === undefined ? {} : { generatedTokens: total("generatedTokens") }),
    problems,
    power: choices?.power ?? statePower(experiment, choices?.arms ?? {}, problems),
    notes,
  };
}

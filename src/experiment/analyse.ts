import { join } from "node:path";
import { compareSeeds, type Evaluated, type SeedComparison } from "../eval/compare.ts";
import type { Interval } from "../eval/intervals.ts";
import { moments, pairedT, tInterval95 } from "../eval/paired.ts";
import { holm } from "../eval/power.ts";
import { readSamples } from "../eval/samples.ts";
import { FEWEST_SEEDS } from "../eval/seeds.ts";
import { recordedSettings } from "../run/evaluation.ts";
import { addCost, type CellResult, type Cost, noCounts } from "./cell.ts";
import type { Choices, ContrastPower } from "./choose.ts";
import { BUDGETS, type BudgetName, type ExperimentFile } from "./file.ts";
import type { Cell } from "./plan.ts";

/** A cell and what it came to, if it is complete. */
export interface Ran {
  cell: Cell;
  /** Its folder. */
  dir: string;
  result: CellResult | undefined;
}

/** An arm at a budget: test problems, final seeds. */
export interface ArmAt {
  arm: string;
  budget: BudgetName;
  seeds: { seed: number; accuracy: number }[];
  /** Mean over seeds, with Student's interval over them. */
  mean: number;
  interval: Interval;
  /** Means over seeds, of the last stage up to this point. */
  cost: Cost;
  steps: number;
}

export interface ContrastResult {
  a: string;
  b: string;
  budget: BudgetName;
  /** Named before the run; every other pair is descriptive. */
  primary: boolean;
  /** B minus A over the seeds; absent where a seed of either arm is missing. */
  comparison?: SeedComparison;
  /** Of the paired t test over seeds; primary ones alone. */
  p?: number;
  /** Holm-corrected over the primary contrasts. */
  corrected?: number;
  /** Whether a difference may be claimed: primary, seeds enough, corrected p at most 0.05. */
  found?: boolean;
  power?: ContrastPower;
}

export interface SharedCost {
  name: string;
  seeds: number[];
  /** Mean over seeds. */
  cost: Cost;
  usedBy: string[];
}

export interface Analysis {
  title: string;
  complete: boolean;
  missing: { cell: string; reason: string }[];
  problems: number;
  arms: ArmAt[];
  contrasts: ContrastResult[];
  shared: SharedCost[];
  choices: Choices;
  notes: string[];
}

/** The final table: test problems, final seeds, the statistics of `rifft compare`, Holm's correction over the primary contrasts. */
export function analyse(
  experiment: ExperimentFile,
  choices: Choices,
  final: readonly Ran[],
  shared: readonly Ran[],
  missing: Analysis["missing"],
): Analysis {
  const at = (arm: string, budget: BudgetName) =>
    final.flatMap(({ cell, dir, result }) => {
      const mark = cell.arm === arm ? result?.marks[budget] : undefined;
      return mark === undefined ? [] : [{ seed: cell.seed, dir, mark }];
    });
  const names = experiment.arm.map(({ name }) => name);
  const used = BUDGETS.filter((budget) => experiment.budgets[budget] !== undefined);
  const arms = used.flatMap((budget) =>
    names.flatMap((arm): ArmAt[] => {
      const runs = at(arm, budget);
      if (runs.length === 0) return [];
      const { mean, interval } = tInterval95(runs.map(({ mark }) => mark.accuracy));
      const steps = moments(runs.map(({ mark }) => mark.step)).mean;
      const seeds = runs.map(({ seed, mark }) => ({ seed, accuracy: mark.accuracy }));
      return [{ arm, budget, seeds, mean, interval, cost: meanCost(runs.map(({ mark }) => mark.cost)), steps }];
    }),
  );
  const samples = new Map<string, Evaluated>();
  const read = (dir: string, file: string, name: string): Evaluated => {
    const path = join(dir, file);
    const found = samples.get(path) ?? { name, settings: recordedSettings(path), samples: readSamples(path).samples };
    samples.set(path, found);
    return found;
  };
  const contrast = (a: string, b: string, budget: BudgetName): SeedComparison | undefined => {
    const [ofA, ofB] = [at(a, budget), at(b, budget)];
    const whole = (runs: typeof ofA) => experiment.final.seeds.every((seed) => runs.some((run) => run.seed === seed));
    if (!whole(ofA) || !whole(ofB)) return undefined;
    const pairs = ofA.flatMap((one) =>
      ofB
        .filter(({ seed }) => seed === one.seed)
        .map((other) => ({
          seed: one.seed,
          a: read(one.dir, one.mark.samples, `${a}, seed ${one.seed}`),
          b: read(other.dir, other.mark.samples, `${b}, seed ${one.seed}`),
        })),
    );
    return compareSeeds(pairs, { grading: "strict", allow: [] });
  };
  const contrasts = experiment.contrast.map(({ a, b, budget }): ContrastResult => {
    const power = choices.power.find((one) => one.a === a && one.b === b && one.budget === budget);
    const comparison = contrast(a, b, budget);
    const p = comparison && pairedT(comparison.seeds.map(({ difference }) => difference));
    return { a, b, budget, primary: true, comparison, p, power };
  });
  // A contrast that is missing counts in the correction all the same: which ones there are was decided before.
  const corrected = holm(contrasts.map(({ p }) => p ?? 1));
  contrasts.forEach((one, i) => {
    if (one.comparison === undefined) return;
    one.corrected = corrected[i];
    one.found = one.comparison.claim && corrected[i] <= 0.05;
  });
  for (const budget of used) {
    names.forEach((a, i) => {
      for (const b of names.slice(i + 1)) {
        const named = (one: ContrastResult) =>
          one.budget === budget && [one.a, one.b].sort().join() === [a, b].sort().join();
        if (contrasts.some(named)) continue;
        const comparison = contrast(a, b, budget);
        if (comparison !== undefined) contrasts.push({ a, b, budget, primary: false, comparison });
      }
    });
  }
  return {
    title: experiment.title,
    complete: missing.length === 0,
    missing,
    problems: contrasts.find(({ comparison }) => comparison !== undefined)?.comparison?.problems ?? 0,
    arms,
    contrasts,
    shared: sharedCosts(shared, final),
    choices,
    notes: [
      ...(experiment.final.seeds.length < FEWEST_SEEDS
        ? [
            `${experiment.final.seeds.length} final seeds: no claim about a method can be made with fewer than ${FEWEST_SEEDS}`,
          ]
        : []),
      ...new Set(contrasts.flatMap(({ comparison }) => comparison?.notes ?? [])),
    ],
  };
}

function meanCost(costs: readonly Cost[]): Cost {
  const zero: Cost = { counts: noCounts(), engineSeconds: 0 };
  const { counts, engineSeconds } = costs.reduce(addCost, zero);
  const n = Math.max(1, costs.length);
  const { generated, prefilled, scored, trained } = counts;
  return {
    counts: { generated: generated / n, prefilled: prefilled / n, scored: scored / n, trained: trained / n },
    engineSeconds: engineSeconds / n,
  };
}

/** What the stages before the last took: shared beginnings by name, and those that an arm ran by itself. */
function sharedCosts(shared: readonly Ran[], final: readonly Ran[]): SharedCost[] {
  const groups = new Map<string, { seeds: number[]; costs: Cost[]; usedBy: Set<string> }>();
  const add = (name: string, seed: number, cost: Cost, users: (string | undefined)[]) => {
    const group = groups.get(name) ?? { seeds: [], costs: [], usedBy: new Set<string>() };
    group.seeds.push(seed);
    group.costs.push(cost);
    for (const user of users) if (user !== undefined) group.usedBy.add(user);
    groups.set(name, group);
  };
  for (const { cell, result } of shared) {
    const users = final.filter(({ cell: { after } }) => after === cell.id).map(({ cell: { arm } }) => arm);
    if (result !== undefined) add(cell.id.replace(/\/seed-\d+$/, ""), cell.seed, result.whole, users);
  }
  for (const { cell, result } of final) {
    if (result === undefined || result.before.counts.trained === 0) continue;
    add(`${cell.arm ?? ""}: its stages before the last`, cell.seed, result.before, [cell.arm]);
  }
  return [...groups].map(([name, { seeds, costs, usedBy }]) => ({
    name,
    seeds,
    cost: meanCost(costs),
    usedBy: [...usedBy],
  }));
}

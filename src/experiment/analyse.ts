import { join } from "node:path";
import { compareSeeds, type Evaluated, type SeedComparison } from "../eval/compare.ts";
import type { Interval } from "../eval/intervals.ts";
import { moments, pairedT, tInterval95 } from "../eval/paired.ts";
import { holm } from "../eval/power.ts";
import { readSamples } from "../eval/samples.ts";
import { FEWEST_SEEDS } from "../eval/seeds.ts";
import { recordedSettings } from "../run/evaluation.ts";
import { type AlsoAt, alsoMeasured } from "./also.ts";
import { byRound, type RoundsAt } from "./by-round.ts";
import { byTag, type TagAt } from "./by-tag.ts";
import { addCost, type CellResult, type Cost, noCounts } from "./cell.ts";
import type { Choices, ContrastPower } from "./choose.ts";
import { BUDGETS, type BudgetName, type ExperimentFile, groupOf, groupsOf, seedsOf } from "./file.ts";
import type { Cell } from "./plan.ts";
import { type SearchAt, searchAt } from "./searches.ts";

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
  /** Before the budgets begin to count. */
  shared: SharedCost[];
  /** Counted in the budgets of the arms that use them. */
  profiles: SharedCost[];
  /** The test problems by their tags; descriptive. */
  tags: TagAt[];
  /** Of what was asked in rounds, tests and further evaluations; descriptive. */
  rounds: RoundsAt[];
  /** Further evaluations of the final runs. */
  also: AlsoAt[];
  /** The searches among them, rollout by rollout. */
  searches: SearchAt[];
  choices: Choices;
  notes: string[];
}

/** The final table: test problems, final seeds, the statistics of `rifft compare`, Holm's correction over the primary contrasts. */
export function analyse(
  experiment: ExperimentFile,
  choices: Choices,
  final: readonly Ran[],
  before: { shared: readonly Ran[]; profiles: readonly Ran[] },
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
    const common = seedsOf(experiment, a).filter((seed) => seedsOf(experiment, b).includes(seed));
    const whole = (runs: typeof ofA) => common.every((seed) => runs.some((run) => run.seed === seed));
    if (common.length < 2 || !whole(ofA) || !whole(ofB)) return undefined;
    const pairs = ofA.flatMap((one) =>
      ofB
        .filter(({ seed }) => seed === one.seed)
        .map((other) => ({
          seed: one.seed,
          a: read(one.dir, one.mark.samples, `${a}, seed ${one.seed}`),
          b: read(other.dir, other.mark.samples, `${b}, seed ${one.seed}`),
        })),
    );
    // Arms may answer in ways of their own, which the page tells.
    return compareSeeds(pairs, { grading: "strict", allow: ["format", "rounds", "maxTokens"] });
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
        if (groupOf(experiment, a) !== groupOf(experiment, b)) continue;
        const named = (one: ContrastResult) =>
          one.budget === budget && [one.a, one.b].sort().join() === [a, b].sort().join();
        if (contrasts.some(named)) continue;
        const comparison = contrast(a, b, budget);
        if (comparison !== undefined) contrasts.push({ a, b, budget, primary: false, comparison });
      }
    });
  }
  const tests = arms.map(({ arm, budget }) => ({
    arm,
    budget,
    seeds: at(arm, budget).map(({ dir, mark }) => read(dir, mark.samples, arm).samples),
  }));
  const further = experiment.also.flatMap(({ name, at }) =>
    names.map((arm) => {
      const files = final.flatMap(({ cell, dir, result }) => {
        const found = cell.arm === arm ? result?.also?.find((one) => one.name === name) : undefined;
        return found?.evaluation.rounds === undefined ? [] : [join(dir, found.samples)];
      });
      return byRound(
        { arm, also: { name, at } },
        files.map((file) => () => readSamples(file).samples),
      );
    }),
  );
  return {
    title: experiment.title,
    complete: missing.length === 0,
    missing,
    problems: contrasts.find(({ comparison }) => comparison !== undefined)?.comparison?.problems ?? 0,
    arms,
    contrasts,
    shared: sharedCosts(before.shared, before.profiles, final),
    profiles: profileCosts(before.profiles, final),
    tags: groupsOf(experiment).flatMap((group) => byTag(tests.filter(({ arm }) => groupOf(experiment, arm) === group))),
    rounds: [
      ...tests.map(({ seeds, ...about }) =>
        byRound(
          about,
          seeds.map((samples) => () => samples),
        ),
      ),
      ...further,
    ].flatMap((one) => one ?? []),
    also: alsoMeasured(experiment, final),
    searches: experiment.also.flatMap(({ name, search }) =>
      names.flatMap((arm): SearchAt[] => {
        const found = final.flatMap(({ cell, dir, result }) => {
          const one = search === undefined || cell.arm !== arm ? undefined : result?.also?.find((o) => o.name === name);
          return one === undefined ? [] : [read(dir, one.samples, arm)];
        });
        const mode = found[0]?.settings?.mode;
        if (mode === undefined || mode === "reward") return [];
        return [
          searchAt(
            { name, arm },
            found.map(({ samples }) => samples),
            mode,
          ),
        ];
      }),
    ),
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
function sharedCosts(shared: readonly Ran[], profiles: readonly Ran[], final: readonly Ran[]): SharedCost[] {
  const throughProfile = (id: string) => profiles.filter(({ cell }) => cell.after === id).map(({ cell }) => cell.id);
  const entries = shared.flatMap(({ cell, result }) => {
    const starts = [cell.id, ...throughProfile(cell.id)];
    return result === undefined ? [] : [{ ...sharedAs(cell), cost: result.whole, users: usersOf(starts, final) }];
  });
  const own = final.flatMap(({ cell, result }) => {
    if (result === undefined || result.before.counts.trained === 0) return [];
    const name = `${cell.arm ?? ""}: its stages before the last`;
    return [{ name, seed: cell.seed, cost: result.before, users: cell.arm === undefined ? [] : [cell.arm] }];
  });
  return grouped([...entries, ...own]);
}

function profileCosts(profiles: readonly Ran[], final: readonly Ran[]): SharedCost[] {
  return grouped(
    profiles.flatMap(({ cell, result }) =>
      result === undefined ? [] : [{ ...sharedAs(cell), cost: result.whole, users: usersOf([cell.id], final) }],
    ),
  );
}

const sharedAs = ({ id, seed }: Cell) => ({ name: id.replace(/\/seed-\d+$/, ""), seed });

const usersOf = (ids: readonly string[], final: readonly Ran[]): string[] =>
  final.flatMap(({ cell: { after, arm } }) =>
    after !== undefined && arm !== undefined && ids.includes(after) ? [arm] : [],
  );

function grouped(entries: readonly { name: string; seed: number; cost: Cost; users: string[] }[]): SharedCost[] {
  return [...new Set(entries.map(({ name }) => name))].map((name) => {
    const own = entries.filter((entry) => entry.name === name);
    const usedBy = [...new Set(own.flatMap(({ users }) => users))];
    return { name, seeds: own.map(({ seed }) => seed), cost: meanCost(own.map(({ cost }) => cost)), usedBy };
  });
}

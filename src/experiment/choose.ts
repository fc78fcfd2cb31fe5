import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import { moments } from "../eval/paired.ts";
import { detectableDifference, pairedTPower } from "../eval/power.ts";
import { replaceFile } from "../run/disk.ts";
import type { ArmRecipe } from "./arms.ts";
import type { CellResult } from "./cell.ts";
import { BUDGETS, type ExperimentFile } from "./file.ts";
import { type Cell, tuningBudget } from "./plan.ts";

const settingSchema = z.strictObject({
  /** The setting's overrides. */
  set: z.record(z.string(), z.unknown()),
  /** Accuracy on dev by tuning seed; null where the run diverged. */
  dev: z.record(z.string(), z.number().nullable()),
  /** Null where a run diverged: such a setting is not chosen. */
  mean: z.number().nullable(),
});
const powerSchema = z.strictObject({
  a: z.string(),
  b: z.string(),
  budget: z.enum(BUDGETS),
  /** Standard deviation over seeds of the difference that is expected, and where it comes from. */
  deviation: z.number(),
  from: z.enum(["assumed", "tuning", "answers"]),
  /** The difference that is found in four of five experiments: at 5 %, and at the hardest step of Holm's correction. */
  detectable: z.number(),
  detectableCorrected: z.number(),
  /** Of the difference that the file looks for. */
  power: z.strictObject({ difference: z.number(), uncorrected: z.number(), corrected: z.number() }).optional(),
});
const choicesSchema = z.strictObject({
  arms: z.record(
    z.string(),
    z.strictObject({
      /** Position among the arm's settings, from 0. */
      chosen: z.int().nonnegative(),
      /** Where on the runs settings were compared; absent where there was one. */
      budget: z.enum(BUDGETS).optional(),
      settings: z.array(settingSchema),
    }),
  ),
  power: z.array(powerSchema),
});
/** What was decided before the first final cell began, as `choices.json`. */
export type Choices = z.infer<typeof choicesSchema>;
export type ContrastPower = z.infer<typeof powerSchema>;

/**
 * The setting of each arm with the highest mean accuracy on dev over the tuning seeds, the first listed of equal ones. Arms of which a
 * tuning cell is missing are left out. One setting needs no choice.
 */
export function choose(
  experiment: ExperimentFile,
  arms: readonly ArmRecipe[],
  tuned: readonly { cell: Cell; result: CellResult | undefined }[],
): Choices["arms"] {
  const chosen: Choices["arms"] = {};
  for (const arm of experiment.arm) {
    const recipe = arms.find((one) => one.arm === arm.name);
    if (recipe === undefined) throw new Error(`arm ${arm.name} has no recipe`);
    if (arm.settings.length === 1) {
      chosen[arm.name] = { chosen: 0, settings: [{ set: arm.settings[0], dev: {}, mean: null }] };
      continue;
    }
    const budget = tuningBudget(experiment, recipe);
    const own = tuned.filter(({ cell }) => cell.arm === arm.name);
    if (own.some(({ result }) => result === undefined)) continue;
    const settings = arm.settings.map((set, i) => {
      const dev = Object.fromEntries(
        own
          .filter(({ cell }) => cell.setting === i)
          .map(({ cell, result }) => [String(cell.seed), result?.marks[budget]?.accuracy ?? null]),
      );
      const values = Object.values(dev);
      const numbers = values.filter((value) => value !== null);
      return { set, dev, mean: numbers.length < values.length ? null : moments(numbers).mean };
    });
    const best = Math.max(...settings.map(({ mean }) => mean ?? -1));
    if (best < 0) {
      throw new UserError(
        `arm "${arm.name}": all of its settings diverged; give it others, such as lower learning rates, in another folder (--run)`,
      );
    }
    // Means that are equal on paper may differ by rounding.
    chosen[arm.name] = {
      chosen: settings.findIndex(({ mean }) => mean !== null && mean >= best - 1e-12),
      budget,
      settings,
    };
  }
  return chosen;
}

/** What each primary contrast can find, from what is known before the final cells. `problems`: of the test. */
export function statePower(experiment: ExperimentFile, chosen: Choices["arms"], problems: number): ContrastPower[] {
  const { contrast, assume, final } = experiment;
  const seeds = final.seeds.length;
  const hardest = 0.05 / contrast.length;
  return contrast.map(({ a, b, budget }) => {
    const { deviation, from } = expectedDeviation(assume.deviation, chosen, a, b, problems);
    const { difference } = assume;
    return {
      a,
      b,
      budget,
      deviation,
      from,
      detectable: detectableDifference(deviation, seeds),
      detectableCorrected: detectableDifference(deviation, seeds, hardest),
      ...(difference === undefined
        ? {}
        : {
            power: {
              difference,
              uncorrected: pairedTPower(difference, deviation, seeds),
              corrected: pairedTPower(difference, deviation, seeds, hardest),
            },
          }),
    };
  });
}

function expectedDeviation(
  assumed: number | undefined,
  chosen: Choices["arms"],
  a: string,
  b: string,
  problems: number,
): Pick<ContrastPower, "deviation" | "from"> {
  if (assumed !== undefined) return { deviation: assumed, from: "assumed" };
  const [ofA, ofB] = [a, b].map((name) => chosen[name] && chosen[name].settings[chosen[name].chosen].dev);
  const differences = Object.keys(ofA ?? {}).flatMap((seed) => {
    const [x, y] = [ofA?.[seed], ofB?.[seed]];
    return typeof x === "number" && typeof y === "number" ? [y - x] : [];
  });
  if (differences.length >= 2) {
    const { deviation } = moments(differences);
    if (deviation > 0) return { deviation, from: "tuning" };
  }
  // Two answers to each question, each right in half of the cases: the difference of the two shares.
  return { deviation: Math.sqrt(0.5 / problems), from: "answers" };
}

/**
 * Freezes the choices: what `choices.json` holds already must be what the tuning cells say, and is kept. Returns what it holds now.
 * Throws a UserError where it was changed.
 */
export function freezeChoices(dir: string, arms: Choices["arms"], power: ContrastPower[]): Choices {
  const path = join(dir, "choices.json");
  const before = readChoices(dir);
  for (const [name, choice] of Object.entries(before?.arms ?? {})) {
    if (arms[name] === undefined || JSON.stringify(arms[name]) === JSON.stringify(choice)) continue;
    const began = existsSync(join(dir, "final"));
    throw new UserError(
      `${path}: what it says of arm "${name}" is not what the tuning cells say; ${began ? "final cells have begun, so the choice is frozen: put the file (or the tuning cells) back" : "remove the file to choose again"}`,
    );
  }
  const choices: Choices = { arms: { ...arms, ...before?.arms }, power: before?.power ?? power };
  // A contrast whose arm is held up has no deviation from tuning yet; it is stated before its own final cells.
  if (before !== undefined && Object.keys(choices.arms).length > Object.keys(before.arms).length) choices.power = power;
  replaceFile(path, `${JSON.stringify(choices, null, 2)}\n`);
  return choices;
}

export function readChoices(dir: string): Choices | undefined {
  const path = join(dir, "choices.json");
  if (!existsSync(path)) return undefined;
  try {
    return choicesSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch {
    throw new UserError(`${path} is damaged or was edited; remove it: it is written again from the tuning cells`);
  }
}

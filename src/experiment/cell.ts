import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.ts";
import type { TokenCounts } from "../engine/types.ts";
import { countsSchema } from "../run/checkpoint.ts";
import { replaceFile } from "../run/disk.ts";
import { isRunFolder, readRecord } from "../run/folder.ts";
import { differenceText, recipeDifference, recipeTable } from "../run/recipe.ts";
import { type Also, type BudgetName, BUDGETS, type EvaluationSpec, type ProfileSpec } from "./file.ts";
import type { Cell } from "./plan.ts";

const count = z.int().nonnegative();
const cost = z.strictObject({ counts: countsSchema, engineSeconds: z.number().nonnegative() });
/** Tokens and engine seconds. */
export type Cost = z.infer<typeof cost>;

const markSchema = z.strictObject({
  /** Steps of the last stage. */
  step: count,
  /** Of the last stage, up to here. */
  cost,
  /** The samples file, relative to the cell's folder. */
  samples: z.string(),
  problems: count,
  accuracy: z.number().min(0).max(1),
});

const alsoSchema = z.strictObject({
  name: z.string(),
  at: z.enum(["end", "start"]),
  /** What was asked. */
  evaluation: z.record(z.string(), z.unknown()),
  samples: z.string(),
  accuracy: z.number(),
  /** Of all n samples; absent of one, and where answers cannot be compared. */
  majority: z.number().optional(),
  /** The majority of the k samples that so many tokens a problem allow. */
  equal: z.strictObject({ tokens: count, k: count, accuracy: z.number(), tokensPerProblem: z.number() }).optional(),
  tokensPerProblem: z.number(),
  /** Tokens of what it took, the prompts' that no cache held. */
  generated: count,
  prefilled: count,
});
export type AlsoResult = z.infer<typeof alsoSchema>;

const resultSchema = z.strictObject({
  /** Why the training ended early, where it left the numbers: a result too. */
  diverged: z.string().optional(),
  /** What was evaluated; absent for a shared beginning. */
  evaluation: z.record(z.string(), z.unknown()).optional(),
  /** Of the stages before the last. */
  before: cost,
  /** Of the whole run. */
  whole: cost,
  marks: z.partialRecord(z.enum(BUDGETS), markSchema),
  also: z.array(alsoSchema).optional(),
});
/** What a cell came to, as `cell.json` in its folder. */
export type CellResult = z.infer<typeof resultSchema>;
export type MarkResult = z.infer<typeof markSchema>;

export const noCounts = (): TokenCounts => ({ generated: 0, prefilled: 0, scored: 0, trained: 0 });

/** Writes what a cell came to, whole or not at all. */
export function writeCellResult(dir: string, result: CellResult): void {
  const path = join(dir, "cell.json");
  replaceFile(path, `${JSON.stringify(result, null, 2)}\n`);
}

/**
 * What a cell came to; undefined while it is not complete. Throws a UserError where its folder holds a run of another recipe, or where
 * the file is damaged.
 */
export function readCellResult(
  dir: string,
  cell: Cell,
  evaluation: EvaluationSpec | ProfileSpec | undefined,
): CellResult | undefined {
  // A profile is samples alone.
  if (cell.phase !== "profile" && !isRunFolder(dir)) return undefined;
  const run = cell.phase === "profile" ? undefined : readRecord(dir).recipe;
  const changed = run && recipeDifference(run, recipeTable(cell.recipe));
  if (changed !== undefined) {
    throw new UserError(
      `${dir}: ${differenceText(changed, "this run began")} by the experiment; put it back, or give the experiment another folder with --run`,
    );
  }
  const path = join(dir, "cell.json");
  if (!existsSync(path)) return undefined;
  let result: CellResult;
  try {
    result = resultSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch {
    throw new UserError(`${path} is damaged or was written by another version of rifft; remove it to evaluate again`);
  }
  if (result.diverged !== undefined) return result;
  // Evaluated otherwise, or with a mark or its samples missing: the run is there, and is evaluated again.
  const same =
    evaluation === undefined || recipeDifference(result.evaluation ?? {}, comparable(evaluation)) === undefined;
  const there = (mark: BudgetName) => {
    const found = result.marks[mark];
    return found !== undefined && existsSync(join(dir, found.samples));
  };
  return same && cell.marks.every(there) ? result : undefined;
}

/** Whether a cell has all further evaluations, asked as they are now; a diverged one has none. */
export const hasAlso = ({ diverged, also = [] }: CellResult, wanted: readonly Also[]): boolean =>
  diverged !== undefined ||
  wanted.every(({ name, at, spec, tokens }) =>
    also.some(
      (one) =>
        one.name === name &&
        one.at === at &&
        one.equal?.tokens === tokens &&
        recipeDifference(one.evaluation, comparable(spec)) === undefined,
    ),
  );

/** An evaluation as `cell.json` has it. */
export const comparable = (spec: EvaluationSpec | ProfileSpec): Record<string, unknown> =>
  JSON.parse(JSON.stringify(spec));

export function addCost(a: Cost, b: Cost): Cost {
  return { counts: combine(a.counts, b.counts, (x, y) => x + y), engineSeconds: a.engineSeconds + b.engineSeconds };
}

export function subtractCost(a: Cost, b: Cost): Cost {
  return { counts: combine(a.counts, b.counts, (x, y) => x - y), engineSeconds: a.engineSeconds - b.engineSeconds };
}

function combine(a: TokenCounts, b: TokenCounts, by: (x: number, y: number) => number): TokenCounts {
  return {
    generated: by(a.generated, b.generated),
    prefilled: by(a.prefilled, b.prefilled),
    scored: by(a.scored, b.scored),
    trained: by(a.trained, b.trained),
  };
}

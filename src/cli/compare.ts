import { dirname, resolve } from "node:path";
import { Command, Option } from "commander";
import { UserError } from "../errors.ts";
import {
  type ComparedSetting,
  COMPARED_SETTINGS,
  compareEvaluations,
  type CompareOptions,
  compareSeeds,
  type SeedPair,
} from "../eval/compare.ts";
import { comparisonText, seedsText } from "../eval/compare-table.ts";
import { recordedSettings } from "../run/evaluation.ts";
import { comparedSettings, openEvaluation, samplesFile } from "./evaluation.ts";
import { runRecipe } from "./model.ts";
import { printResult } from "./output.ts";

interface Options {
  a?: string[];
  b?: string[];
  grading: CompareOptions["grading"];
  allow?: ComparedSetting[];
  json?: boolean;
}

export function compareCommand(): Command {
  return new Command("compare")
    .description("paired comparison of evaluations, or of two methods over seeds, with 95 % intervals")
    .argument(
      "[evaluations...]",
      "samples files or run folders (their newest evaluation); each is compared with the first",
    )
    .option("--a <runs...>", "runs of method A, one a seed")
    .option("--b <runs...>", "runs of method B, paired with those of A by seed")
    .addOption(new Option("--grading <name>", "which verdict counts").choices(["strict", "flexible"]).default("strict"))
    .option("--allow <settings...>", `settings that may differ: ${COMPARED_SETTINGS.join(", ")}`, comparedSettings)
    .option("--json", "print the result as JSON")
    .action((paths: string[], o: Options) => {
      const options = { grading: o.grading, allow: o.allow ?? [] };
      if (o.a === undefined && o.b === undefined) return compareEach(paths, options, o.json);
      if (o.a === undefined || o.b === undefined || paths.length > 0) {
        throw new UserError(
          "compare: name two evaluations or more, or the runs of two methods with --a and --b; found something of both",
        );
      }
      const result = compareSeeds(pairSeeds(o.a, o.b), options);
      printResult(o.json, result, () => seedsText(result));
    });
}

function compareEach(paths: string[], options: CompareOptions, json?: boolean): void {
  if (paths.length < 2) {
    throw new UserError(
      `compare: expected two evaluations or more, found ${paths.length}; name samples files or run folders, or methods with --a and --b`,
    );
  }
  const [first, ...others] = paths.map(openEvaluation);
  const comparisons = others.map((other) => compareEvaluations(first, other, options));
  printResult(json, { comparisons }, () => {
    const several = comparisons.length > 1 ? ["each interval and each p stands for its own comparison alone"] : [];
    const texts = comparisons.map((comparison, i) => comparisonText(comparison, String.fromCharCode(66 + i)));
    return [...texts, ...several].join(`\n\n${comparisons.length > 1 ? "---\n\n" : ""}`);
  });
}

/** Pairs runs by seed. Seeds of one side only are left out, said on standard error. */
function pairSeeds(a: string[], b: string[]): SeedPair[] {
  const [ofA, ofB] = [bySeed(a, "--a"), bySeed(b, "--b")];
  const seeds = [...ofA.keys()].filter((seed) => ofB.has(seed)).sort((x, y) => x - y);
  const alone = [...ofA.keys(), ...ofB.keys()].filter((seed) => !seeds.includes(seed));
  const listed = (runs: Map<number, string>) => [...runs.keys()].join(", ");
  if (seeds.length === 0) {
    throw new UserError(
      `compare: no seed in common (--a has ${listed(ofA)}; --b has ${listed(ofB)}): run both methods with the same seeds`,
    );
  }
  if (alone.length > 0) process.stderr.write(`left out, on one side only: seed ${alone.join(", ")}\n`);
  return seeds.map((seed) => ({
    seed,
    a: openEvaluation(ofA.get(seed) ?? ""),
    b: openEvaluation(ofB.get(seed) ?? ""),
  }));
}

function bySeed(paths: string[], side: string): Map<number, string> {
  const runs = new Map<number, string>();
  for (const path of paths) {
    const seed = seedOf(path);
    const other = runs.get(seed);
    if (other !== undefined) {
      throw new UserError(`compare: ${other} and ${path} of ${side} both have seed ${seed}: name one run a seed`);
    }
    runs.set(seed, path);
  }
  return runs;
}

/** The seed of the run that a path belongs to, which names its whole pipeline; of a bare evaluation the seed of its sampling. */
function seedOf(path: string): number {
  const file = samplesFile(path);
  const seed = runRecipe(dirname(dirname(resolve(file))))?.seed ?? recordedSettings(file)?.seed;
  if (seed !== undefined) return seed;
  throw new UserError(
    `${path}: no seed is known of it (no run folder, no record beside the samples); evaluate it again`,
  );
}

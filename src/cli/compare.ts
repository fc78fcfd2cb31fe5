import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { Command, Option } from "commander";
import { z } from "zod";
import { nearest, UserError } from "../errors.ts";
import {
  type ComparedSetting,
  COMPARED_SETTINGS,
  compareEvaluations,
  type CompareOptions,
  compareSeeds,
  type Evaluated,
  type SeedPair,
} from "../eval/compare.ts";
import { comparisonText, seedsText } from "../eval/compare-table.ts";
import { readSamples } from "../eval/samples.ts";
import { recordedSettings } from "../run/evaluation.ts";
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
    .option("--allow <settings...>", `settings that may differ: ${COMPARED_SETTINGS.join(", ")}`, settings)
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
  const [first, ...others] = paths.map(open);
  const comparisons = others.map((other) => compareEvaluations(first, other, options));
  printResult(json, { comparisons }, () => {
    const several = comparisons.length > 1 ? ["each interval and each p stands for its own comparison alone"] : [];
    const texts = comparisons.map((comparison, i) => comparisonText(comparison, String.fromCharCode(66 + i)));
    return [...texts, ...several].join(`\n\n${comparisons.length > 1 ? "---\n\n" : ""}`);
  });
}

/** Collects `--allow n temperature`. */
function settings(name: string, before: ComparedSetting[] = []): ComparedSetting[] {
  const found = COMPARED_SETTINGS.find((setting) => setting === name);
  if (found !== undefined) return [...before, found];
  const near = nearest(name, COMPARED_SETTINGS);
  const hint = near === undefined ? `expected ${COMPARED_SETTINGS.join(", ")}` : `did you mean ${near}?`;
  throw new UserError(`compare: unknown setting ${JSON.stringify(name)} (${hint})`);
}

function open(path: string): Evaluated {
  const file = samplesFile(path);
  const { samples, cut } = readSamples(file);
  if (cut) process.stderr.write(`${file}: its last line was cut off and is left out\n`);
  return { name: path, settings: recordedSettings(file), samples };
}

/** One with a stage was made inside the run. */
const evaluationLine = z.looseObject({ file: z.string(), stage: z.undefined().optional() });

/** The samples that a path stands for: a file itself, of a folder those of its newest evaluation. */
function samplesFile(path: string): string {
  if (!existsSync(path)) throw new UserError(`${path} does not exist: expected a samples file or a run folder`);
  if (!statSync(path).isDirectory()) return path;
  const list = join(path, "evals.jsonl");
  const lines = existsSync(list)
    ? readFileSync(list, "utf8")
        .split("\n")
        .filter((line) => line.trim() !== "")
    : [];
  for (const line of lines.reverse()) {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      // The line that a full disk or a killed process cut off.
      continue;
    }
    const found = evaluationLine.safeParse(value);
    if (found.success && existsSync(join(path, found.data.file))) return join(path, found.data.file);
  }
  throw new UserError(`${path} holds no evaluation: run \`rifft eval --model ${path}\` first, or name a samples file`);
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
  return seeds.map((seed) => ({ seed, a: open(ofA.get(seed) ?? ""), b: open(ofB.get(seed) ?? "") }));
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

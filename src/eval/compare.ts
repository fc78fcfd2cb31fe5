import { UserError } from "../errors.ts";
import { type Column, type Estimate, estimates95, type Interval } from "./intervals.ts";
import { mcnemarExact, moments, neededFor, pairedDifference95, signFlipExact, tInterval95 } from "./paired.ts";
import type { EvaluationSettings } from "./report.ts";
import { byProblem, type EvaluatedSample } from "./samples.ts";
import { FEWEST_SEEDS, twoWayBootstrap95 } from "./seeds.ts";

/** Two evaluations can be compared when they agree in these. */
export const COMPARED_SETTINGS = [
  "task",
  "split",
  "prompt",
  "format",
  "mode",
  "strict",
  "flexible",
  "n",
  "temperature",
  "topK",
  "maxTokens",
  "search",
  "without",
  "rounds",
] as const;
export type ComparedSetting = (typeof COMPARED_SETTINGS)[number];

/** An evaluation to compare. */
export interface Evaluated {
  /** As a person named it. */
  name: string;
  /** What it was asked to do; undefined where no record of that lies beside the samples. */
  settings?: Pick<EvaluationSettings, ComparedSetting | "model">;
  samples: EvaluatedSample[];
}

export interface CompareOptions {
  grading: "strict" | "flexible";
  /** Settings that may differ. */
  allow: readonly ComparedSetting[];
}

/** A problem on which one side does better. */
export interface Flip {
  problem: string;
  question?: string;
  gold?: string;
  /** Answers of the samples, in order; null where none was found. */
  answers: { a: (string | null)[]; b: (string | null)[] };
  /** Share of B's samples that are right minus that of A's. */
  difference: number;
}

/** What every comparison says; differences are B minus A, as shares. */
interface Compared {
  grading: CompareOptions["grading"];
  problems: number;
  difference: number;
  /** About how many problems (or seeds) would be needed to see a difference of this size; absent where one is seen, or none is there. */
  needed?: number;
  /** The result in a sentence. */
  sentence: string;
  /** What was left out or not checked. */
  notes: string[];
}

export interface Comparison extends Compared {
  a: Side;
  b: Side;
  interval: Interval;
  test: {
    /** McNemar's exact test for one sample a problem, else the exact sign test over problems that differ. */
    name: "McNemar" | "sign";
    /** Problems on which A, and B, does better. */
    aBetter: number;
    bBetter: number;
    p: number;
  };
  /** Where B gains most comes first. */
  flips: Flip[];
}

export interface Side {
  name: string;
  accuracy: Estimate;
}

export interface SeedComparison extends Compared {
  seeds: { seed: number; a: string; b: string; accuracyA: number; accuracyB: number; difference: number }[];
  /** Standard deviation of the difference over seeds. */
  seedDeviation: number;
  /** Student's, over the seeds' differences: other seeds, these problems. */
  tInterval: Interval;
  /** Other seeds and other problems. */
  twoWay: Interval;
  /** p of the exact sign-flip test; absent with more than 20 seeds. */
  signFlip?: number;
  /** Whether there are seeds enough to say anything about a method. */
  claim: boolean;
}

interface Answers {
  samples: EvaluatedSample[];
  /** Share that is right. */
  score: number;
}

/** Compares B with A over the problems that both answered. A UserError names settings in which they differ. */
export function compareEvaluations(a: Evaluated, b: Evaluated, options: CompareOptions): Comparison {
  const { sides, problems, notes } = pair([a, b], options);
  const differences = problems.map((id) => sides[1].get(id).score - sides[0].get(id).score);
  const { mean, interval } = pairedDifference95(differences);
  const count = (holds: (d: number) => boolean) => differences.filter(holds).length;
  const aBetter = count((d) => d < 0);
  const bBetter = count((d) => d > 0);
  const columns = sides.map((side): Column => ({ values: problems.map((id) => side.get(id).score), share: true }));
  const [accuracyA, accuracyB] = estimates95(columns);
  const once = sides.every((side) => problems.every((id) => side.get(id).samples.length === 1));
  const needed = unseen(mean, interval) ? neededFor(mean, moments(differences).deviation) : Infinity;
  const flips = problems.flatMap((problem, i): Flip[] => {
    if (differences[i] === 0) return [];
    const [inA, inB] = sides.map((side) => side.get(problem).samples);
    const { question, gold } = inA[0];
    const answers = { a: answersOf(inA, options.grading), b: answersOf(inB, options.grading) };
    return [{ problem, question, gold, answers, difference: differences[i] }];
  });
  return {
    a: { name: a.name, accuracy: accuracyA },
    b: { name: b.name, accuracy: accuracyB },
    grading: options.grading,
    problems: problems.length,
    difference: mean,
    interval,
    test: { name: once ? "McNemar" : "sign", aBetter, bBetter, p: mcnemarExact(aBetter, bBetter) },
    ...(Number.isFinite(needed) ? { needed } : {}),
    sentence: pairSentence(problems.length, mean, interval, needed, flips.length),
    notes,
    flips: flips.sort((x, y) => y.difference - x.difference),
  };
}

/** The runs of two methods with one seed. */
export interface SeedPair {
  seed: number;
  a: Evaluated;
  b: Evaluated;
}

/** Compares method B with method A over their seeds, on the problems that every run answered. */
export function compareSeeds(pairs: readonly SeedPair[], options: CompareOptions): SeedComparison {
  const { sides, problems, notes } = pair(
    pairs.flatMap(({ a, b }) => [a, b]),
    options,
  );
  const scores = sides.map((side) => problems.map((id) => side.get(id).score));
  const differences = pairs.map((_, s) => scores[2 * s + 1].map((score, i) => score - scores[2 * s][i]));
  const bySeed = differences.map((row) => moments(row).mean);
  const { mean, interval } = tInterval95(bySeed);
  const { deviation } = moments(bySeed);
  const claim = pairs.length >= FEWEST_SEEDS;
  const needed = claim && unseen(mean, interval) ? Math.max(pairs.length + 1, neededFor(mean, deviation)) : Infinity;
  const signFlip = signFlipExact(bySeed);
  return {
    grading: options.grading,
    problems: problems.length,
    seeds: pairs.map(({ seed, a, b }, s) => ({
      seed,
      a: a.name,
      b: b.name,
      accuracyA: moments(scores[2 * s]).mean,
      accuracyB: moments(scores[2 * s + 1]).mean,
      difference: bySeed[s],
    })),
    difference: mean,
    seedDeviation: deviation,
    tInterval: interval,
    twoWay: twoWayBootstrap95(differences),
    ...(signFlip === undefined ? {} : { signFlip }),
    claim,
    ...(Number.isFinite(needed) ? { needed } : {}),
    sentence: seedSentence(pairs.length, mean, interval, needed),
    notes,
  };
}

const unseen = (mean: number, { low, high }: Interval): boolean => mean !== 0 && low <= 0 && high >= 0;

/** The problems that all evaluations answered, in the order of the first, and each evaluation's answers to them. */
function pair(
  evaluations: readonly Evaluated[],
  options: CompareOptions,
): { sides: { get(problem: string): Answers }[]; problems: string[]; notes: string[] } {
  checkSettings(evaluations, options.allow);
  const answers = evaluations.map((evaluation) => answersByProblem(evaluation, options.grading));
  const [first] = answers;
  const problems = [...first.keys()].filter((id) => answers.every((side) => side.has(id)));
  if (problems.length === 0) {
    throw new UserError(
      `${evaluations[0].name} and ${evaluations[1].name} have no problem in common: compare evaluations of one data set`,
    );
  }
  const sides = answers.map((side) => ({
    get(problem: string): Answers {
      const found = side.get(problem);
      if (found === undefined) throw new Error(`problem ${problem} is not in common`);
      return found;
    },
  }));
  for (const id of problems)
    sides.forEach((side, e) => checkSame(id, evaluations[0], sides[0].get(id), evaluations[e], side.get(id)));
  const notes = evaluations.flatMap(({ name, settings }, e) => {
    const left = answers[e].size - problems.length;
    return [
      ...(left > 0 ? [`${name}: ${left} of ${answers[e].size} problems left out, the others did not answer them`] : []),
      ...(settings === undefined ? [`${name}: no record beside its samples, so its settings are not checked`] : []),
    ];
  });
  return { sides, problems, notes };
}

function answersByProblem({ name, samples }: Evaluated, grading: CompareOptions["grading"]): Map<string, Answers> {
  if (samples.length === 0) throw new UserError(`${name} holds no samples: run the evaluation first`);
  return new Map(
    byProblem(samples).map((group) => {
      const right = group.filter((sample) => {
        const grade = sample[grading];
        if (grade !== undefined) return grade.verdict === "equal";
        throw new UserError(
          `${name}: its samples have no ${grading} verdict (a reward of its own): use --grading strict`,
        );
      });
      return [group[0].problem, { samples: group, score: right.length / group.length }];
    }),
  );
}

function checkSettings(evaluations: readonly Evaluated[], allow: readonly ComparedSetting[]): void {
  const known = evaluations.filter(({ settings }) => settings !== undefined);
  const different = COMPARED_SETTINGS.filter((setting) => !allow.includes(setting)).flatMap((setting) => {
    const shown = (evaluation: Evaluated) => JSON.stringify(evaluation.settings?.[setting]);
    const other = known.find((evaluation) => shown(evaluation) !== shown(known[0]));
    return other === undefined ? [] : [{ setting, text: `${setting} (${shown(known[0])} and ${shown(other)})`, other }];
  });
  if (different.length === 0) return;
  const allowed = different.map(({ setting }) => setting).join(" ");
  throw new UserError(
    `${known[0].name} and ${different[0].other.name} differ in ${different.map(({ text }) => text).join(", ")}: evaluate both alike, or compare them all the same with --allow ${allowed}`,
  );
}

function checkSame(id: string, a: Evaluated, inA: Answers, b: Evaluated, inB: Answers): void {
  for (const part of ["question", "gold"] as const) {
    const [left, right] = [inA.samples[0][part], inB.samples[0][part]];
    // Few-shot prompts and templates are settings; the question itself must be the same.
    if (left === undefined || right === undefined || left === right) continue;
    if (part === "question" && a.settings?.prompt !== b.settings?.prompt) continue;
    throw new UserError(
      `problem ${id} has another ${part} in ${b.name} than in ${a.name}: the data sets differ, evaluate both on the same one`,
    );
  }
}

function answersOf(samples: EvaluatedSample[], grading: CompareOptions["grading"]): (string | null)[] {
  return samples.map((sample) => sample[grading]?.answer ?? null);
}

/** A share in percent points. */
export const points = (share: number): string => {
  const text = (100 * share).toFixed(1);
  return text === "-0.0" ? "0.0" : text;
};

export const span = ({ low, high }: Interval): string => `${points(low)} to ${points(high)}`;

/** Two leading digits, for what is an estimate. */
function roughly(count: number): string {
  const unit = 10 ** Math.max(0, Math.floor(Math.log10(count)) - 1);
  return (Math.round(count / unit) * unit).toLocaleString("en-US");
}

/** The interval of B minus A, turned so that it speaks of the side that is ahead. */
function ahead(mean: number, interval: Interval): { name: "A" | "B"; by: string; interval: string } {
  if (mean >= 0) return { name: "B", by: points(mean), interval: span(interval) };
  return { name: "A", by: points(-mean), interval: span({ low: -interval.high, high: -interval.low }) };
}

function pairSentence(problems: number, mean: number, interval: Interval, needed: number, flips: number): string {
  const { name, by, interval: range } = ahead(mean, interval);
  if (mean !== 0 && !unseen(mean, interval)) return `${name} is better by ${by} points, 95 % interval ${range}`;
  const none = `no difference can be seen with ${problems} problem${problems === 1 ? "" : "s"}`;
  if (mean === 0) {
    const why = flips === 0 ? "both solve exactly the same ones" : "what one side gains it loses elsewhere";
    return `${none}: ${why}, 95 % interval ${range}`;
  }
  return `${none} (${name} is ahead by ${by} points, 95 % interval ${range}); about ${roughly(needed)} would be needed`;
}

function seedSentence(seeds: number, mean: number, interval: Interval, needed: number): string {
  const { name, by, interval: range } = ahead(mean, interval);
  if (seeds < FEWEST_SEEDS) {
    const found = seeds < 2 ? "" : `, 95 % t interval ${range}`;
    return `no claim about a method can be made with ${seeds} seed${seeds === 1 ? "" : "s"}: at least ${FEWEST_SEEDS} are needed (an exact sign-flip test on ${seeds} cannot go below ${2 ** (1 - seeds)}); over these ${name} is ahead by ${by} points${found}`;
  }
  if (mean !== 0 && !unseen(mean, interval)) {
    return `method ${name} is better by ${by} points over ${seeds} seeds, 95 % t interval ${range}`;
  }
  const needs = Number.isFinite(needed) ? `; about ${roughly(needed)} would be needed` : "";
  return `no difference between the methods can be seen with ${seeds} seeds (${name} is ahead by ${by} points, 95 % t interval ${range})${needs}`;
}

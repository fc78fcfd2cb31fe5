import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { solveRates } from "../eval/profile.ts";
import { readSamples } from "../eval/samples.ts";
import type { ProblemSource, Task } from "../task/types.ts";
import { evaluationRecord, problemsDigest, type SamplingCost } from "./evaluation.ts";
import type { Recipe } from "./recipe.ts";
import { fractionUsed } from "./schedule.ts";
import { parseWhere } from "./where.ts";

/** What a run trains on. */
export interface TrainingProblems {
  source: ProblemSource;
  /** Of the recipe's profile, where it names one. */
  profile?: {
    /** What it cost: a run's counters begin with it. */
    cost: SamplingCost;
    /** Of its samples. */
    sha256: string;
    /** How many problems are left of how many, for the log. */
    text: string;
  };
}

/**
 * The training problems of a recipe: the whole split, or of a profile's problems those that satisfy `where`. A UserError where the profile
 * is not complete, or not of this task's training problems as they are now, or where none is left.
 */
export async function trainingProblems(recipe: Recipe, task: Task): Promise<TrainingProblems> {
  const source = await task.problems("train");
  if (recipe.profile === undefined || recipe.where === undefined) return { source };
  const file = profileFile(recipe.profile);
  const record = evaluationRecord(file);
  const fail = (reason: string): never => {
    throw new UserError(`profile ${file}: ${reason}`);
  };
  if (record === undefined) return fail("no record lies beside it; expected samples that `rifft task profile` wrote");
  if (record.task !== task.name)
    fail(`it is of task ${record.task}, and the recipe's is ${task.name}; profile that one`);
  if (record.split !== "train") {
    fail(`it is of the ${record.split} split; only training problems may be chosen by it: use \`rifft task profile\``);
  }
  const { cost } = record;
  if (cost === undefined) return fail("what it cost is not known; profile again with `rifft task profile`");
  if (cost.samples < cost.of) {
    fail(`it has ${cost.samples} of ${cost.of} samples; the command that made it goes on with it`);
  }
  const { samples } = readSamples(file);
  const rates = solveRates(samples);
  if (samples.length !== cost.of) fail(`it has ${samples.length} samples where ${cost.of} were written; profile again`);
  const problems = Array.from({ length: Math.min(rates.length, source.size) }, (_, i) => source.at(i));
  if (problems.length < rates.length || problemsDigest(problems) !== record.problems) {
    fail(
      `its problems are not the first ${rates.length} of ${task.name}'s training split; profile again with the same task options (of a generated task with \`seed\` among them, for its problems depend on the run's seed without it)`,
    );
  }
  const condition = parseWhere(recipe.where);
  const chosen = problems.filter((_, i) => condition(rates[i].solved));
  if (chosen.length === 0)
    fail(`none of its ${rates.length} problems satisfies where = ${JSON.stringify(recipe.where)}`);
  const { generated, prefilled, seconds } = cost;
  checkBudget(recipe, { generated, prefilled, seconds }, file);
  const text = `training problems: ${chosen.length} of the ${rates.length} that ${file} holds satisfy ${recipe.where}; its ${generated} generated tokens and ${Math.round(seconds)} s count as the first stage's`;
  return { source: listed(chosen), profile: { cost: { generated, prefilled, seconds }, sha256: sha256(file), text } };
}

/** A samples file itself, or of a folder that `rifft task profile` wrote into the only one there. */
function profileFile(path: string): string {
  if (!existsSync(path))
    throw new UserError(`\`profile\`: ${path} does not exist; make it with \`rifft task profile\``);
  if (!statSync(path).isDirectory()) return path;
  const evals = join(path, "evals");
  const files = existsSync(evals) ? readdirSync(evals).filter((name) => name.endsWith(".jsonl")) : [];
  if (files.length === 1) return join(evals, files[0]);
  throw new UserError(
    `\`profile\`: expected one samples file in ${evals}, found ${files.length === 0 ? "none" : files.sort().join(", ")}; name the file`,
  );
}

function listed(problems: ReturnType<ProblemSource["at"]>[]): ProblemSource {
  return {
    size: problems.length,
    at(index) {
      if (index in problems) return problems[index];
      throw new RangeError(`no training problem ${index}; there are ${problems.length}`);
    },
  };
}

/** A budget that the profile uses up would leave the first stage without a step. */
function checkBudget({ stages: [first] }: Recipe, cost: SamplingCost, file: string): void {
  const usage = { steps: 0, problems: 0, generatedTokens: cost.generated, engineSeconds: cost.seconds };
  if (fractionUsed(first.budget, usage, 1) < 1) return;
  throw new UserError(
    `profile ${file}: its ${cost.generated} generated tokens and ${Math.round(cost.seconds)} s use up the budget of stage ${first.name}; raise it, or profile fewer problems or samples`,
  );
}

const sha256 = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

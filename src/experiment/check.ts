import { UserError } from "../errors.ts";
import { checkGolds, takeProblems } from "../eval/evaluate.ts";
import { gradingSettings } from "../eval/report.ts";
import { inFormat } from "../task/formats.ts";
import { allProblems, findLeaks } from "../task/leaks.ts";
import { loadTask } from "../task/load.ts";
import type { Problem } from "../task/types.ts";
import type { ArmRecipe } from "./arms.ts";
import { alsoOf, askedOf, type ExperimentFile } from "./file.ts";

export interface CheckedQuestions {
  /** Test problems. */
  problems: number;
  /** What a reader should know. */
  notes: string[];
}

/**
 * Before any work: all arms answer the same dev and test questions, the test's are neither trained on nor used to choose, and the
 * grader can read their golds. Throws a UserError.
 */
export async function checkQuestions(
  experiment: ExperimentFile,
  arms: readonly ArmRecipe[],
): Promise<CheckedQuestions> {
  const { source, dev, test, final, curve } = experiment;
  const tunes = experiment.arm[0].settings.length > 1;
  if (test.split === "train") {
    throw new UserError(
      `${source}: \`test.split\` is "train", whose questions the arms are trained on; name another split`,
    );
  }
  const notes = new Set<string>();
  const seen = new Set<string>();
  const first = new Map<string | undefined, { arm: string; questions: string; problems: number }>();
  for (const arm of arms) {
    const recipe = arm.recipe(final.seeds[0], arm.budgets);
    const group = experiment.arm.find(({ name }) => name === arm.arm)?.group;
    const formats = formatsOf(experiment, arm.arm);
    const trained = recipe.stages.map(({ format }) => format);
    const reference = JSON.stringify([recipe.task, recipe.baseDir, group, formats, trained]);
    if (seen.has(reference)) continue;
    seen.add(reference);
    const task = await loadTask(recipe.task, { baseDir: recipe.baseDir, seed: recipe.seed });
    try {
      const tested = await takeProblems(task, test.split, test.limit);
      const chosenOn = tunes || curve !== undefined ? await takeProblems(task, dev.split, dev.limit) : [];
      await checkGolds(task, tested);
      const questions = JSON.stringify([gradingSettings(task), tested, chosenOn]);
      const before = first.get(group);
      if (before !== undefined && before.questions !== questions) {
        throw new UserError(
          `${source}: arm "${arm.arm}" would be evaluated on other questions (or graded otherwise) than arm "${before.arm}"; give them tasks with the same dev and test split, or each a \`group\` of its own`,
        );
      }
      if (before === undefined) first.set(group, { arm: arm.arm, questions, problems: tested.length });
      for (const format of formats) inFormat(tested[0], format);
      const training = await task.problems("train");
      for (const format of trained) inFormat(training.at(0), format);
      if (experiment.arm[0].settings.length > 1)
        refuseLeak(source, "used to choose the settings (dev)", chosenOn, tested);
      const train = allProblems(training);
      if (train === undefined)
        notes.add(`${task.name}: its training split has no end, so it cannot be compared with the test questions`);
      else {
        const near = refuseLeak(source, `trained on by arm "${arm.arm}"`, train, tested);
        if (near > 0)
          notes.add(
            `${near} of ${tested.length} test questions share 70 % of their 8-grams with a training question of ${task.name}`,
          );
      }
    } finally {
      await task.close();
    }
  }
  // Of the smallest test, where groups have their own.
  const problems = Math.min(...[...first.values()].map((one) => one.problems));
  return { problems: Number.isFinite(problems) ? problems : 0, notes: [...notes] };
}

/** The formats in which an arm is asked. */
const formatsOf = (experiment: ExperimentFile, arm: string): (string | undefined)[] => {
  const { dev, test } = experiment;
  const specs = [dev, test].map((spec) => askedOf(experiment, arm, spec));
  return [...new Set([...specs, ...alsoOf(experiment, arm).map(({ spec }) => spec)].map(({ format }) => format))];
};

/** Refuses test questions that occur word for word in others; returns how many come near one. */
function refuseLeak(source: string, how: string, others: Problem[], tested: Problem[]): number {
  const leaks = findLeaks(others, tested);
  const exact = leaks.filter((leak) => leak.exact);
  if (exact.length > 0) {
    throw new UserError(
      `${source}: ${exact.length} of ${tested.length} test questions are also ${how}, word for word (first ${exact[0].problem}, there ${exact[0].train}); test on others`,
    );
  }
  return leaks.length;
}

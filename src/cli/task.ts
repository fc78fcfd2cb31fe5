import { basename, dirname, join, resolve } from "node:path";
import { Command } from "commander";
import { UserError } from "../errors.ts";
import { checkGolds, takeProblems } from "../eval/evaluate.ts";
import { histogram, histogramText, solveRates } from "../eval/profile.ts";
import { gradingSettings } from "../eval/report.ts";
import { evaluationRecord, modelDigest } from "../run/evaluation.ts";
import { measure } from "../run/measure.ts";
import { modelFolder } from "../run/models.ts";
import { parseTaskReference } from "../run/recipe.ts";
import { loadTask } from "../task/load.ts";
import { checkpointOption, runRecipe, withModel } from "./model.ts";
import { nonNegative, positiveWhole, wholeNumber } from "./options.ts";
import { printResult, StatusLine } from "./output.ts";

interface Options {
  model: string;
  checkpoint?: string;
  n: number;
  limit?: number;
  temperature: number;
  maxTokens: number;
  seed: number;
  out?: string;
  json?: boolean;
}

export function taskCommand(): Command {
  const profileCommand = new Command("profile")
    .description("how often a model solves each training problem; a recipe's `where` chooses among them by it")
    .argument("<T>", "a task's name, file, or TOML table")
    .requiredOption("--model <M>", "a Hugging Face folder, a GGUF file or a run folder")
    .option(...checkpointOption)
    .option("--n <samples>", "samples a problem", positiveWhole, 4)
    .option("--limit <problems>", "only the first so many problems", positiveWhole)
    .option("--temperature <t>", "0 takes the most probable token (then --n must be 1)", nonNegative, 1)
    .option("--max-tokens <n>", "longest response", positiveWhole, 512)
    .option("--seed <n>", "another seed gives other samples", wholeNumber, 0)
    .option("--out <dir>", "where the samples go (default: profile/ in the run folder, or runs/profile)")
    .option("--json", "print the result as JSON")
    .exitOverride()
    .action(profile);
  return new Command("task").description("what can be said of a task").addCommand(profileCommand);
}

async function profile(reference: string, o: Options): Promise<void> {
  const { model, n, temperature, maxTokens, seed } = o;
  if (temperature === 0 && n > 1) {
    throw new UserError(
      `task profile: at temperature 0 all ${n} samples of a problem are the same; set --n 1 or raise --temperature`,
    );
  }
  const recipe = runRecipe(model);
  const task = await loadTask(parseTaskReference(reference), { baseDir: resolve("."), seed: recipe?.seed ?? seed });
  const status = new StatusLine();
  try {
    const problems = await takeProblems(task, "train", o.limit);
    checkGolds(task, problems);
    const { checkpoint } = o;
    const found = checkpoint === undefined ? undefined : basename(dirname(await modelFolder(model, checkpoint)));
    const dir = o.out ?? (recipe === undefined ? join("runs", "profile") : join(model, "profile"));
    const sampling = { n, temperature, maxTokens, seed };
    const measured = await measure({
      dir,
      settings: { model, split: "train", ...gradingSettings(task), ...sampling, ...(found && { checkpoint: found }) },
      weights: await modelDigest(model, found),
      task,
      problems,
      note: (text) => process.stderr.write(`${text}\n`),
      withModel: (work) => withModel({ model, checkpoint: found }, task, work),
      onSample: ({ done, of }) => status.show(`${done}/${of} samples`),
    });
    status.clear();
    if (measured === undefined) return;
    const { report, line, samples } = measured;
    const rates = solveRates(samples);
    const bars = histogram(rates, n);
    const file = join(dir, line.file);
    const cost = evaluationRecord(file)?.cost;
    const { accuracy, interval } = report;
    const result = { model, task: task.name, split: "train", ...sampling, accuracy, interval, histogram: bars };
    printResult(o.json, { ...result, problems: rates, cost: costOf(cost), file }, () => {
      const width = Math.min(80, process.stdout.columns ?? 80);
      const between = rates.filter(({ solved }) => solved > 0 && solved < 1).length;
      const percent = (share: number) => (100 * share).toFixed(1);
      return [
        `${task.name}, train: ${rates.length} problems, ${n} samples each, temperature ${temperature}`,
        `solved: ${percent(accuracy)} % [${percent(interval.low)}, ${percent(interval.high)}] of the samples`,
        "",
        `problems by how often they were solved`,
        histogramText(bars, width),
        "",
        `neither never nor always: ${between} of ${rates.length} problems (${percent(between / rates.length)} %)`,
        ...(cost === undefined
          ? []
          : [`cost: ${cost.generated} tokens generated, ${cost.prefilled} prefilled, ${cost.seconds.toFixed(1)} s`]),
        `samples: ${file}`,
        `in a recipe: profile = ${JSON.stringify(file)} and where = "0 < solved < 1"`,
      ].join("\n");
    });
  } finally {
    status.clear();
    await task.close();
  }
}

function costOf(cost: { generated: number; prefilled: number; seconds: number } | undefined) {
  return cost && { generated: cost.generated, prefilled: cost.prefilled, seconds: cost.seconds };
}

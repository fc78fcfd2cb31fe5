import { basename, dirname, join, resolve } from "node:path";
import { Command, Option } from "commander";
import { UserError } from "../errors.ts";
import type { CriticReport } from "../eval/critic.ts";
import { checkGolds, takeProblems } from "../eval/evaluate.ts";
import { regradeSample } from "../eval/regrade.ts";
import { checkKs, type EvaluationReport, type EvaluationSettings, gradingSettings, reportOf } from "../eval/report.ts";
import { byProblem, type EvaluatedSample } from "../eval/samples.ts";
import { reportText } from "../eval/table.ts";
import { checkSearchable } from "../eval/search.ts";
import { PROMPTED_TEMPERATURE } from "../eval/searched.ts";
import { validateGolds } from "../eval/validate.ts";
import { measureCritic } from "../run/critic.ts";
import { CHOSEN_ON_TEST } from "../run/best.ts";
import { evaluationRecord, modelDigest } from "../run/evaluation.ts";
import { leafScores } from "../run/leaf-scores.ts";
import { measure, type MeasureOptions } from "../run/measure.ts";
import { modelFolder } from "../run/models.ts";
import { type Reranked, rerankSamples } from "../run/rerank.ts";
import { parseTaskReference } from "../run/recipe.ts";
import { parseGrading } from "../task/grading.ts";
import { allProblems, findLeaks, type Leak } from "../task/leaks.ts";
import { loadTask } from "../task/load.ts";
import type { Problem, Split, Task } from "../task/types.ts";
import { evaluationView } from "../view/evaluation.ts";
import { viewPage } from "../view/page.ts";
import { samplesFile, wholeProblems } from "./evaluation.ts";
import { checkpointOption, recipeTask, runRecipe, withModel } from "./model.ts";
import { nonNegative, positiveWhole, wholeNumber } from "./options.ts";
import { printResult, StatusLine, writePage } from "./output.ts";
import { type RoundFlags, roundFlags, roundsAsked } from "./rounds.ts";
import { searchAsked, type SearchFlags, searchFlags } from "./search.ts";
import { untilInterrupted } from "./watch.ts";

interface Options extends RoundFlags, SearchFlags {
  model?: string;
  checkpoint?: string;
  task?: string;
  split: Split;
  limit?: number;
  format?: string;
  n: number;
  k?: number[];
  maxTokens: number;
  temperature?: number;
  topK?: number;
  seed: number;
  out?: string;
  from?: string;
  rerank?: string;
  critic?: string;
  beside?: string;
  mode?: string;
  strict?: string[];
  flexible?: string[];
  validate?: boolean;
  leaks?: string;
  html?: string;
  json?: boolean;
}

const SPLITS: readonly Split[] = ["train", "dev", "test"];

export function evalCommand(): Command {
  const command = new Command("eval")
    .description("accuracy, pass@k, maj@k and best@k with 95 % intervals; keeps every sample; resumes; grades again")
    .option("--model <M>", "a Hugging Face folder, a GGUF file or a run folder")
    .option(...checkpointOption)
    .option("--task <T>", "a task's name, file, or TOML table (default: the run's own)")
    .addOption(new Option("--split <name>", "which problems").choices(SPLITS).default("test"))
    .option("--limit <problems>", "only the first so many problems", positiveWhole)
    .option("--format <name>", "asks the problems in one of their other formats")
    .option("--n <samples>", "samples a problem", positiveWhole, 1)
    .option(
      "--k <k...>",
      "of how many samples pass@k, maj@k and best@k are (default: powers of two up to n, and n)",
      wholes,
    )
    .option("--max-tokens <n>", "longest response", positiveWhole, 512)
    .option(
      "--temperature <t>",
      "0 takes the most probable token (default: 0 for one sample, 1 for several)",
      nonNegative,
    )
    .option("--top-k <k>", "sample from the k most probable tokens", positiveWhole)
    .option("--seed <n>", "another seed gives other samples", wholeNumber, 0)
    .option("--out <dir>", "where evals.jsonl and the samples go (default: the run folder, or runs/eval)")
    .option("--from <file>", "grades the samples of this file again; needs no model")
    .option(
      "--rerank <run>",
      "with --from: scores these samples with a reranker, for rerank@k; keeps the scores beside them",
    )
    .option(
      "--critic <run>",
      "with --from: how well this run's critic foretells the returns of these samples, which are its policy's",
    )
    .option("--mode <name>", "how answers are compared (default: the task's)")
    .option("--strict <strategies...>", "where the strict verdict looks for the answer (default: the task's)")
    .option("--flexible <strategies...>", "where the flexible verdict looks for it (default: the task's)")
    .option("--validate", "grades every gold against itself and lists what the grader cannot read; needs no model")
    .option("--leaks <T>", "lists the questions that occur in the training split of this task; needs no model")
    .option("--html <file>", "also writes the report with its samples as one page")
    .option("--json", "print the result as JSON")
    .action((o: Options) => {
      if ((o.rerank ?? o.critic) !== undefined && o.from === undefined) {
        throw new UserError("eval: --rerank and --critic score stored samples; name their file with --from");
      }
      if (o.validate === true) return validate(o);
      if (o.leaks !== undefined) return leaks(o, o.leaks);
      return o.from === undefined ? sample(o) : regrade(o, o.from);
    });
  for (const option of [...roundFlags(), ...searchFlags()]) command.addOption(option);
  return command;
}

/** Collects `--k 1 4 8`. */
function wholes(text: string, before: number[] = []): number[] {
  return [...before, positiveWhole(text)];
}

/** Samples what is not there yet, and reports. */
async function sample(o: Options): Promise<void> {
  const { model } = o;
  if (model === undefined)
    throw new UserError("eval: name a model with --model, or samples to grade again with --from");
  const ofFunctions = searchAsked(o);
  const { search } = ofFunctions;
  if (o.search !== undefined) {
    if (o.n > 1) throw new UserError("eval: --search draws its rollouts in place of samples; leave --n out");
    if (o.topK !== undefined) throw new UserError("eval: a search samples from all tokens; leave --top-k out");
    o.n = o.search;
  }
  checkKs(o.k ?? [1], o.n);
  const temperature =
    o.temperature ?? (search?.by === "prompts" ? PROMPTED_TEMPERATURE : o.n === 1 && search === undefined ? 0 : 1);
  if (temperature === 0 && o.n > 1 && search === undefined) {
    throw new UserError(
      `eval: at temperature 0 all ${o.n} samples of a problem are the same; leave --n out or raise --temperature`,
    );
  }
  const task = await openTask(o);
  const status = new StatusLine();
  try {
    const problems = await takeProblems(task, o.split, o.limit, o.format);
    await checkGolds(task, problems);
    const { checkpoint } = o;
    const recipe = runRecipe(model);
    if (o.split === "test" && recipe?.selection === "reference") note(CHOSEN_ON_TEST);
    // By its own name, which says when; the newest or the best one moves.
    const found = checkpoint === undefined ? undefined : basename(dirname(await modelFolder(model, checkpoint)));
    const settings = {
      ...settingsOf(o, model, task, temperature),
      ...ofFunctions,
      ...(found && { checkpoint: found }),
    };
    if (search !== undefined) checkSearchable(task);
    const beside = besideOf(o, settings);
    const scores = await leafScores(search, recipe && model, found);
    const dir = o.out ?? (recipe === undefined ? join("runs", "eval") : model);
    let leaked: Leak[] | undefined;
    const asked: MeasureOptions = {
      dir,
      settings,
      weights: await modelDigest(model, found),
      task,
      problems,
      ks: o.k,
      beside,
      leafScores: scores.of,
      note,
      withModel: (work) => withModel({ model, checkpoint: found, heads: scores.heads }, task, work),
      extra: async () => {
        leaked = await trainedOn(model, problems);
        return leaked === undefined ? {} : { leaks: leaked.length };
      },
      onSample: ({ done, of, right }) =>
        status.show(`${done}/${of} samples, ${((100 * right) / done).toFixed(1)} % right`),
    };
    const measured = await untilInterrupted({ note, close: () => status.clear() }, STOPPING, (signal) =>
      measure({
        ...asked,
        interrupted: () => signal.aborted,
        onInterrupted: (samples, file) => {
          status.clear();
          process.exitCode = 130;
          showSoFar(o, asked, samples, join(dir, file));
        },
      }),
    );
    status.clear();
    if (measured === undefined) return;
    const { report, line, samples } = measured;
    if (o.html !== undefined) writePage(o.html, viewPage(await evaluationView(report, samples)));
    show(o, line, report, [
      ...(leaked === undefined || leaked.length === 0 ? [] : [leakLine(leaked, problems.length)]),
      ...costLines(join(dir, line.file), problems.length),
      `samples: ${join(dir, line.file)}`,
    ]);
  } finally {
    status.clear();
    await task.close();
  }
}

const STOPPING = "stopping, with a report of the answers so far; Ctrl-C again stops at once";

/** What an evaluation that was interrupted has found: of the problems that have answers, over as many as each has. */
function showSoFar(
  o: Options,
  { settings, problems, beside }: MeasureOptions,
  samples: EvaluatedSample[],
  file: string,
): void {
  if (samples.length === 0) return note("interrupted before there was an answer; the same command begins again");
  const report = reportOf(settings, samples, undefined, { beside });
  const each = byProblem(samples).map(({ length }) => length);
  const [least, most] = [Math.min(...each), Math.max(...each)];
  const what = settings.search === undefined ? "samples" : "rollouts";
  const many = least === most ? `${most}` : `${least} to ${most}`;
  show(o, { ...report, interrupted: true, file }, report, [
    `interrupted: ${each.length} of ${problems.length} problems, ${many} of ${settings.n} ${what} each; the same command goes on`,
    `samples: ${file}`,
  ]);
}

/** What all samples of a file have cost, where that was noted. */
function costLines(file: string, problems: number): string[] {
  const cost = evaluationRecord(file)?.cost;
  if (cost === undefined || cost.samples < cost.of) return [];
  const { generated, prefilled, seconds } = cost;
  return [
    `cost: ${generated} tokens generated, ${prefilled} prefilled, ${seconds.toFixed(1)} s (${(seconds / problems).toFixed(2)} s a problem)`,
  ];
}

/** Grades samples again and reports; writes nothing. */
async function regrade(o: Options, path: string): Promise<void> {
  const chosen = parseGrading(o);
  const { samples: whole, settings, notes } = wholeProblems(path, chosen);
  for (const text of notes) note(text);
  const { mode, strict, flexible } = settings;
  const again = mode === "reward" ? whole : whole.map((one) => regradeSample(one, { mode, strict, flexible }));
  const scored = o.rerank === undefined ? undefined : await scoresOf(o, o.rerank, path, settings, again);
  const report = reportOf(settings, again, o.k, { score: scored?.score, beside: besideOf(o, settings) });
  if (o.html !== undefined) writePage(o.html, viewPage(await evaluationView(report, again)));
  const rerank = scored && { run: o.rerank, file: scored.file, accuracy: scored.accuracy };
  if (o.critic !== undefined && whole.some(({ rounds }) => rounds !== undefined))
    throw new UserError("eval: --critic reads whole answers to the task's prompt, and these are answers in rounds");
  const critic = o.critic === undefined ? undefined : await criticOf(o, o.critic, settings, whole);
  show(o, { ...report, file: path, ...(rerank && { rerank }), ...(critic && { critic }) }, report, [
    `samples: ${path}`,
    ...(critic === undefined ? [] : [criticLine(critic)]),
    ...(rerank === undefined
      ? []
      : [`scores: ${rerank.file} (${(100 * rerank.accuracy).toFixed(1)} % of samples told right from wrong)`]),
  ]);
}

/** The plain samples that stand beside a search. */
function besideOf(o: Options, { search }: Pick<EvaluationSettings, "search">): EvaluatedSample[] | undefined {
  if (o.beside === undefined) return undefined;
  if (search === undefined)
    throw new UserError(
      "eval: --beside sets plain samples beside those of a search; ask for one with --search ROLLOUTS",
    );
  const { samples, notes } = wholeProblems(samplesFile(o.beside));
  for (const text of notes) note(text);
  return samples;
}

function criticOf(
  o: Options,
  run: string,
  { split, format }: EvaluationSettings,
  samples: EvaluatedSample[],
): Promise<CriticReport> {
  const { checkpoint } = o;
  return withStatus((onProgress) =>
    measureCritic({ run, checkpoint, samples, split: splitOf(o, split), format, onProgress }),
  );
}

function criticLine({ explainedVariance, baseline, difference, interval }: CriticReport): string {
  const [v, b, d, low, high] = [explainedVariance, baseline, difference, interval.low, interval.high].map((x) =>
    x.toFixed(3),
  );
  return `critic: explains ${v} of the returns' variance, position and length alone ${b}; difference ${d} [${low}, ${high}]`;
}

const splitOf = (o: Options, recorded: string | undefined): Split =>
  SPLITS.find((name) => name === recorded) ?? o.split;

async function withStatus<T>(work: (onProgress: (done: number, of: number) => void) => Promise<T>): Promise<T> {
  const status = new StatusLine();
  try {
    return await work((done, of) => status.show(`${done}/${of} samples scored`));
  } finally {
    status.clear();
  }
}

/** A reranker's scores, read or computed. */
function scoresOf(
  o: Options,
  run: string,
  samplesFile: string,
  { split, format }: EvaluationSettings,
  samples: EvaluatedSample[],
): Promise<Reranked> {
  const { checkpoint } = o;
  const task = o.task === undefined ? undefined : { reference: parseTaskReference(o.task), baseDir: resolve(".") };
  return withStatus((onProgress) =>
    rerankSamples({ run, checkpoint, samplesFile, samples, task, split: splitOf(o, split), format, onProgress }),
  );
}

/** Grades every gold against itself; exit code 1 where one is not equal to itself. */
async function validate(o: Options): Promise<void> {
  const task = await openTask(o);
  try {
    const found = await validateGolds(task, await takeProblems(task, o.split, o.limit));
    if (found.unreadable.length > 0) process.exitCode = 1;
    const { mode, strict } = gradingSettings(task);
    printResult(o.json, { task: task.name, split: o.split, mode, strict, ...found }, () => {
      const { problems, rules, asText, unreadable } = found;
      const list = (findings: typeof asText) =>
        findings.map(({ problem, gold, reason }) => `  ${problem}: ${gold} (${reason})`);
      const by = Object.entries(rules).map(([rule, count]) => `${rule} ${count}`);
      return [
        `${task.name}, ${o.split}: ${problems - unreadable.length} of ${problems} golds grade equal to themselves (mode ${mode}, ${strict.join(", ")})`,
        ...(by.length === 0 ? [] : [`by rule: ${by.join(", ")}`]),
        ...(asText.length === 0 ? [] : [`compared as plain text: ${asText.length}`, ...list(asText)]),
        ...(unreadable.length === 0 ? [] : [`not equal to themselves: ${unreadable.length}`, ...list(unreadable)]),
      ].join("\n");
    });
  } finally {
    await task.close();
  }
}

/** Lists the questions that occur in another task's training split. */
async function leaks(o: Options, other: string): Promise<void> {
  const task = await openTask(o);
  const trained = await loadTask(parseTaskReference(other), { baseDir: resolve("."), seed: o.seed });
  try {
    const problems = await takeProblems(task, o.split, o.limit);
    const train = allProblems(await trained.problems("train"));
    if (train === undefined)
      throw new UserError(`task ${trained.name}: its training split is endless; nothing to compare with`);
    const found = findLeaks(train, problems);
    const result = {
      task: task.name,
      split: o.split,
      problems: problems.length,
      train: trained.name,
      trained: train.length,
      leaks: found,
    };
    printResult(o.json, result, () =>
      [
        `${task.name}, ${o.split}: ${found.length} of ${problems.length} questions occur among ${train.length} training questions of ${trained.name}`,
        ...found.map(
          (leak) =>
            `  ${leak.problem}: ${leak.exact ? "the same as" : `${(100 * leak.overlap).toFixed(0)} % of its 8-grams in`} ${leak.train}`,
        ),
      ].join("\n"),
    );
  } finally {
    await Promise.all([task.close(), trained.close()]);
  }
}

/** The evaluated questions that the run trained on; undefined where the model is no run, or its training questions have no end. */
async function trainedOn(model: string, problems: Problem[]): Promise<Leak[] | undefined> {
  const recipe = runRecipe(model);
  if (recipe === undefined) return undefined;
  try {
    const own = await recipeTask(recipe);
    try {
      const train = allProblems(await own.problems("train"));
      return train && findLeaks(train, problems);
    } finally {
      await own.close();
    }
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    note(`the run's training questions cannot be compared with these: ${error.message}`);
    return undefined;
  }
}

function leakLine(found: Leak[], problems: number): string {
  const exact = found.filter(({ exact }) => exact).length;
  return `LEAK: ${found.length} of ${problems} questions occur in the run's training data (${exact} word for word), first ${found[0].problem}`;
}

function openTask(o: Options): Promise<Task> {
  const recipe = o.model === undefined ? undefined : runRecipe(o.model);
  const grading = parseGrading(o);
  if (o.task !== undefined) {
    return loadTask(parseTaskReference(o.task), { baseDir: resolve("."), seed: recipe?.seed ?? o.seed, grading });
  }
  if (recipe === undefined) throw new UserError("eval: name a task with --task; only a run folder has one of its own");
  return recipeTask(recipe, grading);
}

function settingsOf(o: Options, model: string, task: Task, temperature: number): MeasureOptions["settings"] {
  const { split, format, n, maxTokens, seed } = o;
  const rounds = roundsAsked(o);
  const asked = { ...gradingSettings(task), ...(format !== undefined && { format }) };
  return {
    model,
    split,
    ...asked,
    n,
    temperature,
    ...(o.topK !== undefined && { topK: o.topK }),
    maxTokens,
    ...(rounds && { rounds }),
    seed,
  };
}

function show(o: Options, result: object, report: EvaluationReport, below: string[]): void {
  printResult(o.json, result, () =>
    [reportText(report, Math.min(80, process.stdout.columns ?? 80)), ...below].join("\n"),
  );
}

/** A line on standard error. */
function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

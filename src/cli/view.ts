import { existsSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { Command, InvalidArgumentError, Option } from "commander";
import { UserError } from "../errors.ts";
import { type ComparedSetting, COMPARED_SETTINGS, compareEvaluations, type CompareOptions } from "../eval/compare.ts";
import { reportOf } from "../eval/report.ts";
import { isRunFolder, requireRun } from "../run/folder.ts";
import { comparisonView, evaluationView } from "../view/evaluation.ts";
import { MARK, type View, viewPage } from "../view/page.ts";
import { runView } from "../view/run.ts";
import { comparedSettings, openEvaluation, samplesFile, wholeProblems } from "./evaluation.ts";
import { checkFree, printResult, writePage } from "./output.ts";

interface Options {
  out?: string;
  steps?: [number, number];
  grading: CompareOptions["grading"];
  allow?: ComparedSetting[];
  json?: boolean;
}

/** A page above this size is slow to open; its steps can be chosen. */
const LARGE = 200e6;

export function viewCommand(): Command {
  return new Command("view")
    .description("one HTML page of a run, of an evaluation, or of two evaluations side by side")
    .argument("<paths...>", "a run folder; or one or two evaluations: samples files, or folders (their newest)")
    .option("--out <file>", "the page (default: view.html in the run folder, or beside the first samples)")
    .option("--steps <A-B>", "samples of these steps of each stage alone, from 0 as in metrics.jsonl", steps)
    .addOption(
      new Option("--grading <name>", "of two evaluations: which verdict counts")
        .choices(["strict", "flexible"])
        .default("strict"),
    )
    .option(
      "--allow <settings...>",
      `of two: settings that may differ: ${COMPARED_SETTINGS.join(", ")}`,
      comparedSettings,
    )
    .option("--json", "print the result as JSON")
    .action(async (paths: string[], o: Options) => {
      const { view, page } = await open(paths, o);
      const html = viewPage(view);
      writePage(page, html);
      const bytes = Buffer.byteLength(html);
      const { samples } = view.head;
      const result = { page, kind: view.head.kind, samples, bytes, notes: view.notes };
      printResult(o.json, result, () =>
        [
          ...view.notes.map((note) => `note: ${note}`),
          `${page}: ${samples.toLocaleString("en-US")} samples, ${(bytes / 1e6).toFixed(1)} MB`,
          ...(bytes > LARGE && view.head.kind === "run" ? ["a page of this size opens slowly: choose steps with --steps A-B"] : []), // prettier-ignore
        ].join("\n"),
      );
    });
}

function steps(text: string): [number, number] {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? [];
  if (first === undefined || Number(first) > Number(last)) {
    throw new InvalidArgumentError("expected the first and the last step, such as 0-19.");
  }
  return [Number(first), Number(last)];
}

/** What the paths stand for, and where its page goes. */
async function open(paths: string[], o: Options): Promise<{ view: View; page: string }> {
  const [first, second] = paths;
  const at = (dir: string, name: string) => o.out ?? join(dir, name);
  if (paths.length > 2) {
    throw new UserError(`view: expected a run, an evaluation, or two evaluations, found ${paths.length} paths`);
  }
  if (second === undefined && isRunFolder(resolve(first))) {
    const page = at(first, "view.html");
    checkFree(page, MARK, "rifft view", "--out");
    return { view: await runView(first, { steps: o.steps }), page };
  }
  if (o.steps !== undefined) {
    if (second === undefined) requireRun(resolve(first));
    throw new UserError("view: --steps chooses steps of one run; evaluations have none");
  }
  if (
    second === undefined &&
    existsSync(first) &&
    statSync(first).isDirectory() &&
    !existsSync(join(first, "evals.jsonl"))
  ) {
    throw new UserError(
      `${first} is neither a run folder (it holds no run.json and recipe.toml) nor one of evaluations (no evals.jsonl)`,
    );
  }
  const file = samplesFile(first);
  const name = basename(file, ".jsonl");
  if (second === undefined) {
    const page = at(dirname(file), `${name}.html`);
    checkFree(page, MARK, "rifft view", "--out");
    const { samples, settings, notes } = wholeProblems(file);
    return { view: await evaluationView(reportOf(settings, samples), samples, notes), page };
  }
  const page = at(dirname(file), `${name}-compared.html`);
  checkFree(page, MARK, "rifft view", "--out");
  const [a, b] = [openEvaluation(first), openEvaluation(second)];
  const comparison = compareEvaluations(a, b, { grading: o.grading, allow: o.allow ?? [] });
  return { view: await comparisonView(a, b, comparison), page };
}

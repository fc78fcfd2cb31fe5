import { relative } from "node:path";
import { Command } from "commander";
import { points, span } from "../eval/compare.ts";
import { dryRun, type DryRun } from "../experiment/dry-run.ts";
import { readExperiment } from "../experiment/file.ts";
import { foundText } from "../experiment/page.ts";
import { experimentProgress } from "../experiment/progress.ts";
import { type ExperimentResult, runExperiment } from "../experiment/run.ts";
import { duration } from "../run/format.ts";
import { printResult } from "./output.ts";
import { untilInterrupted } from "./watch.ts";

interface Options {
  run?: string;
  out?: string;
  dryRun?: boolean;
  force?: boolean;
  json?: boolean;
}

export function experimentCommand(): Command {
  return new Command("experiment")
    .description("compare methods fairly: tune every arm alike, run fresh seeds at equal budgets, write the page")
    .argument("<file>", "TOML file")
    .option("--run <dir>", "the experiment's folder (default: runs/ and the file's name)")
    .option("--out <dir>", "the page is written there too (default: the file's `out`)")
    .option("--dry-run", "check everything, list the cells and what they would take, run nothing")
    .option("--force", "cells go on although threads, memory plan, library or processor changed")
    .option("--json", "print the result as JSON")
    .action(async (file: string, o: Options) => {
      const experiment = readExperiment(file);
      if (o.dryRun === true) {
        const plan = await dryRun(experiment, o.run);
        return printResult(o.json, plan, () => dryRunText(plan));
      }
      const progress = experimentProgress(process.stderr);
      const words = "stopping after the steps in progress, with checkpoints; Ctrl-C again stops at once";
      await untilInterrupted(progress, words, async (signal) => {
        const result = await runExperiment(experiment, { dir: o.run, out: o.out, force: o.force, progress, signal });
        const { dir: run, complete, interrupted, pages, analysis } = result;
        printResult(o.json, { run, complete, interrupted, pages, ...analysis }, () => summary(file, result));
        if (!complete) process.exitCode = interrupted ? 130 : 1;
      });
    });
}

function summary(file: string, { interrupted, analysis, pages }: ExperimentResult): string {
  if (interrupted || analysis === undefined) return `interrupted; continue with: rifft experiment ${file}`;
  const budgets = { generatedTokens: "generated tokens", engineSeconds: "engine seconds" };
  const width = Math.max(...analysis.arms.map(({ arm }) => arm.length), 3);
  return [
    ...analysis.arms.map(
      ({ arm, budget, mean, interval, seeds }) =>
        `${arm.padEnd(width)}  ${budgets[budget].padEnd(16)}  ${points(mean).padStart(5)} %${seeds.length > 1 ? ` [${span(interval)}]` : ""}  ${seeds.length} seeds`,
    ),
    "",
    ...analysis.contrasts
      .filter(({ primary }) => primary)
      .map(({ a, b, budget, comparison, corrected }) => {
        const head = `${b} - ${a} at equal ${budgets[budget]}`;
        if (comparison === undefined) return `${head}: missing`;
        const p = comparison.claim ? `Holm-corrected p = ${(corrected ?? 1).toFixed(3)}` : "too few seeds for a claim";
        return `${head}: ${points(comparison.difference)} points, 95 % t interval ${span(comparison.tInterval)}, ${p}`;
      }),
    ...(analysis.missing.length === 0
      ? []
      : ["", ...analysis.missing.map(({ cell, reason }) => `missing: ${cell}: ${reason}`)]),
    "",
    ...pages.map((page) => `page: ${relative("", page)}`),
  ].join("\n");
}

function dryRunText({
  run,
  shared,
  profiles,
  tuning,
  final,
  power,
  problems,
  notes,
  engineSeconds,
  generatedTokens,
}: DryRun): string {
  const list = (title: string, cells: DryRun["final"]) =>
    cells.length === 0
      ? []
      : [
          `${title}: ${cells.length} runs, ${cells.filter(({ complete }) => complete).length} complete`,
          ...cells.map(
            ({ id, after, complete }) =>
              `  ${id}${after === undefined ? "" : `  from ${after}`}${complete ? "  (complete)" : ""}`,
          ),
        ];
  return [
    `folder: ${run}`,
    ...list("shared beginnings", shared),
    ...list("profiles", profiles),
    ...list("tuning", tuning),
    ...list("final", final),
    ...(generatedTokens === undefined
      ? []
      : [`generated tokens of all cells at their marks: ${generatedTokens.toLocaleString("en-US")}`]),
    ...(engineSeconds === undefined
      ? []
      : [
          `engine seconds of all cells: ${duration(engineSeconds)}, one cell at a time; shared beginnings, evaluations and loading add to it`,
        ]),
    `test: ${problems} problems`,
    ...power.map(
      ({ a, b, budget, deviation, detectable, detectableCorrected }) =>
        `${b} - ${a} (${budget}): with a deviation over seeds of ${points(deviation)} points, four of five experiments find ${foundText(detectable)} (${foundText(detectableCorrected)} at Holm's hardest step)`,
    ),
    ...notes,
  ].join("\n");
}

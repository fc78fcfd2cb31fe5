import { Command, Option } from "commander";
import type { ExportType } from "../model/export.ts";
import { type ExportFormat, exportFormats, exportRun } from "../run/export.ts";
import { checkpointOption } from "./model.ts";
import { printResult } from "./output.ts";

interface Options {
  run: string;
  checkpoint?: string;
  format: ExportFormat;
  out: string;
  dtype: ExportType;
  json?: boolean;
}

export function exportCommand(): Command {
  return new Command("export")
    .description("write what a run has trained as an ordinary Hugging Face or PEFT folder")
    .requiredOption("--run <dir>", "run folder")
    .option(...checkpointOption)
    .addOption(
      new Option("--format <name>", "hf: all weights; merged: base and adapter in one; peft: the adapter alone")
        .choices(exportFormats)
        .makeOptionMandatory(),
    )
    .requiredOption("--out <dir>", "a new folder")
    .addOption(new Option("--dtype <type>", "how weights are stored").choices(["f32", "f16", "bf16"]).default("f32"))
    .option("--json", "print the result as JSON")
    .action(async ({ run, checkpoint, format, out, dtype, json }: Options) => {
      await exportRun({ run, checkpoint, format, out, type: dtype });
      printResult(json, { run, format, out, dtype: format === "peft" ? "f32" : dtype }, () => `${format}: ${out}`);
    });
}

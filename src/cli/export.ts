import { Command, InvalidArgumentError } from "commander";
import { nearest } from "../errors.ts";
import {
  type ExportDtype,
  type ExportFormat,
  exportFormats,
  type ExportResult,
  exportRun,
  exportTypes,
  Interrupted,
} from "../run/export.ts";
import { CHOSEN_ON_TEST } from "../run/best.ts";
import { checkpointOption, runRecipe } from "./model.ts";
import { printResult } from "./output.ts";

interface Options {
  run: string;
  checkpoint?: string;
  format: ExportFormat;
  out: string;
  dtype?: ExportDtype;
  verify?: boolean;
  json?: boolean;
}

export function exportCommand(): Command {
  return new Command("export")
    .description("write what a run has trained for other programs")
    .requiredOption("--run <dir>", "run folder")
    .option(...checkpointOption)
    .requiredOption(
      "--format <name>",
      "hf: all weights; merged: base and adapter in one; peft: the adapter alone; gguf: one file for llama.cpp; onnx: for transformers.js",
      oneOf(exportFormats),
    )
    .requiredOption("--out <path>", "a new folder; with gguf a new file")
    .option(
      "--dtype <type>",
      "how weights are stored: f32, f16, bf16, q8_0 (default: f32; of gguf f16)",
      oneOf(exportTypes),
    )
    .option("--verify", "score 200 tokens before and after, and print how far their log-probs moved")
    .option("--json", "print the result as JSON")
    .action(async ({ run, checkpoint, format, out, dtype, verify, json }: Options) => {
      const controller = new AbortController();
      const stop = () => {
        if (controller.signal.aborted) process.exit(130);
        controller.abort();
      };
      process.on("SIGINT", stop).on("SIGTERM", stop);
      try {
        if (runRecipe(run)?.selection === "reference") process.stderr.write(`${CHOSEN_ON_TEST}\n`);
        const result = await exportRun({
          run,
          checkpoint,
          format,
          out,
          type: dtype,
          verify,
          signal: controller.signal,
        });
        printResult(json, result, () => summary(result));
      } catch (error) {
        if (!(error instanceof Interrupted)) throw error;
        process.stderr.write(`${error.message}\n`);
        process.exitCode = 130;
      } finally {
        process.off("SIGINT", stop).off("SIGTERM", stop);
      }
    });
}

/** Parses the name of a choice. */
function oneOf<T extends string>(choices: readonly T[]): (text: string) => T {
  return (text) => {
    const found = choices.find((choice) => choice === text);
    if (found !== undefined) return found;
    const guess = nearest(text, choices);
    throw new InvalidArgumentError(`expected ${choices.join(", ")}${guess ? `; did you mean ${guess}?` : "."}`);
  };
}

function summary({ format, dtype, out, unquantised, verification }: ExportResult): string {
  const lines = [`${format} (${dtype}): ${out}`];
  if (unquantised) {
    lines.push(`f16, for their rows are no multiple of 32: ${unquantised.length} tensors, such as ${unquantised[0]}`);
  }
  if (verification) {
    const { tokens, largest, mean } = verification;
    lines.push(
      `log-probs of ${tokens} tokens changed by ${largest.toPrecision(3)} at most, ${mean.toPrecision(3)} in the mean`,
    );
  }
  return lines.join("\n");
}

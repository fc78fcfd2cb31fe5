import { Command } from "commander";
import { pull } from "../model/hub.ts";
import { printResult, StatusLine } from "./output.ts";

export function pullCommand(): Command {
  return new Command("pull")
    .description("fetch a model or a dataset from the Hugging Face Hub; goes on where it stopped")
    .argument("<name>", "owner/name, datasets/owner/name, or either followed by one file's path")
    .option("--out <dir>", "where the files go (default: models/<owner>/<name> or data/<owner>/<name>)")
    .option("--json", "print the result as JSON")
    .action(async (name: string, options: { out?: string; json?: boolean }) => {
      const status = new StatusLine();
      try {
        const result = await pull({
          name,
          target: options.out,
          onProgress: ({ file, bytes, total, index, files }) =>
            status.show(`${index}/${files} ${file}  ${megabytes(bytes)} of ${megabytes(total)} MB`),
        });
        status.clear();
        printResult(
          options.json,
          result,
          () => `${result.files.length} files of the ${result.kind} are in ${result.folder}`,
        );
      } finally {
        status.clear();
      }
    });
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

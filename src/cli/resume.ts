import { Command } from "commander";
import { resume } from "../run/train.ts";
import { watchRun } from "./watch.ts";

export function resumeCommand(): Command {
  return new Command("resume")
    .description("continue a run exactly where it was")
    .argument("<dir>", "run folder")
    .option("--force", "continue although threads, memory plan, library or processor changed")
    .option("--json", "print the result as JSON")
    .action(async (dir: string, options: { force?: boolean; json?: boolean }) => {
      await watchRun(options, (watching) => resume(dir, { force: options.force, ...watching }));
    });
}

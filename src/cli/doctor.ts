import { Command } from "commander";
import { diagnose, formatDiagnosis } from "../bench/doctor.ts";
import { printResult, StatusLine } from "./output.ts";

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("what works on this machine and what to do about what doesn't, with a ten-second self-test")
    .option("--json", "print the result as JSON")
    .action(async (options: { json?: boolean }) => {
      const status = new StatusLine();
      try {
        const diagnosis = await diagnose((text) => status.show(text));
        status.clear();
        printResult(options.json, diagnosis, () => formatDiagnosis(diagnosis));
        if (!diagnosis.ok) process.exitCode = 1;
      } finally {
        status.clear();
      }
    });
}

import { Command, CommanderError } from "commander";
import { UserError } from "../errors.ts";
import { rifftVersion } from "../run/environment.ts";
import { benchCommand } from "./bench.ts";
import { compareCommand } from "./compare.ts";
import { doctorCommand } from "./doctor.ts";
import { evalCommand } from "./eval.ts";
import { experimentCommand } from "./experiment.ts";
import { exportCommand } from "./export.ts";
import { gradeCommand } from "./grade.ts";
import { pullCommand } from "./pull.ts";
import { resumeCommand } from "./resume.ts";
import { sampleCommand } from "./sample.ts";
import { scoreCommand } from "./score.ts";
import { taskCommand } from "./task.ts";
import { trainCommand } from "./train.ts";
import { treeCommand } from "./tree.ts";
import { viewCommand } from "./view.ts";

/** Exit codes: 1 what a UserError says, 2 a mistake on the command line, 70 a defect of rifft. */
async function main(args: string[]): Promise<number> {
  const program = new Command("rifft")
    .description("Reinforcement fine-tuning of open language models.")
    .version(rifftVersion())
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.trimEnd().replace(/\s*\n\s*/g, " ") + "\n") });
  const commands = [
    trainCommand,
    resumeCommand,
    evalCommand,
    taskCommand,
    compareCommand,
    viewCommand,
    treeCommand,
    experimentCommand,
    sampleCommand,
    scoreCommand,
    gradeCommand,
    exportCommand,
    pullCommand,
    benchCommand,
    doctorCommand,
  ];
  for (const command of commands) program.addCommand(command().exitOverride());
  try {
    await program.parseAsync(args, { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof UserError) {
      process.stderr.write(`error: ${error.message.replace(/\s*\n\s*/g, " ")}\n`);
      return 1;
    }
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.stderr.write("this is a defect of rifft: please report it with the lines above\n");
    return 70;
  }
}

// A reader that has seen enough (`rifft ... | head`) is no error.
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
}

process.exitCode = await main(process.argv.slice(2));

import { basename, extname, join } from "node:path";
import { Command } from "commander";
import { familyLines } from "../method/family.ts";
import { methods } from "../run/methods.ts";
import { readRecipe } from "../run/recipe.ts";
import { train } from "../run/train.ts";
import { collect } from "./options.ts";
import { watchRun } from "./watch.ts";

export function trainCommand(): Command {
  return new Command("train")
    .description("run a recipe: every stage, with live progress")
    .argument("<recipe>", "TOML file")
    .option("--set <key=value>", "change a key, such as stage.1.lr=1e-5 or grpo.lr=1e-5 (repeatable)", collect, [])
    .option("--run <dir>", "run folder (default: runs/, the recipe's name and the time)")
    .option("--json", "print the result as JSON")
    .addHelpText("after", methodsText)
    .action(async (file: string, options: { set: string[]; run?: string; json?: boolean }) => {
      const recipe = readRecipe(file, options.set);
      const time = new Date().toISOString().slice(0, 19).replace("T", "-").replaceAll(":", "");
      const run = options.run ?? join("runs", `${basename(file, extname(file))}-${time}`);
      await watchRun(options, (watching) => train(recipe, { run, ...watching }));
    });
}

/** The methods that a stage can name. */
function methodsText(): string {
  const family = familyLines().map((line) => `  ${line}`);
  return `\nMethods of a stage: ${Object.keys(methods).join(", ")}\nGRPO and its relatives, each part a key of the stage (docs/methods/grpo.md):\n${family.join("\n")}`;
}

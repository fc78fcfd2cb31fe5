import { appendFileSync, closeSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Command, Option } from "commander";
import { UserError } from "../errors.ts";
import { evaluate } from "../eval/evaluate.ts";
import { diskError, writeAll } from "../run/disk.ts";
import { parseTaskReference } from "../run/recipe.ts";
import { loadTask } from "../task/load.ts";
import type { Split, Task } from "../task/types.ts";
import { recipeTask, runRecipe, withModel } from "./model.ts";
import { nonNegative, positiveWhole, wholeNumber } from "./options.ts";
import { printResult, StatusLine } from "./output.ts";

interface Options {
  model: string;
  task?: string;
  split: Split;
  limit?: number;
  maxTokens: number;
  temperature: number;
  seed: number;
  out?: string;
  json?: boolean;
}

export function evalCommand(): Command {
  return new Command("eval")
    .description("accuracy with a 95 % interval; keeps every sample")
    .requiredOption("--model <M>", "a Hugging Face folder, a GGUF file or a run folder")
    .option("--task <T>", "a task's name, file, or TOML table (default: the run's own)")
    .addOption(new Option("--split <name>", "which problems").choices(["train", "dev", "test"]).default("test"))
    .option("--limit <problems>", "only the first so many problems", positiveWhole)
    .option("--max-tokens <n>", "longest response", positiveWhole, 512)
    .option("--temperature <t>", "0 takes the most probable token", nonNegative, 0)
    .option("--seed <n>", "another seed gives other samples", wholeNumber, 0)
    .option("--out <dir>", "where evals.jsonl and the samples go (default: the run folder, or runs/eval and the time)")
    .option("--json", "print the result as JSON")
    .action(async (o: Options) => {
      const task = await openTask(o);
      const status = new StatusLine();
      try {
        const time = new Date().toISOString().slice(0, 23).replace("T", "-").replace(/[:.]/g, "");
        const dir = o.out ?? (runRecipe(o.model) === undefined ? join("runs", `eval-${time}`) : o.model);
        const file = `evals/${task.name}-${o.split}-${time}.jsonl`;
        const samples = openSamples(dir, file);
        try {
          let solved = 0;
          const evaluation = await withModel(o.model, task, (model) =>
            evaluate({
              model,
              tokenizer: model.tokenizer,
              task,
              split: o.split,
              limit: o.limit,
              maxTokens: o.maxTokens,
              temperature: o.temperature,
              seed: o.seed,
              onSample: (sample, done, total) => {
                samples.write(sample);
                solved += Number(sample.solved);
                status.show(`${done}/${total} answered, ${((100 * solved) / done).toFixed(1)} % solved`);
              },
            }),
          );
          const { model, split, maxTokens, temperature, seed } = o;
          const result = { model, task: task.name, split, ...evaluation, maxTokens, temperature, seed, file };
          writeLine(join(dir, "evals.jsonl"), { at: new Date().toISOString(), ...result });
          status.clear();
          printResult(o.json, result, () => {
            const percent = (share: number) => (100 * share).toFixed(1);
            const { low, high } = evaluation.interval;
            return [
              `${task.name}, ${split}: ${percent(evaluation.accuracy)} % [${percent(low)}, ${percent(high)}] of ${evaluation.problems} problems (Wilson 95 % interval)`,
              `samples: ${join(dir, file)}`,
            ].join("\n");
          });
        } finally {
          samples.close();
        }
      } finally {
        status.clear();
        await task.close();
      }
    });
}

function openTask(o: Options): Promise<Task> {
  const recipe = runRecipe(o.model);
  if (o.task !== undefined) {
    return loadTask(parseTaskReference(o.task), { baseDir: resolve("."), seed: recipe?.seed ?? o.seed });
  }
  if (recipe === undefined) throw new UserError("eval: name a task with --task; only a run folder has one of its own");
  return recipeTask(recipe);
}

function openSamples(dir: string, file: string): { write(sample: object): void; close(): void } {
  const path = join(dir, file);
  try {
    mkdirSync(join(dir, "evals"), { recursive: true });
    writeFileSync(path, "", { flag: "wx" });
    const fd = openSync(path, "a");
    return {
      write(sample) {
        try {
          writeAll(fd, Buffer.from(`${JSON.stringify(sample)}\n`));
        } catch (error) {
          throw diskError(error, path);
        }
      },
      close: () => closeSync(fd),
    };
  } catch (error) {
    throw diskError(error, path);
  }
}

function writeLine(path: string, line: object): void {
  try {
    appendFileSync(path, `${JSON.stringify(line)}\n`);
  } catch (error) {
    throw diskError(error, path);
  }
}

import { readFileSync } from "node:fs";
import { Command } from "commander";
import { z } from "zod";
import { UserError } from "../errors.ts";
import type { Tree } from "../forest/types.ts";
import { checkpointOption, type ModelOptions, withModel } from "./model.ts";

const sequencesSchema = z.array(z.array(z.int().nonnegative()));

export function scoreCommand(): Command {
  return new Command("score")
    .description('log-probs of given token ids, as {"logprobs":[[null, ...], ...]} (natural log, temperature 1)')
    .requiredOption("--model <M>", "a Hugging Face folder, a GGUF file or a run folder")
    .option(...checkpointOption)
    .requiredOption("--tokens <file>", "JSON: an array of arrays of token ids")
    .option("--json", "no effect: the result is always JSON")
    .action(async (options: ModelOptions & { tokens: string }) => {
      const sequences = readSequences(options.tokens);
      const forest = sequences.flatMap((ids, i): Tree[] =>
        ids.length === 0
          ? []
          : [
              {
                id: String(i),
                problem: String(i),
                segments: [{ parent: -1, tokens: Int32Array.from(ids), source: "data", fields: {} }],
              },
            ],
      );
      const scores = await withModel(options, undefined, (model) => model.forward(forest));
      const byId = new Map(forest.map((tree, t) => [tree.id, scores[t].logprobs[0]]));
      const logprobs = sequences.map((_, i) =>
        [null, ...(byId.get(String(i))?.subarray(1) ?? [])].slice(0, sequences[i].length),
      );
      process.stdout.write(`${JSON.stringify({ logprobs })}\n`);
    });
}

function readSequences(file: string): number[][] {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    throw new UserError(`cannot read ${file}: give the path of a JSON file that holds an array of arrays of token ids`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${file} is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const parsed = sequencesSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path } = parsed.error.issues[0];
  throw new UserError(
    `${file}: expected an array of arrays of token ids${path.length > 0 ? `, found something else at [${path.join("][")}]` : ""}`,
  );
}

import type { z } from "zod";
import type { Tokenizer } from "../model/types.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { Problem } from "../task/types.ts";
import { grpo, grpoSettings } from "./grpo.ts";
import { selftrain, selftrainRowLength, selftrainSettings } from "./selftrain.ts";
import { sft, sftRowLength, sftSettings } from "./sft.ts";
import type { DataStage } from "./stage.ts";

/** A method as a recipe sees it; `S` is its checked settings. */
export interface Method<Settings extends z.ZodObject> {
  name: string;
  settings: Settings;
  /** Training problems that a step takes. */
  problemsPerStep(settings: z.output<Settings>): number;
  /** Tokens of context that a problem needs at least. */
  rowLength(tokenizer: Tokenizer, problem: Problem, settings: z.output<Settings>): number;
  /** It first samples and then trains: what is measured in generated tokens is measured at the stage's end. */
  markAtEnd?: true;
  run(stage: DataStage, settings: z.output<Settings>): Promise<void>;
}

const method = <Settings extends z.ZodObject>(entry: Method<Settings>) => entry;

/** The methods that a recipe can name. */
export const methods = {
  sft: method({
    name: "sft",
    settings: sftSettings,
    problemsPerStep: (settings) => settings.batch,
    rowLength: sftRowLength,
    run: sft,
  }),
  grpo: method({
    name: "grpo",
    settings: grpoSettings,
    problemsPerStep: (settings) => settings.prompts,
    rowLength: (tokenizer, problem) => encodePrompt(tokenizer, problem).length + 1,
    run: grpo,
  }),
  selftrain: method({
    name: "selftrain",
    settings: selftrainSettings,
    // A last step of sampling may have fewer.
    problemsPerStep: () => 1,
    rowLength: selftrainRowLength,
    markAtEnd: true,
    run: selftrain,
  }),
};

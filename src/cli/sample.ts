import { Command } from "commander";
import type { Sample } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { EvaluationRounds } from "../eval/rounds.ts";
import { answerInRounds, checkRoundBudgets } from "../rollout/rounds.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { RoundTask } from "../task/rounds.ts";
import type { Problem } from "../task/types.ts";
import { checkpointOption, type ModelOptions, recipeTask, runRecipe, withModel } from "./model.ts";
import { fraction, nonNegative, positiveWhole, wholeNumber } from "./options.ts";
import { printResult } from "./output.ts";
import { type RoundFlags, roundFlags, roundsAsked } from "./rounds.ts";

interface Options extends ModelOptions, RoundFlags {
  prompt: string;
  text?: boolean;
  n: number;
  maxTokens: number;
  temperature: number;
  topP?: number;
  topK?: number;
  seed: number;
  json?: boolean;
}

export function sampleCommand(): Command {
  const command = new Command("sample")
    .description("show what a model says")
    .requiredOption("--model <M>", "a Hugging Face folder, a GGUF file or a run folder")
    .option(...checkpointOption)
    .requiredOption("--prompt <text>", "a user's message, or the text itself where the model has no chat template")
    .option("--text", "take the prompt as it is, without the chat template")
    .option("-n, --n <samples>", "how many samples", positiveWhole, 1)
    .option("--max-tokens <n>", "longest sample", positiveWhole, 256)
    .option("--temperature <t>", "0 takes the most probable token", nonNegative, 1)
    .option("--top-p <p>", "sample from the most probable tokens that make up p", fraction)
    .option("--top-k <k>", "sample from the k most probable tokens", positiveWhole)
    .option("--seed <n>", "another seed gives other samples", wholeNumber, 0)
    .option("--json", "print the samples as JSON")
    .action((o: Options) => {
      const rounds = roundsAsked(o);
      return rounds === undefined ? sampleOnce(o) : sampleInRounds(o, rounds);
    });
  for (const option of roundFlags()) command.addOption(option);
  return command;
}

async function sampleOnce(o: Options): Promise<void> {
  const samples = await withModel(o, undefined, async (model) => {
    const plain = o.text === true || !model.tokenizer.hasChatTemplate;
    const prompt = plain ? { text: o.prompt } : { messages: [{ role: "user" as const, content: o.prompt }] };
    const prefix = encodePrompt(model.tokenizer, { id: "prompt", prompt });
    return model.sample([
      {
        prefix,
        n: o.n,
        maxTokens: Math.max(0, Math.min(o.maxTokens, model.info.maxContext - prefix.length)),
        temperature: o.temperature,
        topP: o.topP,
        topK: o.topK,
        stop: [],
        key: `sample/${o.seed}`,
      },
    ]);
  });
  printResult(o.json, { samples: samples.map(shown) }, () => samples.map((sample) => sample.text).join("\n---\n"));
}

/** In the words of the run's own task, where the model is a run; else the answer is asked for in a box. */
async function sampleInRounds(o: Options, rounds: EvaluationRounds): Promise<void> {
  if (o.text === true) throw new UserError("sample: rounds are chats; leave --text out");
  const recipe = runRecipe(o.model);
  const own = recipe && (await recipeTask(recipe));
  const task: RoundTask = own ?? { name: "prompt", grading: { strict: ["boxed"] } };
  try {
    const prompt = { messages: [{ role: "user" as const, content: o.prompt }] };
    const problem: Problem = { id: "prompt", prompt, question: o.prompt };
    const answered = await withModel(o, undefined, (model) => {
      const { maxTokens, temperature, topP = 1, topK = 0 } = o;
      const settings = { ...rounds, maxTokens, temperature, topP, topK, stop: own?.stop ?? [] };
      checkRoundBudgets(model, task, problem, settings);
      return answerInRounds(model, task, [problem], o.n, { ...settings, key: () => `sample/${o.seed}` });
    });
    const samples = answered.map(({ responses }) => ({
      rounds: responses.map(({ prompt: tokens, progress, sample }) => ({ prompt: tokens, progress, ...shown(sample) })),
    }));
    printResult(o.json, { samples }, () =>
      samples
        .map((sample) => sample.rounds.map(({ text }, i) => `[round ${i + 1}]\n${text}`).join("\n\n"))
        .join("\n---\n"),
    );
  } finally {
    await own?.close();
  }
}

const shown = ({ text, tokens, logprobs, stop }: Sample) => ({
  text,
  stop,
  tokens: Array.from(tokens),
  logprobs: Array.from(logprobs),
});

import { Command } from "commander";
import { encodePrompt } from "../task/prompt.ts";
import { checkpointOption, type ModelOptions, withModel } from "./model.ts";
import { fraction, nonNegative, positiveWhole, wholeNumber } from "./options.ts";
import { printResult } from "./output.ts";

interface Options extends ModelOptions {
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
  return new Command("sample")
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
    .action(async (o: Options) => {
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
      const result = samples.map(({ text, tokens, logprobs, stop }) => ({
        text,
        stop,
        tokens: Array.from(tokens),
        logprobs: Array.from(logprobs),
      }));
      printResult(o.json, { samples: result }, () => samples.map((sample) => sample.text).join("\n---\n"));
    });
}

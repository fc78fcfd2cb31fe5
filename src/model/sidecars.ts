import { oneOrMany, writeConfig } from "./config.ts";
import type { TokenizerJson } from "./tokenizer.ts";
import type { ModelConfig } from "./types.ts";

/** The files that a Hugging Face folder of this model would hold beside its weights. */
export function writeSidecars(
  config: ModelConfig,
  json: TokenizerJson,
  specialTokens: Record<string, string>,
  chatTemplate: string | undefined,
  added?: readonly string[],
): Map<string, Uint8Array> {
  const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n");
  const tokenizerConfig = {
    // The class that takes tokenizer.json as it is.
    tokenizer_class: "PreTrainedTokenizerFast",
    ...specialTokens,
    ...(chatTemplate === undefined ? {} : { chat_template: chatTemplate }),
    ...(added === undefined ? {} : { rifft_added_tokens: added }),
    clean_up_tokenization_spaces: false,
    model_max_length: config.maxContext,
  };
  const generation = { bos_token_id: config.bosId ?? null, eos_token_id: oneOrMany(config.eosIds) };
  return new Map([
    ["config.json", encode(writeConfig(config))],
    ["generation_config.json", encode(generation)],
    ["tokenizer.json", encode(json)],
    ["tokenizer_config.json", encode(tokenizerConfig)],
  ]);
}

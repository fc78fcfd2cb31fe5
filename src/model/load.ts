import { stat } from "node:fs/promises";
import { UserError } from "../errors.ts";
import { systemError } from "./files.ts";
import { withAddedTokens } from "./add-tokens.ts";
import { ggufTokenizerSource, loadGguf } from "./gguf-model.ts";
import { huggingFaceTokenizerSource, loadHuggingFace } from "./huggingface.ts";
import { createTokenizer } from "./tokenizer.ts";
import type { ModelFiles, Tokenizer } from "./types.ts";

/**
 * Reads a model from a folder in Hugging Face layout (config.json, safetensors, tokenizer.json) or from a GGUF file. Weights stay
 * as they are stored; every tensor's presence and dims are checked before any of them is read.
 * @throws UserError for anything that is missing, truncated, mismatched or not supported
 */
export async function loadModelFiles(path: string): Promise<ModelFiles> {
  let found;
  try {
    found = await stat(path);
  } catch (error) {
    const pull = /^[\w.-]+\/[\w.-]+$/.test(path)
      ? ` (rifft pull ${path} fetches a model of this name from the Hugging Face Hub)`
      : "";
    throw systemError(`cannot read model ${path}${pull}`, error);
  }
  if (found.isDirectory()) return loadHuggingFace(path);
  if (path.endsWith(".gguf")) return loadGguf(path);
  throw new UserError(`${path}: expected a folder in Hugging Face layout or a .gguf file`);
}

/** The tokenizer of such a model without its weights, as a model with these tokens added has it. */
export async function loadTokenizer(path: string, addTokens: readonly string[] = []): Promise<Tokenizer> {
  const source = path.endsWith(".gguf") ? await ggufTokenizerSource(path) : await huggingFaceTokenizerSource(path);
  const tokenizer = createTokenizer(source);
  return addTokens.length > 0 ? createTokenizer(withAddedTokens(source, tokenizer, addTokens)) : tokenizer;
}

import { UserError } from "../../errors.ts";
import type { Forest } from "../../forest/types.ts";
import { validateForest } from "../../forest/validate.ts";
import type { ModelInfo, SampleRequest } from "../types.ts";

/** Throws a UserError for a forest that this model cannot score: invalid trees, ids outside the vocabulary, paths beyond the context. */
export function checkForest(forest: Forest, { vocabSize: vocab, maxContext }: ModelInfo): void {
  validateForest(forest);
  for (const tree of forest) {
    const depth: number[] = [];
    tree.segments.forEach(({ parent, tokens, allowed }, s) => {
      depth[s] = (parent < 0 ? 0 : depth[parent]) + tokens.length;
      if (depth[s] > maxContext) {
        throw new UserError(
          `tree ${tree.id}: a path of ${depth[s]} tokens is longer than the model's context of ${maxContext}`,
        );
      }
      const outside = (id: number) => id < 0 || id >= vocab;
      const bad = tokens.find(outside) ?? allowed?.find((ids) => ids?.some(outside))?.find(outside);
      if (bad !== undefined)
        throw new UserError(`tree ${tree.id}: token id ${bad} is outside the vocabulary of ${vocab}`);
    });
  }
}

/** Throws a UserError for a request that this model cannot answer. */
export function checkRequest(request: SampleRequest, { vocabSize: vocab, maxContext }: ModelInfo): void {
  const { prefix, maxTokens, n, temperature, topK = 0, topP = 1, stop, allowed, banned, scoreIds, scoreNext } = request;
  const wrong = (what: string): never => {
    throw new UserError(`sample request: ${what}`);
  };
  if (prefix.length === 0) wrong("the prefix is empty; give at least one token");
  if (!Number.isInteger(n) || n < 1) wrong(`n must be a positive whole number, found ${n}`);
  if (!Number.isInteger(maxTokens) || maxTokens < 0)
    wrong(`maxTokens must be a whole number from 0, found ${maxTokens}`);
  if (!(temperature >= 0)) wrong(`temperature must be 0 or more, found ${temperature}`);
  if (!Number.isInteger(topK) || topK < 0) wrong(`topK must be a whole number from 0 (no limit), found ${topK}`);
  if (!(topP > 0 && topP <= 1)) wrong(`topP must be above 0 and at most 1, found ${topP}`);
  if (stop.some((one) => one.length === 0)) wrong("a stop is empty; give at least one character or token id");
  if (prefix.length + maxTokens > maxContext) {
    wrong(
      `a prefix of ${prefix.length} and ${maxTokens} new tokens exceed the model's context of ${maxContext}; shorten one of them`,
    );
  }
  for (const ids of [prefix, allowed ?? [], banned ?? [], scoreIds ?? [], scoreNext ?? []]) {
    for (const id of ids) if (id < 0 || id >= vocab) wrong(`token id ${id} is outside the vocabulary of ${vocab}`);
  }
  if (allowed?.length === 0) wrong("no id is allowed");
  const free = (id: number) => banned?.includes(id) !== true;
  if (allowed === undefined ? new Set(banned).size === vocab : !allowed.some(free))
    wrong("every id that is allowed is banned");
}

import { UserError } from "../errors.ts";
import { TAG_TOKENS } from "../tags/index.ts";

/** How a recipe's model has the functions of a step: as tokens of its vocabulary, or as text. */
export type Functions = "tokens" | "text";

/** What a recipe's model adds to its vocabulary. */
export const addedTokens = ({ functions }: { functions?: Functions }): readonly string[] | undefined =>
  functions === "tokens" ? TAG_TOKENS : undefined;

/** Throws a UserError where a stage trains tokens, or chooses among them, that the recipe's model has not. */
export function checkFunctions(
  { functions, stages }: { functions?: Functions; stages: { method: string; settings: Record<string, unknown> }[] },
  source: string,
): void {
  if (functions === "tokens") return;
  for (const [i, { method, settings }] of stages.entries()) {
    const stage = `${source}: \`stage.${i + 1}`;
    if (settings.tokensLr !== undefined) {
      throw new UserError(`${stage}.tokensLr\` is of use with \`functions = "tokens"\` alone; add that or take it out`);
    }
    if (method === "rftt" && settings.search === "tree") {
      throw new UserError(
        `${stage}\` searches over functions, each of which has to be one token; add \`functions = "tokens"\` to the recipe, or set search = "none"`,
      );
    }
  }
}

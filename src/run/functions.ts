import { UserError } from "../errors.ts";
import { TAG_TOKENS } from "../tags/index.ts";

/** How a recipe's model has the functions of a step: as tokens of its vocabulary, or as text. */
export type Functions = "tokens" | "text";

/** What a recipe's model adds to its vocabulary. */
export const addedTokens = ({ functions }: { functions?: Functions }): readonly string[] | undefined =>
  functions === "tokens" ? TAG_TOKENS : undefined;

/** Throws a UserError where a stage trains tokens that the recipe's model has not. */
export function checkFunctions(
  { functions, stages }: { functions?: Functions; stages: { settings: Record<string, unknown> }[] },
  source: string,
): void {
  const stage = stages.findIndex(({ settings }) => settings.tokensLr !== undefined);
  if (stage < 0 || functions === "tokens") return;
  throw new UserError(
    `${source}: \`stage.${stage + 1}.tokensLr\` is of use with \`functions = "tokens"\` alone; add that or take it out`,
  );
}

import { readFileSync } from "node:fs";
import { parse } from "smol-toml";
import type { HeadSpec, Model } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { EvaluationSearch } from "../eval/searched.ts";
import { HeadProcessReward, PROCESS } from "../method/process-head.ts";
import { HttpProcessReward, type ProcessReward, processRewardSettings } from "../rollout/process-reward.ts";
import { parseStrict } from "../strict.ts";
import { checkpointState, headsAt, recipeOf } from "./models.ts";

/** What a search asks for the values of its leaves. */
export interface LeafScores {
  /** Heads that the model that searches needs. */
  heads: HeadSpec[];
  /** Undefined where leaves are worth what the search itself knows of them. */
  of?: (model: Model) => ProcessReward;
}

/**
 * Throws a UserError where a search's value is `head` and the run in the folder `run` (undefined: no run) has trained none at the checkpoint, and where it is
 * no readable file of a server.
 */
export async function leafScores(
  search: EvaluationSearch | undefined,
  run: string | undefined,
  checkpoint?: string,
): Promise<LeafScores> {
  const { value = "consistency" } = search ?? {};
  if (value === "consistency" || value === "likelihood") return { heads: [] };
  if (value === "head") {
    const heads = run === undefined ? [] : headsAt(recipeOf(run), await checkpointState(run, checkpoint));
    if (heads.some(({ name }) => name === PROCESS.name))
      return { heads: [PROCESS], of: (model) => new HeadProcessReward(model) };
    throw new UserError(
      `the search value head needs a run whose stage has trained it, \`method = "rftt"\` with \`processReward = "head"\`; ${run ?? "the model"} has none`,
    );
  }
  let settings: unknown;
  try {
    settings = parse(readFileSync(value, "utf8"));
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new UserError(
      `the search value ${value}: expected consistency, likelihood, head or a TOML file with the \`url\` of a process reward server (${reason})`,
    );
  }
  const server = parseStrict(processRewardSettings, settings, value);
  return { heads: [], of: () => new HttpProcessReward(server) };
}

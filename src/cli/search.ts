import { readFileSync } from "node:fs";
import { Option } from "commander";
import { parse } from "smol-toml";
import { UserError } from "../errors.ts";
import { type AskedOfFunctions, evaluationSearch, type EvaluationSearch } from "../eval/searched.ts";
import { HttpProcessReward, type ProcessReward, processRewardSettings } from "../rollout/process-reward.ts";
import { parseFunctions } from "../rollout/search.ts";
import { parseStrict } from "../strict.ts";
import { positiveWhole } from "./options.ts";

/** What `rifft eval` is told of a search. */
export interface SearchFlags {
  /** Rollouts. */
  search?: number;
  searchValue?: string;
  searchTexts?: number;
  without?: string;
}

export function searchFlags(): Option[] {
  return [
    new Option(
      "--search <rollouts>",
      "searches each problem's tree of functions, without the gold; of models with functional tokens",
    ).argParser(positiveWhole),
    new Option(
      "--search-value <name>",
      "what a leaf is worth: consistency, likelihood, or a TOML file that names a process reward server (default: consistency)",
    ),
    new Option("--search-texts <n>", "texts that a function may get at a node (default: 1)").argParser(positiveWhole),
    new Option("--without <functions>", "functions that are never chosen, such as verify,refine; with --search or not"),
  ];
}

const FLAGS: Record<string, string> = { searchValue: "--search-value", searchTexts: "--search-texts" };

/** What is asked of a model's functions: a search, functions that are left out. */
export function searchAsked({ without = "", ...flags }: SearchFlags & { rounds?: number }): AskedOfFunctions {
  const names = without
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  return evaluationSearch({ ...flags, without: parseFunctions(names) }, (key) => FLAGS[key] ?? `--${key}`);
}

/** The process reward server that a search's value names; undefined for a value that needs none. */
export function processRewardOf({ value }: EvaluationSearch): ProcessReward | undefined {
  if (value === "consistency" || value === "likelihood") return undefined;
  let settings: unknown;
  try {
    settings = parse(readFileSync(value, "utf8"));
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new UserError(
      `--search-value ${value}: expected consistency, likelihood or a TOML file with the \`url\` of a process reward server (${reason})`,
    );
  }
  return new HttpProcessReward(parseStrict(processRewardSettings, settings, value));
}

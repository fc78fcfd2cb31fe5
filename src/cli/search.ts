import { Option } from "commander";
import { type AskedOfFunctions, evaluationSearch, SEARCH_BY } from "../eval/searched.ts";
import { parseFunctions } from "../rollout/search.ts";
import { positiveWhole } from "./options.ts";

/** What `rifft eval` is told of a search. */
export interface SearchFlags {
  /** Rollouts. */
  search?: number;
  searchBy?: (typeof SEARCH_BY)[number];
  searchValue?: string;
  searchTexts?: number;
  without?: string;
}

export function searchFlags(): Option[] {
  return [
    new Option(
      "--search <rollouts>",
      "searches each problem's tree of steps, without the gold, and lets its leaves vote",
    ).argParser(positiveWhole),
    new Option(
      "--search-value <name>",
      "what a leaf is worth: consistency, likelihood, head (that the run has trained), or a TOML file that names a process reward server (default: consistency)",
    ),
    new Option(
      "--search-by <what>",
      "functions: the model's functional tokens; prompts: a chat model is asked for each step, as in rStar (default: functions)",
    ).choices(SEARCH_BY),
    new Option("--search-texts <n>", "texts that a function may get at a node (default: 1)").argParser(positiveWhole),
    new Option(
      "--beside <samples>",
      "with --search: plain samples of the same problems, for the majority of as many as cost the tokens of the search",
    ),
    new Option("--without <functions>", "functions that are never chosen, such as verify,refine; with --search or not"),
  ];
}

const FLAGS: Record<string, string> = {
  searchBy: "--search-by",
  searchValue: "--search-value",
  searchTexts: "--search-texts",
};

/** What is asked of a model's functions: a search, functions that are left out. */
export function searchAsked({ without = "", ...flags }: SearchFlags & { rounds?: number }): AskedOfFunctions {
  const names = without
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  return evaluationSearch({ ...flags, without: parseFunctions(names) }, (key) => FLAGS[key] ?? `--${key}`);
}

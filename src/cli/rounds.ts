import { Option } from "commander";
import { type EvaluationRounds, evaluationRounds } from "../eval/rounds.ts";
import { ROUND_STYLES, type RoundStyle } from "../task/rounds.ts";
import { positiveWhole } from "./options.ts";

/** What the options of `roundFlags` give. */
export interface RoundFlags {
  /** Of a command that has formats, too: none stands beside rounds. */
  format?: string;
  rounds?: number;
  adaptive?: boolean;
  roundStyle?: RoundStyle;
  progressTokens?: number;
}

/** The options of commands that can answer in rounds. */
export function roundFlags(): Option[] {
  return [
    new Option(
      "--rounds <n>",
      "answers in so many rounds, each of which gets the progress of the one before",
    ).argParser(positiveWhole),
    new Option("--adaptive", "with --rounds: a response that states its final answer ends the question"),
    new Option(
      "--progress-tokens <n>",
      "with --rounds: longest progress that is handed on (default: what leaves the response room)",
    ).argParser(positiveWhole),
    new Option("--round-style <name>", "with --rounds: how they are worded, where the task does not say").choices(
      ROUND_STYLES,
    ),
  ];
}

const FLAGS: Record<string, string> = { style: "--round-style", progressTokens: "--progress-tokens" };

/** Undefined where no rounds are asked for. */
export function roundsAsked({ roundStyle: style, ...flags }: RoundFlags): EvaluationRounds | undefined {
  return evaluationRounds({ ...flags, style }, (key) => FLAGS[key] ?? `--${key}`);
}

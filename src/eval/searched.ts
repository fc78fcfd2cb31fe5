import { z } from "zod";
import { UserError } from "../errors.ts";
import { type Fn, FUNCTIONS, G2, withoutFunctions } from "../tags/index.ts";

/** Who says what a next step may be. */
export const SEARCH_BY = ["functions", "prompts"] as const;

/** How questions are searched; a problem's `n` samples are its rollouts. */
export interface EvaluationSearch {
  /** A chat model is asked for each step (rStar); absent: its functional tokens guide the search (RFTT). */
  by?: "prompts";
  /**
   * What leaves are worth, without the gold: `consistency`, the share of finished leaves with an equal answer; `likelihood`, the
   * geometric mean probability of the output's tokens; `head`, the last score of the process reward model that is a head on the policy; else the file that
   * names a process reward server, whose last score it is.
   */
  value: string;
  /** Texts that a function may get at a node. */
  texts: number;
}

/** Values of leaves that are no file. */
const NAMED_VALUES = ["consistency", "likelihood", "head"] as const;
export const isNamedValue = (value: string): boolean => NAMED_VALUES.some((name) => name === value);

/** rStar's; of a search by prompts where none is given. */
export const PROMPTED_TEMPERATURE = 0.8;

/** What a rollout's line says of the search. */
export interface SearchedSample {
  /** The leaf; rollouts that ended at the same one have the same path. */
  node: number;
  end: string;
  /** Its vote: 1 with `consistency`, else its value. */
  weight: number;
  /** Tokens that it added to the tree; the rest of its path was there. */
  fresh: number;
}

/** Keys by which an experiment asks for a search, and leaves functions out of it or of plain samples. */
export const searchOptions = {
  /** Rollouts a question. */
  search: z.int().positive().optional(),
  searchBy: z.enum(SEARCH_BY).optional(),
  searchValue: z.string().min(1).optional(),
  searchTexts: z.int().positive().optional(),
  without: z.array(z.enum(FUNCTIONS)).optional(),
};

/** What an evaluation may be asked of searches. */
export interface SearchOptions {
  search?: number;
  searchBy?: (typeof SEARCH_BY)[number];
  searchValue?: string;
  searchTexts?: number;
  without?: Fn[];
}

/** What an evaluation is asked of functional tokens: a search, functions that are left out, both or neither. */
export interface AskedOfFunctions {
  search?: EvaluationSearch;
  without?: Fn[];
}

/** Throws a UserError for options that do nothing, or that exclude each other; `name` writes an option as the user does. */
export function evaluationSearch(
  options: SearchOptions & { rounds?: number },
  name: (key: string) => string,
): AskedOfFunctions {
  const { search, searchValue: value = "consistency", searchTexts: texts = 1, without = [], rounds = 0 } = options;
  if (rounds > 0 && (search !== undefined || without.length > 0)) {
    const other = name(search === undefined ? "without" : "search");
    throw new UserError(
      `questions are asked in rounds or searched, and rounds have no functions: leave ${other} or ${name("rounds")} out`,
    );
  }
  withoutFunctions(G2, without);
  const left = without.length === 0 ? {} : { without: [...new Set(without)] };
  if (search !== undefined && options.searchBy === "prompts") {
    const other =
      value !== "consistency"
        ? "searchValue"
        : options.searchTexts !== undefined
          ? "searchTexts"
          : without.length > 0
            ? "without"
            : undefined;
    if (other === undefined) return { search: { by: "prompts", value, texts } };
    throw new UserError(
      `${name(other)} is of use in a search by functions; one by prompts has the value consistency and writes all its steps: leave it out`,
    );
  }
  if (search !== undefined) return { search: { value, texts }, ...left };
  const alone = (["searchBy", "searchValue", "searchTexts"] as const).find((key) => options[key] !== undefined);
  if (alone === undefined) return left;
  throw new UserError(`${name(alone)} needs ${name("search")}, the number of rollouts`);
}

import { z } from "zod";
import { UserError } from "../errors.ts";
import { type Fn, FUNCTIONS } from "../tags/index.ts";

/** How questions are searched; a problem's `n` samples are its rollouts. */
export interface EvaluationSearch {
  /**
   * What leaves are worth, without the gold: `consistency`, the share of finished leaves with an equal answer; `likelihood`, the
   * geometric mean probability of the output's tokens; else the file that names a process reward server, whose last score it is.
   */
  value: string;
  /** Texts that a function may get at a node. */
  texts: number;
}

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
  searchValue: z.string().min(1).optional(),
  searchTexts: z.int().positive().optional(),
  without: z.array(z.enum(FUNCTIONS)).optional(),
};

interface SearchOptions {
  search?: number;
  searchValue?: string;
  searchTexts?: number;
  without?: readonly Fn[];
  rounds?: number;
}

/** What an evaluation is asked of functional tokens: a search, functions that are left out, both or neither. */
export interface AskedOfFunctions {
  search?: EvaluationSearch;
  without?: Fn[];
}

/** Throws a UserError for options that do nothing, or that exclude each other; `name` writes an option as the user does. */
export function evaluationSearch(options: SearchOptions, name: (key: string) => string): AskedOfFunctions {
  const { search, searchValue: value = "consistency", searchTexts: texts = 1, without = [], rounds = 0 } = options;
  if (rounds > 0 && (search !== undefined || without.length > 0)) {
    const other = name(search === undefined ? "without" : "search");
    throw new UserError(
      `questions are asked in rounds or searched, and rounds have no functions: leave ${other} or ${name("rounds")} out`,
    );
  }
  const left = without.length === 0 ? {} : { without: [...new Set(without)] };
  if (search !== undefined) return { search: { value, texts }, ...left };
  const alone = (["searchValue", "searchTexts"] as const).find((key) => options[key] !== undefined);
  if (alone === undefined) return left;
  throw new UserError(`${name(alone)} needs ${name("search")}, the number of rollouts`);
}

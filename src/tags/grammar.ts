import { UserError } from "../errors.ts";

/** The eight functions of a reasoning step (RFTT, arXiv 2502.13389, and its released code's tag names). */
export const FUNCTIONS = [
  "clarify", // restate the question, givens and goal
  "analysis", // a plan in a sentence or two, no calculation
  "next_step", // one step of the working
  "direct_answer", // the rest of the solution in one go
  "subquestion", // a smaller problem to solve now
  "verify", // check what was done
  "refine", // do the faulty part again
  "output", // the final answer; ends the path
] as const;
export type Fn = (typeof FUNCTIONS)[number];

export const isFn = (name: string): name is Fn => FUNCTIONS.some((fn) => fn === name);

export const openTag = (fn: Fn): string => `<${fn}>`;
export const closeTag = (fn: Fn): string => `</${fn}>`;

/** The sixteen tags, each function's opening one before its closing one. */
export const TAG_TOKENS: readonly string[] = FUNCTIONS.flatMap((fn) => [openTag(fn), closeTag(fn)]);

/** A function that may follow, and how many children of it a search makes at once. */
export interface Branch {
  fn: Fn;
  children: number;
}

/** Which function may follow which. */
export interface Grammar {
  name: "G1" | "G2";
  next: Readonly<Record<"root" | Fn, readonly Branch[]>>;
  /** What a finished path ends with. */
  last: readonly Fn[];
}

const branches = (children: Partial<Record<Fn, number>>): readonly Branch[] =>
  FUNCTIONS.flatMap((fn) => (children[fn] === undefined ? [] : [{ fn, children: children[fn] }]));

/** In the order given. */
const each = (...fns: Fn[]): readonly Branch[] => fns.map((fn) => ({ fn, children: 1 }));

/**
 * G1, of the prompt-driven search that writes warm-up data. A `next_step` that states the answer ends a path as `direct_answer` does; that
 * is for its text to say. Functions that have nothing after them and are nobody's child do not occur.
 */
export const G1: Grammar = {
  name: "G1",
  next: {
    root: branches({ clarify: 2, analysis: 2, subquestion: 2, next_step: 2, direct_answer: 1 }),
    clarify: branches({ analysis: 2, next_step: 2, direct_answer: 1, subquestion: 2 }),
    analysis: branches({ direct_answer: 1, next_step: 2, subquestion: 2 }),
    subquestion: branches({ direct_answer: 1, next_step: 2 }),
    next_step: branches({ next_step: 2, direct_answer: 1, subquestion: 2 }),
    direct_answer: [],
    verify: [],
    refine: [],
    output: [],
  },
  last: ["direct_answer", "next_step"],
};

/** G2, of the token-guided search and of training data. `clarify` follows nothing but the question, `refine` nothing but `verify`. */
export const G2: Grammar = {
  name: "G2",
  next: {
    root: each("clarify", "analysis", "subquestion", "next_step"),
    clarify: each("analysis", "subquestion", "next_step", "direct_answer"),
    analysis: each("subquestion", "next_step", "direct_answer"),
    subquestion: each("next_step", "direct_answer"),
    next_step: each("next_step", "subquestion", "direct_answer", "verify", "output"),
    direct_answer: each("verify", "output"),
    verify: each("next_step", "subquestion", "direct_answer", "verify", "refine", "output"),
    refine: each("next_step", "subquestion", "direct_answer", "verify", "output"),
    output: [],
  },
  last: ["output"],
};

/**
 * A grammar without some of its functions: nothing leads to them any more. A UserError where what is left has a function that nothing may follow
 * before its end, or has no end.
 */
export function withoutFunctions(grammar: Grammar, fns: readonly Fn[]): Grammar {
  if (fns.length === 0) return grammar;
  const left = (after: "root" | Fn) => grammar.next[after].filter(({ fn }) => !fns.includes(fn));
  const without: Grammar = {
    name: grammar.name,
    next: {
      root: left("root"),
      clarify: left("clarify"),
      analysis: left("analysis"),
      next_step: left("next_step"),
      direct_answer: left("direct_answer"),
      subquestion: left("subquestion"),
      verify: left("verify"),
      refine: left("refine"),
      output: left("output"),
    },
    last: grammar.last.filter((fn) => !fns.includes(fn)),
  };
  const places = reachedFrom(without, "root", new Set());
  const cut = places.find((place) => without.next[place].length === 0 && !without.last.some((fn) => fn === place));
  const change = "leave fewer functions out";
  if (cut !== undefined) {
    const after = cut === "root" ? "the question" : cut;
    throw new UserError(`without ${fns.join(", ")} nothing may follow ${after}; ${change}`);
  }
  if (!places.some((place) => without.last.some((fn) => fn === place))) {
    throw new UserError(`without ${fns.join(", ")} no path ends in ${grammar.last.join(" or ")}; ${change}`);
  }
  return without;
}

/** A place of a grammar and all that paths may come to from there. */
function reachedFrom({ next }: Pick<Grammar, "next">, place: "root" | Fn, seen: Set<"root" | Fn>): ("root" | Fn)[] {
  seen.add(place);
  for (const { fn } of next[place]) if (!seen.has(fn)) reachedFrom({ next }, fn, seen);
  return [...seen];
}

/** The functions that may follow a path of functions; none after its end. Looks at the last alone, for neither grammar needs more. */
export function allowedNext(grammar: Grammar, path: readonly Fn[]): Fn[] {
  return grammar.next[path.at(-1) ?? "root"].map(({ fn }) => fn);
}

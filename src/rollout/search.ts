import type { Model } from "../engine/types.ts";
import { nearest, UserError } from "../errors.ts";
import type { Forest } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";
import { type Fn, FUNCTIONS, isFn } from "../tags/index.ts";
import { nextFunctions, TreeSearch } from "./search-tree.ts";
import {
  type End,
  ENDS,
  type SearchLeaf,
  type SearchSettings,
  type SearchTree,
  type TagIds,
  tagIds,
} from "./search-types.ts";
import type { Question } from "./single.ts";

export {
  type End,
  ENDS,
  SEARCH_DEFAULTS,
  type SearchLeaf,
  type SearchNode,
  type SearchSettings,
  type SearchTree,
} from "./search-types.ts";

/** Where the values of leaves come from. */
export interface SearchValues {
  /** One value for each leaf that a wave has reached for the first time, in the order of questions and nodes. */
  value(leaves: SearchLeaf[]): Promise<number[]> | number[];
  /** Values of all leaves of a question, again after each wave that gave it new ones; where a leaf's value depends on the others. */
  revalue?(leaves: SearchLeaf[]): number[];
}

export interface SearchHooks {
  /** Asked before each wave; true ends the search with the rollouts that have ended. */
  interrupted?: () => boolean;
  /** Called after each wave: rollouts that ended, of all questions. */
  onWave?: (progress: { rollouts: number; of: number }) => void;
}

export interface SearchResult {
  /** One tree a question: segment 0 is its prompt; each node that a rollout visited has a segment for its function's token and one for its text. */
  forest: Forest;
  trees: SearchTree[];
  /** Calls of the model. */
  waves: number;
}

/**
 * Token-guided tree search (RFTT, sections on online search): where a function is due the policy's own distribution over the allowed
 * ones says what may follow, UCT says where a rollout goes, and a simulation takes the policy's first choice. All trees advance
 * together, one `sample` call a wave; a step's text and the distribution of what follows are one request, whose prefix the engine finds
 * in its cache. A tree depends on its question's key, the settings, the policy and the values alone, not on the other trees.
 *
 * A question that leaves no room is a tree of its prompt whose rollouts all end there (`budget`). Throws a UserError where the tokenizer has no
 * tags, and for settings out of range.
 */
export async function searchTrees(
  model: Pick<Model, "sample" | "tokenizer" | "info">,
  questions: Question[],
  settings: SearchSettings,
  values: SearchValues,
  hooks: SearchHooks = {},
): Promise<SearchResult> {
  checkSearch(settings);
  const { tokenizer, info } = model;
  const tags = functionTokens(tokenizer);
  const trees = questions.map((one, q) => new TreeSearch(one, q, settings, tags, tokenizer, info.maxContext));
  await valueLeaves(
    trees,
    trees.flatMap((tree) => tree.unvalued()),
    values,
  );
  let waves = 0;
  while (hooks.interrupted?.() !== true) {
    const asked = trees.map((tree) => tree.advance());
    const requests = asked.flat();
    if (requests.length === 0) break;
    const samples = await model.sample(requests);
    waves++;
    let at = 0;
    const leaves = trees.flatMap((tree, q) => tree.absorb(samples.slice(at, (at += asked[q].length))));
    await valueLeaves(trees, leaves, values);
    const rollouts = trees.reduce((sum, { done }) => sum + done, 0);
    hooks.onWave?.({ rollouts, of: questions.length * settings.rollouts });
  }
  const finished = trees.map((tree) => tree.finish());
  return { forest: finished.map(({ tree }) => tree), trees: finished.map(({ search }) => search), waves };
}

async function valueLeaves(trees: TreeSearch[], leaves: SearchLeaf[], values: SearchValues): Promise<void> {
  if (leaves.length === 0) return;
  const given = await values.value(leaves);
  leaves.forEach(({ question, node }, i) => trees[question].value(node, checked(given[i])));
  if (values.revalue === undefined) return;
  for (const question of new Set(leaves.map((leaf) => leaf.question))) {
    const all = trees[question].leaves();
    const again = values.revalue(all);
    all.forEach(({ node }, i) => trees[question].value(node, checked(again[i])));
  }
}

function checked(value: number): number {
  if (Number.isFinite(value)) return value;
  throw new UserError(`search: expected a finite number as the value of a leaf, found ${value}`);
}

/** The tags' ids. A UserError where they are not tokens: a function is then no single decision of the policy. */
function functionTokens(tokenizer: Tokenizer, what = "a search chooses functions"): TagIds {
  const ids = tagIds(tokenizer);
  if (!("missing" in ids)) return ids;
  throw new UserError(
    `the model has no token ${ids.missing}: ${what}, which are single tokens; train the model with functions = "tokens" (as ordinary text the tags are several tokens each, and no one distribution chooses among them)`,
  );
}

/** The ids that begin blocks of these functions. A UserError where tags are no tokens. */
export function openingTags(tokenizer: Tokenizer, fns: readonly Fn[]): Int32Array {
  const { open } = functionTokens(tokenizer, "`without` leaves functions out");
  return Int32Array.from(fns, (fn) => open[fn]);
}

/** Throws a UserError for settings out of range, and where the functions left out leave no way to an answer. */
export function checkSearch(settings: SearchSettings): void {
  const wrong = (name: string, expected: string, found: number): never => {
    throw new UserError(`search: expected ${name} ${expected}, found ${found}`);
  };
  for (const name of ["rollouts", "inFlight", "texts", "depth", "stepTokens", "answerTokens", "maxTokens"] as const) {
    if (!Number.isInteger(settings[name]) || settings[name] < 1)
      wrong(name, "to be a whole number above 0", settings[name]);
  }
  const { floor, temperature, topP, texts } = settings;
  if (!(floor >= 0 && floor < 1)) wrong("floor", "of at least 0 and below 1", floor);
  if (!(temperature >= 0)) wrong("temperature", "of 0 or more", temperature);
  if (temperature === 0 && texts > 1)
    wrong("texts", "to be 1 at temperature 0, where all texts of a function are the same", texts);
  if (!(topP > 0 && topP <= 1)) wrong("topP", "above 0 and at most 1", topP);
  const reached = new Set<Fn>();
  const visit = (fns: Fn[], after: string): void => {
    if (fns.length === 0) {
      throw new UserError(
        `search: without ${settings.without.join(", ")} nothing may follow ${after}; leave fewer functions out`,
      );
    }
    for (const fn of fns) {
      if (reached.has(fn)) continue;
      reached.add(fn);
      if (fn !== "output") visit(nextFunctions(settings, [fn]), fn);
    }
  };
  visit(nextFunctions(settings, []), "the question");
  if (!reached.has("output")) {
    throw new UserError(
      `search: without ${settings.without.join(", ")} no path ends in output; leave fewer functions out`,
    );
  }
}

/** Function names as a user gave them, such as "verify,refine"; an unknown one is a UserError that names the nearest. */
export function parseFunctions(names: readonly string[]): Fn[] {
  return names.map((name) => {
    if (isFn(name)) return name;
    const near = nearest(name, FUNCTIONS);
    throw new UserError(
      `unknown function ${JSON.stringify(name)} (${near === undefined ? `expected ${FUNCTIONS.join(", ")}` : `did you mean ${near}?`})`,
    );
  });
}

/** How many rollouts ended in which way. */
export function countEnds(trees: readonly SearchTree[]): Record<End, number> {
  const count = (end: End) =>
    trees.reduce((sum, { nodes, leaves }) => sum + leaves.filter((leaf) => nodes[leaf].end === end).length, 0);
  const [output, depth, budget, length, eos, tag, empty] = ENDS.map(count);
  return { output, depth, budget, length, eos, tag, empty };
}

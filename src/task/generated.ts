import { UserError } from "../errors.ts";
import { questionKey, share } from "./dataset.ts";
import type { Grading, Problem, ProblemSource, Split, TaskDefinition } from "./types.ts";

/** How many problems the held-out splits of a generator have, where there are so many. */
const HELD_OUT = 1000;

/** A draw in vain: after so many in a row the generator has no more that is new. */
const PATIENCE = 20_000;

export interface Generator {
  name: string;
  seed: number;
  /** Makes `train` finite, its texts distinct; endless when absent. */
  limit?: number;
  /** A problem from a random stream's key; its text is in `data.text`. */
  make(id: string, key: string): Problem;
  prompt: string;
  grading: Grading;
}

/**
 * A task whose problems are generated. The hash of a problem's text decides its split (a tenth dev, a tenth test), so that no text
 * is in two splits. `dev` and `test` are up to 1,000 distinct problems each, the same for every seed; `train` depends on the seed.
 */
export function generatedTask(generator: Generator): TaskDefinition {
  const { name, seed, limit } = generator;
  return {
    name,
    splits: {
      train:
        limit === undefined ? endless(generator) : async () => distinct(generator, "train", `${name}/${seed}`, limit),
      dev: async () => distinct(generator, "dev", name, HELD_OUT).map(undemonstrated),
      test: async () => distinct(generator, "test", name, HELD_OUT).map(undemonstrated),
    },
    prompt: generator.prompt,
    grading: generator.grading,
  };
}

function endless(generator: Generator): ProblemSource {
  const { name, seed } = generator;
  return {
    size: Infinity,
    at(index) {
      for (let attempt = 0; attempt < PATIENCE; attempt++) {
        const problem = generator.make(`${name}-train-${index}`, `${name}/${seed}/train/${index}/${attempt}`);
        if (splitOf(problem) === "train") return problem;
      }
      throw new UserError(`${name}: its options leave no training problem; allow more levels or larger numbers`);
    },
  };
}

function distinct(generator: Generator, split: Split, key: string, count: number): Problem[] {
  const problems: Problem[] = [];
  const seen = new Set<string>();
  for (let attempt = 0, last = 0; problems.length < count; attempt++) {
    if (attempt - last > PATIENCE) {
      if (split !== "train" && problems.length > 0) break;
      throw new UserError(
        `${generator.name}: only ${problems.length} distinct ${split} problems within its options, ${count} are needed; allow more levels or larger numbers`,
      );
    }
    const problem = generator.make(`${generator.name}-${split}-${problems.length}`, `${key}/${split}/${attempt}`);
    const text = textOf(problem);
    if (splitOf(problem) !== split || seen.has(text)) continue;
    seen.add(text);
    problems.push(problem);
    last = attempt;
  }
  return problems;
}

function undemonstrated(problem: Problem): Problem {
  const { demonstrations: _, masks: __, formats, ...rest } = problem;
  if (formats === undefined) return rest;
  const asked = Object.entries(formats).map(([name, { prompt }]) => [name, { prompt }]);
  return { ...rest, formats: Object.fromEntries(asked) };
}

function splitOf(problem: Problem): Split {
  const at = share(textOf(problem));
  return at < 0.1 ? "dev" : at < 0.2 ? "test" : "train";
}

function textOf(problem: Problem): string {
  return questionKey(String(problem.data?.text));
}

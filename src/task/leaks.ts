import { UserError } from "../errors.ts";
import { questionText } from "./questions.ts";
import { readRows } from "./read.ts";
import type { Problem, ProblemSource } from "./types.ts";

/** A question of the evaluation that was trained on. */
export interface Leak {
  problem: string;
  /** The training problem that is most like it. */
  train: string;
  /** Share of its n-grams that the training question has too; 1 where both have the same words in the same order. */
  overlap: number;
  exact: boolean;
}

/** Words in a row that count as a match: eight, as in the contamination checks of PaLM (Chowdhery et al. 2022, section 8). */
const N = 8;

/** From this share of its n-grams on a question counts as leaked (the same section: 70 %). */
const SHARE = 0.7;

/**
 * The questions of `evaluated` that occur in `train`: with the same words (letter case, punctuation, LaTeX's spacing aside), or with
 * at least 70 % of their 8-grams in one training question. In order of `evaluated`. Time is linear in the words of both.
 */
export function findLeaks(train: Problem[], evaluated: Problem[]): Leak[] {
  const exact = new Map<string, number[]>();
  const grams = new Map<string, number[]>();
  const sizes: number[] = [];
  evaluated.forEach((problem, i) => {
    const words = wordsOf(questionText(problem));
    push(exact, words.join(" "), i);
    const own = new Set(ngrams(words));
    sizes[i] = own.size;
    for (const gram of own) push(grams, gram, i);
  });
  const found = new Map<number, Leak>();
  const note = (i: number, leak: Omit<Leak, "problem">) => {
    const before = found.get(i);
    if (before === undefined || leak.overlap > before.overlap || (leak.exact && !before.exact)) {
      found.set(i, { problem: evaluated[i].id, ...leak });
    }
  };
  for (const problem of train) {
    const words = wordsOf(questionText(problem));
    for (const i of exact.get(words.join(" ")) ?? []) note(i, { train: problem.id, overlap: 1, exact: true });
    const shared = new Map<number, number>();
    for (const gram of new Set(ngrams(words))) {
      for (const i of grams.get(gram) ?? []) shared.set(i, (shared.get(i) ?? 0) + 1);
    }
    for (const [i, count] of shared) {
      const overlap = count / sizes[i];
      if (overlap >= SHARE) note(i, { train: problem.id, overlap, exact: false });
    }
  }
  return [...found].sort(([a], [b]) => a - b).map(([, leak]) => leak);
}

/** The questions of a data file, whatever its set: the field `question` or `problem`, or SVAMP's `Body` and `Question`. */
export async function questionsOfFile(file: string): Promise<Problem[]> {
  return (await readRows(file)).map(({ place, value }) => {
    const parts = [value.question, value.problem, value.Body, value.Question].filter(
      (part) => typeof part === "string",
    );
    if (parts.length === 0) {
      throw new UserError(
        `${place}: expected a question in the field question or problem, found the fields ${Object.keys(value).join(", ") || "none"}`,
      );
    }
    return { id: place, prompt: { text: parts.join(" ") } };
  });
}

/** All problems of a source; undefined where it has no end. */
export function allProblems(source: ProblemSource): Problem[] | undefined {
  return Number.isFinite(source.size) ? Array.from({ length: source.size }, (_, i) => source.at(i)) : undefined;
}

/** Letters, digits and the signs that make another question of it; LaTeX's spacing and sizing commands are no words. */
function wordsOf(text: string): string[] {
  return (
    text
      .normalize("NFKC")
      .toLowerCase()
      .replace(/\\(?:left|right|displaystyle|[dt]?frac(?![a-z])|[,;:!]|q?quad)/g, " ")
      .match(/[\p{L}\p{N}]+|[-+*/^=<>]/gu) ?? []
  );
}

function ngrams(words: string[]): string[] {
  return Array.from({ length: Math.max(0, words.length - N + 1) }, (_, i) => words.slice(i, i + N).join(" "));
}

function push(map: Map<string, number[]>, key: string, value: number): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

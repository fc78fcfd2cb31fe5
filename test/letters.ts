import type { Problem } from "../src/task/types.ts";

/** Four questions, each answered by its own letter: the smallest task on which a method can be seen to learn. */
export const letters = ["a", "b", "c", "d"];
export const vocabulary = [...letters, "?", "!"];
export const problems = letters.map((letter): Problem => ({
  id: letter,
  prompt: { text: `${letter}?` },
  demonstrations: [`${letter}!`],
  answer: letter,
}));
/** 1 where a response begins with its question's letter. */
export const repeats = (problem: Problem, response: string) => Number(response.startsWith(problem.answer ?? "-"));

import { z } from "zod";
import { RandomStream } from "../engine/random.ts";
import { UserError } from "../errors.ts";
import { generatedTask } from "./generated.ts";
import { FORMS } from "./grading.ts";
import type { Problem, Prompt, RoundDemonstration, RoundsDefinition, TaskDefinition } from "./types.ts";

/** Letters name a list's items, and capital letters the rounds that are left: A is the last. */
const LETTERS = "abcdefghijklmnopqrstuvwxyz";
const ROUNDS_LEFT = LETTERS.toUpperCase();

/** Sums have three digits. */
const LARGEST_SUM = 999;

/** Characters that a step takes, and the longest end of a round with the token that ends it. */
const STEP = 14;
const END = 6;

const digits = z.int().min(10).max(99);

/**
 * Adding a list of two-digit numbers item by item, whose working a short context does not hold: written for thinking in rounds. The prompt
 * is the number of rounds left, the list, and the progress: the next item and the sum so far. A round adds some items and ends in progress
 * or in the answer.
 */
export const listOptions = z
  .strictObject({
    name: z.string(),
    seed: z.int().nonnegative().optional(),
    /** Least and most items of a list; all lengths equally often. */
    items: z
      .tuple([z.int().min(1).max(LETTERS.length), z.int().min(1).max(LETTERS.length)])
      .default([3, 12])
      .refine(([least, most]) => least <= most, "the least must not be above the most"),
    /** Least and largest number. */
    numbers: z
      .tuple([digits, digits])
      .default([10, 99])
      .refine(([least, largest]) => least <= largest, "the least must not be above the largest"),
    /** Of a demonstration in rounds: how often a round adds one item, two, three, ... Weights. */
    pace: z.array(z.number().nonnegative()).min(1).default([0.75, 0.2, 0.05]),
    /** Characters that prompt and response of a demonstrated round have at most, as many as the `context` that rounds are trained in. */
    roundLength: z.int().positive().default(90),
    /** This many training problems; endless when absent. */
    demonstrations: z.int().positive().optional(),
  })
  .refine(({ items: [least], numbers: [low, high] }) => (least * (low + high)) / 2 <= LARGEST_SUM, {
    path: ["numbers"],
    error: `most sums would be larger than ${LARGEST_SUM}; allow shorter lists or smaller numbers`,
  })
  .refine(({ items: [, most], roundLength }) => promptLength(most) + STEP + END <= roundLength, {
    path: ["roundLength"],
    error: ({ input }) =>
      `a round of the longest list needs ${promptLength(mostItems(input)) + STEP + END} characters for a single step; raise roundLength or shorten the lists`,
  })
  .refine(({ pace }) => pace.some((weight) => weight > 0), { path: ["pace"], error: "expected a weight above 0" });

export type ListOptions = z.infer<typeof listOptions>;

/** What an error's input says of the longest list. */
const mostItems = (input: unknown): number => {
  const found = z.object({ items: z.tuple([z.number(), z.number()]) }).safeParse(input);
  return found.success ? found.data.items[1] : LETTERS.length;
};

/** `E` + three characters an item + `>a000`. */
const promptLength = (items: number): number => 1 + 3 * items + 5;

const three = (sum: number): string => String(sum).padStart(3, "0");

/** The sum of the first `done` items as progress, or as the answer when that is all. */
function stateAfter(numbers: readonly number[], done: number): string {
  const sum = three(numbers.slice(0, done).reduce((total, n) => total + n, 0));
  return done === numbers.length ? `#### ${sum}` : `>${LETTERS[done]}${sum}`;
}

/** One step, such as `c47+385=12134;`: 7 + 5 = 12, 4 + 8 + 1 = 13, 3 + 1 = 4. */
function stepText(letter: string, number: number, sum: number): string {
  const units = (number % 10) + (sum % 10);
  const tens = Math.floor(number / 10) + (Math.floor(sum / 10) % 10) + Math.floor(units / 10);
  const hundreds = Math.floor(sum / 100) + Math.floor(tens / 10);
  const two = (value: number) => String(value).padStart(2, "0");
  return `${letter}${number}+${three(sum)}=${two(units)}${two(tens)}${hundreds};`;
}

/** The working of items `from` to before `to`, and the state that it ends in. */
function working(numbers: readonly number[], from: number, to: number): string {
  let sum = numbers.slice(0, from).reduce((total, n) => total + n, 0);
  let text = "";
  for (let i = from; i < to; i++) {
    text += stepText(LETTERS[i], numbers[i], sum);
    sum += numbers[i];
  }
  return text + stateAfter(numbers, to);
}

function numbersOf({ id, question = "" }: Problem): number[] {
  if (/^[1-9]\d( \+ [1-9]\d)*$/.test(question)) return question.split(" + ").map(Number);
  throw new UserError(
    `problem ${id}: expected two-digit numbers such as 47 + 12 + 33, found ${JSON.stringify(question)}`,
  );
}

function prompt(numbers: readonly number[], left: number, progress = ">a000"): Prompt {
  return { text: `${ROUNDS_LEFT[left - 1]}${numbers.map((n, i) => `${LETTERS[i]}${n}`).join("")}${progress}` };
}

/** The last progress or answer that a response states in full. */
function progressOf(response: string): string | undefined {
  return /(?:>[a-z]|#### )\d{3}(?=[^>#]*$)/.exec(response)?.[0];
}

function roundsOf({ pace, roundLength }: ListOptions, seed: number): RoundsDefinition {
  return {
    most: ROUNDS_LEFT.length,
    prompt: (problem, round, rounds, progress) => prompt(numbersOf(problem), rounds - round + 1, progress),
    progress: progressOf,
    final: (response) => progressOf(response)?.startsWith("#") === true,
    // The items before the one that is next.
    done(problem, response) {
      const state = progressOf(response);
      if (state === undefined) return undefined;
      return state.startsWith("#") ? numbersOf(problem).length : LETTERS.indexOf(state[1]);
    },
    demonstrate(problem, rounds) {
      const numbers = numbersOf(problem);
      const stream = new RandomStream(`lists/${seed}/${problem.id}/rounds`);
      // As many steps as there is room for, when it is the last round.
      const most = Math.floor((roundLength - promptLength(numbers.length) - END) / STEP);
      return Array.from({ length: rounds }, (_, i): RoundDemonstration => {
        const left = rounds - i;
        // Any place where a round may begin, the end included: an answer is stated again.
        const from = i === 0 ? 0 : stream.below(numbers.length + 1);
        const steps = left === 1 ? most : Math.min(most, 1 + draw(pace, stream.uniform()));
        const to = Math.min(numbers.length, from + steps);
        return { prompt: prompt(numbers, left, stateAfter(numbers, from)), response: working(numbers, from, to) };
      });
    },
  };
}

/** An index, drawn with these weights by a number from 0 to 1. */
function draw(weights: readonly number[], uniform: number): number {
  let rest = uniform * weights.reduce((sum, weight) => sum + weight, 0);
  const found = weights.findIndex((weight) => (rest -= weight) < 0);
  return found < 0 ? weights.findLastIndex((weight) => weight > 0) : found;
}

function listProblem(id: string, key: string, { items: [least, most], numbers: [low, high] }: ListOptions): Problem {
  const stream = new RandomStream(key);
  const between = (from: number, to: number) => from + stream.below(to - from + 1);
  let length = between(least, most);
  let numbers: number[];
  // Drawn again while the sum is too large; a length that is too long for its numbers gets shorter.
  for (let attempt = 1; ; attempt++) {
    numbers = Array.from({ length }, () => between(low, high));
    if (numbers.reduce((sum, number) => sum + number, 0) <= LARGEST_SUM) break;
    if (attempt % 100 === 0 && length > least) length--;
  }
  const text = numbers.join(" + ");
  const size = Math.ceil(numbers.length / 4);
  const band = `${Math.max(least, 4 * size - 3)} to ${Math.min(most, 4 * size)}`;
  return {
    id,
    prompt: prompt(numbers, 1),
    demonstrations: [working(numbers, 0, numbers.length)],
    answer: String(numbers.reduce((sum, number) => sum + number, 0)),
    question: text,
    tags: { items: String(numbers.length), length: band },
    data: { text },
  };
}

export function lists(options: ListOptions, runSeed: number): TaskDefinition {
  const seed = options.seed ?? runSeed;
  return {
    ...generatedTask({
      name: "lists",
      seed,
      limit: options.demonstrations,
      make: (id, key) => listProblem(id, key, options),
      prompt: "text",
      grading: { strict: [...FORMS.number.strict] },
    }),
    vocabulary: [...LETTERS, ...ROUNDS_LEFT, ...Array.from("0123456789"), "+", "=", ";", ">", "#### "],
    rounds: roundsOf(options, seed),
  };
}

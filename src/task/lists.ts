import { z } from "zod";
import { RandomStream } from "../engine/random.ts";
import { UserError } from "../errors.ts";
import { serialize, type Step, TAG_TOKENS } from "../tags/index.ts";
import { generatedTask } from "./generated.ts";
import { FORMS } from "./grading.ts";
import type { Problem, RoundDemonstration, RoundsDefinition, TaskDefinition } from "./types.ts";

/** Letters name a list's items, and capital letters the rounds that are left: A is the last. */
const LETTERS = "abcdefghijklmnopqrstuvwxyz";
const ROUNDS_LEFT = LETTERS.toUpperCase();

/** Sums have three digits. */
const LARGEST_SUM = 999;

/** Characters that a step takes, and the longest end of a round with the token that ends it. */
const STEP = 14;
const END = 6;

/** A prompt that asks for functional tokens begins with it. */
const WITH_TAGS = "@";
/** Tokens of the two tags of a block, of a check, and of the output with the token that ends it. */
const TAGS = 2;
const CHECK = 6;
const OUTPUT = TAGS + 5 + 1;

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
    /** Asked with functional tokens, too, in the format `tagged`; every demonstration then stops where `roundLength` is full, and says how far it got. */
    formats: z.boolean().default(false),
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

/** As many steps as a single response has room for. */
const roundSteps = ({ length }: readonly number[], roundLength: number): number =>
  Math.floor((roundLength - promptLength(length) - END) / STEP);

function numbersOf({ id, question = "" }: Problem): number[] {
  if (/^[1-9]\d( \+ [1-9]\d)*$/.test(question)) return question.split(" + ").map(Number);
  throw new UserError(
    `problem ${id}: expected two-digit numbers such as 47 + 12 + 33, found ${JSON.stringify(question)}`,
  );
}

function prompt(numbers: readonly number[], left: number, progress = ">a000"): { text: string } {
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
      const most = roundSteps(numbers, roundLength);
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

/**
 * The working as a path of functional tokens, a block an addition, in at most `room` tokens. Checks and questions take the room that the additions
 * leave; half of the checked blocks are wrong by a digit. `wrong`: the positions of these.
 */
function taggedPath(
  numbers: readonly number[],
  room: number,
  stream: RandomStream,
): { steps: Step[]; wrong: number[] } {
  const steps: Step[] = [];
  const wrong: number[] = [];
  const most = Math.min(numbers.length, Math.floor((room - OUTPUT) / (TAGS + STEP)));
  let spare = room - OUTPUT - most * (TAGS + STEP);
  const spend = (tokens: number, chance: number): boolean => {
    const spent = tokens <= spare && stream.uniform() < chance;
    if (spent) spare -= tokens;
    return spent;
  };
  let sum = 0;
  for (let i = 0; i < most; i++) {
    const step = (at: number) => stepText(LETTERS[at], numbers[at], sum);
    if (i > 0 && i < most - 1 && stream.uniform() < 0.2) {
      // All that is left in one go.
      let text = "";
      for (let at = i; at < most; at++) {
        text += step(at);
        sum += numbers[at];
      }
      steps.push({ fn: "direct_answer", text });
      break;
    }
    if (spend(TAGS + 2, 0.2)) steps.push({ fn: "subquestion", text: `${LETTERS[i]}?` });
    const right = step(i);
    const result = right.slice(-CHECK, -1);
    if (spend(2 * TAGS + STEP + CHECK, 0.25)) {
      wrong.push(steps.length);
      const check = { fn: "verify" as const, text: `${result}!` };
      steps.push({ fn: "next_step", text: slipped(right, stream) }, check, { fn: "refine", text: right });
    } else {
      steps.push({ fn: "next_step", text: right });
      if (spend(TAGS + CHECK, 0.33)) steps.push({ fn: "verify", text: `${result}=` });
    }
    sum += numbers[i];
  }
  return { steps: [...steps, { fn: "output", text: stateAfter(numbers, most) }], wrong };
}

/** A step with one digit of its result off by one. */
function slipped(step: string, stream: RandomStream): string {
  // Of units and tens the second digit, for the first is a carry.
  const at = step.length - [5, 3, 2][stream.below(3)];
  const digit = (Number(step[at]) + (stream.below(2) === 0 ? 1 : 9)) % 10;
  return `${step.slice(0, at)}${digit}${step.slice(at + 1)}`;
}

function taggedFormat(numbers: readonly number[], roundLength: number, stream: RandomStream): Problem["formats"] {
  const { steps, wrong } = taggedPath(numbers, roundLength - promptLength(numbers.length), stream);
  const end = (step: number) => serialize(steps.slice(0, step), "tokens").length;
  const { text } = prompt(numbers, 1);
  return {
    tagged: {
      prompt: { text: `${WITH_TAGS}${text.slice(1)}` },
      demonstrations: [serialize(steps, "tokens")],
      masks: [wrong.map((at) => [end(at), end(at + 1)])],
    },
  };
}

function listProblem(id: string, key: string, options: ListOptions): Problem {
  const {
    items: [least, most],
    numbers: [low, high],
    roundLength,
  } = options;
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
    demonstrations: [
      working(
        numbers,
        0,
        options.formats ? Math.min(numbers.length, roundSteps(numbers, roundLength)) : numbers.length,
      ),
    ],
    answer: String(numbers.reduce((sum, number) => sum + number, 0)),
    question: text,
    tags: { items: String(numbers.length), length: band },
    data: { text },
    ...(options.formats && { formats: taggedFormat(numbers, roundLength, stream) }),
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
    vocabulary: [
      ...LETTERS,
      ...ROUNDS_LEFT,
      ...Array.from("0123456789"),
      "+",
      "=",
      ";",
      ">",
      "#### ",
      ...(options.formats ? [WITH_TAGS, "?", "!", ...TAG_TOKENS] : []),
    ],
    rounds: roundsOf(options, seed),
  };
}

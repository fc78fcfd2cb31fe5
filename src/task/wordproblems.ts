import { z } from "zod";
import { RandomStream } from "../engine/random.ts";
import { generatedTask } from "./generated.ts";
import { FORMS, stateAnswer } from "./grading.ts";
import { letterOf } from "./questions.ts";
import type { Grading, Problem, TaskDefinition } from "./types.ts";

const share = z.number().min(0).max(1);

/**
 * Grade-school word problems with chains of thought: a person has some objects, and one to three events change how many.
 * A demonstration is one line a step (`pens: 4 * 5 = 20.`), then `#### 20`. Of those with more than one step the share `hasty` drops
 * the last and gives the value before it: flawed demonstrations beside checkable answers, where reinforcement learning earns its keep.
 */
export const wordProblemOptions = z
  .strictObject({
    name: z.string(),
    seed: z.int().nonnegative().optional(),
    /** How many steps a problem takes; drawn from these, all equally often. */
    levels: z.array(z.int().min(1).max(3)).min(1).default([1, 2, 3]),
    /** How many of the demonstrations with more than one step drop the last; or of those with two steps, and of those with three. */
    hasty: z.union([share, z.tuple([share, share])]).default(0.65),
    /** This many training problems, all of them demonstrated; endless when absent. */
    demonstrations: z.int().positive().optional(),
    /** No value along the way is larger. */
    max: z.int().min(20).max(999).default(60),
    prompt: z.enum(["text", "chat"]).default("text"),
    /** So many options, of which the answer is a letter: values along the way first among the wrong ones. Absent: the answer is the number. */
    choices: z.int().min(2).max(6).optional(),
    /** Asked in rounds and with functional tokens, too; `wordformats.ts`. */
    formats: z.boolean().default(false),
  })
  .refine((o) => !o.formats || (o.prompt === "text" && o.choices === undefined), {
    path: ["formats"],
    error: 'only plain texts without choices are asked in other formats; leave choices out and prompt at "text"',
  });

export type WordProblemOptions = z.infer<typeof wordProblemOptions>;

const OBJECTS = [
  "apples",
  "pens",
  "books",
  "coins",
  "cards",
  "shells",
  "eggs",
  "cups",
  "toys",
  "stamps",
  "rocks",
  "nuts",
];
const CONTAINERS = ["boxes", "bags", "jars", "trays"];

interface Person {
  name: string;
  pronoun: string;
}

const PEOPLE: Person[] = [
  ...["Tom", "Sam", "Ben", "Leo"].map((name) => ({ name, pronoun: "He" })),
  ...["Ann", "Mia", "Eva", "Zoe"].map((name) => ({ name, pronoun: "She" })),
];

/** A problem as it is told: sentences so far, lines of the solution so far, whose objects are counted, and how many there are. */
export interface Story {
  sentences: string[];
  lines: string[];
  /** The value before each step, and after the last. */
  values: number[];
  object: string;
  person: Person;
  question: string;
}

/** How an event changes a story; false where the numbers do not allow it. */
type Event = (story: Story, draw: Draw) => boolean;

export class Draw {
  private readonly stream: RandomStream;
  readonly max: number;
  constructor(key: string, max: number) {
    this.stream = new RandomStream(key);
    this.max = max;
  }
  chance(): number {
    return this.stream.uniform();
  }
  /** An integer from low to high, both included. */
  between(low: number, high: number): number {
    return low + this.stream.below(high - low + 1);
  }
  pick<T>(items: readonly T[]): T {
    return items[this.stream.below(items.length)];
  }
  shuffle<T>(items: T[]): T[] {
    return this.stream.shuffle(items);
  }
  person(except?: string): Person {
    return this.pick(PEOPLE.filter(({ name }) => name !== except));
  }
}

function step(story: Story, operator: string, by: number, result: number): void {
  const before = story.values[story.values.length - 1];
  story.lines.push(`${story.object}: ${before} ${operator} ${by} = ${result}.`);
  story.values.push(result);
}

const current = (story: Story) => story.values[story.values.length - 1];

const gain: Event = (story, draw) => {
  const room = draw.max - current(story);
  if (room < 2) return false;
  const n = draw.between(2, Math.min(20, room));
  const { pronoun } = story.person;
  const verb = draw.pick([
    `finds ${n} more`,
    `buys ${n} more`,
    `gets ${n} from ${draw.person(story.person.name).name}`,
  ]);
  story.sentences.push(`${pronoun} ${verb}.`);
  step(story, "+", n, current(story) + n);
  return true;
};

const lose: Event = (story, draw) => {
  const have = current(story);
  if (have < 4) return false;
  const n = draw.between(2, Math.min(20, have - 1));
  const { pronoun } = story.person;
  const verb = draw.pick([`loses ${n}`, `sells ${n}`, `gives ${n} to ${draw.person(story.person.name).name}`]);
  story.sentences.push(`${pronoun} ${verb}.`);
  step(story, "-", n, have - n);
  return true;
};

const times: Event = (story, draw) => {
  const most = Math.min(5, Math.floor(draw.max / current(story)));
  if (most < 2) return false;
  const n = draw.between(2, most);
  const other = draw.person(story.person.name);
  story.sentences.push(`${other.name} has ${n} times as many.`);
  step(story, "*", n, current(story) * n);
  story.person = other;
  story.question = `How many ${story.object} does ${other.name} have?`;
  return true;
};

const difference: Event = (story, draw) => {
  const have = current(story);
  const more = draw.chance() < 0.5;
  const most = Math.min(20, more ? draw.max - have : have - 1);
  if (most < 2) return false;
  const n = draw.between(2, most);
  const other = draw.person(story.person.name);
  story.sentences.push(`${other.name} has ${n} ${more ? "more" : "fewer"} than ${story.person.name}.`);
  step(story, more ? "+" : "-", n, more ? have + n : have - n);
  story.person = other;
  story.question = `How many ${story.object} does ${other.name} have?`;
  return true;
};

/** Only the last event: what is asked for is one share. */
const divide: Event = (story, draw) => {
  const have = current(story);
  const divisors = [2, 3, 4, 5, 6].filter((n) => have % n === 0 && have > n);
  if (divisors.length === 0) return false;
  const n = draw.pick(divisors);
  const { pronoun } = story.person;
  if (draw.chance() < 0.5) {
    story.sentences.push(`${pronoun} shares them equally among ${n} friends.`);
    story.question = `How many ${story.object} does each friend get?`;
  } else {
    const container = draw.pick(CONTAINERS);
    story.sentences.push(`${pronoun} puts them equally into ${n} ${container}.`);
    story.question = `How many ${story.object} are in each?`;
  }
  step(story, "/", n, have / n);
  return true;
};

/** A first event of its own: containers with the same number in each. */
function openWithContainers(story: Story, draw: Draw): void {
  const containers = draw.between(2, 6);
  const each = draw.between(2, Math.min(12, Math.floor(draw.max / containers)));
  story.sentences.push(
    `${story.person.name} has ${containers} ${draw.pick(CONTAINERS)} with ${each} ${story.object} in each.`,
  );
  story.values = [containers];
  step(story, "*", each, containers * each);
}

function openWithNumber(story: Story, draw: Draw): void {
  const n = draw.between(3, Math.min(30, draw.max));
  story.sentences.push(`${story.person.name} ${draw.pick(["has", "owns", "starts with"])} ${n} ${story.object}.`);
  story.values = [n];
}

export function tell(steps: number, draw: Draw): Story {
  const person = draw.person();
  const object = draw.pick(OBJECTS);
  const question = `How many ${object} does ${person.name} have?`;
  const story: Story = { sentences: [], lines: [], values: [], object, person, question };
  if (draw.chance() < 0.25) openWithContainers(story, draw);
  else openWithNumber(story, draw);
  while (story.lines.length < steps) {
    const last = story.lines.length === steps - 1;
    const events = last ? [gain, lose, times, difference, divide, divide] : [gain, lose, times, difference];
    draw.pick(events)(story, draw);
  }
  return story;
}

/** Other formats of a problem, from its text and its story as far as the demonstration tells it. */
export type StoryFormats = (text: string, told: Story, draw: Draw) => Problem["formats"];

/** A problem of `steps` steps from a stream of its own. */
function wordProblem(id: string, key: string, options: WordProblemOptions, formats?: StoryFormats): Problem {
  const draw = new Draw(key, options.max);
  const steps = draw.pick(options.levels);
  const { hasty: shares } = options;
  const hasty = draw.chance() < (typeof shares === "number" ? shares : (shares[steps - 2] ?? 0)) && steps > 1;
  const story = tell(steps, draw);
  const text = [...story.sentences, story.question].join(" ");
  const answer = String(current(story));
  const told = hasty ? { ...story, lines: story.lines.slice(0, -1), values: story.values.slice(0, -1) } : story;
  const listed = options.choices === undefined ? undefined : listOptions(story.values, options.choices, draw);
  const stated = (value: string) => (listed === undefined ? value : letterOf(listed.indexOf(value)));
  const { instruction } = formOf(options);
  const lines = [...told.lines, stateAnswer(gradingOf(options).strict[0], stated(String(current(told))))];
  const asked =
    listed === undefined ? text : `${text}\n${listed.map((value, i) => `${letterOf(i)}: ${value}`).join(" ")}`;
  return {
    id,
    prompt:
      options.prompt === "text"
        ? { text: `${asked}\n` }
        : { messages: [{ role: "user", content: `${asked}\n\n${instruction}` }] },
    demonstrations: [lines.join("\n")],
    answer: stated(answer),
    ...(listed === undefined ? {} : { options: listed }),
    question: text,
    tags: { level: String(steps) },
    data: { text, steps, hasty },
    ...(formats && { formats: formats(text, told, draw) }),
  };
}

const formOf = ({ choices }: WordProblemOptions) => (choices === undefined ? FORMS.number : FORMS.choice);

/** A tiny model's answer, too, counts only where it says that it is one. */
function gradingOf(options: WordProblemOptions): Grading {
  const { strict, flexible } = formOf(options);
  return {
    strict: options.prompt === "text" ? [...FORMS.number.strict] : [...strict],
    ...(flexible !== undefined && { flexible: [...flexible] }),
  };
}

/** The answer, values along the way and numbers nearby, `count` different ones in a random order. */
function listOptions(values: number[], count: number, draw: Draw): string[] {
  const [answer, ...others] = [...values].reverse();
  const found = new Set([answer, ...others].slice(0, count));
  while (found.size < count) found.add(Math.max(1, answer + draw.between(-9, 9)));
  return draw.shuffle([...found]).map(String);
}

export function wordProblems(options: WordProblemOptions, runSeed: number, formats?: StoryFormats): TaskDefinition {
  const task = generatedTask({
    name: "wordproblems",
    seed: options.seed ?? runSeed,
    limit: options.demonstrations,
    make: (id, key) => wordProblem(id, key, options, formats),
    prompt: options.prompt,
    grading: gradingOf(options),
  });
  return options.prompt === "text" ? { ...task, vocabulary: wordProblemVocabulary(options.choices) } : task;
}

/**
 * The vocabulary of every text prompt and demonstration: words with their leading space (without it where a text or line may begin
 * with them), single digits, punctuation with the blanks around it. Taking the longest entry that fits, left to right, is lossless.
 */
export function wordProblemVocabulary(choices = 0): string[] {
  const names = PEOPLE.map(({ name }) => name);
  const words =
    "has owns starts with in each He She finds buys gets loses sells gives more fewer from to times as many than " +
    "shares them equally among friends friend get puts into are How does have";
  const spaced = [...words.split(" "), ...names, ...OBJECTS, ...CONTAINERS].map((word) => ` ${word}`);
  const marks = [" ", ".", ".\n", "?\n", ": ", " + ", " - ", " * ", " / ", " = ", "#### "];
  const letters = choices === 0 ? [] : ["\n", ...Array.from({ length: choices }, (_, i) => letterOf(i))];
  return [...spaced, ...names, ...OBJECTS, ...Array.from("0123456789"), ...marks, ...letters];
}

import { z } from "zod";
import { RandomStream } from "../engine/random.ts";
import { generatedTask } from "./generated.ts";
import type { Problem, TaskDefinition } from "./types.ts";

/** Arithmetic in words or symbols, as a chat, for small models that already speak. */
export const arithmeticOptions = z.strictObject({
  name: z.string(),
  seed: z.int().nonnegative().optional(),
  /** Drawn from these, all equally often: see LEVELS. */
  levels: z.array(z.int().min(1).max(5)).min(1).default([2, 3, 4]),
  /** This many training problems; endless when absent. */
  demonstrations: z.int().positive().optional(),
});

export type ArithmeticOptions = z.infer<typeof arithmeticOptions>;

interface Calculation {
  /** In symbols: `12 + 7 * 3`. */
  expression: string;
  /** In words, where it is one operation. */
  words?: string;
  /** One line a step. */
  steps: string[];
  answer: number;
}

type Between = (low: number, high: number) => number;

function sum(between: Between, low: number, high: number): Calculation {
  const a = between(low, high);
  const b = between(low, high);
  return { expression: `${a} + ${b}`, words: `Add ${a} and ${b}.`, steps: [`${a} + ${b} = ${a + b}`], answer: a + b };
}

function difference(between: Between, low: number, high: number): Calculation {
  const b = between(low, high);
  const a = between(b, high);
  const words = `Subtract ${b} from ${a}.`;
  return { expression: `${a} - ${b}`, words, steps: [`${a} - ${b} = ${a - b}`], answer: a - b };
}

function product(between: Between, high: number): Calculation {
  const a = between(2, high);
  const b = between(2, 9);
  return {
    expression: `${a} * ${b}`,
    words: `Multiply ${a} by ${b}.`,
    steps: [`${a} * ${b} = ${a * b}`],
    answer: a * b,
  };
}

/** Two operations on numbers up to `high`, the product first where there is one; the answer is never negative. */
function twoOperations(between: Between, high: number): Calculation {
  const a = between(10, high);
  if (between(0, 1) === 0) {
    const b = between(2, 9);
    const c = between(2, 9);
    return {
      expression: `${a} + ${b} * ${c}`,
      steps: [`${b} * ${c} = ${b * c}`, `${a} + ${b * c} = ${a + b * c}`],
      answer: a + b * c,
    };
  }
  const b = between(2, high);
  const c = between(1, a + b);
  return {
    expression: `${a} + ${b} - ${c}`,
    steps: [`${a} + ${b} = ${a + b}`, `${a + b} - ${c} = ${a + b - c}`],
    answer: a + b - c,
  };
}

/** By level: sums and differences to 20; of two digits; small products; two operations; sums and differences of three digits. */
const LEVELS: ((between: Between) => Calculation)[] = [
  (between) => (between(0, 1) === 0 ? sum(between, 1, 20) : difference(between, 1, 20)),
  (between) => (between(0, 1) === 0 ? sum(between, 10, 99) : difference(between, 10, 99)),
  (between) => product(between, 12),
  (between) => twoOperations(between, 50),
  (between) => [sum, difference][between(0, 1)](between, 100, 999),
];

function arithmeticProblem(id: string, key: string, options: ArithmeticOptions): Problem {
  const stream = new RandomStream(key);
  const between: Between = (low, high) => low + stream.below(high - low + 1);
  const level = options.levels[stream.below(options.levels.length)];
  const { expression, words, steps, answer } = LEVELS[level - 1](between);
  const forms = [`What is ${expression}?`, `Calculate ${expression}.`, words ?? `What does ${expression} give?`];
  const text = forms[between(0, forms.length - 1)];
  return {
    id,
    prompt: { messages: [{ role: "user", content: text }] },
    demonstrations: [[...steps, `#### ${answer}`].join("\n")],
    answer: String(answer),
    tags: { level: String(level) },
    // Asked in other words it is the same problem, so that no calculation is in two splits.
    data: { text: expression, level },
  };
}

export function arithmetic(options: ArithmeticOptions, runSeed: number): TaskDefinition {
  return generatedTask({
    name: "arithmetic",
    seed: options.seed ?? runSeed,
    limit: options.demonstrations,
    make: (id, key) => arithmeticProblem(id, key, options),
    prompt: "chat",
    // The prompt asks for no format.
    grading: { strict: ["auto"] },
  });
}

import { RandomStream } from "../engine/random.ts";
import { statedAnswers, withoutAnswers, withoutBoxes } from "../task/grading.ts";
import type { RecordStep } from "./rftt-merge.ts";

/** A step with a mistake, and what a check of it says. */
interface Fault {
  step: string;
  verify: string;
}

const NAMES = { "+": "adding", "-": "subtracting", "*": "multiplying", "/": "dividing" } as const;
type Operator = keyof typeof NAMES;
const isOperator = (text: string): text is Operator => text in NAMES;

const NUMBER = String.raw`-?\d+(?:\.\d+)?`;
const OPERATION = String.raw`[-+*/^×÷]|\\(?:cdot|times|div)`;
/** `8 - 3 = 5`, with any of the four operators, and no part of a longer expression. */
const EQUATION = new RegExp(
  // What may not stand before it, and before the minus of a negative number.
  String.raw`(?<![\p{L}\d_.,^)}\]%]|(?:${OPERATION}|\d\s*x)\s*)(?<![\p{L}\d_.,)}\]%]\s+(?=-))` +
    String.raw`(${NUMBER})\s*([-+*/])\s*(${NUMBER})\s*=\s*(${NUMBER})` +
    String.raw`(?![\p{L}\d_^(){}%]|[.,]\d|\s*(?:${OPERATION}|=|x\s*\d))`,
  "gu",
);

/** A calculation as a line has it. */
interface Calculation {
  left: string;
  operator: Operator;
  right: string;
  result: string;
  /** Where it stands. */
  start: number;
  end: number;
}

/** The first calculation of a line that is true. */
function calculationIn(line: string): Calculation | undefined {
  for (const match of line.matchAll(EQUATION)) {
    const [equation, left, operator, right, result] = match;
    if (!isOperator(operator) || calculate(Number(left), operator, Number(right)) !== rounded(Number(result))) continue;
    return { left, operator, right, result, start: match.index, end: match.index + equation.length };
  }
  return undefined;
}

/**
 * Steps that a program makes of a gold chain of thought, for a model too small to write them itself: a step of it with a mistake planted (out of
 * the loss), a check that names the mistake, and the right steps; with `planted` false the right steps and a check that holds. Undefined where the
 * chain holds no true calculation of two numbers.
 */
export function programSteps(
  chain: string,
  output: string,
  { key, planted }: { key: string; planted: boolean },
): RecordStep[] | undefined {
  const lines = workingOf(chain);
  const calculations = lines.flatMap((line, at) => {
    const calculation = calculationIn(line);
    return calculation === undefined ? [] : [{ at, calculation }];
  });
  if (calculations.length === 0) return undefined;
  const random = new RandomStream(key);
  const { at, calculation } = calculations[random.below(calculations.length)];
  const learned = (fn: RecordStep["fn"], text: string): RecordStep => ({ fn, text, learned: true });
  const steps = (from: number, to?: number) => lines.slice(from, to).map((line) => learned("next_step", line));
  const end = learned("output", output);
  if (!planted) {
    const { left, operator, right } = calculation;
    return [
      ...steps(0),
      learned("verify", `${left} ${operator} ${right} is what the question asks for, and it is worked out right.`),
      end,
    ];
  }
  const fault = plant(lines[at], calculation, random);
  return [
    ...steps(0, at),
    { fn: "next_step", text: fault.step, learned: false },
    learned("verify", fault.verify),
    learned("refine", lines[at]),
    ...steps(at + 1),
    end,
  ];
}

/** A chain's lines without boxes around what they say, and without a last one that states the answer. */
function workingOf(chain: string): string[] {
  const lines = chain
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  const last = lines.length - 1;
  return lines.flatMap((line, i) => {
    const plain = withoutBoxes(line);
    const states = i === last && (statedAnswers(plain, { strict: [] }).length > 0 || !/\w/.test(withoutAnswers(line)));
    return states ? [] : [plain];
  });
}

/** A line whose calculation has another operator, or a result that is off by one or by ten. */
function plant(line: string, { left, operator, right, result, start, end }: Calculation, random: RandomStream): Fault {
  const instead = (equation: string) => line.slice(0, start) + equation + line.slice(end);
  if (random.below(2) === 0) {
    const others = (["+", "-", "*"] as const).filter((other) => other !== operator);
    const other = others[random.below(others.length)];
    const value = calculate(Number(left), other, Number(right));
    if (value !== Number(result)) {
      return {
        step: instead(`${left} ${other} ${right} = ${value}`),
        verify: `The mistake is ${NAMES[other]} ${left} and ${right}: the question asks for ${NAMES[operator]}.`,
      };
    }
  }
  const off = [1, -1, 10, -10][random.below(4)];
  const wrong = rounded(Number(result) + off);
  return {
    step: instead(`${left} ${operator} ${right} = ${wrong}`),
    verify: `The mistake is in the calculation: ${left} ${operator} ${right} is not ${wrong}.`,
  };
}

function calculate(left: number, operator: Operator, right: number): number {
  const values = { "+": left + right, "-": left - right, "*": left * right, "/": left / right };
  return rounded(values[operator]);
}

const rounded = (value: number): number => Math.round(value * 1e6) / 1e6;

import { RandomStream } from "../engine/random.ts";
import { withoutAnswers, type RecordStep } from "./rftt-merge.ts";

/** A step with a mistake, and what a check of it says. */
interface Fault {
  step: string;
  verify: string;
}

const NAMES = { "+": "adding", "-": "subtracting", "*": "multiplying", "/": "dividing" } as const;
type Operator = keyof typeof NAMES;
const isOperator = (text: string): text is Operator => text in NAMES;

/** `8 - 3 = 5`, with any of the four operators. */
const EQUATION = /(-?\d+(?:\.\d+)?)\s*([-+*/])\s*(-?\d+(?:\.\d+)?)\s*=\s*(-?\d+(?:\.\d+)?)/;

/**
 * Steps that a program makes of a gold chain of thought, for a model too small to write them itself: a step of it with a mistake planted (out of
 * the loss), a check that names the mistake, and the right steps; with `planted` false the right steps and a check that holds. Undefined where the
 * chain holds no calculation of two numbers.
 */
export function programSteps(
  chain: string,
  output: string,
  { key, planted }: { key: string; planted: boolean },
): RecordStep[] | undefined {
  const lines = withoutAnswers(chain)
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  const calculations = lines.flatMap((line, i) => (EQUATION.test(line) ? [i] : []));
  if (calculations.length === 0) return undefined;
  const random = new RandomStream(key);
  const at = calculations[random.below(calculations.length)];
  const learned = (fn: RecordStep["fn"], text: string): RecordStep => ({ fn, text, learned: true });
  const steps = (from: number, to?: number) => lines.slice(from, to).map((line) => learned("next_step", line));
  const end = learned("output", output);
  if (!planted) {
    const checked = EQUATION.exec(lines[at])?.[0] ?? lines[at];
    const [working] = checked.split("=");
    return [
      ...steps(0),
      learned("verify", `${working.trim()} is what the question asks for, and it is worked out right.`),
      end,
    ];
  }
  const fault = plant(lines[at], random);
  if (fault === undefined) return undefined;
  return [
    ...steps(0, at),
    { fn: "next_step", text: fault.step, learned: false },
    learned("verify", fault.verify),
    learned("refine", lines[at]),
    ...steps(at + 1),
    end,
  ];
}

/** A calculation with another operator, or with a result that is off by one or by ten. */
function plant(line: string, random: RandomStream): Fault | undefined {
  const match = EQUATION.exec(line);
  if (match === null) return undefined;
  const [equation, left, operator, right, result] = match;
  if (!isOperator(operator)) return undefined;
  if (random.below(2) === 0) {
    const others = (["+", "-", "*"] as const).filter((other) => other !== operator);
    const other = others[random.below(others.length)];
    const value = calculate(Number(left), other, Number(right));
    if (value !== Number(result)) {
      return {
        step: line.replace(equation, `${left} ${other} ${right} = ${value}`),
        verify: `The mistake is ${NAMES[other]} ${left} and ${right}: the question asks for ${NAMES[operator]}.`,
      };
    }
  }
  const off = [1, -1, 10, -10][random.below(4)];
  const wrong = rounded(Number(result) + off);
  return {
    step: line.replace(equation, `${left} ${operator} ${right} = ${wrong}`),
    verify: `The mistake is in the calculation: ${left} ${operator} ${right} is not ${wrong}.`,
  };
}

function calculate(left: number, operator: "+" | "-" | "*", right: number): number {
  if (operator === "+") return rounded(left + right);
  return rounded(operator === "-" ? left - right : left * right);
}

const rounded = (value: number): number => Math.round(value * 1e6) / 1e6;

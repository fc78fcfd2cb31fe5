import { type Budget, GiveUp } from "./budget.ts";
import { type Complex, complex, modulus } from "./complex.ts";
import { Evaluator } from "./evaluate.ts";
import { type Node, some, symbols } from "./node.ts";
import { type Comparison, differentBy, equalBy, unsureBy } from "./verdict.ts";

/** Numbers in [0, 1) from a seed: a 32-bit mixing generator (Mulberry32). */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

type Draw = (next: () => number) => Complex;
/** Where variables are drawn from, in this order. */
const REGIONS: readonly { name: "positive" | "real" | "complex" | "whole"; draw: Draw; points: number }[] = [
  { name: "positive", draw: (next) => complex(0.3 + 2.5 * next()), points: 6 },
  { name: "positive", draw: (next) => complex(2 + 7 * next()), points: 4 },
  { name: "real", draw: (next) => complex(4 * next() - 2), points: 8 },
  { name: "real", draw: (next) => complex(1.8 * next() - 0.9), points: 4 },
  { name: "real", draw: (next) => complex(-1 - 6 * next()), points: 4 },
  // Where absolute values and floors of shifted arguments change.
  { name: "real", draw: (next) => complex((next() < 0.5 ? -1 : 1) * 10 ** (6 * next())), points: 12 },
];
const WHOLE = { name: "whole", draw: ((next) => complex(1 + Math.floor(9 * next()))) as Draw, points: 8 } as const;
const COMPLEX = {
  name: "complex",
  draw: ((next) => complex(0.4 + 1.5 * next(), 0.2 + next())) as Draw,
  points: 8,
} as const;

/** Points that must agree before sampling calls two expressions equal. */
const ENOUGH = 6;

const WHOLE_FUNCTIONS = new Set(["factorial", "doubleFactorial", "binomial", "mod", "gcd", "lcm"]);

/** Roots and logarithms: identities of theirs often hold for positive variables only. */
const hasDomain = (node: Node): boolean =>
  (node.kind === "power" && node.exponent.kind === "number" && node.exponent.value.d % 2n === 0n) ||
  (node.kind === "call" && (node.name === "ln" || node.name === "log"));

type Outcome = "agree" | "differ" | "undefined" | "elsewhere" | "unclear";

/** Compares two values that may carry rounding errors as large as the largest intermediate value allows. */
function judge(a: Complex, b: Complex, largest: number): Outcome {
  const size = Math.max(modulus(a), modulus(b));
  const distance = Math.hypot(a.re - b.re, a.im - b.im);
  if (!(distance < Infinity) || !(size < Infinity)) return "undefined";
  if (distance <= 1e-11 * size) return "agree";
  const zero = modulus(a) === 0 || modulus(b) === 0;
  if (distance <= 1e-13 * largest && (zero || largest <= 1e5 * size)) return "agree";
  if (distance > 1e-7 * size && distance > 1e-9 * largest) return "differ";
  return "unclear";
}

/**
 * The last resort: values of both expressions at seeded random points, real ones first. Equal needs agreement to about 11 digits at
 * every point where both are defined over the reals (at least six), and the same domain; one clear difference decides against it.
 */
export function compareBySampling(gold: Node, answer: Node, budget: Budget, log: "ten" | "natural"): Comparison {
  const names = [...symbols(answer, symbols(gold))].sort();
  const imaginary = [gold, answer].some((node) =>
    some(node, ({ kind, ...rest }) => kind === "constant" && "name" in rest && rest.name === "i"),
  );
  const evaluate = (values: ReadonlyMap<string, Complex>): Outcome => {
    const [first, second] = [new Evaluator(values, budget, log), new Evaluator(values, budget, log)];
    const [a, b] = [first.of(gold), second.of(answer)];
    const [left, right] = [Number.isNaN(a.re + a.im), Number.isNaN(b.re + b.im)];
    if (left || right) return left && right ? "undefined" : "elsewhere";
    const judged = judge(a, b, Math.max(first.largest, second.largest));
    const outcome = judged === "agree" && (first.insensitive || second.insensitive) ? "unclear" : judged;
    if (imaginary || names.length === 0) return outcome;
    if (first.leftReals !== second.leftReals) return "elsewhere";
    return first.leftReals ? "undefined" : outcome;
  };
  if (names.length === 0) {
    const outcome = evaluate(new Map());
    if (outcome === "agree") return equalBy("sampled", "both evaluate to the same number to about 11 digits");
    if (outcome === "differ") return differentBy("sampled", "they evaluate to different numbers");
    return unsureBy("sampled", "their values cannot be told apart");
  }
  const counts = { agree: 0, undefined: 0, elsewhere: 0, unclear: 0, differ: 0 };
  let positive = 0;
  const next = random(20240229);
  const whole = [gold, answer].some((node) =>
    some(node, (part) => part.kind === "call" && WHOLE_FUNCTIONS.has(part.name)),
  );
  const roots = [gold, answer].some((node) => some(node, hasDomain));
  const regions = whole ? [WHOLE, ...REGIONS] : [...REGIONS, ...(imaginary ? [COMPLEX] : [])];
  for (const { name, draw, points } of regions)
    for (let i = 0; i < points; i++) {
      const outcome = evaluate(new Map(names.map((symbol) => [symbol, draw(next)])));
      counts[outcome]++;
      if (outcome === "differ" && roots && name !== "positive" && name !== "whole" && positive >= ENOUGH)
        return unsureBy("sampled", "they agree where the variables are positive and differ elsewhere");
      if (outcome === "differ") return differentBy("sampled", "their values differ at a random point");
      if (outcome === "agree" && (name === "positive" || name === "whole")) positive++;
    }
  if (counts.agree < ENOUGH) return unsureBy("sampled", "too few points where both are defined");
  // Factorials are only meant for whole numbers that are large enough.
  if (counts.elsewhere > 0 && !whole)
    return unsureBy("sampled", "they agree, but one is defined where the other is not");
  return equalBy("sampled", `their values agree at ${counts.agree} random points`);
}

/** The value of a constant expression in doubles when it is a real number. */
export function realValue(node: Node, budget: Budget): number | undefined {
  if (node.kind === "constant" && node.name === "infinity") return Infinity;
  if (
    node.kind === "product" &&
    node.factors.some((factor) => factor.kind === "constant" && factor.name === "infinity")
  ) {
    const rest = node.factors.filter((factor) => !(factor.kind === "constant" && factor.name === "infinity"));
    const scale = rest.reduce((value, factor) => value * (realValue(factor, budget) ?? Number.NaN), 1);
    return Number.isNaN(scale) || scale === 0 ? undefined : scale * Infinity;
  }
  try {
    const value = new Evaluator(new Map(), budget).of(node);
    return Number.isFinite(value.re) && Math.abs(value.im) <= 1e-12 * Math.abs(value.re) ? value.re : undefined;
  } catch (error) {
    if (error instanceof GiveUp && budget.left >= 0) return undefined;
    throw error;
  }
}

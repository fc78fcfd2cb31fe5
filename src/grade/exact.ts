import type { Budget } from "./budget.ts";
import {
  absolute,
  compare,
  divide,
  floor,
  gcd,
  isWhole,
  multiply,
  negate,
  type Rational,
  rational,
  sign,
  subtract,
  whole,
} from "./rational.ts";

const MAX_FACTORIAL = 400n;

/** The value of a function that maps rational numbers to a rational number, or undefined where it is none of these or too large. */
export function exactCall(name: string, args: readonly Rational[], budget: Budget): Rational | undefined {
  const [a, b] = args;
  if (a === undefined) return undefined;
  switch (name) {
    case "abs":
      return absolute(a);
    case "floor":
      return whole(floor(a));
    case "ceiling":
      return whole(-floor(negate(a)));
    case "sgn":
      return whole(sign(a));
    case "re":
      return a;
    case "im":
      return whole(0);
    case "factorial":
    case "doubleFactorial":
      return isWhole(a) && a.n >= 0n && a.n <= MAX_FACTORIAL
        ? factorial(a.n, name === "factorial" ? 1n : 2n, budget)
        : undefined;
    case "binomial":
      return b === undefined ? undefined : binomial(a, b, budget);
    case "mod":
      if (b === undefined || b.n === 0n) return undefined;
      return subtract(a, multiply(b, whole(floor(divide(a, b)))));
    case "max":
      return args.reduce((best, arg) => (compare(arg, best) > 0 ? arg : best));
    case "min":
      return args.reduce((best, arg) => (compare(arg, best) < 0 ? arg : best));
    case "gcd":
    case "lcm": {
      if (!args.every(isWhole)) return undefined;
      budget.spend(20 * args.length);
      return rational(
        args
          .map(({ n }) => (n < 0n ? -n : n))
          .reduce((x, y) => (name === "gcd" ? gcd(x, y) : x === 0n || y === 0n ? 0n : (x / gcd(x, y)) * y)),
      );
    }
    default:
      return undefined;
  }
}

function factorial(n: bigint, step: bigint, budget: Budget): Rational {
  budget.spend(Number(n) * 4);
  let result = 1n;
  for (let k = n; k > 1n; k -= step) result *= k;
  return rational(result);
}

/** n over k for whole k >= 0 and any rational n, by its falling product. */
function binomial(n: Rational, k: Rational, budget: Budget): Rational | undefined {
  if (!isWhole(k)) return undefined;
  if (k.n < 0n) return whole(0);
  const symmetric = isWhole(n) && n.n >= 0n && n.n < k.n * 2n ? n.n - k.n : k.n;
  if (symmetric < 0n) return whole(0);
  if (symmetric > MAX_FACTORIAL) return undefined;
  let result = whole(1);
  for (let i = 0n; i < symmetric; i++) {
    budget.spend(10);
    result = divide(multiply(result, subtract(n, whole(i))), whole(i + 1n));
  }
  return result;
}

import { type Budget, GiveUp } from "./budget.ts";
import * as C from "./complex.ts";
import type { Complex } from "./complex.ts";
import type { Node } from "./node.ts";
import { divide, multiply, ONE, type Rational, toNumber } from "./rational.ts";

const { complex } = C;
const NOT_A_NUMBER = complex(Number.NaN);
/** Literals beyond this have digits that decide about 11 digits of a value. */
const LONG = 10n ** 10n;

/**
 * Values of expressions in doubles, complex where they must be. A root or logarithm of a negative real number makes the value complex
 * and is noted, so that a caller can tell where an expression over the reals is not defined.
 */
export class Evaluator {
  /** Set when a root, logarithm or inverse function left the real numbers. */
  leftReals = false;
  /** Set when a term or digits too small for doubles beside others were lost: agreement then shows nothing. */
  insensitive = false;
  /** The largest modulus met, for judging rounding. */
  largest = 0;

  private readonly values: ReadonlyMap<string, Complex>;
  private readonly budget: Budget;
  private readonly log: "ten" | "natural";

  constructor(values: ReadonlyMap<string, Complex>, budget: Budget, log: "ten" | "natural" = "ten") {
    this.values = values;
    this.budget = budget;
    this.log = log;
  }

  of(node: Node): Complex {
    this.budget.spend(6);
    const value = this.value(node);
    const size = C.modulus(value);
    if (size > this.largest && size < Infinity) this.largest = size;
    return value;
  }

  private value(node: Node): Complex {
    switch (node.kind) {
      case "number":
        if (node.value.d > LONG || node.value.n > LONG || node.value.n < -LONG) this.insensitive = true;
        return complex(toNumber(node.value));
      case "symbol":
        return this.values.get(node.name) ?? NOT_A_NUMBER;
      case "constant":
        if (node.name === "i") return complex(0, 1);
        return complex(node.name === "pi" ? Math.PI : node.name === "e" ? Math.E : Number.NaN);
      case "sum":
        return this.sum(node.terms.map((term) => this.of(term)));
      case "product":
        return node.factors.map((factor) => this.of(factor)).reduce(C.multiply);
      case "power":
        return this.power(node.base, node.exponent);
      case "quantity": {
        const scale = node.unit.name === "%" ? 0.01 : node.unit.name === "°" ? Math.PI / 180 : undefined;
        if (scale === undefined) throw new GiveUp("a unit inside an expression");
        return C.multiply(this.of(node.value), complex(scale));
      }
      case "call":
        return this.call(
          node.name,
          node.args.map((arg) => this.of(arg)),
        );
      default:
        throw new GiveUp(`a ${node.kind} inside an expression`);
    }
  }

  private sum(terms: readonly Complex[]): Complex {
    let [least, most] = [Infinity, 0];
    for (const term of terms) {
      const size = C.modulus(term);
      if (size > 0 && size < least) least = size;
      if (size > most) most = size;
    }
    if (least < 1e-8 * most) this.insensitive = true;
    return terms.reduce(C.add);
  }

  private power(baseNode: Node, exponentNode: Node): Complex {
    const base = this.of(baseNode);
    const exponent = this.of(exponentNode);
    const ratio = base.im === 0 && base.re < 0 ? rationalOf(exponentNode) : undefined;
    if (ratio !== undefined && ratio.d !== 1n) {
      // Odd roots of negative numbers are the real ones.
      if (ratio.d % 2n === 1n) return complex((ratio.n % 2n === 0n ? 1 : -1) * (-base.re) ** toNumber(ratio));
      this.leftReals = true;
    } else if (base.im === 0 && base.re < 0 && !Number.isInteger(exponent.re)) this.leftReals = true;
    return C.power(base, exponent);
  }

  private real(a: Complex, f: (x: number) => number): Complex {
    return a.im === 0 ? complex(f(a.re)) : NOT_A_NUMBER;
  }

  private ln(a: Complex): Complex {
    if (a.im === 0 && a.re <= 0) this.leftReals = true;
    return C.log(a);
  }

  private call(name: string, args: readonly Complex[]): Complex {
    const [a, b] = args;
    switch (name) {
      case "sin":
        return C.sin(a);
      case "cos":
        return C.cos(a);
      case "tan":
        return C.divide(C.sin(a), C.cos(a));
      case "cot":
        return C.divide(C.cos(a), C.sin(a));
      case "sec":
        return C.divide(complex(1), C.cos(a));
      case "csc":
        return C.divide(complex(1), C.sin(a));
      case "sinh":
        return C.sinh(a);
      case "cosh":
        return C.cosh(a);
      case "tanh":
        return C.divide(C.sinh(a), C.cosh(a));
      case "coth":
        return C.divide(C.cosh(a), C.sinh(a));
      case "sech":
        return C.divide(complex(1), C.cosh(a));
      case "csch":
        return C.divide(complex(1), C.sinh(a));
      case "arcsin":
        return this.real(a, Math.asin);
      case "arccos":
        return this.real(a, Math.acos);
      case "arctan":
        return this.real(a, Math.atan);
      case "arccot":
        return this.real(a, (x) => Math.PI / 2 - Math.atan(x));
      case "arcsec":
        return this.real(a, (x) => Math.acos(1 / x));
      case "arccsc":
        return this.real(a, (x) => Math.asin(1 / x));
      case "ln":
        return this.ln(a);
      case "log": {
        const below = b === undefined ? (this.log === "ten" ? complex(Math.LN10) : complex(1)) : this.ln(b);
        return C.divide(this.ln(a), below);
      }
      case "abs":
        return complex(C.modulus(a));
      case "re":
        return complex(a.re);
      case "im":
        return complex(a.im);
      case "sgn":
        return this.real(a, Math.sign);
      case "floor":
        return this.real(a, (x) => rounded(x, Math.floor));
      case "ceiling":
        return this.real(a, (x) => rounded(x, Math.ceil));
      case "max":
        return args.every(C.isReal) ? complex(Math.max(...args.map(({ re }) => re))) : NOT_A_NUMBER;
      case "min":
        return args.every(C.isReal) ? complex(Math.min(...args.map(({ re }) => re))) : NOT_A_NUMBER;
      case "factorial":
        return this.real(a, (x) => gamma(x + 1));
      case "binomial":
        return a.im === 0 && b?.im === 0
          ? complex(gamma(a.re + 1) / (gamma(b.re + 1) * gamma(a.re - b.re + 1)))
          : NOT_A_NUMBER;
      case "mod":
        return a.im === 0 && b?.im === 0 ? complex(a.re - b.re * rounded(a.re / b.re, Math.floor)) : NOT_A_NUMBER;
      default:
        return name.endsWith("()") ? unknownFunction(name, args) : NOT_A_NUMBER;
    }
  }
}

/** A fraction written as a literal or as a quotient of literals. */
function rationalOf(node: Node): Rational | undefined {
  if (node.kind === "number") return node.value;
  if (node.kind !== "product") return undefined;
  let value: Rational = ONE;
  for (const factor of node.factors) {
    if (factor.kind === "number") value = multiply(value, factor.value);
    else if (
      factor.kind === "power" &&
      factor.base.kind === "number" &&
      factor.exponent.kind === "number" &&
      factor.exponent.value.n === -1n
    )
      value = divide(value, factor.base.value);
    else return undefined;
  }
  return value;
}

/** f(x) of an f that nobody knows: some smooth function of the arguments, its own for every name. */
function unknownFunction(name: string, args: readonly Complex[]): Complex {
  let value = complex(2 + name.charCodeAt(0) / 37);
  for (const [k, arg] of args.entries()) {
    const phase = C.add(C.multiply(arg, complex(1.37 + k)), complex(name.charCodeAt(0)));
    value = C.add(value, C.multiply(C.sin(phase), complex(1 + k / 3)));
  }
  return value;
}

/** Rounds down or up; NaN right beside a whole number, where rounding errors would decide. */
function rounded(x: number, how: (x: number) => number): number {
  const near = Math.abs(x - Math.round(x));
  return near > 0 && near < 1e-9 * Math.max(1, Math.abs(x)) ? Number.NaN : how(x);
}

const LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];

/** Gamma function by Lanczos' approximation (g = 7, n = 9), about 15 digits. */
function gamma(x: number): number {
  if (x < 0.5) return Math.PI / (Math.sin(Math.PI * x) * gamma(1 - x));
  const y = x - 1;
  let sum = LANCZOS[0];
  for (let i = 1; i < LANCZOS.length; i++) sum += LANCZOS[i] / (y + i);
  const t = y + 7.5;
  return Math.sqrt(2 * Math.PI) * t ** (y + 0.5) * Math.exp(-t) * sum;
}

import type { Budget } from "./budget.ts";
import { type Exponent, exponent, keyOf, merge, type Monomial } from "./monomial.ts";
import { add, multiply, negate, ONE, power, print, type Rational } from "./rational.ts";

/** One term: coefficient times monomial. */
export interface Term {
  readonly c: Rational;
  readonly m: Monomial;
}

/** A sum of terms by the key of their monomial; no coefficient is zero. Exponents may be negative and fractional. */
export type Polynomial = ReadonlyMap<string, Term>;

/**
 * What a polynomial's variables stand for.
 * - prime: under a fractional exponent in [0, 1). Square roots of distinct primes and their products are independent over the
 *   rationals, so a polynomial in them is zero only if it has no terms. `whole` is false where a factor was too large to split.
 * - imaginary: i, with exponent 0 or 1.
 * - root: a fractional power in (0, 1) of a sum.
 * - symbol: a variable, or a constant such as pi that satisfies no equation with rational coefficients.
 * - opaque: a function's value.
 */
export type Atom =
  | { readonly kind: "prime"; readonly value: bigint; readonly whole: boolean }
  | { readonly kind: "imaginary" }
  | { readonly kind: "root"; readonly base: Polynomial }
  | { readonly kind: "symbol"; readonly positive: boolean; readonly variable: boolean }
  | { readonly kind: "opaque" };

/** The atoms of one comparison, numbered, and arithmetic over them. */
export class Ring {
  readonly atoms: Atom[] = [];
  private readonly index = new Map<string, number>();

  readonly budget: Budget;

  constructor(budget: Budget) {
    this.budget = budget;
  }

  /** The number of the atom with this key; made when it is new. */
  atom(key: string, make: () => Atom): number {
    let found = this.index.get(key);
    if (found === undefined) {
      found = this.atoms.push(make()) - 1;
      this.index.set(key, found);
    }
    return found;
  }

  constant(c: Rational): Polynomial {
    return c.n === 0n ? new Map() : new Map([["", { c, m: [] }]]);
  }

  /** atom^exponent */
  variable(atom: number, to: Exponent = { n: 1, d: 1 }): Polynomial {
    return this.term(ONE, [[atom, to]]);
  }

  term(c: Rational, m: Monomial): Polynomial {
    const into = new Map<string, Term>();
    this.accumulate(into, c, m);
    return into;
  }

  add(a: Polynomial, b: Polynomial): Polynomial {
    if (a.size === 0) return b;
    this.budget.spend(a.size);
    const into = new Map(a);
    for (const { c, m } of b.values()) this.put(into, c, m);
    return into;
  }

  negate(a: Polynomial): Polynomial {
    return this.scale(a, { n: -1n, d: 1n });
  }

  scale(a: Polynomial, by: Rational): Polynomial {
    const into = new Map<string, Term>();
    this.budget.spend(a.size * 2);
    for (const [key, { c, m }] of a) into.set(key, { c: multiply(c, by), m });
    return into;
  }

  multiply(a: Polynomial, b: Polynomial): Polynomial {
    const into = new Map<string, Term>();
    for (const x of a.values())
      for (const y of b.values()) {
        this.budget.spend(6 + 2 * (x.m.length + y.m.length) + size(x.c) + size(y.c));
        this.accumulate(into, multiply(x.c, y.c), merge(x.m, y.m));
      }
    return into;
  }

  /** a to a whole exponent >= 0 by repeated squaring. */
  power(a: Polynomial, to: number): Polynomial {
    let result = this.constant(ONE);
    for (let base = a, left = to; left > 0; left = Math.floor(left / 2)) {
      if (left % 2 === 1) result = this.multiply(result, base);
      if (left > 1) base = this.multiply(base, base);
    }
    return result;
  }

  /** Adds c m, its exponents not yet in their ranges. */
  private accumulate(into: Map<string, Term>, c: Rational, m: Monomial): void {
    let plain = true;
    for (const [atom] of m) {
      const { kind } = this.atoms[atom];
      if (kind === "prime" || kind === "imaginary" || kind === "root") plain = false;
    }
    if (plain) return this.put(into, c, m);
    const kept: [number, Exponent][] = [];
    let factor: Polynomial | undefined;
    for (const [number, to] of m) {
      const atom = this.atoms[number];
      const floor = Math.floor(to.n / to.d);
      if (atom.kind === "prime" && floor !== 0) {
        this.budget.spend(20 + (Math.abs(floor) >> 4));
        c = multiply(c, power({ n: atom.value, d: 1n }, BigInt(floor)));
        if (to.d > 1) kept.push([number, exponent(to.n - floor * to.d, to.d)]);
      } else if (atom.kind === "imaginary" && to.d === 1) {
        const turn = ((to.n % 4) + 4) % 4;
        if (turn >= 2) c = negate(c);
        if (turn % 2 === 1) kept.push([number, { n: 1, d: 1 }]);
      } else if (atom.kind === "root" && floor >= 1) {
        const whole = this.power(atom.base, floor);
        factor = factor === undefined ? whole : this.multiply(factor, whole);
        if (to.d > 1) kept.push([number, exponent(to.n - floor * to.d, to.d)]);
      } else kept.push([number, to]);
    }
    if (factor === undefined) return this.put(into, c, kept);
    for (const term of this.multiply(factor, new Map([[keyOf(kept), { c, m: kept }]])).values())
      this.put(into, term.c, term.m);
  }

  private put(into: Map<string, Term>, c: Rational, m: Monomial): void {
    this.budget.spend(4 + m.length);
    const key = keyOf(m);
    const before = into.get(key);
    const value = before === undefined ? c : add(before.c, c);
    if (value.n === 0n) into.delete(key);
    else into.set(key, { c: value, m });
  }

  /** Whether a polynomial that is not empty is certainly not zero. */
  conclusive(a: Polynomial): boolean {
    for (const { m } of a.values())
      for (const [number] of m) {
        const atom = this.atoms[number];
        if (atom.kind === "opaque" || atom.kind === "root" || (atom.kind === "prime" && !atom.whole)) return false;
      }
    return true;
  }

  /** Whether a polynomial is a constant: no variable and nothing opaque in it. */
  isConstant(a: Polynomial): boolean {
    for (const { m } of a.values())
      for (const [number] of m) {
        const atom = this.atoms[number];
        if (atom.kind === "opaque" || atom.kind === "root" || (atom.kind === "symbol" && atom.variable)) return false;
      }
    return true;
  }

  /** The terms in the order of their keys, as text. */
  key(a: Polynomial): string {
    this.budget.spend(a.size * 8);
    return [...a.keys()]
      .sort()
      .map((key) => `${print((a.get(key) as Term).c)}*${key}`)
      .join("+");
  }
}

const size = (c: Rational): number =>
  c.n < 1n << 53n && c.n > -(1n << 53n) && c.d < 1n << 53n
    ? 1
    : 1 + (c.n.toString(16).length + c.d.toString(16).length) / 4;

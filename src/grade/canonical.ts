import { GiveUp } from "./budget.ts";
import { exactCall } from "./exact.ts";
import { type Exponent, exponent, type Monomial, timesExponents } from "./monomial.ts";
import type { Node } from "./node.ts";
import type { Polynomial, Ring } from "./polynomial.ts";
import { factorise } from "./primes.ts";
import {
  absolute,
  divide,
  floor,
  gcd,
  isWhole,
  negate,
  ONE,
  power,
  type Rational,
  rational,
  sign,
  subtract,
  whole,
  ZERO,
} from "./rational.ts";

/** A rational function: n / d. The denominator is 1 or has several terms. */
export interface Quotient {
  readonly n: Polynomial;
  readonly d: Polynomial;
}

/** How `\log` without a base is meant. */
export type LogBase = "ten" | "natural";

/**
 * Expressions as quotients of polynomials with exact coefficients, over atoms: variables, pi, e, i, roots of primes, roots of sums,
 * values of functions. Two expressions whose quotients agree are equal wherever both are defined.
 */
export class Canonical {
  readonly ring: Ring;
  private readonly one: Polynomial;

  private readonly log: LogBase;

  constructor(ring: Ring, log: LogBase) {
    this.log = log;
    this.ring = ring;
    this.one = ring.constant(ONE);
  }

  of(node: Node): Quotient {
    this.ring.budget.spend(6);
    switch (node.kind) {
      case "number":
        return this.rational(node.value);
      case "symbol":
        return this.polynomial(this.ring.variable(this.symbol(node.name, false, true)));
      case "constant":
        if (node.name === "i") return this.polynomial(this.ring.variable(this.imaginary));
        return this.polynomial(this.ring.variable(this.symbol(`the constant ${node.name}`, true, false)));
      case "sum":
        return node.terms.map((term) => this.of(term)).reduce((a, b) => this.add(a, b));
      case "product":
        return node.factors.map((factor) => this.of(factor)).reduce((a, b) => this.multiply(a, b));
      case "power":
        return this.power(this.of(node.base), this.of(node.exponent));
      case "quantity":
        if (node.unit.name === "%") return this.multiply(this.of(node.value), this.rational(rational(1n, 100n)));
        if (node.unit.name === "°")
          return this.multiply(
            this.multiply(this.of(node.value), this.rational(rational(1n, 180n))),
            this.of({ kind: "constant", name: "pi" }),
          );
        return this.multiply(
          this.of(node.value),
          this.polynomial(this.ring.variable(this.symbol(`unit ${node.unit.name}`, true, true))),
        );
      case "call":
        return this.call(node.name, node.args);
      default:
        throw new GiveUp(`a ${node.kind} inside an expression`);
    }
  }

  /** a - b = 0, written without a denominator. */
  difference(a: Quotient, b: Quotient): Polynomial {
    const { ring } = this;
    if (this.same(a.d, b.d)) return ring.add(a.n, ring.negate(b.n));
    return ring.add(ring.multiply(a.n, b.d), ring.negate(ring.multiply(b.n, a.d)));
  }

  rational(c: Rational): Quotient {
    return this.polynomial(this.ring.constant(c));
  }

  add(a: Quotient, b: Quotient): Quotient {
    const { ring } = this;
    if (this.same(a.d, b.d)) return this.quotient(ring.add(a.n, b.n), a.d);
    return this.quotient(ring.add(ring.multiply(a.n, b.d), ring.multiply(b.n, a.d)), ring.multiply(a.d, b.d));
  }

  multiply(a: Quotient, b: Quotient): Quotient {
    const { ring } = this;
    const d = a.d === this.one ? b.d : b.d === this.one ? a.d : ring.multiply(a.d, b.d);
    return this.quotient(ring.multiply(a.n, b.n), d);
  }

  inverse(a: Quotient): Quotient {
    const { ring } = this;
    if (a.n.size === 0) throw new GiveUp("a division by zero");
    if (a.n.size > 1) return this.quotient(a.d, a.n);
    const [{ c, m }] = a.n.values();
    const inverted: [number, Exponent][] = [];
    let below = this.one;
    for (const [number, { n, d }] of m) {
      const atom = ring.atoms[number];
      // 1 / R^f = R^(1 - f) / R
      if (atom.kind === "root") {
        inverted.push([number, exponent(d - n, d)]);
        below = ring.multiply(below, atom.base);
      } else inverted.push([number, exponent(-n, d)]);
    }
    return this.quotient(ring.multiply(a.d, ring.term(divide(ONE, c), inverted)), below);
  }

  /** The value, if it is a rational number. */
  constantValue({ n, d }: Quotient): Rational | undefined {
    if (d !== this.one && d.size !== 1) return undefined;
    if (n.size === 0) return ZERO;
    const [[key, { c }]] = n;
    return n.size === 1 && key === "" ? c : undefined;
  }

  private polynomial(n: Polynomial): Quotient {
    return { n, d: this.one };
  }

  private quotient(n: Polynomial, d: Polynomial): Quotient {
    if (d === this.one) return { n, d };
    if (n.size === 0) return { n, d: this.one };
    if (d.size === 0) throw new GiveUp("a division by zero");
    if (d.size === 1) return this.multiply({ n, d: this.one }, this.inverse({ n: d, d: this.one }));
    if (this.same(n, d)) return { n: this.one, d: this.one };
    return { n, d };
  }

  private same(a: Polynomial, b: Polynomial): boolean {
    if (a === b) return true;
    if (a.size !== b.size) return false;
    this.ring.budget.spend(a.size);
    for (const [key, { c }] of a) {
      const other = b.get(key);
      if (other === undefined || other.c.n !== c.n || other.c.d !== c.d) return false;
    }
    return true;
  }

  private get imaginary(): number {
    return this.ring.atom("i", () => ({ kind: "imaginary" }));
  }

  private symbol(name: string, positive: boolean, variable: boolean): number {
    return this.ring.atom(`symbol ${name}`, () => ({ kind: "symbol", positive, variable }));
  }

  private opaque(key: string): Quotient {
    return this.polynomial(this.ring.variable(this.ring.atom(key, () => ({ kind: "opaque" }))));
  }

  private power(base: Quotient, to: Quotient): Quotient {
    const constant = this.constantValue(to);
    if (constant !== undefined) return this.rationalPower(base, constant);
    return this.symbolicPower(base, to);
  }

  private rationalPower(base: Quotient, to: Rational): Quotient {
    const { ring } = this;
    if (sign(to) === 0) {
      if (base.n.size === 0) throw new GiveUp("zero to the power zero");
      return this.rational(ONE);
    }
    if (base.n.size === 0 && sign(to) > 0) return base;
    if (sign(to) < 0) return this.rationalPower(this.inverse(base), negate(to));
    const integer = floor(to);
    if (integer > 1_000_000_000n) throw new GiveUp("an exponent is too large");
    const n = Number(integer);
    let result = this.rational(ONE);
    if (n > 0) {
      if (base.d === this.one && base.n.size === 1) result = this.monomialPower(base, n);
      else if (n > 400) return this.opaque(`(${this.key(base)})^${to.n}/${to.d}`);
      else result = this.quotient(ring.power(base.n, n), base.d === this.one ? this.one : ring.power(base.d, n));
    }
    const rest = subtract(to, whole(integer));
    return rest.n === 0n ? result : this.multiply(result, this.root(base, exponent(Number(rest.n), Number(rest.d))));
  }

  private monomialPower({ n }: Quotient, to: number): Quotient {
    const [{ c, m }] = n.values();
    const { ring } = this;
    if (m.some(([atom]) => ring.atoms[atom].kind === "root")) return this.polynomial(ring.power(n, Math.min(to, 5000)));
    ring.budget.spend(20 + Math.min(to, 4096) / 16);
    const scaled: Monomial = m.map(([atom, e]) => [atom, timesExponents(e, { n: to, d: 1 })]);
    return this.multiply(this.rational(power(c, BigInt(to))), this.polynomial(ring.term(ONE, scaled)));
  }

  /** base^to with 0 < to < 1. */
  private root(base: Quotient, to: Exponent): Quotient {
    const { ring } = this;
    if (base.d !== this.one) return this.opaque(`(${this.key(base)})^${to.n}/${to.d}`);
    if (base.n.size === 1) {
      const [{ c, m }] = base.n.values();
      const outside: [number, Exponent][] = [];
      const inside: [number, Exponent][] = [];
      for (const [number, e] of m) {
        const atom = ring.atoms[number];
        if (atom.kind === "prime" || (atom.kind === "symbol" && atom.positive))
          outside.push([number, timesExponents(e, to)]);
        else inside.push([number, e]);
      }
      let result = this.multiply(this.rationalRoot(absolute(c), to), this.polynomial(ring.term(ONE, outside)));
      const lone =
        inside.length === 1 &&
        inside[0][1].n === 1 &&
        inside[0][1].d === 1 &&
        ring.atoms[inside[0][0]].kind === "symbol";
      if (sign(c) > 0 && lone) return this.multiply(result, this.polynomial(ring.variable(inside[0][0], to)));
      if (sign(c) > 0 && inside.length === 0) return result;
      if (inside.length === 0 && to.d % 2 === 1) return to.n % 2 === 1 ? this.negative(result) : result;
      if (inside.length === 0 && to.d === 2) {
        result = this.multiply(result, this.polynomial(ring.variable(this.imaginary)));
        return result;
      }
      const rest = ring.term(sign(c) < 0 ? whole(-1) : ONE, inside);
      return this.multiply(result, this.rootOf(rest, to));
    }
    // The content of a sum comes out: sqrt(4x + 4) = 2 sqrt(x + 1).
    let [top, bottom] = [0n, 1n];
    for (const { c } of base.n.values()) {
      top = gcd(top, c.n);
      bottom = (bottom / gcd(bottom, c.d)) * c.d;
    }
    const content = rational(top, bottom);
    return this.multiply(this.rationalRoot(content, to), this.rootOf(ring.scale(base.n, divide(ONE, content)), to));
  }

  private rootOf(base: Polynomial, to: Exponent): Quotient {
    const atom = this.ring.atom(`root of ${this.ring.key(base)}`, () => ({ kind: "root", base }));
    return this.polynomial(this.ring.variable(atom, to));
  }

  /** c^to for c > 0 as a product of powers of primes. */
  private rationalRoot(c: Rational, to: Exponent): Quotient {
    const monomial = new Map<number, Exponent>();
    for (const [value, direction] of [[c.n, 1] as const, [c.d, -1] as const])
      for (const { prime, times, whole: split } of factorise(value, this.ring.budget)) {
        const atom = this.ring.atom(`prime ${prime}`, () => ({ kind: "prime", value: prime, whole: split }));
        monomial.set(atom, exponent(direction * times * to.n, to.d));
      }
    return this.polynomial(
      this.ring.term(
        ONE,
        [...monomial].sort(([a], [b]) => a - b),
      ),
    );
  }

  /** base^to where `to` has variables or constants in it: 2^(n + 1) = 2 * 2^n. */
  private symbolicPower(base: Quotient, to: Quotient): Quotient {
    const value = this.constantValue(base);
    const simple = to.d === this.one && base.d === this.one && base.n.size === 1;
    if (!simple || to.n.size > 50) return this.opaque(`(${this.key(base)})^(${this.key(to)})`);
    const bases: [key: string, atomPower: (to: Rational) => Quotient, times: number][] = [];
    if (value !== undefined && sign(value) > 0) {
      for (const [part, direction] of [[value.n, 1] as const, [value.d, -1] as const])
        for (const { prime, times } of factorise(part, this.ring.budget))
          bases.push([`${prime}`, (r) => this.rationalPower(this.rational(whole(prime)), r), direction * times]);
    } else {
      const [{ c, m }] = base.n.values();
      const alone = c.n === 1n && c.d === 1n && m.length === 1 && m[0][1].n === 1 && m[0][1].d === 1;
      if (!alone && !(value !== undefined && value.n === -1n && value.d === 1n))
        return this.opaque(`(${this.key(base)})^(${this.key(to)})`);
      bases.push([this.key(base), (r) => this.rationalPower(base, r), 1]);
    }
    let result = this.rational(ONE);
    for (const [key, atomPower, times] of bases)
      for (const { c, m } of to.n.values()) {
        const scaled = { n: c.n * BigInt(times), d: c.d };
        if (m.length === 0) {
          result = this.multiply(result, atomPower(rational(scaled.n, scaled.d)));
          continue;
        }
        const name = this.ring.key(this.ring.term(ONE, m));
        // A power is independent of everything else only where its exponent varies freely.
        const known = this.variesFreely(m);
        const positive = /^\d+$/.test(key);
        const atom = this.ring.atom(`${key}^(${name})`, () =>
          known ? { kind: "symbol", positive, variable: true } : { kind: "opaque" },
        );
        const e = rational(scaled.n, scaled.d);
        result = this.multiply(result, this.polynomial(this.ring.variable(atom, exponent(Number(e.n), Number(e.d)))));
      }
    return result;
  }

  private variesFreely(m: Monomial): boolean {
    const atoms = m.map(([number]) => this.ring.atoms[number]);
    return (
      atoms.every(({ kind }) => kind === "symbol") && atoms.some((atom) => atom.kind === "symbol" && atom.variable)
    );
  }

  private negative(a: Quotient): Quotient {
    return { n: this.ring.negate(a.n), d: a.d };
  }

  private call(name: string, args: readonly Node[]): Quotient {
    const read = args.map((arg) => this.of(arg));
    const values = read.map((arg) => this.constantValue(arg));
    const exact = values.every((value) => value !== undefined) ? exactCall(name, values, this.ring.budget) : undefined;
    if (exact !== undefined) return this.rational(exact);
    const k = values[1];
    if (name === "binomial" && k !== undefined && isWhole(k) && k.n >= 0n && k.n <= 12n)
      return this.binomial(read[0], Number(k.n));
    if (name === "ln") return this.ln(read[0]);
    if (name === "log") {
      const below =
        read[1] === undefined ? (this.log === "ten" ? this.ln(this.rational(whole(10))) : undefined) : this.ln(read[1]);
      return below === undefined ? this.ln(read[0]) : this.multiply(this.ln(read[0]), this.inverse(below));
    }
    return this.opaque(`${name}(${read.map((arg) => this.key(arg)).join(";")})`);
  }

  /** n (n - 1) ... (n - k + 1) / k! */
  private binomial(n: Quotient, k: number): Quotient {
    let result = this.rational(ONE);
    for (let i = 0; i < k; i++)
      result = this.multiply(
        this.multiply(result, this.add(n, this.rational(whole(-i)))),
        this.rational(rational(1n, BigInt(i + 1))),
      );
    return result;
  }

  /** ln of a positive constant product: the sum of its factors' logarithms. */
  private ln(a: Quotient): Quotient {
    if (a.d !== this.one || a.n.size !== 1) return this.opaque(`ln(${this.key(a)})`);
    const [{ c, m }] = a.n.values();
    const { ring } = this;
    if (sign(c) <= 0 || m.some(([number]) => !this.hasLogarithm(number))) return this.opaque(`ln(${this.key(a)})`);
    let result = this.rational(ZERO);
    const logarithm = (prime: bigint): Polynomial => ring.variable(this.symbol(`ln ${prime}`, true, false));
    for (const [value, direction] of [[c.n, 1] as const, [c.d, -1] as const])
      for (const { prime, times } of factorise(value, ring.budget))
        result = this.add(result, this.polynomial(ring.scale(logarithm(prime), whole(direction * times))));
    for (const [number, { n, d }] of m) {
      const atom = ring.atoms[number];
      const of = atom.kind === "prime" ? logarithm(atom.value) : this.one;
      result = this.add(result, this.polynomial(ring.scale(of, rational(BigInt(n), BigInt(d)))));
    }
    return result;
  }

  private hasLogarithm(number: number): boolean {
    return this.ring.atoms[number].kind === "prime" || number === this.symbol("the constant e", true, false);
  }

  private key({ n, d }: Quotient): string {
    return d === this.one ? this.ring.key(n) : `${this.ring.key(n)}/${this.ring.key(d)}`;
  }
}

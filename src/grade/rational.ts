import { GiveUp } from "./budget.ts";

/** An exact fraction in lowest terms; the denominator is positive. */
export interface Rational {
  readonly n: bigint;
  readonly d: bigint;
}

/** Numerators and denominators longer than this are out of reach (about 1,200 decimal digits): gcd is quadratic. */
export const MAX_BITS = 4096;
const LIMIT = 1n << BigInt(MAX_BITS);
const SMALL = 1n << 53n;

export const ZERO: Rational = { n: 0n, d: 1n };
export const ONE: Rational = { n: 1n, d: 1n };
export const MINUS_ONE: Rational = { n: -1n, d: 1n };

const abs = (x: bigint): bigint => (x < 0n ? -x : x);

export function gcd(a: bigint, b: bigint): bigint {
  a = abs(a);
  b = abs(b);
  while (b > SMALL) [a, b] = [b, a % b];
  if (b === 0n) return a;
  let [x, y] = [Number(a % b), Number(b)];
  [x, y] = [y, x];
  while (y !== 0) [x, y] = [y, x % y];
  return BigInt(x);
}

/** n / d in lowest terms. Throws GiveUp for a zero denominator or numbers out of reach. */
export function rational(n: bigint, d = 1n): Rational {
  if (d === 1n) {
    if (n >= LIMIT || n <= -LIMIT) throw new GiveUp("a number is too long");
    return { n, d };
  }
  if (d === 0n) throw new GiveUp("a division by zero");
  if (d < 0n) [n, d] = [-n, -d];
  if (d >= LIMIT || n >= LIMIT || n <= -LIMIT) throw new GiveUp("a number is too long");
  const g = gcd(n, d);
  return g === 1n ? { n, d } : { n: n / g, d: d / g };
}

export const whole = (n: number | bigint): Rational => ({ n: BigInt(n), d: 1n });
export const add = (a: Rational, b: Rational): Rational =>
  a.d === b.d ? rational(a.n + b.n, a.d) : rational(a.n * b.d + b.n * a.d, a.d * b.d);
export const negate = (a: Rational): Rational => ({ n: -a.n, d: a.d });
export const subtract = (a: Rational, b: Rational): Rational => add(a, negate(b));
export const multiply = (a: Rational, b: Rational): Rational => rational(a.n * b.n, a.d * b.d);
export const divide = (a: Rational, b: Rational): Rational => rational(a.n * b.d, a.d * b.n);
export const equal = (a: Rational, b: Rational): boolean => a.n === b.n && a.d === b.d;
export const isWhole = (a: Rational): boolean => a.d === 1n;
export const sign = (a: Rational): number => (a.n > 0n ? 1 : a.n < 0n ? -1 : 0);
export const absolute = (a: Rational): Rational => (a.n < 0n ? negate(a) : a);
export const compare = (a: Rational, b: Rational): number => sign({ n: a.n * b.d - b.n * a.d, d: 1n });
export const floor = (a: Rational): bigint => {
  const q = a.n / a.d;
  return a.n < 0n && q * a.d !== a.n ? q - 1n : q;
};

/** About how many bits a power would have: what `power` costs. */
export const bits = (a: bigint): number =>
  abs(a) < SMALL ? Math.log2(Number(abs(a)) + 1) : abs(a).toString(16).length * 4;

/** a to a whole exponent. Throws GiveUp when the result is out of reach. */
export function power(a: Rational, exponent: bigint): Rational {
  if (exponent < 0n) return divide(ONE, power(a, -exponent));
  if (a.d === 1n && (a.n === 0n || a.n === 1n)) return exponent === 0n ? ONE : a;
  if (a.d === 1n && a.n === -1n) return exponent % 2n === 0n ? ONE : a;
  if (exponent > BigInt(MAX_BITS) || (bits(a.n > a.d ? a.n : a.d) - 1) * Number(exponent) > MAX_BITS)
    throw new GiveUp("a power is too long");
  return rational(a.n ** exponent, a.d ** exponent);
}

/** The nearest double. */
export function toNumber(a: Rational): number {
  if (a.n < SMALL && a.n > -SMALL && a.d < SMALL) return Number(a.n) / Number(a.d);
  const shift = Math.max(0, Math.floor(bits(a.d) - bits(a.n)) + 64);
  return Number((a.n << BigInt(shift)) / a.d) * 2 ** -shift;
}

/** Canonical text: `3`, `-1/2`. */
export const print = (a: Rational): string => (a.d === 1n ? String(a.n) : `${a.n}/${a.d}`);

/** 10^k as an integer, 0 <= k <= 1,200. */
export function tenTo(k: number): bigint {
  if (k > 1200) throw new GiveUp("a number is too long");
  return 10n ** BigInt(k);
}

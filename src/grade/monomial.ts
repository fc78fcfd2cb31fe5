import { GiveUp } from "./budget.ts";

/** An exponent: a fraction of small integers, d > 0, in lowest terms. */
export interface Exponent {
  readonly n: number;
  readonly d: number;
}

/** A product of powers of atoms, sorted by atom; no exponent is zero. */
export type Monomial = readonly (readonly [atom: number, exponent: Exponent])[];

const MAX = 1e9;

function gcd(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b];
  return Math.abs(a);
}

/** n / d in lowest terms. Throws GiveUp beyond 10^9. */
export function exponent(n: number, d = 1): Exponent {
  if (!(Math.abs(n) <= MAX && Math.abs(d) <= MAX)) throw new GiveUp("an exponent is too large");
  if (d === 1) return { n, d };
  const g = gcd(n, d) * Math.sign(d);
  return { n: n / g, d: d / g };
}

export const addExponents = (a: Exponent, b: Exponent): Exponent =>
  a.d === 1 && b.d === 1 ? exponent(a.n + b.n) : exponent(a.n * b.d + b.n * a.d, a.d * b.d);
export const timesExponents = (a: Exponent, b: Exponent): Exponent => exponent(a.n * b.n, a.d * b.d);

/** The product of two monomials. */
export function merge(a: Monomial, b: Monomial): Monomial {
  if (a.length === 0) return b;
  if (b.length === 0) return a;
  const merged: [number, Exponent][] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const [left, right] = [a[i], b[j]];
    if (j >= b.length || (i < a.length && left[0] < right[0])) {
      merged.push([left[0], left[1]]);
      i++;
    } else if (i >= a.length || right[0] < left[0]) {
      merged.push([right[0], right[1]]);
      j++;
    } else {
      const to = addExponents(left[1], right[1]);
      if (to.n !== 0) merged.push([left[0], to]);
      i++;
      j++;
    }
  }
  return merged;
}

export function keyOf(monomial: Monomial): string {
  let key = "";
  for (const [atom, { n, d }] of monomial) key += d === 1 ? `${atom}^${n} ` : `${atom}^${n}/${d} `;
  return key;
}

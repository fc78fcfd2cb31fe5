import { type Budget, GiveUp } from "./budget.ts";
import { Canonical } from "./canonical.ts";
import { keyOf, type Monomial } from "./monomial.ts";
import { fraction, type Node, number, product, type Relation, type RelationNode, sum } from "./node.ts";
import { type Polynomial, Ring } from "./polynomial.ts";
import { type Comparison, differentBy, equalBy, unsureBy } from "./verdict.ts";
import { realValue } from "./sample.ts";

/** The relation that holds when both sides change places; none for those without one. */
export const MIRROR: Readonly<Partial<Record<Relation, Relation>>> = {
  "<": ">",
  "<=": ">=",
  ">": "<",
  ">=": "<=",
  "=": "=",
  "!=": "!=",
};

/**
 * Two relations of one sign each: equal when left - right of one is a constant times that of the other; for inequalities the constant's
 * sign says whether the sign turns.
 */
export function compareRelations(gold: RelationNode, answer: RelationNode, budget: Budget): Comparison {
  const [first, second] = [gold.operators[0], answer.operators[0]];
  const mirrored = MIRROR[first];
  if (mirrored === undefined || (second !== first && second !== mirrored))
    return differentBy("relation", "different relations");
  try {
    const ring = new Ring(budget);
    const canonical = new Canonical(ring, "ten");
    const side = ({ operands: [left, right] }: RelationNode): Polynomial => {
      const { n, d } = canonical.of(sum([left, product([number(-1), right])]));
      if (d.size > 1 && first !== "=" && first !== "!=") throw new GiveUp("an inequality with a denominator");
      return n;
    };
    const [a, b] = [side(gold), side(answer)];
    if (a.size === 0 || b.size === 0) return unsureBy("relation", "a relation that always or never holds");
    const pair = factors(ring, a, b);
    if (pair === undefined) return differentBy("relation", "no constant factor makes one the other");
    const [p, q] = pair;
    const rest = ring.add(ring.multiply(a, q), ring.negate(ring.multiply(b, p)));
    if (rest.size > 0)
      return ring.conclusive(rest)
        ? differentBy("relation", "no constant factor makes one the other")
        : unsureBy("relation", "the two relations could not be brought to one form");
    if (first === "=" || first === "!=") return equalBy("relation", "the same up to a constant factor");
    const sign = constantSign(ring, p, budget) * constantSign(ring, q, budget);
    if (sign === 0 || Number.isNaN(sign)) return unsureBy("relation", "the sign of the constant factor is not known");
    return (sign > 0 ? first : mirrored) === second
      ? equalBy("relation", "the same up to a positive factor")
      : differentBy("relation", "the sign points the other way");
  } catch (error) {
    if (!(error instanceof GiveUp) || budget.left < 0) throw error;
    return unsureBy("relation", error.message);
  }
}

/** The constants before one monomial of variables in both: their ratio is the only factor that can be. */
function factors(ring: Ring, a: Polynomial, b: Polynomial): [Polynomial, Polynomial] | undefined {
  const isVariable = (atom: number): boolean => {
    const found = ring.atoms[atom];
    return found.kind === "opaque" || found.kind === "root" || (found.kind === "symbol" && found.variable);
  };
  const parts = (m: Monomial): [Monomial, Monomial] => [
    m.filter(([atom]) => isVariable(atom)),
    m.filter(([atom]) => !isVariable(atom)),
  ];
  const collect = (p: Polynomial, key: string): Polynomial => {
    let found: Polynomial = new Map();
    for (const { c, m } of p.values()) {
      const [variable, constant] = parts(m);
      if (keyOf(variable) === key) found = ring.add(found, ring.term(c, constant));
    }
    return found;
  };
  for (const { m } of a.values()) {
    const [variable] = parts(m);
    if (variable.length === 0 && a.size > 1) continue;
    const key = keyOf(variable);
    const [p, q] = [collect(a, key), collect(b, key)];
    if (q.size === 0) return undefined;
    return [p, q];
  }
  const [p, q] = [collect(a, ""), collect(b, "")];
  return q.size === 0 ? undefined : [p, q];
}

/** The sign of a constant polynomial: of its only coefficient, else of its value. */
function constantSign(ring: Ring, p: Polynomial, budget: Budget): number {
  if (p.size === 1) {
    const [{ c, m }] = p.values();
    return m.some(([atom]) => ring.atoms[atom].kind === "imaginary") ? Number.NaN : Number(c.n > 0n) - Number(c.n < 0n);
  }
  const terms: Node[] = [];
  for (const { c, m } of p.values()) {
    const powers: Node[] = [];
    for (const [number_, { n, d }] of m) {
      const atom = ring.atoms[number_];
      if (atom.kind !== "prime") return Number.NaN;
      powers.push({ kind: "power", base: number(atom.value), exponent: fraction({ n: BigInt(n), d: BigInt(d) }) });
    }
    terms.push(product([fraction(c), ...powers]));
  }
  const value = realValue(sum(terms), budget);
  return value === undefined ? Number.NaN : Math.sign(value);
}

import type { Budget } from "./budget.ts";

/** A factor with its multiplicity; `whole` is false where it may be composite. */
export interface Factor {
  readonly prime: bigint;
  readonly times: number;
  readonly whole: boolean;
}

const BOUND = 2000;
const PRIMES: number[] = [];
for (let n = 2; n < BOUND; n++) if (PRIMES.every((p) => p * p > n || n % p !== 0)) PRIMES.push(n);

/** The factors of n > 0 by trial division to 2,000 and a search for a perfect power in what is left. */
export function factorise(n: bigint, budget: Budget): Factor[] {
  const factors: Factor[] = [];
  let left = n;
  for (const p of PRIMES) {
    if (left === 1n) return factors;
    const small = left < 1n << 53n;
    if (small && p * p > Number(left)) break;
    budget.spend(small ? 1 : 4 + left.toString(16).length / 8);
    let times = 0;
    if (small) {
      let rest = Number(left);
      while (rest % p === 0) {
        rest /= p;
        times++;
      }
      if (times > 0) left = BigInt(rest);
    } else
      while (left % BigInt(p) === 0n) {
        left /= BigInt(p);
        times++;
        budget.spend(4);
      }
    if (times > 0) factors.push({ prime: BigInt(p), times, whole: true });
  }
  if (left === 1n) return factors;
  if (left < BigInt(BOUND * BOUND)) return [...factors, { prime: left, times: 1, whole: true }];
  for (const times of [2, 3]) {
    const root = wholeRoot(left, times, budget);
    if (root !== undefined) return [...factors, { prime: root, times, whole: root < BigInt(BOUND * BOUND) }];
  }
  return [...factors, { prime: left, times: 1, whole: false }];
}

/** The k-th root of n when it is a whole number: Newton's method from above. */
function wholeRoot(n: bigint, k: number, budget: Budget): bigint | undefined {
  const bits = n.toString(2).length;
  const [K, K1] = [BigInt(k), BigInt(k - 1)];
  let x = 1n << BigInt(Math.ceil(bits / k) + 1);
  for (;;) {
    budget.spend(8 + bits / 32);
    const next = (K1 * x + n / x ** K1) / K;
    if (next >= x) return x ** K === n ? x : undefined;
    x = next;
  }
}

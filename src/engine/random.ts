/**
 * Counter-based random numbers: a number is a function of (key, index, position) alone, whatever the order in which it is
 * asked for. The key of a run's sample is built from (seed, step, problem); `index` is the sample, `position` the token.
 */

/** Mixes a string into 64 bits (two 32-bit halves), FNV-1a with a finaliser. */
export function hashKey(key: string): [number, number] {
  let a = 0x811c9dc5;
  let b = 0x9e3779b9;
  for (let i = 0; i < key.length; i++) {
    const c = key.charCodeAt(i);
    a = Math.imul(a ^ c, 0x01000193);
    b = Math.imul(b ^ c, 0x85ebca6b) ^ (b >>> 13);
  }
  return [mix(a ^ key.length), mix(b ^ a)];
}

/** A uniform number in [0, 1) with 32 bits, from Philox-2x32-10 keyed by `key`. */
export function uniform(key: readonly [number, number], index: number, position: number): number {
  let left = (position ^ key[1]) >>> 0;
  let right = index >>> 0;
  let round = key[0] >>> 0;
  for (let i = 0; i < 10; i++) {
    const product = BigInt(left) * 0xd256d193n;
    const high = Number(product >> 32n);
    left = (high ^ round ^ right) >>> 0;
    right = Number(product & 0xffffffffn);
    round = (round + 0x9e3779b9) >>> 0;
  }
  return left / 4294967296;
}

/** A stream of uniforms and normals for initial weights and shuffles. */
export class RandomStream {
  private readonly key: [number, number];
  private position = 0;

  constructor(key: string) {
    this.key = hashKey(key);
  }

  /** In [0, 1). */
  uniform(): number {
    return uniform(this.key, 0, this.position++);
  }

  /** Standard normal, by Box and Muller. */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** An integer in [0, n). */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Fisher-Yates, in place. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [items[i], items[j]] = [items[j], items[i]];
    }
    return items;
  }
}

function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

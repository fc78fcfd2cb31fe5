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

/** A uniform number in [0, 1) with 24 bits (exact in float32), from Philox-2x32-10 (Salmon et al. 2011) keyed by `key`. */
export function uniform(key: readonly [number, number], index: number, position: number): number {
  let left = (position ^ key[1]) >>> 0;
  let right = index >>> 0;
  let round = key[0] >>> 0;
  for (let i = 0; i < 10; i++) {
    const high = multiplyHigh(left, 0xd256d193);
    const low = Math.imul(left, 0xd256d193) >>> 0;
    left = (high ^ round ^ right) >>> 0;
    right = low;
    round = (round + 0x9e3779b9) >>> 0;
  }
  return (left >>> 8) / 16777216;
}

/** The upper 32 bits of a 32 x 32 bit product. */
function multiplyHigh(a: number, b: number): number {
  const a1 = a >>> 16;
  const a0 = a & 0xffff;
  const b1 = b >>> 16;
  const b0 = b & 0xffff;
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  return (a1 * b1 + Math.floor((middle + a0 * b1) / 65536)) >>> 0;
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

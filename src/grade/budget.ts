/** Thrown when a comparison would cost more than its budget allows, or asks for something out of reach; the verdict is then `unsure`. */
export class GiveUp extends Error {
  override name = "GiveUp";
}

/**
 * Steps that one comparison may take. A step is a small, bounded piece of work (reading a token, merging two terms, one word of a
 * long multiplication), a few tenths of a microsecond; since steps and not seconds are counted, a verdict is the same on every machine.
 */
export class Budget {
  /** Steps left. */
  left: number;

  constructor(steps: number) {
    this.left = steps;
  }

  /** Pays for work about to be done; throws GiveUp when the budget does not cover it. */
  spend(steps: number): void {
    this.left -= steps;
    if (this.left < 0) throw new GiveUp("the comparison needs more steps than its budget");
  }
}

/** Steps for one comparison: well under 50 ms of one core. */
export const DEFAULT_STEPS = 80_000;

/** Expressions nested more deeply than this are not read: recursion over them stays far from the stack's end. */
export const MAX_DEPTH = 120;

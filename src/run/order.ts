import { RandomStream } from "../engine/random.ts";

/**
 * The order in which a stage sees problems, a function of its seed alone: a fresh permutation of a finite split for every epoch;
 * of an endless one, consecutive problems from a random place.
 */
export class Order {
  readonly size: number;
  private readonly seed: string;
  private readonly offset: number;
  private epoch = -1;
  private permutation: number[] = [];

  constructor(size: number, seed: string) {
    this.size = size;
    this.seed = seed;
    this.offset = new RandomStream(`${seed}/start`).below(2 ** 24);
  }

  /** The index of the item that comes after `cursor` others. */
  at(cursor: number): number {
    const { size } = this;
    if (size === Infinity) return this.offset + cursor;
    const epoch = Math.floor(cursor / size);
    if (epoch !== this.epoch) {
      const identity = Array.from({ length: size }, (_, i) => i);
      this.permutation = new RandomStream(`${this.seed}/epoch ${epoch}`).shuffle(identity);
      this.epoch = epoch;
    }
    return this.permutation[cursor % size];
  }
}

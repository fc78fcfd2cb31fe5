/** A published way of grading, reproduced verdict by verdict for comparison with published numbers. */
export interface Mode {
  /** What it takes from a response, for the record; undefined where it finds nothing. */
  extract(response: string): string | undefined;
  /** Whether what it took is right by its rules. */
  equal(gold: string, answer: string | undefined): boolean;
}

/**
 * An error that a person can act on: what was expected, what was found, what to change.
 * The command line prints its message as one line and exits non-zero; anything else that is thrown is a bug and keeps its stack.
 */
export class UserError extends Error {
  override name = "UserError";
}

/** Training left the numbers: a result of its settings, not a mishap. */
export class DivergedError extends UserError {}

/** The candidate nearest to `word` by edit distance, or undefined when none is near enough to be a slip of the fingers. */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    previous = row;
  }
  return previous[b.length];
}

import { type Comparison, type Flip, points, type SeedComparison, span } from "./compare.ts";

/** Flipped problems of each side that a terminal shows. */
const SHOWN = 10;

/** A comparison for a terminal: both sides, the difference, the test, the sentence, and the first problems that flipped. */
export function comparisonText(comparison: Comparison, name = "B"): string {
  const { a, b, grading, problems, test, flips, difference, interval, notes } = comparison;
  const width = Math.max(a.name.length, b.name.length);
  const side = (letter: string, { name, accuracy }: Comparison["a"]) =>
    `${letter}  ${name.padEnd(width)}  ${points(accuracy.value).padStart(5)} % [${points(accuracy.low)}, ${points(accuracy.high)}]`;
  const testName = test.name === "McNemar" ? "McNemar's exact test" : "exact sign test over problems";
  return [
    [
      side("A", a),
      side(name, b),
      `${problems} problems in common, ${grading} accuracy, 95 % intervals`,
      `${name} - A: ${signed(difference)} points, 95 % interval ${span(interval)}`,
      `${testName}: ${probability(test.p)}; ${name} does better on ${test.bBetter}, A on ${test.aBetter}`,
      ...notes,
    ].join("\n"),
    relabel(comparison.sentence, name),
    ...flipped(
      `${name} gains`,
      flips.filter((flip) => flip.difference > 0),
      name,
    ),
    ...flipped(`${name} loses`, flips.filter((flip) => flip.difference < 0).reverse(), name),
  ].join("\n\n");
}

/** A comparison of methods for a terminal: every seed, both intervals, the sentence. */
export function seedsText(comparison: SeedComparison): string {
  const { seeds, problems, grading, tInterval, twoWay, signFlip, seedDeviation, difference, notes } = comparison;
  const width = Math.max(4, ...seeds.map(({ seed }) => String(seed).length));
  const rows = seeds.map(
    ({ seed, accuracyA, accuracyB, difference }) =>
      `${String(seed).padStart(width)}  ${points(accuracyA).padStart(5)}  ${points(accuracyB).padStart(5)}  ${signed(difference).padStart(6)}`,
  );
  const bounded = seeds.length > 1;
  return [
    [`${"seed".padStart(width)}      A      B   B - A`, ...rows].join("\n"),
    [
      `${problems} problems in common, ${grading} accuracy in %`,
      `B - A: ${signed(difference)} points`,
      ...(bounded
        ? [
            `over seeds (these problems): 95 % t interval ${span(tInterval)}; standard deviation ${points(seedDeviation)}`,
            `over seeds and problems: 95 % two-way bootstrap ${span(twoWay)}`,
          ]
        : []),
      ...(signFlip === undefined ? [] : [`exact sign-flip test: ${probability(signFlip)}`]),
      ...notes,
    ].join("\n"),
    comparison.sentence,
  ].join("\n\n");
}

/** With several evaluations the later ones are C, D, ...: the sentence speaks of B. */
const relabel = (sentence: string, name: string): string => sentence.replace(/\bB\b/g, name);

function flipped(title: string, flips: Flip[], name: string): string[] {
  if (flips.length === 0) return [];
  const lines = flips.slice(0, SHOWN).map(({ problem, gold, answers }) => {
    const goldText = gold === undefined ? "" : `gold ${short(gold)}  `;
    return `  ${short(problem)}  ${goldText}A ${tally(answers.a)}  ${name} ${tally(answers.b)}`;
  });
  const more = flips.length > SHOWN ? [`  and ${flips.length - SHOWN} more (--json lists all)`] : [];
  return [[`${title} ${flips.length}:`, ...lines, ...more].join("\n")];
}

/** Distinct answers, the most frequent first. */
export function tally(answers: (string | null)[]): string {
  const counts = new Map<string, number>();
  for (const answer of answers) {
    const text = answer === null ? "(none)" : short(answer);
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .map(([text, count]) => (count === 1 ? text : `${text} x${count}`))
    .join(", ");
}

function short(text: string): string {
  // Control characters of a model's answer must not reach a terminal.
  const line = text.replace(/[\p{Cc}\p{Cf}\s]+/gu, " ").trim();
  return line.length > 40 ? `${line.slice(0, 37)}...` : line;
}

const signed = (share: number): string => (share > 0 ? `+${points(share)}` : points(share));

export const probability = (p: number): string => (p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`);

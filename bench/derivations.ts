import { readSamples } from "../src/eval/samples.ts";

/**
 * How many rewarded answers to multiple-choice word problems rest on a wrong derivation: the letter is right, and the chain above it does not come to
 * that option's number, or one of its lines is no true equation. `npx jiti bench/derivations.ts SAMPLES.jsonl ...`, the samples of
 * `rifft eval` on `{ name = "wordproblems", choices = 5 }`.
 */

interface Counts {
  samples: number;
  rewarded: number;
  /** Of the rewarded: the last line's value is not the option's. */
  otherValue: number;
  /** Of the rewarded: some line's equation does not hold. */
  falseLine: number;
  wrong: number;
}

const operations: Record<string, (a: number, b: number) => number> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
};

function holds(line: string): boolean {
  const [, a, operator, b, c] = /(\d+) ([-+*/]) (\d+) = (\d+)\.?$/.exec(line) ?? [];
  return operator !== undefined && operations[operator](Number(a), Number(b)) === Number(c);
}

function count(file: string): Counts {
  const counts: Counts = { samples: 0, rewarded: 0, otherValue: 0, falseLine: 0, wrong: 0 };
  for (const { text, gold, options, solved } of readSamples(file).samples) {
    if (options === undefined || gold === undefined) throw new Error(`${file}: its problems have no options`);
    counts.samples++;
    if (!solved) continue;
    counts.rewarded++;
    const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("####"));
    const value = /= (\d+)\.?$/.exec(lines.at(-1) ?? "")?.[1];
    const other = value !== options[gold.charCodeAt(0) - 65];
    const untrue = !lines.every(holds);
    counts.otherValue += Number(other);
    counts.falseLine += Number(untrue);
    counts.wrong += Number(other || untrue);
  }
  return counts;
}

for (const file of process.argv.slice(2)) {
  const { samples, rewarded, wrong, otherValue, falseLine } = count(file);
  const share = ((100 * wrong) / Math.max(1, rewarded)).toFixed(1);
  console.log(
    `${file}: ${rewarded} of ${samples} rewarded; of these ${wrong} (${share} %) with a wrong derivation: ${otherValue} come to another value, ${falseLine} have a line that is not true`,
  );
}

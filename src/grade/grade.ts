import { type EquivalenceOptions, equivalent } from "./equivalent.ts";
import { extract, type Extraction, type Strategy } from "./extract.ts";
import { type ModeName, modes } from "./modes/index.ts";
import { type Comparison, differentBy, equalBy } from "./verdict.ts";

export interface GradeOptions extends EquivalenceOptions {
  /** `math` (default), or a published grader by name: it extracts and compares in its own way, and the other options do not apply. */
  mode?: "math" | ModeName;
  /** Where the prompt asked for the answer; of several markers the first that occurs counts. Default: any marker, no guessing. */
  strict?: Strategy | readonly Strategy[];
  /** Default: `auto`. */
  flexible?: Strategy | readonly Strategy[];
}

export interface GradedAnswer extends Comparison {
  /** What was compared; absent where the strategies found nothing. */
  extracted?: Extraction | { text: string; strategy: ModeName };
  /** Whether the verdict is `equal`. */
  equal: boolean;
}

/** One response, graded as strictly as the prompt's format asks and as leniently as `flexible` allows. */
export interface Graded {
  strict: GradedAnswer;
  flexible: GradedAnswer;
}

/** The rule of a response in which nothing was found to compare; a reranker never chooses it (ReFT). */
export const NO_ANSWER = "no answer";

const MARKERS: readonly Strategy[] = ["tag", "boxed", "hashes", "reft"];

/** Finds the answer in a response and compares it with the gold answer (or the golds, one of which is enough). */
export function grade(gold: string | readonly string[], response: string, options: GradeOptions = {}): Graded {
  const { mode } = options;
  if (mode !== undefined && mode !== "math") {
    const published = gradeAs(mode, gold, response);
    return { strict: published, flexible: published };
  }
  const strict = extract(response, options.strict ?? MARKERS);
  const flexible = extract(response, options.flexible ?? "auto");
  const first = gradeExtracted(gold, strict, options);
  return {
    strict: first,
    flexible:
      strict?.text === flexible?.text ? { ...first, extracted: flexible } : gradeExtracted(gold, flexible, options),
  };
}

function gradeAs(mode: ModeName, gold: string | readonly string[], response: string): GradedAnswer {
  const text = modes[mode].extract(response);
  const golds = typeof gold === "string" ? [gold] : gold;
  const equal = golds.some((one) => modes[mode].equal(one, text));
  if (text === undefined && !equal) {
    return { ...differentBy(NO_ANSWER, `the response has no answer by the rules of ${mode}`), equal };
  }
  const found = equal
    ? equalBy(mode, `right by the rules of ${mode}`)
    : differentBy(mode, `wrong by the rules of ${mode}`);
  return text === undefined ? { ...found, equal } : { ...found, extracted: { text, strategy: mode }, equal };
}

function gradeExtracted(
  gold: string | readonly string[],
  extracted: Extraction | undefined,
  options: GradeOptions,
): GradedAnswer {
  if (extracted === undefined)
    return { ...differentBy(NO_ANSWER, "the response has no answer in this format"), equal: false };
  const found = equivalent(gold, extracted.text, options);
  return { ...found, extracted, equal: found.verdict === "equal" };
}

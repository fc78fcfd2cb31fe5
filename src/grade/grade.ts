import { type EquivalenceOptions, equivalent } from "./equivalent.ts";
import { extract, type Extraction, type Strategy } from "./extract.ts";
import { type Comparison, differentBy } from "./verdict.ts";

export interface GradeOptions extends EquivalenceOptions {
  /** Where the prompt asked for the answer; of several markers the first that occurs counts. Default: any marker, no guessing. */
  strict?: Strategy | readonly Strategy[];
  /** Default: `auto`. */
  flexible?: Strategy | readonly Strategy[];
}

export interface GradedAnswer extends Comparison {
  /** What was compared; absent where the strategies found nothing. */
  extracted?: Extraction;
  /** Whether the verdict is `equal`. */
  equal: boolean;
}

/** One response, graded as strictly as the prompt's format asks and as leniently as `flexible` allows. */
export interface Graded {
  strict: GradedAnswer;
  flexible: GradedAnswer;
}

const MARKERS: readonly Strategy[] = ["tag", "boxed", "hashes", "reft"];

/** Finds the answer in a response and compares it with the gold answer (or the golds, one of which is enough). */
export function grade(gold: string | readonly string[], response: string, options: GradeOptions = {}): Graded {
  const strict = extract(response, options.strict ?? MARKERS);
  const flexible = extract(response, options.flexible ?? "auto");
  const first = gradeExtracted(gold, strict, options);
  return {
    strict: first,
    flexible:
      strict?.text === flexible?.text ? { ...first, extracted: flexible } : gradeExtracted(gold, flexible, options),
  };
}

function gradeExtracted(
  gold: string | readonly string[],
  extracted: Extraction | undefined,
  options: GradeOptions,
): GradedAnswer {
  if (extracted === undefined)
    return { ...differentBy("no answer", "the response has no answer in this format"), equal: false };
  const found = equivalent(gold, extracted.text, options);
  return { ...found, extracted, equal: found.verdict === "equal" };
}

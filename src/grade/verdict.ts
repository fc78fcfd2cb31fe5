/** Whether an answer is the gold answer; `unsure` where the budget ended or nothing could prove either. */
export type Verdict = "equal" | "different" | "unsure";

/** How two answers compare. */
export interface Comparison {
  verdict: Verdict;
  /** The rule that decided; docs/grading.md lists them. */
  rule: string;
  /** One plain sentence. */
  reason: string;
  /** Both parsed forms, printed canonically; with `explain`. */
  forms?: { gold: string; answer: string };
}

export const equalBy = (rule: string, reason: string): Comparison => ({ verdict: "equal", rule, reason });
export const differentBy = (rule: string, reason: string): Comparison => ({ verdict: "different", rule, reason });
export const unsureBy = (rule: string, reason: string): Comparison => ({ verdict: "unsure", rule, reason });

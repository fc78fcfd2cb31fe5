/**
 * `rifft/grade`: finding the answer in a response and deciding whether it is the right one. Pure: no I/O, no engine, works in a
 * browser. docs/grading.md describes the rules.
 */
export { equivalent, type EquivalenceOptions } from "./equivalent.ts";
export { extract, type Extraction, isHeading, locate, STRATEGIES, type Strategy } from "./extract.ts";
export { grade, type Graded, type GradedAnswer, type GradeOptions, NO_ANSWER } from "./grade.ts";
export { isMode, type ModeName, modeNamed, MODES } from "./modes/index.ts";
export type { Tolerance } from "./values.ts";
export type { Comparison, Verdict } from "./verdict.ts";

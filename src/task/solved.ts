import type { Grade } from "./types.ts";

/** Whether a response counts as right: its part `correct`, or its reward where there is no such part, is at least 1. */
export function solved(grade: Grade): boolean {
  return (grade.parts.correct ?? grade.reward) >= 1;
}

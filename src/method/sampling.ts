import type { Question } from "../rollout/single.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { Problem } from "../task/types.ts";
import type { Stage, Step } from "./stage.ts";

/** A step's problems as questions; a tree is named by stage, step and place, which counts from `first`. */
export function questionsOf(stage: Stage, step: Step, problems: Problem[], first = 0): Question[] {
  return problems.map((problem, q) => ({
    id: `${stage.name}/${step.index}/${first + q}`,
    problem: problem.id,
    prompt: encodePrompt(stage.tokenizer, problem),
    key: step.key(problem),
  }));
}

/** Holds of settings whose samples come from the whole distribution, as a policy gradient needs, or that say otherwise. */
export const drawsWhole = (s: { topP: number; topK: number; allowTruncated: boolean }): boolean =>
  s.allowTruncated || (s.topP === 1 && s.topK === 0);

/** What is said of settings that do not. */
export const TRUNCATED = {
  path: ["allowTruncated"],
  error: "training on samples cut by topP or topK needs allowTruncated = true, for their log-probs are untruncated",
};

import { extract } from "../grade/index.ts";
import { motifAnswer, motifBoxed } from "../grade/modes/motif.ts";
import { answerPart, type RoundTask } from "./rounds.ts";

/** Whether the answer that the strict grade takes stands between answer tags; true where nobody asked for tags, or nobody knows where the answer is. */
export function answersInTags({ rounds, grading, programs }: RoundTask, response: string): boolean {
  if (rounds !== undefined || grading === undefined || programs) return true;
  const answer = extract(response, grading.strict)?.text;
  if (!response.includes("<answer>")) return answer === undefined;
  return extract(answerPart(response), grading.strict)?.text === answer;
}

/** Where the literal `\boxed{gold}` stands, as the graders of MOTIF's code look for it: a response without tags is its own answer part. */
export function boxedGold(response: string, gold: string): "answer part" | "elsewhere" | "nowhere" {
  if (motifAnswer.equal(gold, motifAnswer.extract(response))) return "answer part";
  return motifBoxed.equal(gold, response) ? "elsewhere" : "nowhere";
}

import { extract, type ModeName, modeNamed } from "../grade/index.ts";
import { answerPart, type RoundTask } from "./rounds.ts";

/** Whether the answer that the strict grade takes stands between answer tags; true where nobody asked for tags, or nobody knows where the answer is. */
export function answersInTags({ rounds, grading, programs }: RoundTask, response: string): boolean {
  if (rounds !== undefined || grading === undefined || programs === true) return true;
  const answer = extract(response, grading.strict)?.text;
  if (!response.includes("<answer>")) return answer === undefined;
  return extract(answerPart(response), grading.strict)?.text === answer;
}

/** Where the literal `\boxed{gold}` stands, as the graders of MOTIF's code look for it: a response without tags is its own answer part. */
export function boxedGold(response: string, gold: string): "answer part" | "elsewhere" | "nowhere" {
  const finds = (name: ModeName) => {
    const { equal, extract } = modeNamed(name);
    return equal(gold, extract(response));
  };
  if (finds("motif-answer")) return "answer part";
  return finds("motif-math") ? "elsewhere" : "nowhere";
}

import { extract, isMode, modeNamed, type Strategy } from "../grade/index.ts";
import { UserError } from "../errors.ts";
import type { Message, Tokenizer } from "../model/types.ts";
import { questionWithOptions } from "./questions.ts";
import type { Problem, Prompt, RoundDemonstration, Task } from "./types.ts";

/**
 * How the rounds of a question are worded where its task does not say: a fresh chat a round, with the question and the progress of the round
 * before (MOTIF, arXiv 2507.02851). "reference" is the layout of the authors' code, in which progress stands between bare quotes and a round
 * is not told its number.
 */
export const ROUND_STYLES = ["default", "reference"] as const;
export type RoundStyle = (typeof ROUND_STYLES)[number];

export interface RoundWording {
  /** n: rounds a question. */
  rounds: number;
  style: RoundStyle;
  /** A response that states its final answer ends the question. */
  adaptive?: boolean;
}

/** What of a task the wording depends on. */
export type RoundTask = Pick<Task, "name" | "grading" | "rounds"> & Partial<Pick<Task, "programs">>;

/** What round `round` (from 1) of a question is asked; `progress` is that of the round before. */
export function roundPrompt(
  task: RoundTask,
  problem: Problem,
  round: number,
  { rounds, style, adaptive = false }: RoundWording,
  progress?: string,
): Prompt {
  if (task.rounds !== undefined) return task.rounds.prompt(problem, round, rounds, progress);
  const question = questionOf(task, problem);
  const words = style === "reference" ? referenceWords : defaultWords;
  const messages: Message[] = [
    { role: "system", content: words.system(rounds, answerForm(task), adaptive) },
    { role: "user", content: words.user(question, round, rounds, progress) },
  ];
  return { messages };
}

/** What a response hands on: what its last answer tags hold, or all of it. Undefined where that is nothing. */
export function extractProgress(
  task: RoundTask,
  response: string,
  { style }: Pick<RoundWording, "style">,
): string | undefined {
  if (task.rounds !== undefined) return task.rounds.progress(response);
  // The authors' code stops at a closing tag even where no tag was opened.
  const part = style === "reference" ? modeNamed("motif-answer").extract(response) : answerPart(response);
  return part?.trim() || undefined;
}

/** Whether a response states its final answer, where the task's prompt asks for it; with a reward of the task's own nobody can tell. */
export function isFinal(task: RoundTask, response: string): boolean {
  if (task.rounds !== undefined) return task.rounds.final(response);
  const marked = (task.grading?.strict ?? []).filter((strategy) => strategy in ANSWER_FORMS);
  return marked.length > 0 && extract(answerPart(response), marked) !== undefined;
}

/** A response in the layout that the usual wording asks for. */
export function roundResponse(reasoning: string, answer: string): string {
  return `<reasoning>\n${reasoning}\n</reasoning>\n<answer>\n${answer}\n</answer>`;
}

/** Throws a UserError where a task cannot be asked in such rounds, or where a part of the wording would count for nothing. */
export function checkRounds(task: RoundTask, { rounds, style, adaptive = false }: RoundWording): void {
  const refuse = (why: string): never => {
    throw new UserError(`task ${task.name} ${why}`);
  };
  if (task.rounds !== undefined) {
    const { most = Infinity } = task.rounds;
    if (rounds > most) refuse(`words at most ${most} rounds, found ${rounds}`);
    if (style !== "default")
      refuse(`words its own rounds, so that style = "${style}" counts for nothing; leave it out`);
    return;
  }
  if (task.programs === true)
    refuse(
      "is answered by programs, and the usual rounds ask for none; take one whose answers are texts, or that has `rounds` of its own",
    );
  const looked = task.grading?.strict.join(", ") ?? "none, the reward is its own";
  if (style === "reference" && !gradesBox(task)) {
    refuse(
      `looks for the answer elsewhere (strict: ${looked}), and style = "reference" asks for \\boxed{}; set its \`strict\` to "boxed", or take style = "default"`,
    );
  }
  if (adaptive && answerForm(task) === undefined) {
    refuse(
      `has no marker by which a final answer could be told from progress (strict: ${looked}), so that \`adaptive\` ends no question; leave it out, or set its \`strict\` to one of ${Object.keys(ANSWER_FORMS).join(", ")}`,
    );
  }
}

/** Whether a box counts as an answer; of a reward of the task's own, and of a published grader, nobody knows that it does not. */
function gradesBox({ grading }: RoundTask): boolean {
  if (grading === undefined || (grading.mode !== undefined && isMode(grading.mode))) return true;
  return grading.strict.some((strategy) => strategy === "boxed" || strategy === "auto");
}

/** Whether the usual wording asks for the final answer in a box. */
export function asksForBox(task: RoundTask, style: RoundStyle): boolean {
  return style === "reference" || answerForm(task) === ANSWER_FORMS.boxed;
}

/**
 * Progress of at most `tokens` tokens: cut at the last end of a sentence or line that fits, or after the last whole word where there is none.
 */
export function capProgress(tokenizer: Tokenizer, progress: string, tokens: number): string {
  const ids = tokenizer.encode(progress);
  if (ids.length <= tokens) return progress;
  const cut = tokenizer.decode(ids.subarray(0, tokens)).replace(/\ufffd+$/, "");
  const whole = /^[^]*(?:[.!?](?=\s)|\n)/.exec(cut)?.[0] ?? /^[^]*\S(?=\s)/.exec(cut)?.[0] ?? cut;
  return whole.trimEnd();
}

/** A demonstration of every round, as supervised fine-tuning imitates it. Throws a UserError where the problem has none. */
export function roundDemonstrations(task: RoundTask, problem: Problem, wording: RoundWording): RoundDemonstration[] {
  const { rounds } = wording;
  if (task.rounds !== undefined) {
    if (task.rounds.demonstrate !== undefined) return task.rounds.demonstrate(problem, rounds);
    throw new UserError(`task ${task.name} words its own rounds and demonstrates none; leave \`rounds\` out of SFT`);
  }
  const [demonstration] = problem.demonstrations ?? [];
  if (demonstration === undefined)
    throw new UserError(`problem ${problem.id}: it has no demonstration that could be cut into rounds; leave it out`);
  // Lines, or sentences where there are too few; the last states the answer and stays with the round that does.
  const lines = pieces(demonstration, /(?<=\n)/);
  const steps = lines.length > rounds ? lines : pieces(demonstration, /(?<=\n|[.!?]\s)/);
  const answer = steps.pop() ?? demonstration;
  return Array.from({ length: rounds }, (_, i): RoundDemonstration => {
    // Early rounds get more: where there are fewer steps than rounds, the last ones have none.
    const [from, to] = [i, i + 1].map((part) => Math.ceil((part * steps.length) / rounds));
    const before = steps.slice(0, from).join("").trim() || undefined;
    const own = steps.slice(from, to).join("").trim() || "Nothing more is needed.";
    const done = steps.slice(0, to).join("").trim();
    const last = i === rounds - 1;
    return {
      prompt: roundPrompt(task, problem, i + 1, wording, before),
      response: roundResponse(own, last ? answer.trim() : done),
    };
  });
}

const pieces = (text: string, at: RegExp): string[] => text.split(at).filter((piece) => piece.trim() !== "");

function questionOf(task: RoundTask, problem: Problem): string {
  const { id, prompt, question } = problem;
  const refuse = (why: string): never => {
    throw new UserError(`task ${task.name}, problem ${id}: ${why}`);
  };
  if (!("messages" in prompt)) {
    return refuse(
      "rounds are chats, and its prompt is a plain text; use a prompt of messages, or a task with `rounds` of its own",
    );
  }
  if (prompt.messages.some(({ role }) => role === "assistant"))
    refuse("its prompt shows worked examples, which its rounds would leave out; take `examples` out of the task");
  return question === undefined ? (prompt.messages.at(-1)?.content ?? "") : questionWithOptions(problem);
}

/** The text of the last answer tags; everything where there are none. */
export function answerPart(response: string): string {
  const open = response.lastIndexOf("<answer>");
  if (open < 0) return response;
  const from = open + "<answer>".length;
  const close = response.indexOf("</answer>", from);
  return response.slice(from, close < 0 ? undefined : close);
}

/** How strategies of extraction want the answer to be stated. */
const ANSWER_FORMS: Partial<Record<Strategy, string>> = {
  boxed: "in \\boxed{}",
  hashes: "on a line that holds #### and the answer, nothing else",
  phrase: 'as "The answer is (X)"',
  reft: 'as "Therefore, the answer is: " and the answer',
};

const answerForm = ({ grading }: RoundTask): string | undefined =>
  (grading?.strict ?? []).map((strategy) => ANSWER_FORMS[strategy]).find((form) => form !== undefined);

interface Words {
  system(rounds: number, form: string | undefined, adaptive: boolean): string;
  user(question: string, round: number, rounds: number, progress: string | undefined): string;
}

const LAYOUT = roundResponse("...", "...");

const defaultWords: Words = {
  system: (rounds, form, adaptive) =>
    [
      `You answer a question in ${rounds === 1 ? "one round" : `${rounds} rounds`}. In each round reason first, then write down how far you are, in this layout:`,
      LAYOUT,
      "What stands between the answer tags is all that the next round gets to see. " +
        `In the last round give the final answer between the answer tags${form === undefined ? "" : `, ${form}`}.`,
      ...(adaptive && rounds > 1 ? ["A final answer that is stated so in an earlier round ends the question."] : []),
    ].join("\n"),
  user: (question, round, rounds, progress) =>
    [
      question,
      // Quoted line by line: whatever tags and quotes a model wrote, it is plain where its words begin and end.
      ...(progress === undefined ? [] : [`Progress after round ${round - 1}:\n${progress.replace(/^/gm, "> ")}`]),
      round === rounds
        ? `This is round ${round} of ${rounds}, the last: give the final answer.`
        : `This is round ${round} of ${rounds}.`,
    ].join("\n\n"),
};

const ORDINALS = [
  "zeroth",
  "first",
  "second",
  "third",
  "fourth",
  "fifth",
  "sixth",
  "seventh",
  "eighth",
  "ninth",
  "tenth",
];
const NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/** Structure, tags and markers as the authors' code has them, in other words; the code says "three" and "third" whatever the number of rounds. */
const referenceWords: Words = {
  system: (rounds) =>
    rounds === 1
      ? // That of the authors' GRPO.
        [
          "You are a helpful assistant. First think about the question, then answer it, strictly in this layout:",
          LAYOUT,
          "Put the final answer in \\boxed{}.",
        ].join("\n")
      : [
          `You are a helpful assistant that solves a question in ${NUMBERS[rounds] ?? rounds} rounds. In every round reason first and then give detailed progress, strictly in this layout:`,
          LAYOUT,
          "The user will return the progress as additional context in the next round, and you go on from there. " +
            `When the user says that it is the final (${ORDINALS[rounds] ?? `${rounds}th`}) round, give an answer inside the answer tags and put the final answer in \\boxed{} as well. Only the boxed answer counts.`,
        ].join("\n"),
  user: (question, round, rounds, progress) =>
    round === 1
      ? question
      : `${question} Progress in round ${round - 1}: "${progress ?? ""}"` +
        (round === rounds
          ? ` This is the final (${ORDINALS[rounds] ?? `${rounds}th`}) round, give a final answer.`
          : ""),
};

import { hashKey, uniform } from "../engine/random.ts";
import type { Model } from "../engine/types.ts";
import { finishedText } from "../rollout/prompt-actions.ts";
import { asked, type Solution } from "../rollout/prompt-search.ts";
import { outputText, sameAnswer, statedAnswers } from "../task/grading.ts";
import { encodePrompt } from "../task/prompt.ts";
import type { Grading, Problem } from "../task/types.ts";
import { TAG_TOKENS } from "../tags/index.ts";
import {
  affirmFault,
  affirmPrompt,
  mergedSteps,
  type RecordStep,
  repeatsFault,
  verifyFault,
  verifyPrompt,
} from "./rftt-merge.ts";
import type { Selection } from "./rftt-select.ts";

/** A question with the paths that were chosen. */
export interface Subject {
  problem: Problem;
  question: string;
  chat: boolean;
  /** Names the random stream. */
  key: string;
  chosen: Selection;
}

interface VerifySettings {
  verifications: number;
  verifyTokens: number;
  temperature: number;
  affirm: number;
}

/** A merged path, or why there is none. */
export interface Merge {
  steps?: RecordStep[];
  fault?: string;
}

/**
 * Cross-verification: the model compares each pair's branches, and the first text that passes joins them. One entry a subject; undefined where it
 * has no pair.
 */
export async function verifications(
  model: Model,
  subjects: Subject[],
  settings: VerifySettings,
  grading: Grading,
): Promise<(Merge | undefined)[]> {
  const merges: (Merge | undefined)[] = subjects.map(() => undefined);
  const open = subjects.flatMap((subject, q) =>
    subject.chosen.pair === undefined ? [] : [{ ...subject, q, pair: subject.chosen.pair }],
  );
  const differing = open.filter(({ q, pair }) => {
    if (!repeatsFault(pair)) return true;
    merges[q] = { fault: "refine repeats the wrong step" };
    return false;
  });
  const texts = await write(
    model,
    differing.map((subject) => ({ ...subject, text: verifyPrompt(subject.question, subject.pair), name: "verify" })),
    settings,
  );
  differing.forEach(({ q, problem, pair }, i) => {
    if (texts[i] === undefined) {
      merges[q] = { fault: "the verify prompt fills the context" };
      return;
    }
    const right = pair.right.answer ?? "";
    const faults = texts[i].map((text) => verifyFault(text, (one) => states(one, problem, right, grading)));
    const accepted = faults.indexOf(undefined);
    merges[q] =
      accepted < 0
        ? { fault: faults[0] }
        : { steps: mergedSteps(pair, texts[i][accepted], outputText(grading, right)) };
  });
  return merges;
}

/** A text that affirms a path, or why there is none. */
export interface Affirmation {
  text?: string;
  fault?: string;
}

/** For each plain path of each subject the first text that affirms it; undefined for one that is not among the share that gets one. */
export async function affirmations(
  model: Model,
  subjects: Subject[],
  settings: VerifySettings,
  grading: Grading,
): Promise<(Affirmation | undefined)[][]> {
  const found: (Affirmation | undefined)[][] = subjects.map(({ chosen }) => chosen.plain.map(() => undefined));
  const items = subjects.flatMap((subject, q) =>
    subject.chosen.plain.flatMap((solution: Solution, i) => {
      const name = `affirm/${i}`;
      if (uniform(hashKey(`${subject.key}/${name}`), 0, 0) >= settings.affirm) return [];
      return [
        { ...subject, q, i, answer: solution.answer ?? "", text: affirmPrompt(subject.question, solution), name },
      ];
    }),
  );
  const texts = await write(model, items, settings);
  items.forEach(({ q, i, problem, answer }, at) => {
    if (texts[at] === undefined) {
      found[q][i] = { fault: "the affirm prompt fills the context" };
      return;
    }
    const faults = texts[at].map((text) => affirmFault(text, (one) => states(one, problem, answer, grading)));
    const accepted = faults.indexOf(undefined);
    found[q][i] = accepted < 0 ? { fault: faults[0] } : { text: texts[at][accepted] };
  });
  return found;
}

/** Whether a text states this answer, wherever an answer may stand. */
function states(text: string, problem: Problem, answer: string, grading: Grading): boolean {
  return statedAnswers(text, grading).some((stated) => sameAnswer(problem, stated, answer, grading.mode ?? "math"));
}

/** The texts that prompts were answered with; "" where nothing whole was written, or a tag; undefined where the prompt fills the context. */
async function write(
  model: Model,
  items: { problem: Problem; chat: boolean; key: string; text: string; name: string }[],
  { verifications: n, verifyTokens, temperature }: VerifySettings,
): Promise<(string[] | undefined)[]> {
  const requests = items.map(({ problem, chat, key, text, name }) => {
    const prefix = encodePrompt(model.tokenizer, { id: problem.id, prompt: asked(text, chat) });
    const maxTokens = Math.min(verifyTokens, model.info.maxContext - prefix.length);
    return { prefix, n, maxTokens, temperature, stop: ["\n\n"], key: `${key}/${name}` };
  });
  const possible = requests.filter(({ maxTokens }) => maxTokens > 0);
  const samples = possible.length === 0 ? [] : await model.sample(possible);
  let at = 0;
  return requests.map(({ maxTokens }) => {
    if (maxTokens <= 0) return undefined;
    const own = samples.slice(at, (at += n));
    return own.map(({ text, stop }) => {
      const kept = finishedText(text, stop === "length");
      return TAG_TOKENS.some((tag) => kept.includes(tag)) ? "" : kept;
    });
  });
}

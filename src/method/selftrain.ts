import { z } from "zod";
import { sequenceTree } from "../forest/build.ts";
import type { Forest, Segment, Tree } from "../forest/types.ts";
import { UserError } from "../errors.ts";
import type { Tokenizer } from "../model/types.ts";
import { continueRounds, encodeRound } from "../rollout/rounds.ts";
import { sampleGroups } from "../rollout/single.ts";
import { encodePrompt } from "../task/prompt.ts";
import { solved } from "../task/solved.ts";
import { checkRounds, ROUND_STYLES, type RoundWording } from "../task/rounds.ts";
import type { Problem, Task } from "../task/types.ts";
import { demonstrationTree } from "./demonstrations.ts";
import { rewardMetrics, sampleMetrics } from "./diagnostics.ts";
import { sftRowLength, supervisedUpdate } from "./sft.ts";
import { questionsOf } from "./sampling.ts";
import { roundsRowLength } from "./motif.ts";
import type { DataStage, Step } from "./stage.ts";
import { storedAnswers } from "./stored.ts";
import { optimizerSettings } from "./update.ts";

/** Defaults are those of ReFT's offline self-training (arXiv 2401.08967, section 4.2, and its scripts). */
export const selftrainSettings = z
  .strictObject({
    /** Problems a step of sampling. */
    prompts: z.int().positive().default(8),
    /** A file of samples of training questions, which `rifft eval --split train --n 100` wrote, in place of samples of the stage's own. */
    stored: z.string().min(1).optional(),
    /** Samples a problem. */
    samples: z.int().positive().default(100),
    temperature: z.number().positive().default(1),
    maxTokens: z.int().positive().default(1024),
    topP: z.number().positive().max(1).default(1),
    topK: z.int().min(0).default(50),
    /** Sampling stops after the step that brings it to so many generated tokens; problems not reached have no samples. */
    sampleTokens: z.int().positive().optional(),
    /** Correct responses of a problem, all different, that are trained on at most. */
    keep: z.int().positive().default(10),
    /** How often each demonstration stands among the examples: 0 for never, 2 as in the authors' data. */
    demonstrations: z.int().min(0).max(2).default(1),
    /** The weights that are trained: the base's, or those that the samples came from. */
    restart: z.enum(["base", "stage-start"]).default("base"),
    /** Examples a step of training. */
    batch: z.int().positive().default(48),
    /** Answers in so many rounds, `maxTokens` each; every round of an answer that is right at the end is an example. */
    rounds: z.int().min(2).optional(),
    /** In rounds: a response that states its final answer ends the question. */
    adaptive: z.boolean().optional(),
    style: z.enum(ROUND_STYLES).optional(),
    progressTokens: z.int().positive().optional(),
    ...optimizerSettings({ lr: 1e-5, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }),
  })
  .refine((s) => s.rounds === undefined || s.demonstrations === 0, {
    path: ["demonstrations"],
    error: "demonstrations are whole answers, and these are answered in rounds; set demonstrations = 0",
  })
  .refine((s) => s.rounds === undefined || s.stored === undefined, {
    path: ["stored"],
    error: "stored samples are one response each, and `rounds` asks for several; leave one of the two out",
  });
export type SelftrainSettings = z.infer<typeof selftrainSettings>;

/**
 * Offline self-training: the policy with which the stage begins answers every training question many times, and a model is
 * fine-tuned on the answers that are right, beside the demonstrations (rejection-sampling fine-tuning; ReFT's "Offline-ST").
 */
export async function selftrain(stage: DataStage, settings: SelftrainSettings): Promise<void> {
  const { model, tokenizer } = stage;
  const textOf = (tokens: Int32Array) => tokenizer.decode(tokens);

  if (settings.demonstrations > 0 && stage.source.size === Infinity) {
    throw new UserError(
      "`demonstrations`: the training split has no end, so all of them cannot be trained on; set demonstrations = 0, or make the split finite",
    );
  }

  // 1. Sample responses to the training questions, and grade them.
  if (settings.stored === undefined) await sampleAll(stage, settings);

  // 2. Keep correct responses, up to so many different ones a question, and add the demonstrations.
  const kept = settings.stored === undefined ? stage.sampled() : [storedForest(stage, settings.stored)];
  if (kept === undefined) return;
  const steps = [...kept].map((forest) => selection(forest, textOf, settings));
  const samplingSteps = settings.stored === undefined ? steps.length : 0;
  const selected = steps.flat();
  if (!selected.some(({ kept }) => kept.length > 0)) {
    throw new UserError(
      `none of the samples of ${selected.length} questions is right: there is nothing to learn from; begin from a better policy, sample more, or give easier problems`,
    );
  }
  const examples = [
    ...selected.flatMap(examplesOf),
    ...demonstrationExamples(stage, selected, settings.demonstrations),
  ];

  // 3. Fine-tune on all of them.
  if (settings.restart === "base") await stage.restart();
  for await (const step of stage.stepsOver(examples.length)) {
    if (step.index === samplingSteps) step.log({ ...countOf(selected), examples: examples.length });
    const batch = step.draw(settings.batch).map((number, i) => {
      const { problem, prompt, target, weights } = examples[number];
      const tree = sequenceTree({ id: `${stage.name}/${step.index}/${i}`, problem }, prompt, target);
      if (weights !== undefined) tree.segments[1].fields.weights = weights;
      return tree;
    });
    await supervisedUpdate(model, step, batch, settings);
  }
}

/** One pass over the training questions; what it samples is kept. */
async function sampleAll(stage: DataStage, settings: SelftrainSettings): Promise<void> {
  const textOf = (tokens: Int32Array) => stage.tokenizer.decode(tokens);
  for await (const step of stage.sampling({ problems: settings.prompts, generatedTokens: settings.sampleTokens })) {
    const problems = step.problems(settings.prompts);
    const { forest, answers } = await step.time("sample", () => sampled(stage, step, problems, settings));
    const grades = await step.time("grade", () => step.grade(answers));
    answers.forEach(({ end }, i) => {
      const { reward, parts } = grades[i];
      end.outcome = { ...parts, reward };
    });
    step.log({ ...rewardMetrics(grades), ...sampleMetrics(forest), ...countOf(selection(forest, textOf, settings)) });
    step.keep(forest);
  }
}

/** Stored samples as steps of sampling would have kept them: a tree for each training question that has some. */
function storedForest(stage: DataStage, file: string): Forest {
  const trees = new Map<string, Tree>();
  for (const { problem, sample } of storedAnswers(stage, file)) {
    const { id } = problem;
    const tree = trees.get(id) ?? {
      id,
      problem: id,
      segments: [{ parent: -1, tokens: encodePrompt(stage.tokenizer, problem), source: "prompt" as const, fields: {} }],
    };
    trees.set(id, tree);
    const { tokens, solved } = sample;
    tree.segments.push({ parent: 0, tokens, source: "data", fields: {}, outcome: { reward: Number(solved) } });
  }
  return [...trees.values()];
}

interface Answer {
  problem: Problem;
  response: string;
  /** The segment that it ends with. */
  end: Segment;
}

/** Samples of each question, in one go or in rounds, and what they answer. */
async function sampled(
  stage: DataStage,
  step: Step,
  problems: Problem[],
  settings: SelftrainSettings,
): Promise<{ forest: Forest; answers: Answer[] }> {
  const { model, task } = stage;
  const sampling = { ...settings, stop: task.stop };
  const wording = wordingOf(settings);
  const asked = questionsOf(stage, step, problems);
  if (wording === undefined) {
    const { forest, responses } = await sampleGroups(model, asked, sampling);
    const answers = problems.flatMap((problem, q) =>
      responses[q].map((response, i) => ({ problem, response, end: forest[q].segments[i + 1] })),
    );
    return { forest, answers };
  }
  const inRounds = { ...sampling, ...wording };
  const questions = asked.map((question, q) => ({
    ...question,
    prompt: encodeRound(model, task, problems[q], 1, inRounds).prompt,
  }));
  const { forest, responses } = await sampleGroups(model, questions, sampling);
  const firsts = questions.flatMap(({ id, key }, q) =>
    responses[q].map((text, i) => ({ problem: problems[q], tree: id, segment: i + 1, text, key: `${key}/${i}` })),
  );
  const { forest: later, chains } = await continueRounds(model, task, firsts, 1, inRounds);
  const trees = new Map([...forest, ...later].map((tree) => [tree.id, tree]));
  const answers = chains.map(({ first, rounds: rest }): Answer => {
    const { problem, tree, segment, text } = firsts[first];
    const last = rest.at(-1) ?? { tree, segment };
    const end = trees.get(last.tree)?.segments[last.segment];
    if (end === undefined) throw new Error(`tree ${last.tree} has no segment ${last.segment}`);
    return { problem, response: rest.at(-1)?.sample.text ?? text, end };
  });
  return { forest: [...trees.values()], answers };
}

/** A prompt and what is trained to follow it, its end included. */
interface Example {
  problem: string;
  prompt: Int32Array;
  target: Int32Array;
  /** 0 where a token is out of the loss; all are in it when absent. */
  weights?: Float32Array;
}

/** What is left of a question's samples. */
export interface Selected {
  problem: string;
  /** How many different correct answers there were. */
  unique: number;
  /** The first of them, tokens as they were sampled: an example for each of an answer's rounds. */
  kept: Example[][];
  /** Their texts without blanks at the ends. */
  texts: Set<string>;
}

/**
 * Of each question's samples (graded where they end) the correct ones, in the order they were drawn; of those with the same text, blanks at its
 * ends aside, the first; of these the first `keep`. A question begins with a tree without a `cause`; later rounds follow by theirs.
 */
export function selection(
  forest: Forest,
  textOf: (tokens: Int32Array) => string,
  { keep }: { keep: number },
): Selected[] {
  const place = ({ tree, segment }: { tree: string; segment: number }) => `${tree}/${segment}`;
  const next = new Map(
    forest.flatMap((tree) => (tree.cause === undefined ? [] : [[place(tree.cause), tree] as const])),
  );
  return forest
    .filter(({ cause }) => cause === undefined)
    .map((first) => {
      const unique = new Map<string, Example[]>();
      for (const rows of answersBelow(first, (segment, tree) => next.get(place({ tree, segment })))) {
        const text = rows.map(({ target }) => textOf(target).trim()).join("\n");
        if (!unique.has(text)) unique.set(text, rows);
      }
      const kept = [...unique].slice(0, keep);
      return {
        problem: first.problem,
        unique: unique.size,
        kept: kept.map(([, rows]) => rows),
        texts: new Set(kept.map(([text]) => text)),
      };
    });
}

/** The rows of each correct answer that begins in a tree; `next` gives the tree that a segment caused. */
function answersBelow(
  { id, problem, segments: [prompt, ...samples] }: Tree,
  next: (segment: number, tree: string) => Tree | undefined,
): Example[][] {
  return samples.flatMap((sample, i): Example[][] => {
    const row = { problem, prompt: prompt.tokens, target: sample.tokens };
    const later = next(i + 1, id);
    if (later !== undefined) return answersBelow(later, next).map((rest) => [row, ...rest]);
    return isCorrect(sample) ? [[row]] : [];
  });
}

const isCorrect = ({ outcome: { reward = 0, ...parts } = {} }: Segment) => solved({ reward, parts });

/** Over questions: the share without a correct response, how many different ones there were, and how many are kept. */
function countOf(selected: Selected[]): Record<string, number> {
  const sum = (count: (one: Selected) => number) => selected.reduce((total, one) => total + count(one), 0);
  return {
    unsolved: sum(({ unique }) => Number(unique === 0)) / selected.length,
    unique: sum(({ unique }) => unique),
    kept: sum(({ kept }) => kept.length),
  };
}

const examplesOf = ({ kept }: Selected): Example[] => kept.flat();

/** Every demonstration `times` over, once less where a response with its text is kept. */
function demonstrationExamples({ source, model }: DataStage, selected: Selected[], times: number): Example[] {
  if (times === 0) return [];
  const texts = new Map(selected.map((one) => [one.problem, one.texts]));
  const examples: Example[] = [];
  for (let i = 0; i < source.size; i++) {
    const problem = source.at(i);
    for (const text of problem.demonstrations ?? []) {
      const { segments } = demonstrationTree(model, "", problem, text);
      const [prompt, target] = segments.map(({ tokens }) => tokens);
      const { weights } = segments[1].fields;
      const copies = times - Number(texts.get(problem.id)?.has(text.trim()) ?? false);
      for (let copy = 0; copy < copies; copy++) examples.push({ problem: problem.id, prompt, target, weights });
    }
  }
  return examples;
}

/** How rounds are worded; undefined where questions are answered in one go. */
function wordingOf({
  rounds,
  adaptive = false,
  style = "default",
}: SelftrainSettings): Required<RoundWording> | undefined {
  return rounds === undefined ? undefined : { rounds, adaptive, style };
}

/** Throws a UserError where a task has no such rounds as the settings ask for. */
export function checkSelftrain(settings: SelftrainSettings, task: Task): void {
  const wording = wordingOf(settings);
  if (wording !== undefined) checkRounds(task, wording);
}

/** Tokens of the longest row that a problem makes for certain. */
export function selftrainRowLength(
  tokenizer: Tokenizer,
  problem: Problem,
  settings: SelftrainSettings,
  task: Task,
): number {
  const wording = wordingOf(settings);
  if (wording !== undefined) return roundsRowLength(tokenizer, problem, { ...settings, ...wording }, task);
  const demonstrated = settings.demonstrations > 0 && (problem.demonstrations ?? []).length > 0;
  return demonstrated ? sftRowLength(tokenizer, problem) : encodePrompt(tokenizer, problem).length + 1;
}

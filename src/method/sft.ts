import { z } from "zod";
import { hashKey, uniform } from "../engine/random.ts";
import { UserError } from "../errors.ts";
import type { Model } from "../engine/types.ts";
import type { Tree } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";
import { inFormat } from "../task/formats.ts";
import { encodePrompt, encodeResponse } from "../task/prompt.ts";
import { checkRounds, ROUND_STYLES, roundDemonstrations, type RoundWording } from "../task/rounds.ts";
import type { Problem, Task } from "../task/types.ts";
import { AcceptedDemonstrations, demonstrationPieces, demonstrationsOf, demonstrationTree } from "./demonstrations.ts";
import { crossEntropy } from "./losses.ts";
import { layoutOf, parseRecords, recordProblems } from "./records.ts";
import type { DataStage, Step } from "./stage.ts";
import { accumulate, adam, optimizerSettings } from "./update.ts";

/** A way in which a mixture shows its questions. */
const waySchema = z
  .strictObject({
    /** One of the questions' other formats; the stage's own when absent. */
    format: z.string().min(1).optional(),
    rounds: z.int().positive().optional(),
    style: z.enum(ROUND_STYLES).optional(),
  })
  .refine((way) => way.format === undefined || way.rounds === undefined, {
    path: ["format"],
    error: "rounds have a prompt of their own, so that a format counts for nothing; leave one of the two out",
  });
type Way = z.infer<typeof waySchema>;

/** Defaults are those of ReFT's warm-up (arXiv 2401.08967). */
export const sftSettings = z
  .strictObject({
    /** Problems a step. */
    batch: z.int().positive().default(48),
    /** Trains on those demonstrations alone whose answer the task's reward accepts. */
    accepted: z.boolean().default(false),
    /** Trains on records in place of the problems' demonstrations: the name of an earlier rftt-data stage, or a file or folder of records. */
    records: z.string().min(1).optional(),
    /** Trains on rounds of demonstrations, so many each, in place of whole ones; 1: whole ones, as the only round. */
    rounds: z.int().positive().optional(),
    /** How they are worded, where the task does not say. */
    style: z.enum(ROUND_STYLES).optional(),
    /** Shows every question in each of these ways, all equally often; an epoch is a pass over questions times ways. */
    mixture: z.array(waySchema).min(2).optional(),
    ...optimizerSettings({ lr: 1e-5, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }),
  })
  .refine((s) => !(s.accepted && s.rounds !== undefined), {
    path: ["accepted"],
    error: "a round states no final answer that could be accepted; leave accepted or rounds out",
  })
  .refine((s) => s.records === undefined || (!s.accepted && s.rounds === undefined), {
    path: ["records"],
    error: "records take the place of demonstrations; leave accepted and rounds out",
  })
  .refine((s) => s.mixture === undefined || (!s.accepted && s.rounds === undefined && s.records === undefined), {
    path: ["mixture"],
    error: "each way of a mixture has its own `rounds`; leave rounds, accepted and records out",
  });
export type SftSettings = z.infer<typeof sftSettings>;

/** What `supervisedUpdate` reads of a method's settings. */
type SupervisedSettings = Omit<SftSettings, "batch" | "accepted" | "records" | "rounds" | "style" | "mixture">;

/**
 * Supervised fine-tuning on demonstrations: minimises the mean over the batch's response tokens of -log p(token | prompt,
 * response so far). A problem with several demonstrations (or rounds of one) shows one of them at each visit, drawn from the step's random
 * stream.
 */
export async function sft(stage: DataStage, settings: SftSettings): Promise<void> {
  if (settings.records !== undefined) return imitateRecords(stage, settings, settings.records);
  if (settings.mixture !== undefined) return imitateMixture(stage, settings, settings.mixture);
  const accepted = settings.accepted ? new AcceptedDemonstrations(stage) : undefined;

  for await (const step of stage.steps()) {
    const take = (count: number) => step.problems(count);
    const shown =
      accepted === undefined
        ? take(settings.batch).map((problem) => ({ problem, demonstrations: demonstrationsOf(problem) }))
        : await step.time("grade", () => accepted.next(take, settings.batch));
    const batch = shown.map(({ problem, demonstrations }, i) => {
      const id = `${stage.name}/${step.index}/${i}`;
      if (settings.rounds !== undefined) return roundTree(stage, id, problem, settings, step.key(problem));
      return demonstrationTree(stage.model, id, problem, pick(demonstrations, step.key(problem)));
    });
    await supervisedUpdate(stage.model, step, batch, settings);
  }
}

/** The row of one of a problem's rounds, drawn by `key`; of a demonstration where it is shown in one go. */
function roundTree(
  stage: DataStage,
  id: string,
  problem: Problem,
  { rounds, style = "default" }: Way,
  key: string,
): Tree {
  if (rounds === undefined) return demonstrationTree(stage.model, id, problem, pick(demonstrationsOf(problem), key));
  const { prompt, response } = pick(roundDemonstrations(stage.task, problem, { rounds, style }), key);
  return demonstrationTree(stage.model, id, { ...problem, prompt }, response);
}

/** The same on every question in each of several ways. */
async function imitateMixture(stage: DataStage, settings: SftSettings, ways: Way[]): Promise<void> {
  const { source } = stage;
  for await (const step of stage.stepsOver(source.size * ways.length)) {
    const batch = step.draw(settings.batch).map((number, i) => {
      const way = ways[number % ways.length];
      const problem = inFormat(source.at(Math.floor(number / ways.length)), way.format);
      return roundTree(stage, `${stage.name}/${step.index}/${i}`, problem, way, step.key(problem));
    });
    await supervisedUpdate(stage.model, step, batch, settings);
  }
}

/** The same on records: each is one row, and what their makers took out of the loss is context. */
async function imitateRecords(stage: DataStage, settings: SftSettings, from: string): Promise<void> {
  const records = parseRecords(stage.records(from));
  if (records.length === 0) {
    throw new UserError(
      `\`records\`: ${from} holds none; search more questions, or have a program complete the set with rftt-data's \`merged\``,
    );
  }
  const problems = recordProblems(records, stage.source, layoutOf(stage.tokenizer));
  checkRecordLengths(problems, stage);
  for await (const step of stage.stepsOver(problems.length)) {
    const batch = step.draw(settings.batch).map((number, i) => {
      const problem = problems[number];
      return demonstrationTree(stage.model, `${stage.name}/${step.index}/${i}`, problem, demonstrationsOf(problem)[0]);
    });
    await supervisedUpdate(stage.model, step, batch, settings);
  }
}

/** Throws a UserError where records do not fit the context, before any of them is trained on. */
function checkRecordLengths(problems: readonly Problem[], { tokenizer, model }: DataStage): void {
  const context = model.info.maxContext;
  const lengths = problems.map((problem) => sftRowLength(tokenizer, problem));
  const long = lengths.filter((length) => length > context);
  if (long.length === 0) return;
  const longest = Math.max(...long);
  const { id } = problems[lengths.indexOf(longest)];
  throw new UserError(
    `\`records\`: the context holds ${context} tokens, and ${long.length} of ${problems.length} records need more with their prompts, up to ${longest} (problem ${id}); leave them out, or use a model or \`context\` that holds more`,
  );
}

/**
 * One update on rows of a prompt (segment 0) and its target (segment 1): cross-entropy, the mean over the batch's target tokens, those aside
 * whose field `weights` is 0.
 */
export async function supervisedUpdate(
  model: Model,
  step: Step,
  batch: Tree[],
  settings: SupervisedSettings,
): Promise<void> {
  // One mean over the whole batch: a token weighs the same whatever micro-batch it falls into.
  const learned = batch.map(
    ({ segments: [, target] }) => target.fields.weights ?? new Float32Array(target.tokens.length).fill(1),
  );
  const tokens = learned.reduce((sum, weights) => sum + weights.reduce((a, b) => a + b, 0), 0);
  batch.forEach(({ segments }, i) => (segments[1].fields.weights = learned[i].map((weight) => weight / tokens)));
  const lr = step.lr();
  const { loss, gradNorm } = await step.time("train", async () => {
    const { loss } = await accumulate(model, batch, crossEntropy(), settings.microBatch);
    return { loss, ...(await model.optimStep(adam(settings, lr))) };
  });
  step.log({ loss, responseLength: tokens / batch.length, gradNorm, lr });
}

/** Throws a UserError where a task has no such rounds as the settings ask for. */
export function checkSft({ rounds, style, mixture = [{ rounds, style }] }: SftSettings, task: Task): void {
  for (const { rounds, style = "default" } of mixture) if (rounds !== undefined) checkRounds(task, { rounds, style });
}

/** Tokens of the longest row that a problem can make. */
export function sftRowLength(tokenizer: Tokenizer, problem: Problem): number {
  const responses = demonstrationsOf(problem).map((text) => demonstrationLength(tokenizer, problem, text) + 1);
  return encodePrompt(tokenizer, problem).length + Math.max(...responses);
}

/** Tokens of a demonstration, its pieces encoded one by one. */
const demonstrationLength = (tokenizer: Tokenizer, problem: Problem, text: string): number =>
  demonstrationPieces(problem, text).reduce((sum, piece) => sum + encodeResponse(tokenizer, piece.text).length, 0);

/** The same where a problem is shown in rounds, or in the ways of a mixture. */
export function sftLongestRow(
  tokenizer: Tokenizer,
  problem: Problem,
  { rounds, style, mixture = [{ rounds, style }] }: Pick<SftSettings, "rounds" | "style" | "mixture">,
  task: Task,
): number {
  const lengths = mixture.map(({ format, rounds, style = "default" }) => {
    const asked = inFormat(problem, format);
    return rounds === undefined
      ? sftRowLength(tokenizer, asked)
      : sftRoundLength(tokenizer, asked, { rounds, style }, task);
  });
  return Math.max(...lengths);
}

function sftRoundLength(tokenizer: Tokenizer, problem: Problem, wording: RoundWording, task: Task): number {
  const lengths = roundDemonstrations(task, problem, wording).map(({ prompt, response }) =>
    sftRowLength(tokenizer, { ...problem, prompt, demonstrations: [response] }),
  );
  return Math.max(...lengths);
}

/** One of a problem's demonstrations, drawn from the random stream that `key` names. */
export function pick<T>(demonstrations: readonly T[], key: string): T {
  return demonstrations[Math.floor(uniform(hashKey(`${key}/demonstration`), 0, 0) * demonstrations.length)];
}

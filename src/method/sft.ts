import { z } from "zod";
import { hashKey, uniform } from "../engine/random.ts";
import { UserError } from "../errors.ts";
import { sequenceTree } from "../forest/build.ts";
import type { Tree } from "../forest/types.ts";
import type { Tokenizer } from "../model/types.ts";
import { encodePrompt, encodeResponse } from "../task/prompt.ts";
import type { Problem } from "../task/types.ts";
import { crossEntropy } from "./losses.ts";
import type { Stage } from "./stage.ts";
import { accumulate, adam, optimizerSettings } from "./update.ts";

/** Defaults are those of ReFT's warm-up (arXiv 2401.08967). */
export const sftSettings = z.strictObject({
  /** Problems a step. */
  batch: z.int().positive().default(48),
  ...optimizerSettings({ lr: 1e-5, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }),
});
export type SftSettings = z.infer<typeof sftSettings>;

/**
 * Supervised fine-tuning on demonstrations: minimises the mean over the batch's response tokens of -log p(token | prompt,
 * response so far). A problem with several demonstrations shows one of them at each visit, drawn from the step's random stream.
 */
export async function sft(stage: Stage, settings: SftSettings): Promise<void> {
  const { model, tokenizer } = stage;
  const [eos] = model.info.eosIds;
  if (eos === undefined)
    throw new UserError("SFT ends each response with the model's EOS id, and this model names none");

  for await (const step of stage.steps()) {
    const problems = step.problems(settings.batch);
    const batch = problems.map((problem, i) => {
      const demonstration = pickDemonstration(problem, step.key(problem));
      const target = Int32Array.of(...encodeResponse(tokenizer, demonstration), eos);
      const tree = sequenceTree(
        { id: `${stage.name}/${step.index}/${i}`, problem: problem.id },
        encodePrompt(tokenizer, problem),
        target,
      );
      return checkLength(tree, model.info.maxContext);
    });

    // One mean over the whole batch: a token weighs the same whatever micro-batch it falls into.
    const tokens = batch.reduce((sum, tree) => sum + tree.segments[1].tokens.length, 0);
    for (const { segments } of batch) {
      segments[1].fields.weights = new Float32Array(segments[1].tokens.length).fill(1 / tokens);
    }

    const lr = step.lr();
    const { loss, gradNorm } = await step.time("train", async () => {
      const { loss } = await accumulate(model, batch, crossEntropy(), settings.microBatch);
      return { loss, ...(await model.optimStep(adam(settings, lr))) };
    });
    step.log({ loss, responseLength: tokens / batch.length, gradNorm, lr });
  }
}

/** Tokens of the longest row that a problem can make. */
export function sftRowLength(tokenizer: Tokenizer, problem: Problem): number {
  const responses = demonstrationsOf(problem).map((text) => encodeResponse(tokenizer, text).length + 1);
  return encodePrompt(tokenizer, problem).length + Math.max(...responses);
}

function pickDemonstration(problem: Problem, key: string): string {
  const demonstrations = demonstrationsOf(problem);
  return demonstrations[Math.floor(uniform(hashKey(`${key}/demonstration`), 0, 0) * demonstrations.length)];
}

function demonstrationsOf({ id, demonstrations }: Problem): string[] {
  if (!demonstrations?.length) {
    throw new UserError(`problem ${id}: SFT needs at least one demonstration, found none: add one or leave it out`);
  }
  return demonstrations;
}

function checkLength(tree: Tree, maxContext: number): Tree {
  const length = tree.segments[0].tokens.length + tree.segments[1].tokens.length;
  if (length <= maxContext) return tree;
  throw new UserError(
    `problem ${tree.problem}: prompt and demonstration have ${length} tokens, the context holds ${maxContext}: leave it out or shorten it`,
  );
}

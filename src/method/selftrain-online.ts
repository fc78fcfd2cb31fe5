import { z } from "zod";
import { sequenceTree } from "../forest/build.ts";
import type { Tree } from "../forest/types.ts";
import { sampleGroups } from "../rollout/single.ts";
import { solved } from "../task/solved.ts";
import { demonstrationsOf, demonstrationTree } from "./demonstrations.ts";
import { rewardMetrics, sampleMetrics } from "./diagnostics.ts";
import { crossEntropy } from "./losses.ts";
import { pick } from "./sft.ts";
import { questionsOf } from "./sampling.ts";
import type { Stage } from "./stage.ts";
import { accumulate, adam, optimizerSettings } from "./update.ts";

/** Defaults are those of ReFT's online self-training (arXiv 2401.08967, its scripts for 7B models). */
export const onlineSelftrainSettings = z.strictObject({
  /** Questions a step; each is answered once. */
  prompts: z.int().positive().default(32),
  temperature: z.number().positive().default(1),
  maxTokens: z.int().positive().default(700),
  topP: z.number().positive().max(1).default(1),
  topK: z.int().min(0).default(0),
  /** Times that a step's samples are trained on. */
  innerPasses: z.int().positive().default(2),
  ...optimizerSettings({ lr: 3e-7, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }),
});
export type OnlineSelftrainSettings = z.infer<typeof onlineSelftrainSettings>;

/** Online self-training: fine-tuning on the right answers among fresh samples, beside the demonstrations (ReFT's "Online-ST"). */
export async function onlineSelftrain(stage: Stage, settings: OnlineSelftrainSettings): Promise<void> {
  const { model, task } = stage;

  for await (const step of stage.steps()) {
    // 1. One response to each question, and its verdict.
    const problems = step.problems(settings.prompts);
    const questions = questionsOf(stage, step, problems);
    const { forest, responses } = await step.time("sample", () =>
      sampleGroups(model, questions, { ...settings, samples: 1, stop: task.stop }),
    );
    const items = problems.map((problem, q) => ({ problem, response: responses[q][0] }));
    const grades = await step.time("grade", () => step.grade(items));
    forest.forEach((tree, q) => (tree.segments[1].outcome = { ...grades[q].parts, reward: grades[q].reward }));

    // 2. The right ones, and a demonstration of every question.
    const kept = forest
      .filter((_, q) => solved(grades[q]))
      .map(({ id, problem, segments: [prompt, response] }) =>
        sequenceTree({ id: `${id}/kept`, problem }, prompt.tokens, response.tokens),
      );
    const golds = problems.map((problem, q) => {
      const demonstration = pick(demonstrationsOf(problem), step.key(problem));
      return demonstrationTree(model, `${questions[q].id}/gold`, problem, demonstration);
    });

    // 3. L = CE(kept) / 2 + CE(golds) / 2, each a mean over its own tokens; nothing kept: CE(golds) / 2.
    weigh(kept);
    weigh(golds);
    const lr = step.lr();
    const sums = { kept: 0, golds: 0, gradNorm: 0 };
    await step.time("train", async () => {
      for (let pass = 0; pass < settings.innerPasses; pass++) {
        sums.kept += (await accumulate(model, kept, crossEntropy(), settings.microBatch)).loss;
        sums.golds += (await accumulate(model, golds, crossEntropy(), settings.microBatch)).loss;
        sums.gradNorm += (await model.optimStep(adam(settings, lr))).gradNorm;
      }
    });
    const passes = settings.innerPasses;
    step.log({
      ...rewardMetrics(grades),
      ...sampleMetrics(forest),
      kept: kept.length,
      loss: (sums.kept + sums.golds) / passes,
      ...(kept.length > 0 && { keptLoss: (2 * sums.kept) / passes }),
      demonstrationLoss: (2 * sums.golds) / passes,
      gradNorm: sums.gradNorm / passes,
      lr,
    });
    step.keep(forest);
  }
}

/** Half of a mean over the tokens of these rows' targets. */
function weigh(rows: Tree[]): void {
  const tokens = rows.reduce((sum, { segments }) => sum + segments[1].tokens.length, 0);
  for (const { segments } of rows) {
    segments[1].fields.weights = new Float32Array(segments[1].tokens.length).fill(1 / (2 * tokens));
  }
}

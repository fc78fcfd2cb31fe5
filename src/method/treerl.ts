import { z } from "zod";
import { sampleForks } from "../rollout/forks.ts";
import type { Grade } from "../task/types.ts";
import { rewardMetrics } from "./diagnostics.ts";
import { forkCredit } from "./fork-credit.ts";
import { ppo } from "./losses.ts";
import { referencePolicy, scoreReference, treeUpdateSettings, updatePolicy } from "./policy-update.ts";
import { exploredMetrics } from "./rftt-metrics.ts";
import { questionsOf } from "./sampling.ts";
import type { Stage } from "./stage.ts";
import { type Explored, type Path, setFields } from "./tree-credit.ts";
import { optimizerSettings } from "./update.ts";

const count = z.int().positive();

/** Defaults of the tree are the paper's (M, N, L, T) = (6, 2, 1, 2): 30 responses a question. */
export const treerlSettings = z
  .strictObject({
    /** Questions a step. */
    prompts: count.default(16),
    /** Responses that a question begins with, M. */
    trajectories: count.default(6),
    /** Tokens of each trajectory, with its branches, that an iteration forks at, N. */
    forks: count.default(2),
    /** Continuations of a fork, T. */
    branches: count.default(2),
    /** L; 0: plain samples. */
    iterations: z.int().nonnegative().default(1),
    temperature: z.number().positive().default(1),
    /** Longest response. */
    maxTokens: count.default(1024),
    /** Leaves out questions whose responses all have the same reward. */
    dropFlatGroups: z.boolean().default(true),
    ...treeUpdateSettings,
    ...optimizerSettings({ lr: 1e-6, betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }),
  })
  .refine((s) => s.prompts % s.minibatches === 0, {
    path: ["minibatches"],
    error: "minibatches must divide prompts evenly",
  })
  .refine((s) => s.trajectories * (1 + s.iterations * s.forks * s.branches) > 1, {
    path: ["trajectories"],
    error: "a question needs two responses or more, which are compared: trajectories above 1, or iterations above 0",
  });
export type TreerlSettings = z.infer<typeof treerlSettings>;

/** RL on trees of forks where the policy is least sure, each step with an advantage of its own (TreeRL, arXiv 2506.11902). */
export async function treerl(stage: Stage, settings: TreerlSettings): Promise<void> {
  const { model, task } = stage;
  const reference = await referencePolicy(stage, settings);
  const loss = { ...ppo({ low: 1 - settings.clipLow, high: 1 + settings.clipHigh }), entropy: true };

  for await (const step of stage.steps()) {
    // 1. Responses that fork, and a reward for each; one that was cut off earns nothing.
    const problems = step.problems(settings.prompts);
    const questions = questionsOf(stage, step, problems);
    const { forest, leaves } = await step.time("sample", () =>
      sampleForks(model, questions, { ...settings, stop: task.stop }),
    );
    const items = problems.flatMap((problem, q) => leaves[q].map(({ text }) => ({ problem, response: text })));
    const verdicts = await step.time("grade", () => step.grade(items));
    const grades: Grade[] = [];
    const explored = forest.map((tree, q): Explored => {
      const paths = leaves[q].map(({ segments, stop }): Path => {
        const { reward: earned, ...verdict } = verdicts[grades.length];
        const reward = stop === "length" ? 0 : earned;
        grades.push({ ...verdict, reward });
        const outcome = { ...verdict.parts, reward, finished: Number(stop !== "length") };
        Object.assign(tree.segments[segments[segments.length - 1]], { outcome });
        return { segments, count: 1, reward };
      });
      return { tree, nodes: [], paths, scores: new Map() };
    });

    // 2. Log-probs of the reference policy.
    await scoreReference(stage, step, forest, reference);

    // 3. An advantage for each step, which all responses through it train.
    const credits = forkCredit(explored, settings.beta);
    const size = settings.prompts / settings.minibatches;
    const minibatches = Array.from({ length: settings.minibatches }, (_, m) => {
      const kept = credits
        .slice(m * size, (m + 1) * size)
        .filter((credit) => !(credit.flat && settings.dropFlatGroups));
      setFields(kept, settings.normalize);
      return { trees: kept.map(({ tree }) => tree) };
    });

    // 4. Several passes, an update for each minibatch.
    await updatePolicy(stage, step, minibatches, loss, settings);
    step.log({ ...rewardMetrics(grades), ...exploredMetrics(explored) });
    step.log({ flatGroups: credits.filter(({ flat }) => flat).length / credits.length });
    step.keep(forest);
  }
}

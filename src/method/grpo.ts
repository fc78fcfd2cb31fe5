import type { z } from "zod";
import type { Segment, Tree } from "../forest/types.ts";
import { responseRoom, sampleGroups } from "../rollout/single.ts";
import type { Grade } from "../task/types.ts";
import { isFlat, overlong } from "./advantages.ts";
import { rewardMetrics, sampleMetrics } from "./diagnostics.ts";
import { FAMILY, type GroupSettings, groupSettings } from "./family.ts";
import { type CreditedResponse, klRewards, objective, setFields, tokenAdvantages } from "./parts.ts";
import { referencePolicy, scoreReference, updatePolicy } from "./policy-update.ts";
import { questionsOf } from "./sampling.ts";
import type { Stage, Step } from "./stage.ts";

export const grpoSettings = groupSettings(FAMILY.grpo);
export type GrpoSettings = z.output<typeof grpoSettings>;

/**
 * Group relative policy optimisation (DeepSeekMath, arXiv 2402.03300, algorithm 1 with an outcome reward) and its relatives, which differ in their
 * settings alone (`FAMILY`).
 */
export async function grpo(stage: Stage, settings: GroupSettings): Promise<void> {
  const reference = await referencePolicy(stage, settings);
  const loss = objective(settings);

  for await (const step of stage.steps()) {
    // Graded groups of responses from the policy as it is. `places`: what the update is made of.
    const { sampled, places, refills } = await sampleStep(stage, step, settings);
    const kept = places.filter((group) => !(group.flat && settings.dropFlatGroups));

    await scoreReference(
      stage,
      step,
      kept.map((group) => group.tree),
      reference,
    );

    // An advantage for each token, and its weight in its minibatch's mean.
    const responses = credit(stage, kept, settings);
    const size = settings.prompts / settings.minibatches;
    const minibatches = Array.from({ length: settings.minibatches }, (_, m) => {
      const share = places.slice(m * size, (m + 1) * size).filter((group) => kept.includes(group));
      const credited = share.flatMap((group) => responses.get(group) ?? []);
      setFields(credited, settings, settings.maxTokens);
      return { trees: share.map((group) => group.tree) };
    });
    await updatePolicy(stage, step, minibatches, loss, settings);

    const forest = sampled.map((group) => group.tree);
    step.log({ ...rewardMetrics(sampled.flatMap((group) => group.grades)), ...sampleMetrics(forest) });
    step.log({ ...penaltyMetrics(sampled, settings), flatGroups: shareOfFlat(sampled) });
    if (settings.refills > 0) step.log({ refills, trainedGroups: kept.length });
    step.keep(forest);
  }
}

/** The responses to a problem. */
interface Group {
  tree: Tree;
  leaves: Segment[];
  grades: Grade[];
  /** What the advantages are made of: the task's rewards, less what is lost by length. */
  rewards_G: number[];
  /** The task's rewards are all equal. */
  flat: boolean;
}

/**
 * Samples and grades a step's groups. With `refills`, the place of a group without variance is taken by one of a further problem, again and again (DAPO's
 * dynamic sampling, arXiv 2503.14476, section 3.2); whatever was sampled counts as generated.
 */
async function sampleStep(
  stage: Stage,
  step: Step,
  settings: GroupSettings,
): Promise<{ sampled: Group[]; places: Group[]; refills: number }> {
  const sampled: Group[] = [];
  const draw = async (count: number): Promise<Group[]> => {
    const groups = await drawGroups(stage, step, settings, { count, first: sampled.length });
    sampled.push(...groups);
    return groups;
  };
  const places = await draw(settings.prompts);
  let refills = 0;
  for (; refills < settings.refills; refills++) {
    const empty = places.flatMap(({ flat }, place) => (flat ? [place] : []));
    if (empty.length === 0) break;
    const drawn = await draw(empty.length);
    empty.forEach((place, i) => (places[place] = drawn[i]));
  }
  return { sampled, places, refills };
}

/** The next problems of the stage, each with its graded responses; trees are named by their place in the step, from `first`. */
async function drawGroups(
  stage: Stage,
  step: Step,
  settings: GroupSettings,
  { count, first }: { count: number; first: number },
): Promise<Group[]> {
  const { model, task } = stage;
  const problems = step.problems(count);
  const questions = questionsOf(stage, step, problems, first);
  const { forest, responses } = await step.time("sample", () =>
    sampleGroups(model, questions, { ...settings, stop: task.stop }),
  );
  const items = problems.flatMap((problem, q) => responses[q].map((response) => ({ problem, response })));
  const graded = await step.time("grade", () => step.grade(items));
  return forest.map((tree, q): Group => {
    const leaves = tree.segments.slice(1);
    const grades = graded.slice(q * leaves.length, (q + 1) * leaves.length);
    const limit = responseRoom(tree.problem, tree.segments[0].tokens, model.info.maxContext, settings.maxTokens);
    const rewards_G = leaves.map((leaf, i) => {
      const { reward, parts } = grades[i];
      const lost = lengthPenalty(leaf, limit, settings);
      leaf.outcome = { ...parts, reward, ...(settings.overlongPenalty > 0 && { overlong: -lost }) };
      return reward - lost;
    });
    return { tree, leaves, grades, rewards_G, flat: isFlat(grades.map(({ reward }) => reward)) };
  });
}

/** What a response loses by its length. */
function lengthPenalty({ tokens }: Segment, limit: number, settings: GroupSettings): number {
  const { overlongPenalty, overlongBuffer, maxTokens } = settings;
  if (overlongPenalty === 0) return 0;
  return (
    overlongPenalty * overlong(tokens.length, limit, overlongBuffer < 1 ? overlongBuffer * maxTokens : overlongBuffer)
  );
}

/** The responses of each group that are trained on, with their tokens' advantages. */
function credit(stage: Stage, groups: Group[], settings: GroupSettings): Map<Group, CreditedResponse[]> {
  const { memory } = stage;
  const scored = groups.map(({ tree, leaves, rewards_G }) => ({
    tree: tree.id,
    rewards_G: settings.kl === "reward" && settings.beta > 0 ? klRewards(rewards_G, leaves, settings.beta) : rewards_G,
    responses_G: leaves,
  }));
  const running = "rewards" in memory ? memory.rewards / memory.responses : undefined;
  const advantages = tokenAdvantages(scored, settings, running);
  if (settings.baseline === "running") {
    const rewards = scored.flatMap(({ rewards_G }) => rewards_G);
    memory.rewards = rewards.reduce((sum, reward) => sum + reward, memory.rewards ?? 0);
    memory.responses = (memory.responses ?? 0) + rewards.length;
  }
  return new Map(
    groups.map((group, g) => {
      const responses = group.leaves.map((response, i) => ({ response, advantages_T: advantages[g][i] }));
      const masked = (response: Segment) => settings.maskTruncated && response.stop === "length";
      for (const { response } of responses.filter((one) => masked(one.response))) {
        response.fields.advantages = new Float32Array(response.tokens.length);
      }
      return [group, responses.filter((one) => !masked(one.response))];
    }),
  );
}

/** Means over the samples of what was taken off their reward by length. */
function penaltyMetrics(groups: Group[], { overlongPenalty }: GroupSettings): Record<string, number> {
  if (overlongPenalty === 0) return {};
  const lost = groups.flatMap(({ leaves }) => leaves.map(({ outcome }) => outcome?.overlong ?? 0));
  return { "reward/overlong": lost.reduce((sum, one) => sum + one, 0) / lost.length };
}

const shareOfFlat = (groups: Group[]) => groups.filter((group) => group.flat).length / groups.length;

import { LocalModel } from "../engine/local/index.ts";
import { type MemoryPlan, planMemory } from "../engine/local/plan.ts";
import { BaseWeights } from "../engine/local/weights.ts";
import type { HeadSpec, ModelSpec } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { ModelFiles } from "../model/types.ts";
import { Runtime } from "../runtime/index.ts";

/** A model over files that are in memory, and the plan that it follows: the budget's own where none is given. Frozen weights are taken out of the files, unless `base` has them. */
export function openModel(
  files: ModelFiles,
  train: ModelSpec["train"],
  chosen?: MemoryPlan,
  more: { heads?: HeadSpec[]; base?: BaseWeights } = {},
): { model: LocalModel; plan: MemoryPlan; base?: BaseWeights } {
  const spec: ModelSpec = { base: "weights in memory", train, heads: more.heads };
  const plan = chosen ?? planMemory(files, spec);
  const base = train === "full" ? undefined : (more.base ?? new BaseWeights(files, plan.keepStored));
  return { model: new LocalModel(Runtime.open(), files, base ?? null, spec, plan, async () => files), plan, base };
}

/** The plan of the largest budget with which layers are kept so. */
export function planThatKeeps(files: ModelFiles, train: ModelSpec["train"], keep: MemoryPlan["keep"]): MemoryPlan {
  for (let gb = 32; ; gb -= 0.1) {
    const plan = planMemory(files, { base: "weights in memory", train }, gb);
    if (plan.keep === keep) return plan;
  }
}

/** The plan of this budget, or of the least above it that the planner accepts. */
export function planFrom(files: ModelFiles, train: ModelSpec["train"], memoryGb: number): MemoryPlan {
  for (let gb = memoryGb; ; gb += 0.1) {
    try {
      return planMemory(files, { base: "weights in memory", train }, gb);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
    }
  }
}

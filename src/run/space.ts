import { existsSync, statfsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { UserError } from "../errors.ts";
import { bytes } from "./format.ts";
import type { Recipe, StageRecipe } from "./recipe.ts";

/** Bytes of disk that a run needs. */
export interface SpaceEstimate {
  /** One checkpoint: weights and both moments. */
  checkpoint: number;
  /** Checkpoints that are there at once, at most, the one that is being written included. */
  checkpoints: number;
  /** The weights with which a stage began, where a method asks for them. */
  snapshots: number;
  /** Samples of rollouts and evaluations, at most; what a stage measured in seconds writes is not known, and left out. */
  samples: number;
}

/** Bytes that a token takes in a file of samples, with its log-prob, its text and its share of the fields. Measured: 47 to 52. */
const TOKEN_BYTES = 50;
/** The same where a critic adds fields of its own. Measured: 106. */
const VALUED_TOKEN_BYTES = 110;

/** `trainable`: parameters that are trained; `splitSize`: training problems. */
export function estimateSpace(recipe: Recipe, trainable: number, splitSize: number): SpaceEstimate {
  const { checkpoint, stages } = recipe;
  const ends = new Set(stages.map(({ from }) => from).filter((from) => stages.some(({ name }) => name === from)));
  const marks = stages.reduce((sum, stage) => sum + Object.values(stage.marks ?? {}).length, 0);
  // The best of the run and that of the stage.
  const best = checkpoint.keepBest === undefined ? 0 : Math.min(2, stages.length);
  const reference = stages.some(({ settings }) => settings.reference === "stage-start" && settings.beta !== 0);
  return {
    checkpoint: 12 * trainable,
    checkpoints: checkpoint.keep + 1 + ends.size + marks + best,
    snapshots: reference ? 4 * trainable : 0,
    samples: stages.reduce((sum, stage) => sum + sampleBytes(recipe, stage, splitSize), 0),
  };
}

/** Bytes of what a stage samples at most, in steps and in evaluations. */
function sampleBytes(recipe: Recipe, stage: StageRecipe, splitSize: number): number {
  const { settings, problemsPerStep, budget, stopAt } = stage;
  const { samples = 1, maxTokens } = settings;
  const perStep =
    typeof samples === "number" && typeof maxTokens === "number" ? problemsPerStep * samples * maxTokens : 0;
  const measures = budget.kind === "marks" ? budget.measures : [budget];
  const steps = measures.flatMap(({ kind, amount }) => {
    if (stopAt !== undefined && stopAt >= 1) return [stopAt];
    const part = stopAt ?? 1;
    if (kind === "steps") return [amount * part];
    return kind === "epochs" ? [(amount * part * splitSize) / problemsPerStep] : [];
  });
  const generated = measures.flatMap(({ kind, amount }) => (kind === "generatedTokens" ? [amount] : []));
  const most = Math.max(0, ...steps);
  const evaluations =
    recipe.eval === undefined ? 0 : (most / recipe.eval.every + 2) * recipe.eval.limit * recipe.eval.maxTokens;
  const valued = stage.heads.length + (stage.criticHeads?.length ?? 0) > 0;
  const perToken = valued ? VALUED_TOKEN_BYTES : TOKEN_BYTES;
  return perToken * Math.max(most * perStep, ...generated) + TOKEN_BYTES * evaluations;
}

const certain = ({ checkpoint, checkpoints, snapshots }: SpaceEstimate): number => checkpoint * checkpoints + snapshots;

/** What a run needs, in words for the log. */
export function spaceText(estimate: SpaceEstimate, free: number): string {
  const { checkpoint, checkpoints, snapshots, samples } = estimate;
  const parts = [
    `${checkpoints} checkpoints of ${bytes(checkpoint)}`,
    ...(snapshots === 0 ? [] : [`a snapshot of ${bytes(snapshots)}`]),
    ...(samples === 0 ? [] : [`samples of ${bytes(samples)} at most`]),
  ];
  const short = free < certain(estimate) + samples ? "; long responses may fill the disk" : "";
  return `disk: ${parts.join(", ")}; ${bytes(free)} are free${short}`;
}

/** Throws a UserError where checkpoints and snapshots do not fit. */
export function checkSpace(estimate: SpaceEstimate, free: number, dir: string): void {
  const needed = certain(estimate);
  if (needed <= free) return;
  throw new UserError(
    `${dir}: the run needs ${bytes(needed)} of disk (${estimate.checkpoints} checkpoints of ${bytes(estimate.checkpoint)}${estimate.snapshots === 0 ? "" : `, a snapshot of ${bytes(estimate.snapshots)}`}) and ${bytes(free)} are free; free some, lower checkpoint.keep, train an adapter (lora), or choose another disk with --run`,
  );
}

/** Bytes that are free where a folder is, or would be made. */
export function freeSpace(dir: string): number {
  let there = resolve(dir);
  while (!existsSync(there)) there = dirname(there);
  const { bavail, bsize } = statfsSync(there);
  return bavail * bsize;
}

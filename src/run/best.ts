import { nearest, UserError } from "../errors.ts";
import type { RunState } from "./checkpoint.ts";

/** What a recipe says of how good its weights are. */
export interface JudgedRecipe {
  checkpoint: { keepBest?: string };
  eval?: { split: string };
  stages: JudgedStage[];
}
interface JudgedStage {
  name: string;
  from: string;
  patience?: number;
  quality: Record<string, "higher" | "lower">;
}

/** The best checkpoint of a run by `checkpoint.keepBest`. */
export interface Best {
  metric: string;
  value: number;
  stage: string;
  /** Steps of the stage done. */
  step: number;
  checkpoint: string;
}

/** The name under which the accuracy of evaluations inside the run is asked for; undefined without them. */
export function accuracyName(recipe: Pick<JudgedRecipe, "eval">): string | undefined {
  return recipe.eval && `${recipe.eval.split} accuracy`;
}

/** Which way a metric is better in a stage; undefined where it says nothing about the stage's weights. */
export function direction(
  recipe: Pick<JudgedRecipe, "eval">,
  metric: string,
  stage: Pick<JudgedStage, "quality">,
): "higher" | "lower" | undefined {
  if (metric === accuracyName(recipe)) return "higher";
  if (Object.hasOwn(stage.quality, metric)) return stage.quality[metric];
  // A task's parts of the reward are not known before it is loaded.
  return metric.startsWith("reward/") ? stage.quality.reward : undefined;
}

/** Throws a UserError for a `keepBest` that nothing measures, naming the nearest, and for a `previous-best` or `patience` that lacks what it needs. */
export function checkKeepBest(recipe: JudgedRecipe, source: string): void {
  const { keepBest } = recipe.checkpoint;
  const measured = (stage: JudgedStage) => keepBest !== undefined && direction(recipe, keepBest, stage) !== undefined;
  if (keepBest !== undefined && !recipe.stages.some(measured)) {
    const accuracy = accuracyName(recipe);
    const known = [
      ...(accuracy === undefined ? [] : [accuracy]),
      ...recipe.stages.flatMap(({ quality }) => Object.keys(quality)),
    ];
    const near = nearest(keepBest, known);
    const hint = near === undefined ? `there are ${[...new Set(known)].join(", ")}` : `did you mean "${near}"?`;
    const needs =
      accuracy === undefined && keepBest.endsWith(" accuracy") ? "; an accuracy needs eval = { every = 20 }" : "";
    throw new UserError(`${source}: \`checkpoint.keepBest\`: no stage measures "${keepBest}" (${hint}${needs})`);
  }
  recipe.stages.forEach((stage, i) => {
    if (stage.patience !== undefined && recipe.eval === undefined) {
      throw new UserError(
        `${source}: \`stage.${i + 1}.patience\` counts evaluations, and the recipe has none: add eval = { every = 20 }, or leave it out`,
      );
    }
    if (stage.from !== "previous-best") return;
    if (keepBest === undefined) {
      throw new UserError(
        `${source}: \`stage.${i + 1}.from\` is "previous-best", and nothing says which is best: set checkpoint.keepBest, such as "dev accuracy"`,
      );
    }
    if (!measured(recipe.stages[i - 1])) {
      throw new UserError(
        `${source}: \`stage.${i + 1}.from\` is "previous-best", and stage ${recipe.stages[i - 1].name} does not measure "${keepBest}"`,
      );
    }
  });
}

/**
 * Throws a UserError for a recipe that chooses a checkpoint, or when to stop, on the test split, unless it says that it reproduces a
 * system which does so (`selection = "reference"`); and for one that says so and does not.
 */
export function checkSelection(recipe: JudgedRecipe & { selection?: "dev" | "reference" }, source: string): void {
  const onTest = recipe.eval?.split === "test";
  const patient = recipe.stages.findIndex(({ patience }) => patience !== undefined);
  const key = recipe.checkpoint.keepBest === accuracyName(recipe) ? "checkpoint.keepBest" : patience(patient);
  if (recipe.selection === "reference") {
    if (onTest && key !== undefined) return;
    throw new UserError(
      `${source}: \`selection\` = "reference" chooses on the test split, and this recipe does not: set eval.split = "test" and checkpoint.keepBest = "test accuracy", or leave it out`,
    );
  }
  if (!onTest || key === undefined) return;
  throw new UserError(
    `${source}: \`${key}\` would choose on the test split, whose accuracy then says nothing about new problems: choose on eval.split = "dev"; selection = "reference" reproduces published numbers that were chosen so`,
  );
}

const patience = (stage: number): string | undefined => (stage < 0 ? undefined : `stage.${stage + 1}.patience`);

/** What is said of a run that chooses on the test split. */
export const CHOSEN_ON_TEST =
  'CHOSEN ON THE TEST SPLIT (selection = "reference"): its test accuracy is optimistic and no estimate for new problems';

/**
 * Notes the checkpoint at which a run stands as the best of its stage, if `value` is better than all before it in the stage (of equal
 * ones the earliest stays). Returns whether it is.
 */
export function noteBest(recipe: JudgedRecipe, state: RunState, value: number, checkpoint: string): boolean {
  const stage = recipe.stages[state.stage];
  const way = direction(recipe, recipe.checkpoint.keepBest ?? "", stage);
  const before = state.best?.[stage.name];
  if (way === undefined || (before !== undefined && !isBetter(way, value, before.value))) return false;
  state.best = { ...state.best, [stage.name]: { value, step: state.step, checkpoint } };
  return true;
}

/** The best checkpoint of all stages, the earliest of equal ones. */
export function bestOf(recipe: JudgedRecipe, state: RunState): Best | undefined {
  const metric = recipe.checkpoint.keepBest;
  if (metric === undefined) return undefined;
  let best: Best | undefined;
  for (const stage of recipe.stages) {
    const way = direction(recipe, metric, stage);
    const own = state.best?.[stage.name];
    if (way === undefined || own === undefined) continue;
    if (best === undefined || isBetter(way, own.value, best.value)) best = { metric, stage: stage.name, ...own };
  }
  return best;
}

const isBetter = (way: "higher" | "lower", value: number, than: number): boolean =>
  way === "higher" ? value > than : value < than;

/** The checkpoints that must not be pruned: what later stages begin with, marks, and the best of the run, of the stage and for the next. */
export function sparedCheckpoints(recipe: JudgedRecipe, state: RunState): Set<string> {
  const spared = new Set(state.marks?.map(({ checkpoint }) => checkpoint));
  const best = bestOf(recipe, state);
  if (best !== undefined) spared.add(best.checkpoint);
  recipe.stages.forEach((stage, i) => {
    if (i < state.stage) return;
    const before = stage.from === "previous-best" ? recipe.stages[i - 1].name : stage.name;
    const needed = [state.best?.[before], state.best?.[stage.name]].map((found) => found?.checkpoint);
    for (const name of [...needed, state.stageEnds[stage.from]]) if (name !== undefined) spared.add(name);
  });
  return spared;
}

import fc from "fast-check";
import { expect, test } from "vitest";
import { bestOf, type JudgedRecipe, noteBest, sparedCheckpoints } from "./best.ts";
import { checkpointName, type RunState } from "./checkpoint.ts";

const stateAt = (stage: number, step: number, totalSteps: number): RunState => ({
  stage,
  step,
  totalSteps,
  samplingSteps: 0,
  cursor: 0,
  memory: {},
  counts: { generated: 0, prefilled: 0, scored: 0, trained: 0 },
  engineSeconds: 0,
  atStageStart: { generated: 0, engineSeconds: 0 },
  stageEnds: {},
  sizes: {},
});
const sft = { name: "1-sft", from: "previous", quality: { loss: "lower" as const } };
const grpo = { name: "2-grpo", from: "previous", quality: { reward: "higher" as const } };
const recipe = (keepBest: string, ...stages: JudgedRecipe["stages"]): JudgedRecipe => ({
  checkpoint: { keepBest },
  eval: { split: "dev" },
  stages,
});

/** Notes values step by step, and gives the state after the last. */
function after(judged: JudgedRecipe, values: number[][]): RunState {
  const state = stateAt(0, 0, 0);
  values.forEach((own, stage) => {
    Object.assign(state, { stage, step: 0 });
    for (const value of own) {
      state.step++;
      state.totalSteps++;
      noteBest(judged, state, value, checkpointName(state));
    }
  });
  return state;
}

test("a loss is best where it is lowest, everything else where it is highest; of equal ones the earliest stays", () => {
  expect(bestOf(recipe("loss", sft), after(recipe("loss", sft), [[3, 1, 2, 1]]))).toEqual({
    metric: "loss",
    value: 1,
    stage: "1-sft",
    step: 2,
    checkpoint: "step-00000002",
  });
  for (const metric of ["reward", "reward/correct", "dev accuracy"]) {
    const judged = recipe(metric, { ...grpo, name: "1-grpo" });
    expect(bestOf(judged, after(judged, [[0.1, 0.5, 0.5, 0.2]]))).toMatchObject({ value: 0.5, step: 2 });
  }
  // A stage that does not log it has no best.
  const mixed = recipe("reward", sft, grpo);
  expect(after(mixed, [[1, 2], [0.3]]).best).toEqual({
    "2-grpo": { value: 0.3, step: 1, checkpoint: "step-00000003" },
  });
});

test("over any values the best of a run is the earliest extreme of all its stages, and is spared", () => {
  const values = fc.array(fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 6 }), {
    minLength: 2,
    maxLength: 2,
  });
  fc.assert(
    fc.property(values, (stages) => {
      const judged = recipe("dev accuracy", sft, grpo);
      const state = after(judged, stages);
      const all = stages.flat();
      const at = all.indexOf(Math.max(...all)) + 1;
      const best = bestOf(judged, state);
      expect(best).toMatchObject({
        value: Math.max(...all),
        checkpoint: `step-${String(at).padStart(8, "0")}`,
      });
      expect(sparedCheckpoints(judged, state)).toContain(best?.checkpoint);
    }),
  );
});

test("what is spared: stage ends and bests that later stages begin with, the stage's own best, marks", () => {
  const third = { ...grpo, name: "3-grpo", from: "previous-best" };
  const judged = recipe("dev accuracy", sft, grpo, third, { ...grpo, name: "4-grpo", from: "1-sft" });
  const state = stateAt(2, 1, 9);
  state.stageEnds = { "1-sft": "end1", "2-grpo": "end2" };
  const of = (value: number, checkpoint: string) => ({ value, step: 1, checkpoint });
  state.best = { "1-sft": of(0.9, "best1"), "2-grpo": of(0.5, "best2"), "3-grpo": of(0.4, "best3") };
  state.marks = [{ stage: "2-grpo", mark: "engineSeconds", step: 4, checkpoint: "mark" }];
  expect(sparedCheckpoints(judged, state)).toEqual(new Set(["mark", "best1", "best2", "best3", "end1"]));
  // The fourth stage needs no best but the run's.
  state.stage = 3;
  expect(sparedCheckpoints(judged, state)).toEqual(new Set(["mark", "best1", "end1"]));
});

import type { Model } from "../engine/types.ts";
import { accuracyName, bestOf, noteBest } from "./best.ts";
import { checkpointName, type RunState } from "./checkpoint.ts";
import type { RunCounters } from "./counters.ts";
import { readCurve } from "./curve.ts";
import type { Evaluator } from "./evaluator.ts";
import { counted } from "./format.ts";
import { passedMarks } from "./marks.ts";
import type { Progress } from "./progress.ts";
import type { Recipe } from "./recipe.ts";
import type { RunStage } from "./stage.ts";

export interface BoundaryOptions {
  recipe: Recipe;
  evaluator: Evaluator | undefined;
  /** The run folder. */
  dir: string;
  model: Model;
  counters: RunCounters;
  progress: Progress;
  state: RunState;
  interrupted: () => boolean;
}

/** What a stage does between two steps, when its state says where it stands: it evaluates, and notes marks and what is best. */
export class Boundary {
  private readonly o: BoundaryOptions;

  constructor(options: BoundaryOptions) {
    this.o = options;
  }

  private get stage() {
    return this.o.recipe.stages[this.o.state.stage];
  }

  /** Whether so many evaluations in a row did not raise the stage's accuracy that it ends. */
  get outOfPatience(): boolean {
    const { patience } = this.stage;
    return patience !== undefined && (this.o.state.evaluated?.without ?? 0) >= patience;
  }

  /** Whether the place is to be evaluated and is not yet: the evaluation was interrupted. */
  pending(stage: RunStage): boolean {
    return this.o.evaluator?.due(this.o.state, this.stage, stage.over) === true;
  }

  /** Before the first step that this process does of a stage. Returns whether a checkpoint is due. */
  async enter(stage: RunStage): Promise<boolean> {
    const { evaluator, state } = this.o;
    if (state.step === 0 && !this.pending(stage)) evaluator?.begin(state);
    return this.evaluate(stage);
  }

  /** After a step and its metrics. Returns whether a checkpoint is due. */
  async leave(stage: RunStage, metrics: Record<string, number>): Promise<boolean> {
    const { recipe, state, interrupted } = this.o;
    const { every, keepBest } = recipe.checkpoint;
    let keep = this.mark(stage, false);
    keep = (await this.evaluate(stage)) || keep;
    keep ||= interrupted() || state.step % every === 0;
    if (keepBest !== undefined && keepBest !== accuracyName(recipe) && (keep || stage.over)) {
      if (Object.hasOwn(metrics, keepBest)) this.judge(metrics[keepBest]);
    }
    if (stage.over) this.mark(stage, true);
    return keep && (!stage.over || this.pending(stage));
  }

  /** Notes the marks that are passed. */
  private mark(stage: RunStage, over: boolean): boolean {
    const { state, progress } = this.o;
    const { name, marks, markAtEnd } = this.stage;
    if (marks === undefined) return false;
    const noted = state.marks ?? [];
    const passed = passedMarks(marks, stage.usage(), { atEnd: markAtEnd, over });
    const fresh = passed.filter((mark) => !noted.some((one) => one.stage === name && one.mark === mark));
    if (fresh.length === 0) return false;
    const checkpoint = checkpointName(state);
    state.marks = [...noted, ...fresh.map((mark) => ({ stage: name, mark, step: state.step, checkpoint }))];
    for (const mark of fresh) {
      progress.note(`mark ${mark} ${marks[mark]} of ${name} passed at step ${state.step}, kept as ${checkpoint}`);
    }
    return true;
  }

  /** Evaluates where that is due; returns whether it is the best so far, whose weights must be kept. */
  private async evaluate(stage: RunStage): Promise<boolean> {
    const { evaluator, dir, model, counters, progress, state, interrupted, recipe } = this.o;
    if (evaluator === undefined || !this.pending(stage)) return false;
    const { name } = this.stage;
    const report = await counters.apart(() =>
      evaluator.run(dir, model, state, name, counters.now(), {
        interrupted,
        onSample: (done, of) => progress.evaluating(done, of),
      }),
    );
    if (report === undefined) {
      progress.note(`the evaluation at step ${state.step} of ${name} goes on when the run is resumed`);
      return false;
    }
    const point = readCurve(dir).at(-1);
    if (point !== undefined) progress.evaluated(point);
    // The weights with which a stage begins are those of another, or nobody's.
    const best = state.step > 0 && recipe.checkpoint.keepBest === accuracyName(recipe) && this.judge(report.accuracy);
    if (this.outOfPatience) {
      progress.note(
        `stage ${name} ends at step ${state.step}: ${recipe.eval?.split} accuracy has not risen in ${counted(state.evaluated?.without ?? 0, "evaluation")}`,
      );
    }
    return best;
  }

  private judge(value: number): boolean {
    const { recipe, state, progress } = this.o;
    if (!noteBest(recipe, state, value, checkpointName(state))) return false;
    const best = bestOf(recipe, state);
    if (best?.stage === this.stage.name) progress.best(best);
    return true;
  }
}

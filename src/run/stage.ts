import { RandomStream } from "../engine/random.ts";
import type { Model, Policy } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { Forest } from "../forest/types.ts";
import type { Stage, Step } from "../method/stage.ts";
import type { Tokenizer } from "../model/types.ts";
import type { Grade, Problem, ProblemSource, Task } from "../task/types.ts";
import type { RunCounters } from "./counters.ts";
import type { RunFolder } from "./folder.ts";
import type { VerdictJournal } from "./journal.ts";
import type { Progress } from "./progress.ts";
import type { StageRecipe } from "./recipe.ts";
import { fractionUsed, isOver, learningRateFactor, type Usage } from "./schedule.ts";

/** Where a stage stands: what a checkpoint holds of it. */
export interface StagePosition {
  /** Steps done. */
  step: number;
  /** Training problems handed out. */
  cursor: number;
  /** The run's counters when the stage began. */
  atStart: { generated: number; engineSeconds: number };
}

export interface StageOptions {
  recipe: StageRecipe;
  seed: number;
  model: Model;
  task: Task;
  /** The task's training split. */
  source: ProblemSource;
  folder: RunFolder;
  journal: VerdictJournal;
  counters: RunCounters;
  progress: Progress;
  position: StagePosition;
  /** True when the run should stop after this step. */
  interrupted: () => boolean;
  /** The name of the policy that holds the weights with which the stage began; makes and stores it in a fresh stage. */
  startPolicy: () => Promise<Policy>;
  /** Whether something but the budget ends the stage. */
  ended: () => boolean;
  /** Called after each step with what it logged; `last` when the stage is over. */
  onStep: (done: { last: boolean; metrics: Record<string, number> }) => Promise<void>;
}

type Activity = "sample" | "grade" | "score" | "train";

/** A stage of a run: hands a method its steps, and writes down what each of them did. */
export class RunStage implements Stage {
  readonly name: string;
  readonly seed: number;
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  readonly task: Task;
  readonly position: StagePosition;
  private readonly o: StageOptions;
  private readonly order: ProblemOrder;
  private current: RunStep | undefined;

  constructor(options: StageOptions) {
    this.o = options;
    this.name = options.recipe.name;
    this.seed = options.seed;
    this.model = options.model;
    this.tokenizer = options.model.tokenizer;
    this.task = options.task;
    this.position = options.position;
    this.order = new ProblemOrder(options.source, `${options.seed}/${this.name}`);
    if (options.recipe.budget.kind === "epochs" && options.source.size === Infinity) {
      throw new UserError(
        `stage ${this.name}: \`epochs\` needs a finite training split, and ${options.task.name}'s has no end; use steps or generatedTokens`,
      );
    }
  }

  /** Whether the stage has used up its budget, or was ended before. */
  get over(): boolean {
    const { budget, stopAt } = this.o.recipe;
    return this.o.ended() || isOver(budget, stopAt, this.usage(), this.o.source.size);
  }

  /** The fraction of its budget that the stage has used. */
  get fraction(): number {
    return fractionUsed(this.o.recipe.budget, this.usage(), this.o.source.size);
  }

  /** The part of the stage that is done, 0 to 1: `fraction`, but 1 where `stopAt` ends it. */
  get done(): number {
    const { stopAt } = this.o.recipe;
    if (stopAt === undefined) return Math.min(1, this.fraction);
    return Math.min(1, stopAt < 1 ? this.fraction / stopAt : Math.max(this.fraction, this.position.step / stopAt));
  }

  /** The step in progress, in words for an error; undefined between steps. */
  get where(): string | undefined {
    return this.current === undefined ? undefined : `stage ${this.name}, step ${this.current.index + 1}`;
  }

  startPolicy(): Promise<Policy> {
    return this.o.startPolicy();
  }

  async *steps(): AsyncGenerator<Step, void, void> {
    while (!this.over && !this.o.interrupted()) {
      // A step that changed no weights leaves prefixes behind, which a resumed run would not have.
      await this.model.discard();
      const step = new RunStep(this);
      this.current = step;
      yield step;
      this.finish(step);
      this.current = undefined;
      await this.o.onStep({ last: this.over, metrics: step.metrics });
    }
  }

  /** What the steps of this stage share. */
  get shared(): StageOptions {
    return this.o;
  }

  /** The next `count` problems of the stage's order. */
  take(count: number): Problem[] {
    const { size } = this.o.source;
    if (count > size) {
      throw new UserError(
        `stage ${this.name}: a step asks for ${count} problems, and ${this.task.name}'s training split has ${size}; take fewer a step`,
      );
    }
    return Array.from({ length: count }, () => this.order.at(this.position.cursor++));
  }

  /** What the stage has used so far. */
  usage(): Usage {
    const { counters } = this.o;
    return {
      steps: this.position.step,
      problems: this.position.cursor,
      generatedTokens: counters.now().generated - this.position.atStart.generated,
      engineSeconds: counters.engineSeconds - this.position.atStart.engineSeconds,
    };
  }

  private finish(step: RunStep): void {
    const { folder, counters, progress } = this.o;
    const counts = counters.now();
    const before = step.countsBefore;
    const seconds = step.seconds();
    if (step.kept.length > 0) folder.writeRollouts(this.name, step.index, step.kept, this.tokenizer);
    folder.append("metrics", { stage: this.name, step: step.index, ...step.metrics, ...counts });
    this.position.step++;
    folder.append("timings", {
      stage: this.name,
      step: step.index,
      at: new Date().toISOString(),
      ...seconds,
      engineSeconds: counters.engineSeconds,
    });
    progress.step({
      index: step.index,
      done: this.done,
      metrics: step.metrics,
      seconds,
      generated: counts.generated - before.generated,
      trained: counts.trained - before.trained,
    });
  }
}

class RunStep implements Step {
  readonly index: number;
  readonly metrics: Record<string, number> = {};
  readonly kept: Forest = [];
  readonly countsBefore: ReturnType<RunCounters["now"]>;
  private readonly stage: RunStage;
  private readonly began = performance.now();
  private readonly fractionBefore: number;
  private readonly spent: Partial<Record<Activity, number>> = {};
  private readonly keys = new Map<Problem, string>();
  private readonly timesSeen = new Map<string, number>();
  private readonly graded = new Map<string, number>();
  private rate: number | undefined;

  constructor(stage: RunStage) {
    this.stage = stage;
    this.index = stage.position.step;
    this.fractionBefore = stage.fraction;
    this.countsBefore = stage.shared.counters.now();
  }

  problems(count: number): Problem[] {
    return this.stage.take(count).map((problem) => {
      // Where an epoch ends inside a step a problem may come twice; the second is another object with a stream of its own.
      const times = (this.timesSeen.get(problem.id) ?? 0) + 1;
      this.timesSeen.set(problem.id, times);
      const own = times === 1 ? problem : { ...problem };
      const base = `${this.stage.seed}/${this.stage.name}/${this.index}/${problem.id}`;
      this.keys.set(own, times === 1 ? base : `${base}#${times}`);
      return own;
    });
  }

  lr(): number {
    if (this.rate === undefined) {
      const { recipe } = this.stage.shared;
      const at = { step: this.index, before: this.fractionBefore, now: this.stage.fraction };
      this.rate = recipe.lr * learningRateFactor(recipe.schedule, recipe.budget, at);
    }
    return this.rate;
  }

  key(problem: Problem): string {
    return this.keys.get(problem) ?? `${this.stage.seed}/${this.stage.name}/${this.index}/${problem.id}`;
  }

  grade(items: { problem: Problem; response: string }[]): Promise<Grade[]> {
    const keyed = items.map(({ problem, response }) => {
      const sample = this.graded.get(problem.id) ?? 0;
      this.graded.set(problem.id, sample + 1);
      return { key: { stage: this.stage.name, step: this.index, problem: problem.id, sample, turn: 0 }, response };
    });
    return this.stage.shared.journal.grade(keyed, (missing) => this.stage.task.grade(missing.map((i) => items[i])));
  }

  log(metrics: Record<string, number>): void {
    const strange = Object.keys(metrics).find((name) => !Number.isFinite(metrics[name]));
    if (strange !== undefined) {
      const ids = [...this.timesSeen.keys()];
      const shown = ids.slice(0, 8).join(", ") + (ids.length > 8 ? `, and ${ids.length - 8} more` : "");
      throw new UserError(
        `${strange} is ${metrics[strange]} (problems: ${shown || "none"}); try a lower learning rate`,
      );
    }
    Object.assign(this.metrics, metrics);
  }

  keep(forest: Forest): void {
    this.kept.push(...forest);
  }

  async time<T>(what: Activity, work: () => Promise<T>): Promise<T> {
    const { progress, counters } = this.stage.shared;
    progress.activity(what);
    const start = performance.now();
    try {
      return await work();
    } finally {
      const seconds = (performance.now() - start) / 1000;
      this.spent[what] = (this.spent[what] ?? 0) + seconds;
      if (what !== "grade") counters.engineSeconds += seconds;
    }
  }

  /** Seconds of the whole step, and of each activity. */
  seconds(): { seconds: number } & Partial<Record<Activity, number>> {
    return { seconds: (performance.now() - this.began) / 1000, ...this.spent };
  }
}

/**
 * The order in which a stage sees problems, a function of its seed alone: a fresh permutation of a finite split for every epoch;
 * of an endless one, consecutive problems from a random place.
 */
export class ProblemOrder {
  private readonly source: ProblemSource;
  private readonly seed: string;
  private readonly offset: number;
  private epoch = -1;
  private permutation: number[] = [];

  constructor(source: ProblemSource, seed: string) {
    if (source.size === 0) throw new UserError("the training split has no problems");
    this.source = source;
    this.seed = seed;
    this.offset = new RandomStream(`${seed}/start`).below(2 ** 24);
  }

  at(cursor: number): Problem {
    const { size } = this.source;
    if (size === Infinity) return this.source.at(this.offset + cursor);
    const epoch = Math.floor(cursor / size);
    if (epoch !== this.epoch) {
      const identity = Array.from({ length: size }, (_, i) => i);
      this.permutation = new RandomStream(`${this.seed}/epoch ${epoch}`).shuffle(identity);
      this.epoch = epoch;
    }
    return this.source.at(this.permutation[cursor % size]);
  }
}

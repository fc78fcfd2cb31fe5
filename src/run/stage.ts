import { resolve } from "node:path";
import type { Model, Policy } from "../engine/types.ts";
import { DivergedError, UserError } from "../errors.ts";
import type { Forest } from "../forest/types.ts";
import type { DataStage, DrawingStep, GradedItem, RecordLine, Step, StoredSample } from "../method/stage.ts";
import type { Tokenizer } from "../model/types.ts";
import type { Grade, Problem, ProblemSource, Task } from "../task/types.ts";
import { AlarmWatch } from "./alarms.ts";
import type { RunCounters } from "./counters.ts";
import { allProblems, questionsOfFile } from "../task/leaks.ts";
import type { RunFolder } from "./folder.ts";
import type { VerdictJournal } from "./journal.ts";
import { Order } from "./order.ts";
import type { Progress } from "./progress.ts";
import { readRecords, readStoredSamples } from "./records.ts";
import type { StageRecipe } from "./recipe.ts";
import { fractionUsed, isOver, learningRateFactor, type Usage } from "./schedule.ts";

/** Where a stage stands: what a checkpoint holds of it. */
export interface StagePosition {
  /** Steps done. */
  step: number;
  /** Of these, the steps that only sampled. */
  samplingSteps: number;
  /** Training problems handed out; once the method trains on items of its own, those items. */
  cursor: number;
  /** What the method carries from one step to the next. */
  memory: Record<string, number>;
  /** The run's counters when the stage began. */
  atStart: { generated: number; engineSeconds: number };
}

export interface StageOptions {
  recipe: StageRecipe;
  seed: number;
  model: Model;
  /** The second model, where the method trains one. */
  critic?: Model;
  task: Task;
  /** What relative paths are relative to. */
  baseDir: string;
  /** The problems to train on. */
  source: ProblemSource;
  folder: RunFolder;
  journal: VerdictJournal;
  counters: RunCounters;
  progress: Progress;
  position: StagePosition;
  /** Position in the recipe, from 1, and the number of stages. */
  place: { position: number; of: number };
  /** True when the run should stop after this step. */
  interrupted: () => boolean;
  /** The name of the policy that holds the weights with which the stage began; makes and stores it in a fresh stage. */
  startPolicy: () => Promise<Policy>;
  /** Whether something but the budget ends the stage. */
  ended: () => boolean;
  /** Called after each step with what it logged; `last` when the stage is over. */
  onStep: (done: { last: boolean; metrics: Record<string, number> }) => Promise<void>;
}

type SamplingPass = Parameters<DataStage["sampling"]>[0];

type Activity = "sample" | "grade" | "score" | "train";

/** A stage of a run: hands a method its steps, and writes down what each of them did. */
export class RunStage implements DataStage {
  readonly name: string;
  readonly seed: number;
  readonly model: Model;
  readonly critic: Model | undefined;
  readonly tokenizer: Tokenizer;
  readonly task: Task;
  readonly source: ProblemSource;
  readonly position: StagePosition;
  private readonly o: StageOptions;
  private order: Order;
  private readonly alarms = new AlarmWatch();
  private current: RunStep | undefined;
  /** The pass of sampling in progress. */
  private pass: SamplingPass | undefined;

  constructor(options: StageOptions) {
    this.o = options;
    this.name = options.recipe.name;
    this.seed = options.seed;
    this.model = options.model;
    this.critic = options.critic;
    this.tokenizer = options.model.tokenizer;
    this.task = options.task;
    this.source = options.source;
    this.position = options.position;
    for (const metrics of options.folder.metricsOf(this.name)) this.alarms.next(this.name, metrics);
    if (options.source.size === 0) throw new UserError("the training split has no problems");
    this.order = new Order(options.source.size, `${options.seed}/${this.name}`);
    if (options.recipe.budget.kind === "epochs" && options.source.size === Infinity) {
      throw new UserError(
        `stage ${this.name}: \`epochs\` needs a finite training split, and ${options.task.name}'s has no end; use steps or generatedTokens`,
      );
    }
  }

  /** Whether the stage has used up its budget, or was ended before; never while it samples in advance. */
  get over(): boolean {
    return this.pass === undefined && this.usedUp;
  }

  /** Whether the stage's budget is used up. */
  private get usedUp(): boolean {
    const { budget, stopAt } = this.o.recipe;
    return this.o.ended() || isOver(budget, stopAt, this.usage(), this.order.size);
  }

  /** The fraction of its budget that the stage has used. */
  get fraction(): number {
    return fractionUsed(this.o.recipe.budget, this.usage(), this.order.size);
  }

  /** The part of the stage that is done, 0 to 1: `fraction`, but 1 where `stopAt` ends it. */
  get done(): number {
    const { stopAt } = this.o.recipe;
    if (stopAt === undefined) return Math.min(1, this.fraction);
    return Math.min(1, stopAt < 1 ? this.fraction / stopAt : Math.max(this.fraction, this.usage().steps / stopAt));
  }

  /** The step in progress, in words for an error; undefined between steps. */
  get where(): string | undefined {
    return this.current === undefined ? undefined : `stage ${this.name}, step ${this.current.index + 1}`;
  }

  startPolicy(): Promise<Policy> {
    return this.o.startPolicy();
  }

  get memory(): Record<string, number> {
    return this.position.memory;
  }

  async *sampling(pass: SamplingPass): AsyncGenerator<Step, void, void> {
    if (this.position.step > this.position.samplingSteps) return;
    const { size } = this.source;
    if (size === Infinity && pass.generatedTokens === undefined) {
      throw new UserError(
        `${this.task.name}'s training split has no end; set \`sampleTokens\` to say when sampling stops`,
      );
    }
    this.pass = pass;
    this.announce(" sampling", size === Infinity ? undefined : Math.ceil(size / pass.problems));
    while (this.sampledShare(pass) < 1 && !this.usedUp && !this.o.interrupted()) yield* this.step();
    if (this.sampledShare(pass) < 1 && this.usedUp) throw this.usedUpBySampling();
    if (!this.o.interrupted()) this.pass = undefined;
  }

  sampled(): Iterable<Forest> | undefined {
    if (this.pass !== undefined) return undefined;
    const { name, position, o } = this;
    return (function* () {
      for (let step = 0; step < position.samplingSteps; step++) yield o.folder.readRollouts(name, step);
    })();
  }

  storedSamples(file: string): StoredSample[] {
    return readStoredSamples(resolve(this.o.baseDir, file), (text) => this.o.progress.note(text));
  }

  storeRecords(name: string, records: readonly object[]): void {
    this.o.folder.writeRecords(this.name, name, records);
  }

  storeYield(counts: Record<string, number>): void {
    this.o.folder.writeYield(this.name, counts);
  }

  records(from: string): RecordLine[] {
    return this.o.folder.readRecords(from) ?? readRecords(resolve(this.o.baseDir, from));
  }

  logged(): Record<string, number>[] {
    return this.o.folder.metricsOf(this.name);
  }

  async evaluatedQuestions(files: readonly string[]): Promise<Problem[]> {
    const splits = this.task.splits.filter((split) => split !== "train");
    const own = await Promise.all(splits.map((split) => this.task.problems(split)));
    const others = await Promise.all(files.map((file) => questionsOfFile(resolve(this.o.baseDir, file))));
    return [...own.flatMap((source) => allProblems(source) ?? []), ...others.flat()];
  }

  note(text: string): void {
    this.o.progress.note(text);
  }

  async restart(): Promise<void> {
    if (this.position.step === this.position.samplingSteps) await this.model.reset();
  }

  async *steps(): AsyncGenerator<DrawingStep, void, void> {
    this.announce("", totalSteps(this.o.recipe));
    while (!this.over && !this.o.interrupted()) yield* this.step();
  }

  async *stepsOver(items: number): AsyncGenerator<DrawingStep, void, void> {
    const { position } = this;
    this.order = new Order(items, `${this.seed}/${this.name}/items`);
    if (position.step === position.samplingSteps) {
      position.cursor = 0;
      if (this.over) throw this.usedUpBySampling();
    }
    yield* this.steps();
  }

  gradeDemonstrations(items: { problem: Problem; demonstration: number }[]): Promise<Grade[]> {
    const keyed = items.map(({ problem, demonstration: sample }) => {
      const response = problem.demonstrations?.[sample] ?? "";
      return { problem, response, key: { stage: this.name, step: -1, problem: problem.id, sample, turn: 0 } };
    });
    return this.o.journal.grade(keyed, (missing) => this.task.grade(missing.map((i) => keyed[i])));
  }

  private usedUpBySampling(): UserError {
    return new UserError(
      "the stage's budget was used up by sampling, nothing is left to train with; raise it, or sample less",
    );
  }

  private async *step(): AsyncGenerator<RunStep, void, void> {
    // A step that changed no weights leaves prefixes behind, which a resumed run would not have.
    await this.model.discard();
    await this.critic?.discard();
    const step = new RunStep(this);
    this.current = step;
    yield step;
    this.finish(step);
    this.current = undefined;
    await this.o.onStep({ last: this.over, metrics: step.metrics });
  }

  private announce(what: string, totalSteps: number | undefined): void {
    this.o.progress.stage({ name: `${this.name}${what}`, ...this.o.place, totalSteps });
  }

  /** The part of a pass of sampling that is done; from 1 on it is over. */
  private sampledShare({ generatedTokens }: SamplingPass): number {
    const { cursor, atStart } = this.position;
    const generated = this.o.counters.now().generated - atStart.generated;
    return Math.max(cursor / this.source.size, generatedTokens === undefined ? 0 : generated / generatedTokens);
  }

  /** What the steps of this stage share. */
  get shared(): StageOptions {
    return this.o;
  }

  /** The next `count` problems of the stage's order; of a pass of sampling, those that are left. */
  take(count: number): Problem[] {
    const { size } = this.source;
    if (this.pass !== undefined) return this.draw(Math.min(count, size - this.position.cursor)).map(this.problemAt);
    if (count > size) {
      throw new UserError(
        `stage ${this.name}: a step asks for ${count} problems, and ${this.task.name}'s training split has ${size}; take fewer a step`,
      );
    }
    return this.draw(count).map(this.problemAt);
  }

  draw(count: number): number[] {
    return Array.from({ length: count }, () => this.order.at(this.position.cursor++));
  }

  private readonly problemAt = (index: number): Problem => this.source.at(index);

  /** What the stage has used so far. */
  usage(): Usage {
    const { counters } = this.o;
    return {
      steps: this.position.step - this.position.samplingSteps,
      problems: this.pass === undefined ? this.position.cursor : 0,
      generatedTokens: counters.now().generated - this.position.atStart.generated,
      engineSeconds: counters.engineSeconds - this.position.atStart.engineSeconds,
    };
  }

  private finish(step: RunStep): void {
    const { folder, counters, progress } = this.o;
    const counts = counters.now();
    const before = step.countsBefore;
    const seconds = step.seconds();
    if (step.kept.length > 0) {
      folder.writeRollouts(this.name, step.index, step.kept, this.tokenizer, this.pass !== undefined);
    }
    folder.append("metrics", { stage: this.name, step: step.index, ...step.metrics, ...counts });
    const first = this.pass === undefined ? this.position.samplingSteps : 0;
    this.position.step++;
    if (this.pass !== undefined) this.position.samplingSteps++;
    folder.append("timings", {
      stage: this.name,
      step: step.index,
      at: new Date().toISOString(),
      ...seconds,
      engineSeconds: counters.engineSeconds,
    });
    progress.step({
      index: step.index - first,
      done: this.pass === undefined ? this.done : Math.min(1, this.sampledShare(this.pass)),
      metrics: step.metrics,
      alarms: this.alarms.next(this.name, step.metrics),
      seconds,
      generated: counts.generated - before.generated,
      trained: counts.trained - before.trained,
    });
  }
}

class RunStep implements DrawingStep {
  readonly index: number;
  readonly metrics: Record<string, number> = {};
  readonly kept: Forest = [];
  readonly countsBefore: ReturnType<RunCounters["now"]>;
  private readonly stage: RunStage;
  private readonly began = performance.now();
  private readonly fractionBefore: number;
  private readonly spent: Partial<Record<Activity, number>> = {};
  /** Of the problems handed out: ids, told apart where one came twice. */
  private readonly names = new Map<Problem, string>();
  private readonly timesSeen = new Map<string, number>();
  private readonly graded = new Map<string, number>();
  private rate: number | undefined;
  /** What is being timed, and the seconds of it that were timed apart. */
  private timed: { what: Activity; inside: number } | undefined;

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
      this.names.set(own, times === 1 ? problem.id : `${problem.id}#${times}`);
      return own;
    });
  }

  draw(count: number): number[] {
    return this.stage.draw(count);
  }

  lr(): number {
    if (this.rate === undefined) {
      const { recipe } = this.stage.shared;
      const step = this.index - this.stage.position.samplingSteps;
      const at = { step, before: this.fractionBefore, now: this.stage.fraction };
      this.rate = recipe.lr * learningRateFactor(recipe.schedule, recipe.budget, at);
    }
    return this.rate;
  }

  key(problem: Problem): string {
    return `${this.stage.seed}/${this.stage.name}/${this.index}/${this.names.get(problem) ?? problem.id}`;
  }

  grade(items: GradedItem[]): Promise<Grade[]> {
    const about = { stage: this.stage.name, step: this.index };
    const keyed = items.map(({ problem, response, sample, turn = 0 }) => {
      const position = this.graded.get(problem.id) ?? 0;
      this.graded.set(problem.id, position + 1);
      // A problem that comes twice has samples of the same numbers.
      const name = sample === undefined ? problem.id : (this.names.get(problem) ?? problem.id);
      return { key: { ...about, problem: name, sample: sample ?? position, turn }, response };
    });
    return this.stage.shared.journal.grade(keyed, (missing) => this.stage.task.grade(missing.map((i) => items[i])));
  }

  log(metrics: Record<string, number>): void {
    const strange = Object.keys(metrics).find((name) => !Number.isFinite(metrics[name]));
    if (strange !== undefined) {
      const ids = [...this.timesSeen.keys()];
      const shown = ids.slice(0, 8).join(", ") + (ids.length > 8 ? `, and ${ids.length - 8} more` : "");
      throw new DivergedError(
        `${strange} is ${metrics[strange]} (problems: ${shown || "none"}); try a lower learning rate`,
      );
    }
    Object.assign(this.metrics, metrics);
  }

  keep(forest: Forest): void {
    this.kept.push(...forest);
  }

  countGenerated(tokens: number): void {
    this.stage.shared.counters.addGenerated(tokens);
  }

  async time<T>(what: Activity, work: () => Promise<T>): Promise<T> {
    const { progress, counters } = this.stage.shared;
    const around = this.timed;
    const own = { what, inside: 0 };
    this.timed = own;
    progress.activity(what);
    const start = performance.now();
    try {
      return await work();
    } finally {
      const elapsed = (performance.now() - start) / 1000;
      const seconds = elapsed - own.inside;
      this.spent[what] = (this.spent[what] ?? 0) + seconds;
      if (what !== "grade") counters.engineSeconds += seconds;
      this.timed = around;
      if (around !== undefined) {
        around.inside += elapsed;
        progress.activity(around.what);
      }
    }
  }

  /** Seconds of the whole step, and of each activity. */
  seconds(): { seconds: number } & Partial<Record<Activity, number>> {
    return { seconds: (performance.now() - this.began) / 1000, ...this.spent };
  }
}

/** Of how many steps a stage consists, where that is known. */
function totalSteps({ budget, stopAt }: StageRecipe): number | undefined {
  if (stopAt !== undefined && stopAt >= 1) return stopAt;
  return budget.kind === "steps" ? Math.ceil(budget.amount * (stopAt ?? 1)) : undefined;
}

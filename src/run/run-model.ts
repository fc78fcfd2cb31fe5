import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Engine, HeadSpec, Model, ModelSpec, Policy } from "../engine/types.ts";
import { UserError } from "../errors.ts";
import type { Task } from "../task/types.ts";
import { modelDir, readCheckpoint, type RunState, writeCheckpoint } from "./checkpoint.ts";
import { isRunFolder, type RunFolder } from "./folder.ts";
import { createSpec, modelFolder, recipeOf } from "./models.ts";
import type { Recipe, StageRecipe } from "./recipe.ts";

/** The policy that holds the weights with which a stage began. */
const STAGE_START = "stage-start";

export interface StartingPoint {
  folder: RunFolder;
  /** The path of the checkpoint that the run goes on from. */
  checkpoint?: string;
}

/** The folder, in that of the policy, of the second model. */
export const criticDir = (dir: string): string => join(dir, "critic");

/** The model of a run, and the second one of a stage whose method trains two: opened anew for each stage, with the weights with which that goes on. */
export class RunModel {
  private readonly recipe: Recipe;
  private readonly engine: Engine;
  private readonly task: Task;
  private model: Model | undefined;
  private second: Model | undefined;
  /** Whether the open model holds the weights with which its stage began. */
  private hasStart = false;

  constructor(recipe: Recipe, engine: Engine, task: Task) {
    this.recipe = recipe;
    this.engine = engine;
    this.task = task;
  }

  get opened(): Model {
    if (this.model === undefined) throw new Error("the model is not open");
    return this.model;
  }

  /** The second model; undefined where the stage has none. */
  get critic(): Model | undefined {
    return this.second;
  }

  async close(): Promise<void> {
    await this.model?.close();
    await this.second?.close();
    this.model = this.second = undefined;
  }

  /** Parameters that are trained, of both. */
  get trainable(): number {
    return this.opened.info.trainable + (this.second?.info.trainable ?? 0);
  }

  /** What a stage begins anew, in words. */
  newHeads(): string[] {
    const of = (model: Model | undefined) =>
      (model?.info.newHeads ?? []).map((name) => `its head "${name}" begins anew`);
    return [...of(this.model), ...of(this.second)];
  }

  /** Writes what both have trained. */
  async save(dir: string): Promise<void> {
    await this.opened.save(dir);
    await this.second?.save(criticDir(dir));
  }

  /** Makes the model with which the stage of `state` goes on: of a checkpoint inside the stage, or of the stage's `from`. */
  async open(state: RunState, at: StartingPoint | undefined): Promise<Model> {
    await this.close();
    const stage = this.recipe.stages[state.stage];
    this.hasStart = false;
    if (state.step === 0 || at?.checkpoint === undefined) {
      const dir = await this.startFolder(stage, state, at);
      const from = dir === undefined ? undefined : { dir, optimizer: false };
      return this.create(stage, from, from);
    }
    const from = { dir: modelDir(at.checkpoint), optimizer: true };
    const start = join(at.folder.dir, "snapshots", stage.name);
    if (!existsSync(start)) return this.create(stage, from, from);
    await expectIntact(start, `stage ${stage.name} needs it to go on`);
    const model = await this.create(stage, { dir: modelDir(start), optimizer: false }, from);
    await model.snapshot(STAGE_START);
    await model.load(from);
    this.hasStart = true;
    return model;
  }

  /**
   * Makes the models of a stage; the second begins with the one in `critic`'s folder, or where that holds none as a copy of the policy.
   * A UserError says which stage's `from` does not fit.
   */
  private async create(stage: StageRecipe, from: ModelSpec["from"], critic: ModelSpec["from"]): Promise<Model> {
    const { recipe, task, engine } = this;
    // The same in every stage, for a run has one memory plan.
    const two = recipe.stages.some(({ criticHeads }) => criticHeads !== undefined);
    const spec = (own: ModelSpec["from"], heads: HeadSpec[]): ModelSpec => ({
      ...createSpec(recipe, task, own, heads),
      ...(two && { memoryShare: 1 / 2 }),
    });
    try {
      this.model = await engine.create(spec(from, stage.heads));
      if (stage.criticHeads !== undefined) {
        const own = critic && existsSync(criticDir(critic.dir)) ? { ...critic, dir: criticDir(critic.dir) } : critic;
        this.second = await engine.create(spec(own, stage.criticHeads));
      }
    } catch (error) {
      if (!(error instanceof UserError) || from === undefined) throw error;
      const other = isRunFolder(stage.from)
        ? `; ${stage.from} trained ${trainedBy(recipeOf(stage.from))}, and this recipe ${trainedBy(recipe)}`
        : "";
      throw new UserError(`stage ${stage.name} cannot begin with the weights in ${from.dir}: ${error.message}${other}`);
    }
    return this.model;
  }

  /** The policy that holds the weights with which the stage began; makes and stores it in a fresh stage. */
  async startPolicy(folder: RunFolder, state: RunState): Promise<Policy> {
    if (this.hasStart) return STAGE_START;
    const { name } = this.recipe.stages[state.stage];
    const snapshots = join(folder.dir, "snapshots");
    if (state.step > 0) {
      throw new UserError(`${join(snapshots, name)} is missing: it holds the weights with which stage ${name} began`);
    }
    const model = this.opened;
    const policy = await model.snapshot(STAGE_START);
    await writeCheckpoint(snapshots, name, state, (dir) => model.save(dir));
    this.hasStart = true;
    return policy;
  }

  /** The weights that a stage begins with; undefined for the base. */
  private async startFolder(
    stage: StageRecipe,
    state: RunState,
    at: StartingPoint | undefined,
  ): Promise<string | undefined> {
    if (stage.from === "base" || (stage.from === "previous" && state.stage === 0)) return undefined;
    if (stage.from === "previous") {
      if (at?.checkpoint === undefined) throw new Error(`stage ${stage.name} has no checkpoint to begin from`);
      return modelDir(at.checkpoint);
    }
    if (stage.from === "previous-best") {
      const best = state.best?.[this.recipe.stages[state.stage - 1].name];
      if (best === undefined || at === undefined) {
        throw new UserError(
          `stage ${stage.name} begins with the best of the stage before, which never logged "${this.recipe.checkpoint.keepBest}"; choose another checkpoint.keepBest`,
        );
      }
      const path = join(at.folder.checkpoints, best.checkpoint);
      await expectIntact(path, `stage ${stage.name} begins with it`);
      return modelDir(path);
    }
    const end = state.stageEnds[stage.from];
    return end === undefined || at === undefined ? modelFolder(stage.from) : modelDir(join(at.folder.checkpoints, end));
  }
}

const trainedBy = ({ model, lora }: Recipe): string =>
  `${model} ${lora === undefined ? "in full" : `with LoRA of rank ${lora.rank}`}`;

async function expectIntact(path: string, why: string): Promise<void> {
  const found = existsSync(path) ? await readCheckpoint(path) : "it is missing";
  if (typeof found === "string") throw new UserError(`${path} is damaged (${found}), and ${why}; start a new run`);
}

import { UserError } from "../../errors.ts";
import { addTokens } from "../../model/add-tokens.ts";
import { loadModelFiles } from "../../model/load.ts";
import { tinyFiles } from "../../model/tiny.ts";
import type { ModelFiles } from "../../model/types.ts";
import { Runtime } from "../../runtime/index.ts";
import { RandomStream } from "../random.ts";
import type { Capabilities, Engine, ModelSpec } from "../types.ts";
import { LINEARS } from "./layers.ts";
import { LocalModel } from "./model.ts";
import { planMemory } from "./plan.ts";
import { BaseWeights } from "./weights.ts";

export { LocalModel } from "./model.ts";

export interface LocalEngineOptions {
  /** All cores when absent. */
  threads?: number;
  /** Memory budget; 80 % of the machine's when absent. */
  memoryGb?: number;
}

/** An engine on this machine's processor. Models over the same frozen base share its weights. */
export class LocalEngine implements Engine {
  readonly runtime: Runtime;
  private readonly options: LocalEngineOptions;
  private readonly bases = new Map<string, { files: ModelFiles; base: BaseWeights }>();
  private readonly models = new Set<LocalModel>();

  constructor(options: LocalEngineOptions = {}) {
    this.options = options;
    this.runtime = Runtime.open({ threads: options.threads });
  }

  capabilities(): Capabilities {
    return {
      losses: ["cross_entropy", "importance_sampling", "ppo", "cispo"],
      customLoss: true,
      entropy: true,
      heads: true,
      allowed: true,
      addTokens: true,
      fullFineTune: true,
      gradClip: true,
      snapshots: true,
      deterministicSeed: true,
    };
  }

  async create(spec: ModelSpec): Promise<LocalModel> {
    checkSpec(spec);
    const key = baseKey(spec);
    const known = spec.train === "full" ? undefined : this.bases.get(key);
    const files = known?.files ?? (await readFiles(spec));
    const plan = planMemory(files, spec, this.options.memoryGb, known?.base.bytes);
    let base: BaseWeights | null = null;
    if (spec.train !== "full") {
      base = known?.base ?? new BaseWeights(files, plan.keepStored);
      if (spec.base !== "tiny" && !known) this.bases.set(key, { files, base });
    }
    const model = new LocalModel(
      this.runtime,
      files,
      base,
      spec,
      plan,
      () => readFiles(spec),
      (closed) => this.models.delete(closed),
    );
    this.models.add(model);
    if (spec.from) await model.load(spec.from);
    return model;
  }

  async close(): Promise<void> {
    // A copy: closing takes a model out of the set.
    for (const model of Array.from(this.models)) await model.close();
    this.bases.clear();
  }
}

export const createLocalEngine = (options?: LocalEngineOptions): LocalEngine => new LocalEngine(options);

/** Models share frozen weights only where their added rows begin alike. */
const baseKey = ({ base, addTokens: tokens = [], seed = 0 }: ModelSpec): string =>
  tokens.length > 0 ? JSON.stringify([base, tokens, seed]) : base;

/** The base with the tokens that are added to its vocabulary. */
export async function readFiles(spec: ModelSpec): Promise<ModelFiles> {
  const files = await readBase(spec);
  if (!spec.addTokens?.length) return files;
  const random = new RandomStream(`${spec.seed ?? 0}/added tokens`);
  return addTokens(files, spec.addTokens, { normal: () => random.normal(), fresh: spec.base === "tiny" });
}

async function readBase(spec: ModelSpec): Promise<ModelFiles> {
  if (spec.base !== "tiny") return loadModelFiles(spec.base);
  if (!spec.vocabulary) {
    throw new UserError(
      `model "tiny" takes its words from the task, and this task names none; use a task with a vocabulary, such as "wordproblems"`,
    );
  }
  const random = new RandomStream(`${spec.seed ?? 0}/tiny model`);
  return tinyFiles({ vocabulary: spec.vocabulary, without: spec.addTokens }, () => random.normal());
}

function checkSpec(spec: ModelSpec): void {
  if (spec.from && spec.train === "none" && !spec.heads?.length) {
    throw new UserError(
      `${spec.from.dir} holds trained weights, and a model with train "none" has none to load them into; create it as it was trained`,
    );
  }
  const heads = spec.heads ?? [];
  for (const { name, width } of heads) {
    if (!Number.isInteger(width) || width < 1)
      throw new UserError(`head ${name}: width must be a positive whole number, found ${width}`);
  }
  if (typeof spec.train !== "object") return;
  const { rank, alpha, targets } = spec.train.lora;
  if (!Number.isInteger(rank) || rank < 1)
    throw new UserError(`lora: rank must be a positive whole number, found ${rank}`);
  if (!(alpha > 0)) throw new UserError(`lora: alpha must be above 0, found ${alpha}`);
  const unknown = targets?.find((name) => !(LINEARS as readonly string[]).includes(name));
  if (unknown !== undefined)
    throw new UserError(`lora: unknown target "${unknown}"; expected some of ${LINEARS.join(", ")}`);
}

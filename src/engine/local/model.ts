import { UserError } from "../../errors.ts";
import type { Forest } from "../../forest/types.ts";
import { countTokens } from "../../forest/walk.ts";
import type { ModelFiles, Tokenizer } from "../../model/types.ts";
import type { Runtime, Session } from "../../runtime/index.ts";
import { RandomStream } from "../random.ts";
import type {
  HeadSpec,
  Loss,
  Model,
  ModelInfo,
  ModelSpec,
  OptimSettings,
  Policy,
  Sample,
  SampleRequest,
  Scores,
  StepResult,
  TokenCounts,
} from "../types.ts";
import { AdamW } from "./adam.ts";
import type { Trained } from "./blocks.ts";
import { floats } from "./buffers.ts";
import { checkForest, checkRequest } from "./checks.ts";
import { DecodeSessions } from "./decode-weights.ts";
import { LocalDecoder } from "./decoder.ts";
import { linearDims, type LinearName, LINEARS, tensorOrder, tokenRows, weightName } from "./layers.ts";
import { Parameters, parameterShapes } from "./parameters.ts";
import type { MemoryPlan } from "./plan.ts";
import { Sampler } from "./sampler.ts";
import { loadState, saveState } from "./state.ts";
import { type ScoringPolicy, Trainer } from "./trainer.ts";
import {
  adapterNames,
  type Adapters,
  BaseWeights,
  FullWeights,
  type LayerMatrices,
  layerScratch,
  LoraWeights,
  mergeSession,
  takeRows,
  TokenMatrices,
  type WeightView,
} from "./weights.ts";

/** A model on this machine. Verbs run one at a time in call order; `sample` calls that follow each other share one batch. */
export class LocalModel implements Model {
  readonly info: ModelInfo;
  readonly tokenizer: Tokenizer;
  readonly parameters: Parameters;
  readonly files: ModelFiles;
  private readonly runtime: Runtime;
  private readonly readBase: () => Promise<ModelFiles>;
  private readonly onClose: (model: LocalModel) => void;
  private readonly spec: ModelSpec;
  private readonly trained: Trained;
  private readonly rank: number;
  private readonly trainer: Trainer;
  private readonly base: WeightView | null;
  private readonly merge: Session | null;
  /** Where the rows of added tokens are trained beside an adapter. */
  private readonly tokenMatrices: TokenMatrices | null;
  private scratch: LayerMatrices | null = null;
  private adam: AdamW | null = null;
  private readonly snapshots = new Map<Policy, Float32Array>();
  private readonly decoder: LocalDecoder;
  /** Prepacked matrices: of the frozen base, or by policy in full fine-tuning. */
  private readonly decodeSessions = new Map<Policy, DecodeSessions>();
  /** Counts changes of the trained weights. */
  private version = 0;
  /** What full fine-tuning reads again from disk when it is asked for the base. */
  private reloaded: BaseWeights | null = null;
  private tail: Promise<unknown> = Promise.resolve();
  private joining: { policy: Policy; sampler: Sampler } | null = null;
  private running: Sampler | null = null;
  private readonly done: TokenCounts = { generated: 0, prefilled: 0, scored: 0, trained: 0 };
  private closed = false;

  /** `files` are read again by `readBase` where full fine-tuning is asked for its base. */
  constructor(
    runtime: Runtime,
    files: ModelFiles,
    base: BaseWeights | null,
    spec: ModelSpec,
    plan: MemoryPlan,
    readBase: () => Promise<ModelFiles>,
    onClose: (model: LocalModel) => void = () => {},
  ) {
    this.onClose = onClose;
    this.readBase = readBase;
    const { config } = files;
    if (spec.context !== undefined && spec.context > config.maxContext) {
      throw new UserError(`\`context\` is ${spec.context}, and the model holds ${config.maxContext} tokens; lower it`);
    }
    this.runtime = runtime;
    this.files = files;
    this.spec = spec;
    this.tokenizer = files.tokenizer;
    this.base = base?.view() ?? null;
    const lora = typeof spec.train === "object" ? spec.train.lora : null;
    const targets = new Set<LinearName>(lora ? LINEARS.filter((name) => lora.targets?.includes(name) ?? true) : []);
    this.trained = lora ? { scale: lora.alpha / lora.rank, targets } : spec.train === "full" ? "full" : "none";
    this.merge = lora ? mergeSession(runtime, config, lora.alpha / lora.rank, targets) : null;
    const tokens = (lora && files.added?.ids) ?? null;
    this.tokenMatrices = tokens && base && new TokenMatrices(config, base, tokens);
    this.parameters = new Parameters(parameterShapes(files, spec, targets));
    this.initialise(files);
    this.trainer = new Trainer(runtime, config, this.trained, spec.heads ?? [], plan, tokens);
    this.rank = lora?.rank ?? 0;
    this.decoder = new LocalDecoder(config, this.trainer.pass, plan.decoder, this.rank, tokens);
    const frozen =
      spec.train === "full"
        ? 0
        : tensorOrder(config).reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
    this.info = {
      vocabSize: config.vocab,
      maxContext: spec.context ?? config.maxContext,
      eosIds: config.eosIds,
      newHeads: (spec.heads ?? []).map(({ name }) => name),
      trainable: this.parameters.length,
      parameters: frozen + this.parameters.length,
      plan: plan.text,
    };
  }

  get counts(): TokenCounts {
    const generated = this.done.generated + (this.running?.generated ?? 0);
    return { ...this.done, generated, prefilled: this.decoder.prefilled };
  }

  async sample(
    requests: SampleRequest[],
    onDone?: (sample: Sample, request: number, index: number) => void,
  ): Promise<Sample[]> {
    this.assertOpen();
    for (const request of requests) checkRequest(request, this.info);
    const policies = [...new Set(requests.map((request) => request.policy ?? "current"))];
    if (policies.length <= 1) return this.samplePolicy(policies[0] ?? "current", requests, onDone);
    const parts = await Promise.all(
      policies.map((policy) => {
        const own = requests
          .map((request, i) => ({ request, i }))
          .filter(({ request }) => (request.policy ?? "current") === policy);
        const heard = onDone && ((sample: Sample, r: number, index: number) => onDone(sample, own[r].i, index));
        return this.samplePolicy(
          policy,
          own.map(({ request }) => request),
          heard,
        ).then((samples) => ({ own, samples }));
      }),
    );
    const byRequest: Sample[][] = requests.map(() => []);
    for (const { own, samples } of parts) {
      let at = 0;
      for (const { request, i } of own) byRequest[i] = samples.slice(at, (at += request.n));
    }
    return byRequest.flat();
  }

  forward(forest: Forest, policy: Policy = "current", { logprobs = true } = {}): Promise<Scores[]> {
    return this.exclusive(async () => {
      checkForest(forest, this.info);
      const scores = await this.trainer.forward(forest, await this.scoring(policy), logprobs);
      this.done.scored += countAll(forest);
      return scores;
    });
  }

  forwardBackward(forest: Forest, loss: Loss): Promise<StepResult> {
    return this.exclusive(async () => {
      checkForest(forest, this.info);
      if (this.parameters.length === 0)
        throw new UserError(`this model trains nothing; create it with train "full" or a LoRA`);
      const policy = await this.scoring("current");
      const result = await this.trainer.forwardBackward(forest, loss, policy, this.parameters).catch((error) => {
        this.parameters.discard();
        throw error;
      });
      this.done.trained += countAll(forest.filter((_, t) => result.scores[t].logprobs.length > 0));
      return result;
    });
  }

  discard(): Promise<void> {
    return this.exclusive(async () => {
      this.parameters.discard();
      this.decoder.forget();
    });
  }

  optimStep(settings: OptimSettings): Promise<{ gradNorm: number }> {
    return this.exclusive(async () => {
      this.adam ??= new AdamW(this.runtime, this.parameters);
      const result = await this.adam.step(settings);
      this.changed();
      return result;
    });
  }

  snapshot(name: string): Promise<Policy> {
    return this.exclusive(async () => {
      if (name === "current" || name === "base")
        throw new UserError(`a snapshot cannot be named "${name}"; choose another name`);
      const copy = floats(this.parameters.length);
      copy.set(this.parameters.values);
      this.snapshots.set(name, copy);
      this.changed(name);
      return name;
    });
  }

  release(policy: Policy): Promise<void> {
    return this.exclusive(async () => {
      if (!this.snapshots.delete(policy)) throw new UserError(`no snapshot "${policy}" to release`);
      this.changed(policy);
    });
  }

  save(dir: string): Promise<void> {
    return this.exclusive(() => saveState(dir, this.parameters));
  }

  reset(): Promise<void> {
    return this.exclusive(async () => {
      this.parameters.reset();
      this.info.newHeads = (this.spec.heads ?? []).map(({ name }) => name);
      this.initialise(this.spec.train === "full" ? await this.readBase() : this.files);
      this.changed();
    });
  }

  load(from: { dir: string; optimizer: boolean }): Promise<void> {
    return this.exclusive(async () => {
      this.info.newHeads = await loadState(from.dir, this.parameters, from.optimizer);
      this.changed();
    });
  }

  /** Every weight by Hugging Face name as float32, adapters merged; each is valid until the next. */
  async *tensors(): AsyncGenerator<readonly [name: string, tensor: { dims: number[]; data: Float32Array }]> {
    const { weights } = await this.scoring("current");
    const dims = linearDims(this.files.config);
    const inLayers = new Set<string>();
    for (let layer = 0; layer < this.files.config.layers; layer++) {
      const matrices = await weights.layer(layer);
      for (const linear of LINEARS) {
        inLayers.add(weightName(layer, linear));
        yield [weightName(layer, linear), { dims: dims[linear], data: matrices[linear] }];
      }
    }
    for (const { name, dims: shape } of tensorOrder(this.files.config)) {
      if (!inLayers.has(name)) yield [name, { dims: shape, data: weights.tensor(name) }];
    }
  }

  async close(): Promise<void> {
    if (this.closed) return;
    const closing = this.exclusive(async () => {
      this.onClose(this);
      this.decoder.release();
      for (const sessions of this.decodeSessions.values()) sessions.release();
      this.trainer.release();
      this.adam?.release();
      this.merge?.release();
    });
    // What was called before is waited for; nothing is taken on any more.
    this.closed = true;
    return closing;
  }

  private samplePolicy(
    policy: Policy,
    requests: SampleRequest[],
    onDone?: (sample: Sample, request: number, index: number) => void,
  ): Promise<Sample[]> {
    if (this.joining?.policy === policy && !this.joining.sampler.finished)
      return this.joining.sampler.add(requests, onDone);
    const sampler = new Sampler(this.tokenizer, this.files.config.eosIds);
    const joining = { policy, sampler };
    this.joining = joining;
    const samples = sampler.add(requests, onDone);
    const work = async (): Promise<void> => {
      this.running = sampler;
      try {
        await sampler.run(await this.decoding(policy));
      } catch (error) {
        sampler.fail(error);
      } finally {
        this.done.generated += sampler.generated;
        this.running = null;
        if (this.joining === joining) this.joining = null;
      }
    };
    this.tail = this.tail.then(work);
    return samples;
  }

  private async exclusive<T>(work: () => Promise<T>): Promise<T> {
    this.assertOpen();
    this.joining = null;
    const result = this.tail.then(work);
    this.tail = result.catch(() => undefined);
    return result;
  }

  private async scoring(policy: Policy): Promise<ScoringPolicy & { adapters: Adapters | null }> {
    const arena = policy === "current" || policy === "base" ? this.parameters.values : this.snapshots.get(policy);
    if (!arena) {
      throw new UserError(
        `no policy "${policy}"; there are ${["current", "base", ...this.snapshots.keys()].join(", ")}`,
      );
    }
    const at = (name: string): Float32Array => this.parameters.view(arena, name);
    const head = (name: string) => {
      const { width, bias } = this.headSpec(name);
      return { weight: at(`${name}.weight`), bias: bias ? at(`${name}.bias`) : new Float32Array(width) };
    };
    const adapters = policy === "base" ? null : this.adapters(at);
    if (adapters) this.tokenMatrices?.set(at);
    return { weights: await this.weights(policy, arena, adapters), head, adapters };
  }

  private adapters(at: (name: string) => Float32Array): Adapters | null {
    if (typeof this.trained !== "object") return null;
    const { scale, targets } = this.trained;
    return {
      rank: this.rank,
      scale,
      targets,
      a: (module) => at(adapterNames(module).a),
      b: (module) => at(adapterNames(module).b),
    };
  }

  private async weights(policy: Policy, arena: Float32Array, adapters: Adapters | null): Promise<WeightView> {
    const { config } = this.files;
    if (this.spec.train === "full") {
      if (policy !== "base") return new FullWeights(config, arena);
      this.reloaded ??= new BaseWeights(await this.readBase(), false);
      return this.reloaded;
    }
    if (!this.base) throw new Error("a frozen base is missing");
    if (!adapters || !this.merge) return this.base;
    this.scratch ??= layerScratch(config);
    return new LoraWeights(config, this.base, adapters, this.merge, this.scratch, this.tokenMatrices);
  }

  /** The decoder, turned to a policy. */
  private async decoding(policy: Policy): Promise<LocalDecoder> {
    const { weights, adapters } = await this.scoring(policy);
    const full = this.spec.train === "full";
    const key = full ? policy : "base";
    let sessions = this.decodeSessions.get(key);
    if (!sessions) {
      const matrices = full || !this.base ? weights : this.base;
      const tokens = this.tokenMatrices?.ids.length;
      sessions = await DecodeSessions.create(this.runtime, this.files.config, matrices, this.rank, tokens);
      this.decodeSessions.set(key, sessions);
    }
    this.decoder.use({
      key: `${policy} ${policy === "current" ? this.version : ""}`,
      view: weights,
      sessions,
      adapters,
    });
    return this.decoder;
  }

  /** The trained weights have changed: keys and values belong to the old ones, and in full fine-tuning the packed matrices too. */
  private changed(policy: Policy = "current"): void {
    this.version++;
    this.decoder.forget();
    if (this.spec.train !== "full") return;
    this.decodeSessions.get(policy)?.release();
    this.decodeSessions.delete(policy);
  }

  private headSpec(name: string): HeadSpec {
    const spec = this.spec.heads?.find((head) => head.name === name);
    if (spec === undefined) throw new Error(`no head ${name}`);
    return spec;
  }

  /** Adapters: a uniform in +-1/sqrt(in), b zero (Hu et al. 2021 as `peft` does it). Heads: as specified. Everything else, rows of added tokens included: the base's own. */
  private initialise(files: ModelFiles): void {
    const { spec, parameters } = this;
    const random = new RandomStream(`${spec.seed ?? 0}/initial weights`);
    if (spec.train === "full") {
      new BaseWeights(files, false).copyTo(parameters.values);
    }
    if (this.tokenMatrices && this.base) {
      const { ids, matrices } = this.tokenMatrices;
      for (const name of matrices.keys()) {
        const first = takeRows(this.base.tensor(name), ids, files.config.hidden);
        parameters.value(tokenRows(name)).set(first);
      }
    }
    for (const { name, dims, group } of parameters.entries) {
      const values = parameters.value(name);
      const head = spec.heads?.find((one) => `head:${one.name}` === group);
      if (name.endsWith(".lora_A.weight") || head?.init === "uniform") {
        const bound = 1 / Math.sqrt(head === undefined ? dims[1] : files.config.hidden);
        for (let i = 0; i < values.length; i++) values[i] = (2 * random.uniform() - 1) * bound;
      } else if (head !== undefined && name.endsWith(".weight")) {
        for (let i = 0; head.init !== 0 && i < values.length; i++) values[i] = head.init * random.normal();
      }
    }
  }

  private assertOpen(): void {
    if (this.closed) throw new Error("this model was closed");
  }
}

const countAll = (forest: Forest): number => forest.reduce((sum, tree) => sum + countTokens(tree), 0);

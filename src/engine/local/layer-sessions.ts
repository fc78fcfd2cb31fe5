import type { ModelConfig } from "../../model/types.ts";
import type { Runtime, Session } from "../../runtime/index.ts";
import type { SplitGraph } from "../../tensor/index.ts";
import { afterGraph, attentionGraphs, beforeGraph, type Trained } from "./blocks.ts";
import type { AttentionGroup, Pack } from "./pack.ts";

interface Pair {
  forward: Session;
  backward: Session;
}

export interface SplitPair extends Pair {
  graph: SplitGraph;
}

/** A block's graphs in the variants that packs ask for, each compiled when it is first needed and used for all layers. */
export class LayerSessions {
  private readonly runtime: Runtime;
  private readonly config: ModelConfig;
  private readonly trained: Trained;
  private readonly linear = new Map<string, SplitPair>();
  private readonly attentions = new Map<string, Pair>();

  constructor(runtime: Runtime, config: ModelConfig, trained: Trained) {
    this.runtime = runtime;
    this.config = config;
    this.trained = trained;
  }

  before(pack: Pack): SplitPair {
    return this.split("before attention", pack, beforeGraph);
  }

  after(pack: Pack): SplitPair {
    return this.split("after attention", pack, afterGraph);
  }

  attention(group: AttentionGroup, kept: boolean): Pair {
    const gathered = group.queryRows !== null;
    const padded = group.valid !== null;
    const sharedMask = group.maskBatch === 1;
    const key = `${gathered} ${padded} ${sharedMask} ${kept}`;
    let pair = this.attentions.get(key);
    if (!pair) {
      const { config } = this;
      pair = this.compile("attention", attentionGraphs({ config, gathered, padded, sharedMask, kept }));
      this.attentions.set(key, pair);
    }
    return pair;
  }

  release(): void {
    for (const { forward, backward } of [...this.linear.values(), ...this.attentions.values()]) {
      forward.release();
      backward.release();
    }
    this.linear.clear();
    this.attentions.clear();
  }

  private split(name: string, pack: Pack, build: typeof beforeGraph): SplitPair {
    const gathered = pack.outputRow !== null;
    const key = `${name} ${gathered}`;
    let pair = this.linear.get(key);
    if (!pair) {
      const graph = build({ config: this.config, trained: this.trained, gathered });
      pair = { graph, ...this.compile(name, graph) };
      this.linear.set(key, pair);
    }
    return pair;
  }

  private compile(name: string, graphs: { forward: Uint8Array; backward: Uint8Array }): Pair {
    return {
      forward: this.runtime.createSession(graphs.forward, { name }),
      backward: this.runtime.createSession(graphs.backward, { name: `${name}, backward` }),
    };
  }
}

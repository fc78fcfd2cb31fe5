import type { ModelConfig } from "../../model/types.ts";
import type { KvNode, KvTree } from "./kv.ts";
import { type Chain, groupChains, type Pack } from "./pack.ts";
import type { LayerPass, PastKeys } from "./pass.ts";
import type { WeightView } from "./weights.ts";

/** Tokens of one prefill pass. */
const PREFILL_ROWS = 2048;

/** Computes keys and values of prefixes by the layers' own pass, so that they are the trainer's numbers. */
export class Prefill {
  private readonly config: ModelConfig;
  private readonly pass: LayerPass;
  private readonly tree: KvTree;

  constructor(config: ModelConfig, pass: LayerPass, tree: KvTree) {
    this.config = config;
    this.pass = pass;
    this.tree = tree;
  }

  /** The nodes that spell a prefix; a long one becomes several nodes, each a pass of its own. */
  plan(tokens: Int32Array): void {
    for (let end = PREFILL_ROWS; end < tokens.length; end += PREFILL_ROWS) this.tree.insert(tokens.subarray(0, end));
    this.tree.insert(tokens);
  }

  /** Computes the nodes of these paths that hold nothing yet, shared ones once, a budget of rows at a time; returns how many rows. */
  async compute(paths: KvNode[][], weights: WeightView): Promise<number> {
    let computed = 0;
    const missing = [...new Set(paths.flat().filter((node) => !node.data))];
    missing.sort((a, b) => a.depth - b.depth);
    while (missing.length > 0) {
      let rows = 0;
      const batch: KvNode[] = [];
      while (missing.length > 0 && (batch.length === 0 || rows + missing[0].tokens.length <= PREFILL_ROWS)) {
        const node = missing.shift();
        if (!node) break;
        batch.push(node);
        rows += node.tokens.length;
      }
      await this.computeBatch(batch, rows, weights);
      computed += rows;
    }
    return computed;
  }

  private async computeBatch(batch: KvNode[], rows: number, weights: WeightView): Promise<void> {
    const inBatch = new Map<KvNode, number>();
    let at = 0;
    for (const node of batch) {
      inBatch.set(node, at);
      at += node.tokens.length;
    }
    const above = [...new Set(batch.flatMap((node) => ancestors(node).filter((a) => !inBatch.has(a))))];
    const past = this.pastKeys(above);
    const pastAt = new Map<KvNode, number>();
    let offset = 0;
    for (const node of above) {
      pastAt.set(node, offset);
      offset += node.tokens.length;
    }
    const range = (from: number, length: number): number[] => Array.from({ length }, (_, i) => from + i);
    const chains: Chain[] = batch.map((node) => ({
      rows: Int32Array.from(range(inBatch.get(node) ?? 0, node.tokens.length)),
      ancestors: Int32Array.from(
        ancestors(node).flatMap((a) => range(pastAt.get(a) ?? past.rows + (inBatch.get(a) ?? 0), a.tokens.length)),
      ),
    }));
    const tokens = new Int32Array(rows);
    const positions = new Int32Array(rows);
    for (const [node, start] of inBatch) {
      tokens.set(node.tokens, start);
      for (let i = 0; i < node.tokens.length; i++) positions[start + i] = node.depth + i;
    }
    const pack: Pack = { trees: [], start: [], rows, tokens, positions, ...groupChains(chains, rows, past.rows) };
    const made = { keys: [] as Float32Array[], values: [] as Float32Array[] };
    await this.pass.forward(pack, weights, "none", past.rows > 0 ? past : undefined, (layer, keys, values) => {
      made.keys[layer] = keys.slice();
      made.values[layer] = values.slice();
    });
    const width = this.config.kvHeads * this.config.headDim;
    for (const [node, start] of inBatch) {
      const part = (data: Float32Array) => data.slice(start * width, (start + node.tokens.length) * width);
      this.tree.fill(node, { keys: made.keys.map(part), values: made.values.map(part) });
    }
  }

  private pastKeys(nodes: KvNode[]): PastKeys {
    const { layers, kvHeads, headDim } = this.config;
    const rows = nodes.reduce((sum, node) => sum + node.tokens.length, 0);
    const join = (pick: (node: KvNode) => Float32Array | undefined): Float32Array => {
      const all = new Float32Array(rows * kvHeads * headDim);
      let at = 0;
      for (const node of nodes) {
        const data = pick(node);
        if (!data) throw new Error("a prefix is used before it was computed");
        all.set(data, at);
        at += data.length;
      }
      return all;
    };
    const each = Array.from({ length: layers }, (_, l) => l);
    return {
      rows,
      keys: each.map((l) => join((n) => n.data?.keys[l])),
      values: each.map((l) => join((n) => n.data?.values[l])),
    };
  }
}

function ancestors(node: KvNode): KvNode[] {
  const path: KvNode[] = [];
  for (let at = node.parent; at?.parent; at = at.parent) path.unshift(at);
  return path;
}

import type { HeadSpec, Model } from "../engine/types.ts";
import { sequenceTree } from "../forest/build.ts";
import type { Forest } from "../forest/types.ts";
import type { ProcessReward, ProcessState } from "../rollout/process-reward.ts";
import type { SearchNode } from "../rollout/search.ts";
import { nodeValues } from "./tree-credit.ts";
import { sigmoid } from "./tree-losses.ts";

/** A step's value, read at its last token; one half before it has learnt anything. */
export const PROCESS: HeadSpec = { name: "process", width: 1, bias: true, init: 0 };

/** States a pass. */
const CHUNK = 64;

/** The process reward model that is a head on the policy's own hidden state. */
export class HeadProcessReward implements ProcessReward {
  private readonly model: Model;

  constructor(model: Model) {
    this.model = model;
  }

  async score(states: readonly ProcessState[]): Promise<number[][]> {
    const scores: number[][] = [];
    for (let from = 0; from < states.length; from += CHUNK) {
      const chunk = states.slice(from, from + CHUNK);
      const forest = chunk.map(({ ids }, i): Forest[number] => {
        if (ids === undefined) throw new Error("a head on the policy scores ids, and a state came without them");
        return sequenceTree({ id: `${from + i}`, problem: "" }, ids.path, new Int32Array(0));
      });
      const found = await this.model.forward(forest, "current", { logprobs: false });
      chunk.forEach(({ ids }, i) => {
        const values = found[i].heads[PROCESS.name][0];
        scores.push((ids?.ends ?? []).map((end) => sigmoid(values[end])));
      });
    }
    return scores;
  }
}

/**
 * What the head is to learn: V of each step that a rollout visited, from 0 to 1, at its last token (fields `stepValues` and `weights`); the mean over
 * the steps of all trees. A path without an end is worth 0 here: what the search was told of it is the head's own guess.
 */
export function setStepTargets(trees: readonly { tree: Forest[number]; nodes: readonly SearchNode[] }[]): void {
  const targets = trees.flatMap(({ tree, nodes }) => {
    const known = nodes.map((node) => (node.end === undefined || node.end === "output" ? node : { ...node, value: 0 }));
    const values = nodeValues(known, "policy");
    return nodes.flatMap(({ id, depth, segment }) => {
      const value = values.get(id);
      return value === undefined || depth === 0 ? [] : [{ segment: tree.segments[segment], value }];
    });
  });
  for (const { segment, value } of targets) {
    const last = segment.tokens.length - 1;
    segment.fields.stepValues = new Float32Array(segment.tokens.length);
    segment.fields.weights = new Float32Array(segment.tokens.length);
    segment.fields.stepValues[last] = Math.min(1, Math.max(0, value));
    segment.fields.weights[last] = 1 / targets.length;
  }
}

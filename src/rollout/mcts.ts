import { UserError } from "../errors.ts";

/** A node of a search tree; nodes are numbered in the order in which they are made, 0 is the root. */
export interface MctsNode {
  id: number;
  /** -1: the root. */
  parent: number;
  /** 0 for the root. */
  depth: number;
  /** In the order of preference; undefined until the node is expanded, empty where nothing can follow. */
  children: number[] | undefined;
  /** Rollouts that went through here and ended. */
  N: number;
  /** The sum of their values. */
  Q: number;
  /** Rollouts that are here and have not ended. Each counts as a visit of value 0: a virtual loss. */
  pending: number;
}

export const SCHEDULES = ["const", "exp", "lin"] as const;
export type Schedule = (typeof SCHEDULES)[number];

export interface MctsSettings {
  /** How many rollouts there will be; what the schedule runs over. */
  rollouts: number;
  /** Exploration weight. */
  c: number;
  schedule: Schedule;
  /**
   * In [0, 1): the random number of a rollout at a depth. With it, an unexplored child and a simulation's moves are drawn uniformly
   * (rStar); without it, the first child that is left is taken (token-guided search).
   */
  random?: (rollout: number, depth: number) => number;
  /** Children that selection never goes to. */
  unselectable?: (node: number) => boolean;
  /** Children that a simulation never goes to. */
  unsimulated?: (node: number) => boolean;
}

/** One walk from the root to a leaf. */
export interface Rollout {
  /** From 0, in the order in which rollouts began. */
  index: number;
  /** Nodes from the root to where it stands. */
  path: number[];
  /** Past the first node that no rollout had been at: it no longer selects. */
  simulating: boolean;
}

/** The exploration weight of rollout i of R: c, c 0.1^(i/R) or c (1 - 0.9 i/R). */
export function explorationWeight(c: number, schedule: Schedule, rollout: number, rollouts: number): number {
  const done = rollout / rollouts;
  if (schedule === "const") return c;
  return schedule === "exp" ? c * 0.1 ** done : c * (1 - 0.9 * done);
}

/** Upper confidence bound of a child (Kocsis and Szepesvari 2006): Q/N + c sqrt(ln N(parent) / N). Infinite where it was never visited. */
export function uct(Q: number, N: number, parentN: number, c: number): number {
  return N === 0 ? Infinity : Q / N + c * Math.sqrt(Math.log(parentN) / N);
}

/**
 * Monte Carlo tree search without its model: who asks grows the tree and gives the values. A rollout walks with `step`; where
 * it stands at a node that has no children yet, `expand` first. It ends with `backup`. Ties go to the child that comes first.
 */
export class Mcts {
  readonly nodes: MctsNode[] = [{ id: 0, parent: -1, depth: 0, children: undefined, N: 0, Q: 0, pending: 0 }];
  /** Rollouts that began. */
  started = 0;
  private readonly settings: MctsSettings;

  constructor(settings: MctsSettings) {
    const { rollouts, c } = settings;
    if (!Number.isInteger(rollouts) || rollouts < 1) {
      throw new UserError(`search: expected a whole number of rollouts above 0, found ${rollouts}`);
    }
    if (!(c >= 0)) throw new UserError(`search: expected an exploration weight c of 0 or more, found ${c}`);
    this.settings = settings;
  }

  /** Gives a node its children, the most preferred first; returns their ids. */
  expand(node: number, children: number): number[] {
    const parent = this.nodes[node];
    if (parent.children !== undefined) throw new Error(`node ${node} was expanded before`);
    const depth = parent.depth + 1;
    parent.children = Array.from({ length: children }, () => {
      const id = this.nodes.length;
      this.nodes.push({ id, parent: node, depth, children: undefined, N: 0, Q: 0, pending: 0 });
      return id;
    });
    return parent.children;
  }

  /** A rollout at the root. */
  start(): Rollout {
    const root = this.nodes[0];
    const simulating = root.children === undefined && !this.explored(0);
    root.pending++;
    return { index: this.started++, path: [0], simulating };
  }

  /** Moves a rollout to the next node and returns that; undefined where no child may be gone to. The node where it stands has been expanded. */
  step(rollout: Rollout): number | undefined {
    const next = rollout.simulating ? this.simulate(rollout) : this.select(rollout);
    if (next === undefined) return undefined;
    rollout.simulating ||= !this.explored(next);
    rollout.path.push(next);
    this.nodes[next].pending++;
    return next;
  }

  /** Ends a rollout: its value counts for every node of its path. */
  backup(rollout: Rollout, value: number): void {
    for (const id of rollout.path) {
      const node = this.nodes[id];
      node.pending--;
      node.N++;
      node.Q += value;
    }
  }

  /** Takes back a rollout that has not ended. */
  drop(rollout: Rollout): void {
    for (const id of rollout.path) this.nodes[id].pending--;
  }

  /** Adds to the values of the rollouts that ended at a node, `sum` in all. */
  revalue(node: number, sum: number): void {
    for (let id = node; id >= 0; id = this.nodes[id].parent) this.nodes[id].Q += sum;
  }

  /** The first unexplored child (or a random one), else the one of the largest bound. */
  private select({ index, path }: Rollout): number | undefined {
    const { c, schedule, rollouts, unselectable } = this.settings;
    const parent = this.nodes[path[path.length - 1]];
    const children = this.childrenOf(parent).filter((id) => unselectable?.(id) !== true);
    const unexplored = children.filter((id) => !this.explored(id));
    if (unexplored.length > 0) return this.choose(unexplored, index, parent.depth);
    const weight = explorationWeight(c, schedule, index, rollouts);
    let best: number | undefined;
    let highest = -Infinity;
    for (const id of children) {
      const { Q, N, pending } = this.nodes[id];
      // The rollout that selects stands at the parent itself, and is no visit yet.
      const bound = uct(Q, N + pending, parent.N + parent.pending - 1, weight);
      if (bound > highest) [best, highest] = [id, bound];
    }
    return best;
  }

  private simulate({ index, path }: Rollout): number | undefined {
    const { unsimulated } = this.settings;
    const parent = this.nodes[path[path.length - 1]];
    const children = this.childrenOf(parent).filter((id) => unsimulated?.(id) !== true);
    return children.length === 0 ? undefined : this.choose(children, index, parent.depth);
  }

  private choose(children: number[], rollout: number, depth: number): number {
    const { random } = this.settings;
    return random === undefined ? children[0] : children[Math.floor(random(rollout, depth) * children.length)];
  }

  private explored(id: number): boolean {
    const { N, pending } = this.nodes[id];
    return N + pending > 0;
  }

  private childrenOf(node: MctsNode): number[] {
    if (node.children === undefined) throw new Error(`node ${node.id} has not been expanded`);
    return node.children;
  }
}

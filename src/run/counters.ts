import type { Model, TokenCounts } from "../engine/types.ts";

/** Cumulative counts of a run, over its models and its interruptions. */
export class RunCounters {
  /** Seconds that sampling, scoring and training took. */
  engineSeconds: number;
  private readonly base: TokenCounts;
  private models: Model[] = [];
  private atAttach: TokenCounts = { generated: 0, prefilled: 0, scored: 0, trained: 0 };

  constructor(counts: TokenCounts, engineSeconds: number) {
    this.base = { ...counts };
    this.engineSeconds = engineSeconds;
  }

  /** Counts on with other models, whose own counts may begin anywhere. */
  attach(...models: Model[]): void {
    Object.assign(this.base, this.now());
    this.models = models;
    this.atAttach = this.own();
  }

  /** Counts tokens as generated that no model drew. */
  addGenerated(tokens: number): void {
    this.base.generated += tokens;
  }

  /** Does work whose tokens are none of the run's. */
  async apart<T>(work: () => Promise<T>): Promise<T> {
    const before = this.own();
    try {
      return await work();
    } finally {
      for (const kind of ["generated", "prefilled", "scored", "trained"] as const) {
        this.atAttach[kind] += this.own()[kind] - before[kind];
      }
    }
  }

  now(): TokenCounts {
    const own = this.own();
    return {
      generated: this.base.generated + own.generated - this.atAttach.generated,
      prefilled: this.base.prefilled + own.prefilled - this.atAttach.prefilled,
      scored: this.base.scored + own.scored - this.atAttach.scored,
      trained: this.base.trained + own.trained - this.atAttach.trained,
    };
  }

  /** What the attached models have counted. */
  private own(): TokenCounts {
    const sum = (kind: keyof TokenCounts) => this.models.reduce((total, { counts }) => total + counts[kind], 0);
    return {
      generated: sum("generated"),
      prefilled: sum("prefilled"),
      scored: sum("scored"),
      trained: sum("trained"),
    };
  }
}

import type { Model, TokenCounts } from "../engine/types.ts";

/** Cumulative counts of a run, over its models and its interruptions. */
export class RunCounters {
  /** Seconds that sampling, scoring and training took. */
  engineSeconds: number;
  private readonly base: TokenCounts;
  private model: Model | undefined;
  private atAttach: TokenCounts = { generated: 0, prefilled: 0, scored: 0, trained: 0 };

  constructor(counts: TokenCounts, engineSeconds: number) {
    this.base = { ...counts };
    this.engineSeconds = engineSeconds;
  }

  /** Counts on with another model, whose own counts may begin anywhere. */
  attach(model: Model): void {
    Object.assign(this.base, this.now());
    this.model = model;
    this.atAttach = { ...model.counts };
  }

  /** Does work whose tokens are none of the run's. */
  async apart<T>(work: () => Promise<T>): Promise<T> {
    const before = { ...this.model?.counts };
    try {
      return await work();
    } finally {
      for (const kind of ["generated", "prefilled", "scored", "trained"] as const) {
        this.atAttach[kind] += (this.model?.counts[kind] ?? 0) - (before[kind] ?? 0);
      }
    }
  }

  now(): TokenCounts {
    const own = this.model?.counts ?? this.atAttach;
    return {
      generated: this.base.generated + own.generated - this.atAttach.generated,
      prefilled: this.base.prefilled + own.prefilled - this.atAttach.prefilled,
      scored: this.base.scored + own.scored - this.atAttach.scored,
      trained: this.base.trained + own.trained - this.atAttach.trained,
    };
  }
}

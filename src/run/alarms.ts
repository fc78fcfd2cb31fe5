/** Sampler and trainer disagree about log-probs by more than rounding from here on. */
export const MISMATCH_ALARM = 1e-3;
/** From here on most of what is sampled teaches nothing. */
export const FLAT_ALARM = 0.9;
/** From here on many responses end at their length limit. */
export const TRUNCATED_ALARM = 0.3;
/** Of the entropy at the stage's start, the part from which on a policy has hardly a choice left. */
export const ENTROPY_ALARM = 0.05;
/** How many times longer or shorter than at the stage's start responses are, while the reward is no higher. */
export const LENGTH_ALARM = 2;
/** By how much the share of solved samples lies below that of the stage's start, while the reward is higher. */
export const HACKING_ALARM = 0.1;

/** Steps over which a start and a recent value are means. */
const WINDOW = 5;

/** Something in a step's metrics that a person should know of. */
export interface Alarm {
  /** What kind: `mismatch`, `flat`, ... */
  kind: string;
  /** The metric that raised it, and its value. */
  metric: string;
  value: number;
  text: string;
}

/** What a rule sees of a metric's past in the stage: undefined where it has not been logged often enough. */
interface Past {
  /** Mean of its first values. */
  start(metric: string): number | undefined;
  /** Mean of its last values, the current one included. */
  recent(metric: string): number | undefined;
}

/** When a kind of alarm is raised, and what it says. */
interface AlarmRule {
  kind: string;
  metric: RegExp;
  raised(value: number, past: Past): boolean;
  /** It is raised from this step in a row on, so that one odd step raises nothing. */
  inARow: number;
  says: string;
}

const rules: AlarmRule[] = [
  {
    kind: "mismatch",
    metric: /^mismatch/i,
    raised: (value) => value >= MISMATCH_ALARM,
    inARow: 1,
    says: `sampler and trainer disagree by more than ${MISMATCH_ALARM}`,
  },
  {
    kind: "grading",
    metric: /^gradeErrors$/,
    raised: (value) => value > 0,
    inARow: 3,
    says: "rewards that failed count as 0; verdicts.jsonl has the reasons",
  },
  {
    kind: "flat",
    metric: /^flatGroups$/,
    raised: (value) => value >= FLAT_ALARM,
    inARow: 5,
    says: "hardly a group has two different rewards to learn from: the problems are too easy or too hard",
  },
  {
    kind: "truncated",
    metric: /^truncated$/,
    raised: (value) => value >= TRUNCATED_ALARM,
    inARow: 5,
    says: "many responses end at their length limit, unfinished; raise maxTokens",
  },
  {
    kind: "entropy",
    metric: /^entropy$/,
    raised: (value, { start }) => value < ENTROPY_ALARM * (start("entropy") ?? 0),
    inARow: 5,
    says: `the policy has collapsed to below ${100 * ENTROPY_ALARM} % of its entropy at the stage's start and explores no more`,
  },
  {
    kind: "length",
    metric: /^responseLength$/,
    raised: (value, { start, recent }) => {
      const [length, before, now] = [start("responseLength"), start("reward"), recent("reward")];
      if (length === undefined || before === undefined || now === undefined || now > before) return false;
      return value >= LENGTH_ALARM * length || value <= length / LENGTH_ALARM;
    },
    inARow: 5,
    says: `responses are ${LENGTH_ALARM} times longer or shorter than at the stage's start, and the reward is no higher`,
  },
  {
    kind: "hacking",
    metric: /^solveRate$/,
    raised: (_, { start, recent }) => {
      const [before, now] = [start("reward"), recent("reward")];
      const [solvedBefore, solvedNow] = [start("solveRate"), recent("solveRate")];
      if (before === undefined || now === undefined || solvedBefore === undefined || solvedNow === undefined)
        return false;
      return now > before && solvedNow <= solvedBefore - HACKING_ALARM;
    },
    inARow: 3,
    says: "the reward rises while fewer samples are right: another part of it is what is learned",
  },
];

/** Finds the alarms of a run's steps, given in order: a function of their metrics alone, so that every reader of a run finds the same. */
export class AlarmWatch {
  private stage: string | undefined;
  private readonly streaks = new Map<AlarmRule, number>();
  private readonly first = new Map<string, number[]>();
  private readonly last = new Map<string, number[]>();

  /** The alarms of the next step, one a kind. A metric that a step does not log neither ends a row nor adds to it. */
  next(stage: string, metrics: Record<string, number>): Alarm[] {
    if (stage !== this.stage) {
      this.stage = stage;
      for (const map of [this.streaks, this.first, this.last]) map.clear();
    }
    for (const [name, value] of Object.entries(metrics)) this.remember(name, value);
    const past: Past = { start: (name) => meanOf(this.first.get(name)), recent: (name) => meanOf(this.last.get(name)) };
    return rules.flatMap((rule) => {
      const names = Object.keys(metrics).filter((name) => rule.metric.test(name));
      if (names.length === 0) return [];
      const metric = names.find((name) => rule.raised(metrics[name], past));
      const streak = metric === undefined ? 0 : (this.streaks.get(rule) ?? 0) + 1;
      this.streaks.set(rule, streak);
      if (metric === undefined || streak < rule.inARow) return [];
      return [{ kind: rule.kind, metric, value: metrics[metric], text: rule.says }];
    });
  }

  private remember(name: string, value: number): void {
    const [first, last] = [this.first.get(name) ?? [], this.last.get(name) ?? []];
    if (first.length < WINDOW) first.push(value);
    last.push(value);
    if (last.length > WINDOW) last.shift();
    this.first.set(name, first);
    this.last.set(name, last);
  }
}

function meanOf(values: number[] | undefined): number | undefined {
  return values?.length === WINDOW ? values.reduce((sum, value) => sum + value, 0) / WINDOW : undefined;
}

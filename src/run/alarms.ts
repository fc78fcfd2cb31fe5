/** Sampler and trainer disagree about log-probs by more than rounding from here on. */
export const MISMATCH_ALARM = 1e-3;

/** Something in a step's metrics that a person should know of. */
export interface Alarm {
  /** What kind: `mismatch`. */
  kind: string;
  /** The metric that raised it, and its value. */
  metric: string;
  value: number;
  text: string;
}

/** When a kind of alarm is raised, and what it says. */
interface AlarmRule {
  kind: string;
  metric: RegExp;
  raised(value: number): boolean;
  says: string;
}

const rules: AlarmRule[] = [
  {
    kind: "mismatch",
    metric: /^mismatch/i,
    raised: (value) => value >= MISMATCH_ALARM,
    says: `sampler and trainer disagree by more than ${MISMATCH_ALARM}`,
  },
];

/** The alarms of a step: a function of its metrics alone, so that every reader of a run finds those that it was shown; one a kind. */
export function alarmsOf(metrics: Record<string, number>): Alarm[] {
  return rules.flatMap(({ kind, metric, raised, says }) => {
    const name = Object.keys(metrics).find((key) => metric.test(key) && raised(metrics[key]));
    return name === undefined ? [] : [{ kind, metric: name, value: metrics[name], text: says }];
  });
}

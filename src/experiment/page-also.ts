import { points, span } from "../eval/compare.ts";
import type { Interval } from "../eval/intervals.ts";
import type { AlsoAt } from "./also.ts";
import type { Analysis } from "./analyse.ts";
import { armAt, cell, label, table, thousands } from "./page-parts.ts";
import { type ExperimentFile, groupOf, groupsOf } from "./file.ts";
import type { SearchAt, Spread } from "./searches.ts";

const range = (value: number, { low, high }: Interval, seeds: number) =>
  `${points(value)}${seeds > 1 ? ` [${points(low)}, ${points(high)}]` : ""}`;

/** What the further evaluations came to: each arm in every way that it was asked, then each evaluation with what it took. */
export function alsoSection(
  experiment: ExperimentFile,
  { also, arms, searches }: Pick<Analysis, "also" | "arms" | "searches">,
): string[] {
  if (also.length === 0) return [];
  const rows = also.map((one) => {
    const { equal, majority, majorityInterval, seeds } = one;
    const voted =
      majority === undefined || majorityInterval === undefined ? "" : range(majority, majorityInterval, seeds.length);
    const within = equal === undefined ? "" : equalText(equal, seeds.length);
    return [
      cell(one.name),
      armAt(one.arm, one.at),
      range(one.accuracy, one.interval, seeds.length),
      seeds.map(({ accuracy }) => points(accuracy)).join(" "),
      voted,
      within,
      thousands(one.tokensPerProblem),
      thousands(one.generated),
      thousands(one.prefilled),
    ];
  });
  const head = ["asked", "arm", "accuracy, %", "each seed", "majority of its samples, %"];
  const costs = ["within a budget of tokens, %", "tokens a problem", "generated", "prefilled"];
  return [
    "## Also measured",
    "Descriptive: the final runs asked in other ways, at the last of their marks; means over seeds with Student's interval. Tokens are those of the evaluation.",
    ...groupsOf(experiment).flatMap((group) => sideBySide(experiment, group, also, arms)),
    table([...head, ...costs], rows),
    ...searches.flatMap(searchTable),
  ];
}

/** A search after each number of rollouts, and what more of them are worth. */
function searchTable({ name, arm, seeds, rollouts, gain, slope }: SearchAt): string[] {
  const spread = ({ mean, tInterval, twoWay }: Spread) =>
    `${points(mean)} points${seeds > 1 ? ` [${span(tInterval)}] over seeds, [${span(twoWay)}] over seeds and problems` : ""}`;
  const last = rollouts[rollouts.length - 1].r;
  return [
    table(
      [`${cell(name)}, ${arm}: rollouts`, "right by the vote, %", "by any rollout, %", "tokens a problem"],
      rollouts.map(({ r, accuracy, interval, oracle, tokens }) => [
        String(r),
        range(accuracy, interval, seeds),
        points(oracle),
        thousands(tokens),
      ]),
    ),
    [
      ...(gain === undefined ? [] : [`${last} rollouts over 1: ${spread(gain)}.`]),
      ...(slope === undefined ? [] : [`A doubling of the rollouts (least squares over log2 r): ${spread(slope)}.`]),
    ].join(" "),
  ];
}

/** A row an arm of the group, a column a way of asking; the first is the arm's own. */
function sideBySide(
  experiment: ExperimentFile,
  group: string | undefined,
  also: readonly AlsoAt[],
  arms: Analysis["arms"],
): string[] {
  const names = experiment.arm.filter(({ name }) => groupOf(experiment, name) === group).map(({ name }) => name);
  const own = also.filter(({ at, arm }) => at === "end" && names.includes(arm));
  const ways = [...new Set(own.map(({ name }) => name))];
  if (ways.length === 0) return [];
  const rows = names.map((arm) => {
    const test = arms.findLast((one) => one.arm === arm);
    return [
      arm,
      test === undefined ? "" : `${range(test.mean, test.interval, test.seeds.length)}, ${label(test.budget)}`,
      ...ways.map((way) => {
        const found = own.find((one) => one.name === way && one.arm === arm);
        if (found === undefined) return "";
        const { seeds, equal, majority, majorityInterval, accuracy, interval, tokensPerProblem } = found;
        if (equal !== undefined) return equalText(equal, seeds.length);
        const [value, around] = [majority ?? accuracy, majorityInterval ?? interval];
        return `${range(value, around, seeds.length)} (${thousands(tokensPerProblem)} tokens)`;
      }),
    ];
  });
  return [table([group ?? "arm", "its own way, at the last mark", ...ways.map(cell)], rows)];
}

function equalText(
  { k: [least, most], accuracy, interval, tokensPerProblem }: NonNullable<AlsoAt["equal"]>,
  seeds: number,
) {
  const k = least === most ? String(least) : `${least} to ${most}`;
  return `${range(accuracy, interval, seeds)} (${k} samples, ${thousands(tokensPerProblem)} tokens)`;
}

import { type CurvePoint, readCurve } from "../run/curve.ts";
import type { Ran } from "./analyse.ts";
import type { ChartSeries } from "./chart.ts";
import { type ExperimentFile, groupsOf } from "./file.ts";

export interface CurveChart {
  file: string;
  title: string;
  /** What the axis counts. */
  x: string;
  series: ChartSeries[];
}

/** The charts of the final cells' learning curves; none where no run was evaluated on its way. An arm that generates nothing has none over generated tokens. */
export function curves(experiment: ExperimentFile, final: readonly Ran[]): CurveChart[] {
  const read = final.map(({ cell, dir, result }) => {
    const last = cell.recipe.stages[cell.recipe.stages.length - 1].name;
    return {
      arm: cell.arm,
      result,
      points: result === undefined ? [] : readCurve(dir).filter(({ stage }) => stage === last),
    };
  });
  const axes: { file: string; x: string; of: (point: CurvePoint, at: NonNullable<Ran["result"]>) => number }[] = [
    {
      file: "accuracy-generated.svg",
      x: "generated tokens",
      of: ({ counts }, { before }) => counts.generated - before.counts.generated,
    },
    {
      file: "accuracy-seconds.svg",
      x: "engine seconds",
      of: ({ engineSeconds }, { before }) => engineSeconds - before.engineSeconds,
    },
    { file: "accuracy-steps.svg", x: "steps", of: ({ step }) => step },
  ];
  const charts = groupsOf(experiment).flatMap((group) => axes.map((axis) => ({ ...axis, group })));
  return charts.flatMap(({ file, x, of, group }) => {
    const arms = experiment.arm.filter((one) => one.group === group);
    const series = arms.flatMap(({ name }): ChartSeries[] => {
      const runs = read.flatMap(({ arm, result, points }) => {
        if (arm !== name || result === undefined || points.length === 0) return [];
        return [points.map((point) => ({ x: of(point, result), y: point.accuracy }))];
      });
      return runs.some((run) => run.some((point) => point.x > 0)) ? [{ name, runs }] : [];
    });
    if (series.length === 0) return [];
    const [start, title] = group === undefined ? ["", "Accuracy"] : [`${group}-`, `${group}: accuracy`];
    return [{ file: `${start}${file}`, title: `${title} over ${x}`, x, series }];
  });
}

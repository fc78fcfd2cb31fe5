import type { Colors } from "picocolors/types.js";
import { clip, number } from "./format.ts";

/** One evaluation inside the run. */
export interface EvaluationPoint {
  stage: string;
  /** Steps of the stage done. */
  step: number;
  split: string;
  problems: number;
  /** With its 95 % interval. */
  accuracy: number;
  low: number;
  high: number;
}

/** The best checkpoint so far. */
export interface BestReport {
  metric: string;
  value: number;
  stage: string;
  step: number;
  checkpoint: string;
}

/** `42.0 % (35.4 to 48.9)`. */
export function accuracyText({ accuracy, low, high }: EvaluationPoint): string {
  const shown = (share: number) => (100 * share).toFixed(1);
  return `${shown(accuracy)} % (${shown(low)} to ${shown(high)})`;
}

export function bestText({ metric, value, stage, step, checkpoint }: BestReport): string {
  const shown = metric.endsWith(" accuracy") ? `${(100 * value).toFixed(1)} %` : number(value);
  return `best ${metric} so far: ${shown} at step ${step} of ${stage}, kept as ${checkpoint}`;
}

/** Evaluations that are drawn: the newest. */
const ROWS = 6;

/** The learning curve for a terminal: a row an evaluation, its interval drawn on the axis from 0 to 100 % where there is room. */
export function curveLines(
  points: readonly EvaluationPoint[],
  best: BestReport | undefined,
  width: number,
  colors: Colors,
): string[] {
  const lines: string[] = [];
  const newest = points.slice(-ROWS);
  const last = newest.at(-1);
  if (last !== undefined) {
    lines.push(clip(`${last.split} accuracy, ${last.problems} problems`, width));
    const several = new Set(newest.map(({ stage }) => stage)).size > 1;
    const places = newest.map(({ stage, step }) => (several ? `${stage} ${step}` : `step ${step}`));
    const texts = newest.map(accuracyText);
    const [wide, wider] = [places, texts].map((column) => Math.max(...column.map(({ length }) => length)));
    // One cell at each end for the ticks of 0 and 100 %.
    const room = Math.min(50, width - wide - wider - 4);
    newest.forEach((point, i) => {
      const row = `${places[i].padStart(wide)}  ${texts[i].padEnd(wider)}`;
      lines.push(room < 12 ? clip(row, width) : `${row}  ${colors.cyan(whisker(point, room))}`);
    });
  }
  if (best !== undefined) lines.push(clip(bestText(best), width));
  return lines;
}

/** `    ├──●───┤   ` on an axis of `cells` cells. */
function whisker({ low, high, accuracy }: EvaluationPoint, cells: number): string {
  const at = (share: number) => Math.round(share * (cells - 1));
  return Array.from({ length: at(high) + 1 }, (_, i) => {
    if (i === at(accuracy)) return "●";
    if (i < at(low)) return " ";
    return i === at(low) ? "├" : i === at(high) ? "┤" : "─";
  }).join("");
}

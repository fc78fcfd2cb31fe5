import type { FigureReport, ProbeReport } from "./bench.ts";
import type { Line } from "./figures.ts";

/** A figure as lines of text. */
export function formatFigure({ name, about, plan, lines, repeats, probes }: FigureReport): string {
  const width = Math.max(...lines.map((line) => line.what.length));
  const { judged, all, quiet } = repeats;
  const how = judged === 1 ? "one repeat" : `median of ${judged} repeats`;
  const noise = judged === 1 ? "not quiet" : "none of them quiet";
  return [
    `${name}: ${about}`,
    ...lines.map((line) => `  ${formatLine(line, width)}`),
    `  ${how}${quiet ? ", quiet" : `, ${noise}: other programs were busy`}${all > judged ? ` (of ${all})` : ""}`,
    ...probes.map((probe) => `  ${formatProbe(probe)}`),
    `  ${plan}`,
  ].join("\n");
}

function formatLine(line: Line, width: number): string {
  const { what, value, unit, floor, floorIs, ratio } = line;
  const parts = [`${what.padEnd(width)}  ${digits(value).padStart(6)} ${unit}`];
  if (floor !== undefined && ratio !== undefined) {
    parts.push(`floor ${digits(floor)} ${unit} (${floorIs})`, `ratio ${ratio.toFixed(2)}`);
  }
  const limit = formatLimit(line);
  return (limit === undefined ? parts : [...parts, limit]).join("   ");
}

/** What a line should keep to, and whether it does. */
function formatLimit({ value, ratio, atMost, atLeast }: Line): string | undefined {
  const judged = ratio ?? value;
  if (atMost !== undefined) return `${judged <= atMost ? "within" : "ABOVE"} ${atMost}`;
  if (atLeast !== undefined) return `${judged >= atLeast ? "reaches" : "BELOW"} ${atLeast}`;
  return undefined;
}

export function formatProbe({ what, rate, unit, by }: ProbeReport): string {
  return `${what}: ${digits(rate)} ${unit} (${by})`;
}

/** Three digits or more. */
function digits(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

import { escapeHtml } from "./html-text.ts";
import type { Interval } from "./intervals.ts";

/** A share with its interval. */
export interface PlotPoint extends Interval {
  value: number;
}

export interface Curve {
  name: string;
  /** Style class: the colour. */
  className: string;
  points: (PlotPoint & { k: number })[];
}

// Drawn for a page 360 wide, where text must stay readable; wider pages enlarge it.
const WIDTH = 360;
const LEFT = 38;
const RIGHT = 10;

const text = (x: number, y: number, content: string, anchor = "middle"): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}">${escapeHtml(content)}</text>`;
const line = (x1: number, y1: number, x2: number, y2: number, className: string): string =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" class="${className}"/>`;
const title = (content: string): string => `<title>${escapeHtml(content)}</title>`;
const percent = (share: number): string => (100 * share).toFixed(1);
const described = ({ value, low, high }: PlotPoint): string =>
  `${percent(value)} % [${percent(low)}, ${percent(high)}]`;

/** Shares over k, k on a logarithmic axis, each with its interval; the legend stands below. */
export function curvesPlot(curves: readonly Curve[], label: string): string {
  const height = 230;
  const [top, bottom] = [10, height - 58];
  const ks = [...new Set(curves.flatMap(({ points }) => points.map(({ k }) => k)))].sort((a, b) => a - b);
  const [first, last] = [Math.log(ks[0]), Math.log(ks[ks.length - 1])];
  const x = (k: number, shift: number) =>
    LEFT + 14 + (WIDTH - LEFT - RIGHT - 28) * (last === first ? 0.5 : (Math.log(k) - first) / (last - first)) + shift;
  // In fifths, so that the four grid lines stand at whole numbers.
  const highest = Math.min(
    1,
    Math.ceil(5 * Math.max(...curves.flatMap(({ points }) => points.map(({ high }) => high)))) / 5,
  );
  const y = (share: number) => bottom - ((bottom - top) * share) / highest;
  const grid = [0, 0.25, 0.5, 0.75, 1].map((part) => {
    const share = part * highest;
    return `${line(LEFT, y(share), WIDTH - RIGHT, y(share), "grid")}${text(LEFT - 5, y(share) + 4, (100 * share).toFixed(0), "end")}`;
  });
  const ticks = ks.map((k) => text(x(k, 0), bottom + 15, String(k)));
  const drawn = curves.map(({ name, className, points }, c) => {
    // Side by side, or intervals of one k would hide each other.
    const shift = 5 * (c - (curves.length - 1) / 2);
    const path = points.map(({ k, value }) => `${x(k, shift).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    const marks = points.map((point) => {
      const at = x(point.k, shift);
      return `<g>${title(`${name.replace("k", String(point.k))}: ${described(point)}`)}${line(at, y(point.low), at, y(point.high), "bar")}<circle cx="${at.toFixed(1)}" cy="${y(point.value).toFixed(1)}" r="3.2"/></g>`;
    });
    return `<g class="${className}"><polyline points="${path}"/>${marks.join("")}</g>`;
  });
  const step = (WIDTH - LEFT - RIGHT) / Math.max(3, curves.length);
  const legend = curves.map(
    ({ name, className }, c) =>
      `<g class="${className}"><circle cx="${LEFT + c * step + 4}" cy="${height - 12}" r="3.2"/>${text(LEFT + c * step + 12, height - 8, name, "start")}</g>`,
  );
  return figure(height, label, [
    ...grid,
    ...ticks,
    text((LEFT + WIDTH - RIGHT) / 2, bottom + 30, "k"),
    ...drawn,
    ...legend,
  ]);
}

/** A row a group with its share and interval. */
export function rowsPlot(rows: readonly (PlotPoint & { name: string })[], label: string): string {
  const left = 128;
  const pitch = 22;
  const bottom = 8 + rows.length * pitch;
  const x = (share: number) => left + (WIDTH - left - 16) * share;
  const grid = [0, 0.25, 0.5, 0.75, 1].map(
    (share) => `${line(x(share), 4, x(share), bottom, "grid")}${text(x(share), bottom + 15, `${100 * share}`)}`,
  );
  const drawn = rows.map((row, i) => {
    const at = 8 + (i + 0.5) * pitch;
    const name = row.name.length > 20 ? `${row.name.slice(0, 19)}…` : row.name;
    return `<g class="c0">${title(`${row.name}: ${described(row)}`)}${text(left - 8, at + 4, name, "end")}${line(x(row.low), at, x(row.high), at, "bar")}<circle cx="${x(row.value).toFixed(1)}" cy="${at}" r="3.6"/></g>`;
  });
  return figure(bottom + 22, label, [...grid, ...drawn]);
}

function figure(height: number, label: string, parts: string[]): string {
  return `<figure><svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeHtml(label)}">${parts.join("")}</svg><figcaption>${escapeHtml(label)}</figcaption></figure>`;
}

/** A line of a chart: thin ones for single runs, one thick mean. */
export interface ChartSeries {
  name: string;
  /** One for each seed, in order of x. */
  runs: { x: number; y: number }[][];
}

const WIDTH = 720;
const HEIGHT = 380;
const LEFT = 52;
const RIGHT = 16;
const TOP = 16;
const BOTTOM = HEIGHT - 48;

/** Told apart by people who see colours differently (Okabe and Ito 2008). */
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999"];
const DASHES = ["", "7 4", "2 3", "9 3 2 3"];

const escape = (text: string): string =>
  text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
const at = (value: number): string => value.toFixed(1);

/**
 * Shares over x as an SVG document: a thin line for each run, a thick one for each series' mean, as far as all of its runs reach.
 * Readable on a light and on a dark page.
 */
export function chart(series: readonly ChartSeries[], options: { title: string; x: string; y: string }): string {
  const points = series.flatMap(({ runs }) => runs.flat());
  const highX = nice(Math.max(...points.map(({ x }) => x), 0) || 1, "up");
  const [lowY, highY] = range(points.map(({ y }) => y));
  const x = (value: number) => LEFT + ((WIDTH - LEFT - RIGHT) * value) / highX;
  const y = (value: number) => BOTTOM - ((BOTTOM - TOP) * (value - lowY)) / (highY - lowY);
  const stepY = nice((highY - lowY) / 5, "near");
  const linesY = ticks(lowY, highY, stepY).map(
    (value) =>
      `<line class="grid" x1="${LEFT}" y1="${at(y(value))}" x2="${WIDTH - RIGHT}" y2="${at(y(value))}"/><text x="${LEFT - 6}" y="${at(y(value) + 4)}" text-anchor="end">${Number((100 * value).toFixed(4))}</text>`,
  );
  const linesX = ticks(0, highX, nice(highX / 5, "near")).map(
    (value) => `<text x="${at(x(value))}" y="${BOTTOM + 17}" text-anchor="middle">${amount(value)}</text>`,
  );
  const drawn = series.map(({ name, runs }, i) => {
    const color = COLORS[i % COLORS.length];
    const path = (line: readonly { x: number; y: number }[]) =>
      line.map((p) => `${at(x(p.x))},${at(y(p.y))}`).join(" ");
    const thin = runs.map((run) => `<polyline points="${path(run)}" stroke-width="1" opacity="0.3"/>`);
    const dash = DASHES[Math.floor(i / COLORS.length) % DASHES.length];
    const thick = `<polyline points="${path(meanLine(runs))}" stroke-width="2.5"${dash === "" ? "" : ` stroke-dasharray="${dash}"`}/>`;
    return `<g fill="none" stroke="${color}"><title>${escape(name)}</title>${thin.join("")}${thick}</g>`;
  });
  let left = LEFT;
  const legend = series.map(({ name }, i) => {
    const item = `<line x1="${left}" y1="${HEIGHT - 8}" x2="${left + 18}" y2="${HEIGHT - 8}" stroke="${COLORS[i % COLORS.length]}" stroke-width="2.5"/><text x="${left + 23}" y="${HEIGHT - 4}">${escape(name)}</text>`;
    left += 23 + 7.2 * name.length + 18;
    return item;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${Math.max(WIDTH, Math.ceil(left))} ${HEIGHT}" role="img" aria-label="${escape(options.title)}" font-family="system-ui, sans-serif" font-size="12">`,
    "<style>text{fill:#24292f}.grid{stroke:#d0d7de}.back{fill:#fff}@media (prefers-color-scheme:dark){text{fill:#c9d1d9}.grid{stroke:#30363d}.back{fill:#0d1117}}</style>",
    `<title>${escape(options.title)}</title><rect class="back" width="100%" height="100%"/>`,
    ...linesY,
    ...linesX,
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${BOTTOM + 31}" text-anchor="middle">${escape(options.x)}</text>`,
    `<text transform="translate(13 ${(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle">${escape(options.y)}</text>`,
    ...drawn,
    ...legend,
    "</svg>\n",
  ].join("\n");
}

/** Points of the mean line. */
const MEAN_POINTS = 60;

/** The mean of several lines, each read between its points, from where all have begun to where the first ends. */
export function meanLine(runs: readonly { x: number; y: number }[][]): { x: number; y: number }[] {
  const lines = runs.filter((run) => run.length > 0);
  if (lines.length === 0) return [];
  const begin = Math.max(...lines.map((run) => run[0].x));
  const end = Math.min(...lines.map((run) => run[run.length - 1].x));
  if (end < begin) return [];
  // Where all lines have the same points, those are it.
  const same = lines.every((run) => run.length === lines[0].length && run.every(({ x }, i) => x === lines[0][i].x));
  const xs = same
    ? lines[0].map(({ x }) => x)
    : Array.from({ length: MEAN_POINTS + 1 }, (_, i) => begin + ((end - begin) * i) / MEAN_POINTS);
  return xs.map((x) => ({ x, y: lines.reduce((sum, run) => sum + between(run, x), 0) / lines.length }));
}

function between(run: readonly { x: number; y: number }[], x: number): number {
  const after = run.findIndex((point) => point.x >= x);
  if (after < 0) return run[run.length - 1].y;
  if (after === 0 || run[after].x === x) return run[after].y;
  const [a, b] = [run[after - 1], run[after]];
  return a.y + ((b.y - a.y) * (x - a.x)) / (b.x - a.x);
}

/** From and to which share the axis runs: a little beyond the values, never beyond 0 and 1. */
function range(values: readonly number[]): [number, number] {
  if (values.length === 0) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const step = nice(Math.max(0.05, high - low) / 5, "near");
  return [Math.max(0, Math.floor(low / step - 0.2) * step), Math.min(1, Math.ceil(high / step + 0.2) * step)];
}

function ticks(low: number, high: number, step: number): number[] {
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

/** A number of one of the forms 1, 2, 2.5, 5 x 10^k, at least the value or near it. */
function nice(value: number, way: "up" | "near"): number {
  const unit = 10 ** Math.floor(Math.log10(value));
  const forms = [1, 2, 2.5, 5, 10];
  const found = forms.find((form) => form * unit >= value * (way === "up" ? 1 - 1e-9 : 0.75));
  return (found ?? 10) * unit;
}

function amount(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  return value >= 1e4 ? `${Number((value / 1e3).toPrecision(3))}k` : String(Number(value.toPrecision(3)));
}

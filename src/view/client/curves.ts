/// <reference lib="dom" />
import type { ViewHead } from "../types.ts";
import type { Dom } from "./dom.ts";

/** Draws every metric over the run's steps, with evaluations as points and alarms as marks. */
export function makeCurves(dom: Dom, head: ViewHead, onLine: (line: number) => void) {
  const { element, svg } = dom;
  const { lines, metrics, alarms, points } = head;
  const total = lines.step.length;
  // Drawn for a page 360 wide, where text must stay readable; wider pages enlarge it.
  const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [360, 150, 52, 8, 8, 126];
  const x = (at: number) => LEFT + ((WIDTH - LEFT - RIGHT) * (at + 0.5)) / Math.max(1, total);
  const cursors: SVGElement[] = [];
  const readouts: ((line: number) => void)[] = [];

  /** Three digits that matter. */
  function short(value: number): string {
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en-US");
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6)
      ? value.toExponential(1).replace("e+", "e")
      : String(Number(value.toPrecision(3)));
  }

  function bounds(values: readonly (number | null)[]): [number, number] {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low === high) return [low - (Math.abs(low) || 1) * 0.5, high + (Math.abs(high) || 1) * 0.5];
    const room = (high - low) * 0.04;
    return [low - room, high + room];
  }

  /** The curve; where steps are closer than pixels, each column's smallest and largest. It breaks between stages and at gaps. */
  function path(
    values: readonly (number | null)[],
    y: (value: number) => number,
  ): { d: string; dots: [number, number][] } {
    const per = Math.max(1, Math.ceil(total / (WIDTH * 2)));
    const dots: [number, number][] = [];
    let d = "";
    let length = 0;
    let [first, stage] = [-1, ""];
    for (let from = 0; from < total; from += per) {
      let [low, high] = [-1, -1];
      for (let i = from; i < Math.min(total, from + per); i++) {
        const value = values[i];
        if (value === null) continue;
        if (low < 0 || value < (values[low] ?? 0)) low = i;
        if (high < 0 || value > (values[high] ?? 0)) high = i;
      }
      const breaks = low < 0 || lines.stage[low] !== stage;
      if (breaks && length === 1) dots.push([x(first), y(values[first] ?? 0)]);
      if (breaks) length = 0;
      if (low < 0) continue;
      stage = lines.stage[low];
      for (const i of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
        d += `${length === 0 ? "M" : "L"}${x(i).toFixed(1)} ${y(values[i] ?? 0).toFixed(1)}`;
        if (length++ === 0) first = i;
      }
    }
    if (length === 1) dots.push([x(first), y(values[first] ?? 0)]);
    return { d, dots };
  }

  /** Where each stage begins. */
  const starts = lines.stage.flatMap((stage, i) => (i === 0 || stage !== lines.stage[i - 1] ? [{ stage, at: i }] : []));

  function frame(
    name: string,
    low: number,
    high: number,
  ): { figure: HTMLElement; plot: SVGElement; y: (value: number) => number; readout: HTMLElement } {
    const y = (value: number) => BOTTOM - ((BOTTOM - TOP) * (value - low)) / (high - low);
    const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name });
    for (const part of [0, 0.5, 1]) {
      const value = low + part * (high - low);
      plot.append(
        svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
        svg("text", { x: LEFT - 5, y: Math.max(12, y(value) + 4), "text-anchor": "end" }, short(value)),
      );
    }
    starts.forEach(({ stage, at }, i) => {
      const from = x(at - 0.5);
      const room = x((starts[i + 1]?.at ?? total) - 0.5) - from;
      if (i > 0) plot.append(svg("line", { x1: from, x2: from, y1: TOP, y2: BOTTOM, class: "grid stage" }));
      if (room > 6.2 * stage.length) plot.append(svg("text", { x: from + 2, y: BOTTOM + 15, class: "soft" }, stage));
    });
    const readout = element("output");
    const figure = element("figure", {}, element("figcaption", {}, element("strong", {}, name), readout));
    figure.append(plot);
    const cursor = svg("line", { x1: -9, x2: -9, y1: TOP, y2: BOTTOM, class: "cursor" });
    cursors.push(cursor);
    plot.append(cursor);
    plot.addEventListener("pointermove", (event) => point(lineAt(plot, event)));
    plot.addEventListener("click", (event) => onLine(lineAt(plot, event)));
    return { figure, plot, y, readout };
  }

  function lineAt(plot: SVGElement, event: MouseEvent): number {
    const { left, width } = plot.getBoundingClientRect();
    const at = (((event.clientX - left) / width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    return Math.min(total - 1, Math.max(0, Math.floor(at * total)));
  }

  /** Shows a step on all curves: the cursor and the value. */
  function point(line: number): void {
    for (const cursor of cursors) {
      cursor.setAttribute("x1", String(x(line)));
      cursor.setAttribute("x2", String(x(line)));
    }
    for (const readout of readouts) readout(line);
  }

  function metricFigure({ name, values }: ViewHead["metrics"][number]): HTMLElement {
    const { figure, plot, y, readout } = frame(name, ...bounds(values));
    const { d, dots } = path(values, y);
    plot.append(svg("path", { d, class: "curve" }));
    for (const [cx, cy] of dots) plot.append(svg("circle", { cx, cy, r: 2.4, class: "dot" }));
    // All alarms on every curve, for what else happened then is the question; the one of this metric with its value.
    const seen = alarms.map(({ line }) => `M${x(line).toFixed(1)} ${TOP}V${BOTTOM}`);
    if (seen.length > 0) plot.append(svg("path", { d: seen.join(""), class: "alarm" }));
    for (const alarm of alarms.slice(0, 2000)) {
      if (alarm.metric !== name) continue;
      const mark = svg("path", {
        d: `M${x(alarm.line).toFixed(1)} ${y(alarm.value).toFixed(1)}m-5 4h10l-5 -9z`,
        class: "mark",
      });
      mark.append(svg("title", {}, `step ${lines.step[alarm.line]}: ${alarm.metric} ${alarm.value}: ${alarm.text}`));
      plot.append(mark);
    }
    readouts.push((line) => {
      const value = values[line];
      readout.textContent = value === null || value === undefined ? "" : `step ${lines.step[line]}: ${short(value)}`;
    });
    const last = values.findLastIndex((value) => value !== null);
    readout.textContent = last < 0 ? "" : `last ${short(values[last] ?? 0)}`;
    return figure;
  }

  /** Evaluations inside the run: a point each, with its 95 % interval. */
  function pointFigure(name: string): HTMLElement {
    const own = points.filter((one) => one.name === name);
    const { figure, plot, y, readout } = frame(
      `${name}, 95 % intervals`,
      Math.min(...own.map(({ low }) => low)),
      Math.max(...own.map(({ high }) => high)),
    );
    const at = (one: ViewHead["points"][number]) => x(one.at - 0.5);
    plot.append(
      svg("path", {
        d: own.map((one, i) => `${i === 0 ? "M" : "L"}${at(one).toFixed(1)} ${y(one.value).toFixed(1)}`).join(""),
        class: "curve",
      }),
    );
    for (const one of own) {
      const { value, low, high, correct, problems, stage, step } = one;
      const group = svg("g", { class: "c0" });
      group.append(
        svg(
          "title",
          {},
          `${stage} after ${step} steps: ${correct} of ${problems}, ${short(100 * value)} % [${short(100 * low)}, ${short(100 * high)}]`,
        ),
        svg("line", { x1: at(one), x2: at(one), y1: y(low), y2: y(high), class: "bar" }),
        svg("circle", { cx: at(one), cy: y(value), r: 3.2 }),
      );
      plot.append(group);
    }
    const last = own[own.length - 1];
    readout.textContent = `last ${short(100 * last.value)} % [${short(100 * last.low)}, ${short(100 * last.high)}]`;
    return figure;
  }

  /** What a person looks at first. */
  const FIRST = ["loss", "reward", "solveRate", "entropy", "responseLength", "kl", "mismatch"];
  const names = metrics.map(({ name }) => name);
  const loud = new Set(alarms.map(({ metric }) => metric));
  const first = [
    ...FIRST.filter((name) => names.includes(name)),
    ...names.filter((name) => loud.has(name) && !FIRST.includes(name)),
  ];
  const figures = (chosen: string[]) =>
    metrics
      .filter(({ name }) => chosen.includes(name))
      .sort((a, b) => chosen.indexOf(a.name) - chosen.indexOf(b.name))
      .map(metricFigure);

  return {
    point,
    /** Fills the two places: what is seen first, and the rest when it is opened. */
    draw(place: HTMLElement, more: HTMLDetailsElement, rest: HTMLElement): void {
      place.append(...[...new Set(points.map(({ name }) => name))].map(pointFigure), ...figures(first));
      const others = names.filter((name) => !first.includes(name));
      more.hidden = others.length === 0;
      more.addEventListener("toggle", () => {
        if (more.open && rest.childElementCount === 0) rest.append(...figures(others));
      });
    },
  };
}

export type Curves = ReturnType<typeof makeCurves>;

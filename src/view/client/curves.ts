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
  /** Lines that a plot spans: `from` to `to`, without it. */
  interface Span {
    from: number;
    to: number;
  }
  const xOf =
    ({ from, to }: Span) =>
    (at: number) =>
      LEFT + ((WIDTH - LEFT - RIGHT) * (at - from + 0.5)) / Math.max(1, to - from);
  /** What each plot does where a step is pointed at. */
  let pointed: ((line: number) => void)[] = [];
  let stage = "";

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
    return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
  }

  /** Where each stage begins. */
  const starts = lines.stage.flatMap((name, i) => (i === 0 || name !== lines.stage[i - 1] ? [{ name, at: i }] : []));

  /** The chosen stage, or the stages in which there is a value. */
  function spanOf(has: (line: number) => boolean): Span {
    let [from, to] = [total, 0];
    for (let i = 0; i < total; i++) {
      if (stage === "" ? !has(i) : lines.stage[i] !== stage) continue;
      if (i < from) from = i;
      to = i + 1;
    }
    if (stage === "") {
      while (from > 0 && from < total && lines.stage[from - 1] === lines.stage[from]) from--;
      while (to > 0 && to < total && lines.stage[to] === lines.stage[to - 1]) to++;
    }
    return from < to ? { from, to } : { from: 0, to: total };
  }

  /** The curve; where steps are closer than pixels, each column's smallest and largest. It breaks between stages and at gaps. */
  function path(
    values: readonly (number | null)[],
    { from, to }: Span,
    x: (at: number) => number,
    y: (value: number) => number,
  ): { d: string; dots: [number, number][] } {
    const per = Math.max(1, Math.ceil((to - from) / (WIDTH * 2)));
    const dots: [number, number][] = [];
    let d = "";
    let length = 0;
    let [first, within] = [-1, ""];
    const alone = () => length === 1 && dots.push([x(first), y(values[first] ?? 0)]);
    for (let start = from; start < to; start += per) {
      let [low, high] = [-1, -1];
      for (let i = start; i < Math.min(to, start + per); i++) {
        const value = values[i];
        if (value === null) continue;
        if (low < 0 || value < (values[low] ?? 0)) low = i;
        if (high < 0 || value > (values[high] ?? 0)) high = i;
      }
      if (low < 0 || lines.stage[low] !== within) {
        alone();
        length = 0;
      }
      if (low < 0) continue;
      within = lines.stage[low];
      for (const i of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
        d += `${length === 0 ? "M" : "L"}${x(i).toFixed(1)} ${y(values[i] ?? 0).toFixed(1)}`;
        if (length++ === 0) first = i;
      }
    }
    alone();
    return { d, dots };
  }

  function frame(name: string, [low, high]: [number, number], span: Span, scale = 1) {
    const x = xOf(span);
    const y = (value: number) => BOTTOM - ((BOTTOM - TOP) * (value - low)) / (high - low);
    // As many digits as tell the ends apart.
    const digits = Math.min(20, Math.max(0, 2 - Math.floor(Math.log10(scale * (high - low)))));
    const tick = (value: number) => short(Number((scale * value).toFixed(digits)));
    const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name });
    for (const part of [0, 0.5, 1]) {
      const value = low + part * (high - low);
      plot.append(
        svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
        svg("text", { x: LEFT - 5, y: Math.max(12, y(value) + 4), "text-anchor": "end" }, tick(value)),
      );
    }
    starts.forEach(({ name: label, at }, i) => {
      if (at < span.from || at >= span.to) return;
      const left = x(at - 0.5);
      const room = x(Math.min(span.to, starts[i + 1]?.at ?? total) - 0.5) - left;
      if (at > span.from) plot.append(svg("line", { x1: left, x2: left, y1: TOP, y2: BOTTOM, class: "grid stage" }));
      if (room > 6.2 * label.length) plot.append(svg("text", { x: left + 2, y: BOTTOM + 15, class: "soft" }, label));
    });
    const readout = element("output");
    const figure = element("figure", {}, element("figcaption", {}, element("strong", {}, name), readout));
    figure.append(plot);
    const cursor = svg("line", { x1: -9, x2: -9, y1: TOP, y2: BOTTOM, class: "cursor" });
    plot.append(cursor);
    pointed.push((line) => {
      const at = line < span.from || line >= span.to ? -9 : x(line);
      cursor.setAttribute("x1", String(at));
      cursor.setAttribute("x2", String(at));
    });
    const lineAt = (event: MouseEvent) => {
      const { left, width } = plot.getBoundingClientRect();
      const part = (((event.clientX - left) / width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
      return Math.min(span.to - 1, Math.max(span.from, span.from + Math.floor(part * (span.to - span.from))));
    };
    plot.addEventListener("pointermove", (event) => point(lineAt(event)));
    plot.addEventListener("click", (event) => onLine(lineAt(event)));
    return { figure, plot, x, y, readout };
  }

  /** Shows a step on all curves: the cursor and the value. */
  function point(line: number): void {
    for (const one of pointed) one(line);
  }

  function metricFigure({ name, values }: ViewHead["metrics"][number]): HTMLElement {
    const span = spanOf((line) => values[line] !== null);
    const { figure, plot, x, y, readout } = frame(name, bounds(values.slice(span.from, span.to)), span);
    const inside = ({ line }: ViewHead["alarms"][number]) => line >= span.from && line < span.to;
    // All alarms on every curve, for what else happened then is the question; the one of this metric with its value.
    const seen = alarms.filter(inside).map(({ line }) => `M${x(line).toFixed(1)} ${TOP}V${BOTTOM}`);
    if (seen.length > 0) plot.append(svg("path", { d: seen.join(""), class: "alarm" }));
    const { d, dots } = path(values, span, x, y);
    plot.append(svg("path", { d, class: "curve" }));
    for (const [cx, cy] of dots) plot.append(svg("circle", { cx, cy, r: 2.4, class: "dot" }));
    for (const alarm of alarms.filter((one) => one.metric === name && inside(one)).slice(0, 2000)) {
      const place = `M${x(alarm.line).toFixed(1)} ${y(alarm.value).toFixed(1)}`;
      const mark = svg("path", { d: `${place}m-5 4h10l-5 -9z`, class: "mark", "data-alarm": alarm.kind });
      mark.append(svg("title", {}, `step ${lines.step[alarm.line]}: ${alarm.metric} ${alarm.value}: ${alarm.text}`));
      plot.append(mark);
    }
    pointed.push((line) => {
      const value = values[line];
      readout.textContent = value === null ? "" : `step ${lines.step[line]}: ${short(value)}`;
    });
    return figure;
  }

  /** Evaluations inside the run: a point each, with its 95 % interval. */
  function pointFigure(name: string): HTMLElement | undefined {
    const own = points.filter((one) => one.name === name && (stage === "" || one.stage === stage));
    if (own.length === 0) return undefined;
    const ends: [number, number] = [Math.min(...own.map(({ low }) => low)), Math.max(...own.map(({ high }) => high))];
    const stages = new Set(own.map((one) => one.stage));
    const span = spanOf((line) => stages.has(lines.stage[line]));
    const { figure, plot, x, y, readout } = frame(`${name} in %`, bounds(ends), span, 100);
    const at = (one: ViewHead["points"][number]) => x(one.at - 0.5);
    const d = own.map((one, i) => `${i === 0 ? "M" : "L"}${at(one).toFixed(1)} ${y(one.value).toFixed(1)}`);
    plot.append(svg("path", { d: d.join(""), class: "curve" }));
    const percent = (one: ViewHead["points"][number]) =>
      `${short(100 * one.value)} [${short(100 * one.low)}, ${short(100 * one.high)}]`;
    for (const one of own) {
      const group = svg("g", { class: "c0", "data-correct": one.correct, "data-problems": one.problems });
      group.append(
        svg("title", {}, `${one.stage} after ${one.step} steps: ${one.correct} of ${one.problems}, ${percent(one)}`),
        svg("line", { x1: at(one), x2: at(one), y1: y(one.low), y2: y(one.high), class: "bar" }),
        svg("circle", { cx: at(one), cy: y(one.value), r: 3.2 }),
      );
      plot.append(group);
    }
    pointed.push((line) => {
      const before = own.findLast((one) => one.at <= line + 1);
      readout.textContent = before === undefined ? "" : `after ${before.step}: ${percent(before)}`;
    });
    return figure;
  }

  /** What a person looks at first; then what raised an alarm. */
  const FIRST = ["loss", "reward", "solveRate", "entropy", "responseLength", "kl", "mismatch"];
  const first = [...new Set([...FIRST, ...alarms.map(({ metric }) => metric)])];
  const others = metrics.map(({ name }) => name).filter((name) => !first.includes(name));

  function figures(names: readonly string[]): HTMLElement[] {
    const has = (values: readonly (number | null)[]) =>
      values.some((value, line) => value !== null && (stage === "" || lines.stage[line] === stage));
    return names.flatMap((name) => metrics.filter((one) => one.name === name && has(one.values)).map(metricFigure));
  }

  return {
    point,
    stages: starts.map(({ name }) => name),
    /** Fills the two places: what is seen first, and the rest once it is opened. `only`: one stage; all where it is empty. */
    draw(place: HTMLElement, more: HTMLDetailsElement, rest: HTMLElement, only: string): void {
      stage = only;
      pointed = [];
      const evaluations = [...new Set(points.map(({ name }) => name))].flatMap((name) => pointFigure(name) ?? []);
      place.replaceChildren(...evaluations, ...figures(first));
      rest.replaceChildren();
      more.hidden = others.length === 0;
      const open = () => {
        if (more.open && rest.childElementCount === 0) rest.append(...figures(others));
      };
      more.ontoggle = open;
      open();
    },
  };
}

export type Curves = ReturnType<typeof makeCurves>;

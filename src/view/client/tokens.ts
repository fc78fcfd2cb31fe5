/// <reference lib="dom" />
import type { Numbers } from "../blocks.ts";
import type { ViewHead, ViewSegment } from "../types.ts";
import type { Dom } from "./dom.ts";

/** Shows segments token by token, coloured by one of the numbers that each token has. */
export function makeTokens(dom: Dom, head: ViewHead) {
  const { element, text } = dom;
  const tables = head.pieces.map(([ids, texts]) => new Map(ids.map((id, i) => [id, texts[i]])));
  const names: Record<string, string> = { logprobs: "log-prob", refLogprobs: "reference log-prob" };
  const named = (series: string) => names[series] ?? series;
  /** Log-probs from here down have the full colour: e^-5 is 0.7 %. */
  const IMPROBABLE = -5;

  function values(segment: ViewSegment, numbers: Record<string, Numbers>, series: string): Numbers | undefined {
    const from = segment.series[series];
    return from === undefined ? undefined : numbers.values.subarray(from, from + segment.tokens);
  }

  /** The largest size among the tokens shown, by which colours are scaled. */
  function scaleOf(segments: readonly ViewSegment[], numbers: Record<string, Numbers>, series: string): number {
    let most = 0;
    for (const segment of segments) {
      for (const value of values(segment, numbers, series) ?? [])
        if (Number.isFinite(value)) most = Math.max(most, Math.abs(value));
    }
    return most;
  }

  /** How strong a token's colour is, and which: 0 to 1, `wrong` for improbable or negative ones. */
  function shade(series: string, value: number, scale: number): { hue: string; strength: number } {
    if (/logprob/i.test(series)) return { hue: "wrong", strength: Math.min(1, Math.max(0, value / IMPROBABLE)) };
    return {
      hue: value < 0 ? "wrong" : series === "entropy" ? "unsure" : "right",
      strength: scale === 0 ? 0 : Math.abs(value) / scale,
    };
  }

  function legend(series: string, scale: number): HTMLElement {
    const mark = (hue: string, label: string) =>
      element(
        "span",
        {},
        element("i", { class: "swatch", style: `background: color-mix(in srgb, var(--${hue}) 65%, transparent)` }),
        label,
      );
    if (/logprob/i.test(series))
      return element(
        "span",
        { class: "legend soft" },
        mark("wrong", `improbable: the full colour from ${IMPROBABLE} down`),
      );
    if (scale === 0) return element("span", { class: "legend soft" }, `no ${named(series)} here, or all are 0`);
    const size = String(Number(scale.toPrecision(3)));
    if (series === "entropy") return element("span", { class: "legend soft" }, mark("unsure", `up to ${size} nats`));
    return element("span", { class: "legend soft" }, mark("right", `up to ${size}`), mark("wrong", `down to -${size}`));
  }

  /** A segment's tokens. Each knows its place for `describe`. */
  function show(segment: ViewSegment, numbers: Record<string, Numbers>, series: string, scale: number): HTMLElement {
    const box = element("span", { class: "tokens" });
    const ids = numbers.ids.subarray(segment.at, segment.at + segment.tokens);
    const shown = values(segment, numbers, series);
    if (ids.length === 0) text(box, segment.text);
    for (let t = 0; t < ids.length; t++) {
      const piece = segment.pieces?.[t] ?? tables[segment.side ?? 0]?.get(ids[t]) ?? "";
      const token = document.createElement("span");
      token.dataset.t = String(t);
      if (shown !== undefined) {
        const { hue, strength } = shade(series, shown[t], scale);
        if (strength > 0.004)
          token.style.background = `color-mix(in srgb, var(--${hue}) ${(strength * 65).toFixed(1)}%, transparent)`;
      }
      text(token, piece);
      box.append(token);
    }
    return box;
  }

  /** Everything that is known of a token, in full. */
  function describe(segment: ViewSegment, numbers: Record<string, Numbers>, t: number): string {
    const id = numbers.ids[segment.at + t];
    const facts = Object.keys(segment.series).map((series) => {
      const value = values(segment, numbers, series)?.[t] ?? NaN;
      const share = series === "logprobs" ? ` (p = ${Number(Math.exp(value).toPrecision(3))})` : "";
      return `${named(series)} ${shortest(value)}${share}`;
    });
    return [`token ${t + 1} of ${segment.tokens}`, `id ${id}`, ...facts].join(" · ");
  }

  /** The number with the fewest digits that rounds to this float32: as the run folder writes it. */
  function shortest(value: number): string {
    for (let digits = 6; digits < 9; digits++) {
      const candidate = Number(value.toPrecision(digits));
      if (Math.fround(candidate) === value) return String(candidate);
    }
    return String(Number(value.toPrecision(9)));
  }

  return { show, describe, legend, scaleOf, named };
}

export type Tokens = ReturnType<typeof makeTokens>;

/** Numbers as people read them. */

/** Three significant digits. */
export function number(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1).replace("e+", "e");
  return Number(value.toPrecision(3)).toString();
}

/** 0.42 as "42 %"; never "100 %" before it is. */
export function percent(fraction: number): string {
  return `${Math.floor(Math.min(1, fraction) * 100 + 1e-9)} %`;
}

/** Seconds as 0:07, 12:30 or 1:02:03. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = String(s).padStart(2, "0");
  return h > 0 ? `${h}:${String(m).padStart(2, "0")}:${tail}` : `${m}:${tail}`;
}

export function rate(tokensPerSecond: number): string {
  return `${Math.round(tokensPerSecond).toLocaleString("en-US")} tokens/s`;
}

const bars = "▁▂▃▄▅▆▇█";

/** The values as bars from the smallest to the largest, at most `width` of them: where there are more, each bar is a mean. */
export function sparkline(values: number[], width: number): string {
  if (values.length === 0 || width <= 0) return "";
  const count = Math.min(values.length, width);
  const means = Array.from({ length: count }, (_, i) => {
    const part = values.slice(Math.floor((i * values.length) / count), Math.floor(((i + 1) * values.length) / count));
    return part.reduce((sum, v) => sum + v, 0) / part.length;
  });
  const low = Math.min(...means);
  const span = Math.max(...means) - low;
  return means.map((v) => bars[span === 0 ? 0 : Math.min(7, Math.floor(((v - low) / span) * 8))]).join("");
}

/** A text cut to a width, with an ellipsis where something is missing. */
export function clip(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}

/** `1 evaluation`, `2 evaluations`. */
export const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`;

/** Bytes as B, kB, MB, GB or TB, three digits. */
export function bytes(count: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const unit = Math.min(units.length - 1, count < 1 ? 0 : Math.floor(Math.log10(count) / 3));
  return `${Number((count / 1000 ** unit).toPrecision(3))} ${units[unit]}`;
}

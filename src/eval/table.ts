import type { EvaluationReport, Measure } from "./report.ts";
import type { EvaluationRounds } from "./rounds.ts";
import { SEARCH_MEASURES } from "./search-measures.ts";
import type { EvaluationSearch } from "./searched.ts";

/**
 * A report for a terminal: what was asked, a row a measure with its 95 % interval, then a row a group. Strict and flexible stand side
 * by side where `width` has room for both, else below each other. No line is longer than `width` (40 at least), where names allow.
 */
export function reportText(report: EvaluationReport, width: number): string {
  const {
    measures,
    groups,
    problems,
    n,
    temperature,
    topK,
    seed,
    maxTokens,
    rounds,
    search,
    without,
    unsure,
    gradeErrors,
  } = report;
  const drawn = search !== undefined ? searchText(search, n) : n === 1 ? "1 sample each" : `${n} samples each`;
  const left = without === undefined ? "" : `; without ${without.join(", ")}`;
  const head = [
    `${report.task}, ${report.split}: ${problems} problems, ${drawn}${left}`,
    ...(rounds === undefined ? [] : [roundsText(rounds)]),
    `temperature ${temperature}${topK === undefined ? "" : `, top-k ${topK}`}, seed ${seed}, at most ${maxTokens} tokens${rounds === undefined ? "" : " a round"}`,
    `prompt ${report.prompt}${report.format === undefined ? "" : `, format ${report.format}`}; mode ${report.mode}`,
    ...(report.mode === "reward"
      ? []
      : [`strict: ${report.strict.join(", ")}; flexible: ${report.flexible.join(", ")}`]),
  ].flatMap((line) => wrap(line, width));
  const both = measures.some(({ grading }) => grading === "flexible");
  const rows = [
    ...sided("accuracy", measures, (m) => m.name === "accuracy"),
    ...(["pass@k", "maj@k", "best@k", "rerank@k", ...SEARCH_MEASURES] as const).flatMap((name) =>
      [...new Set(measures.filter((m) => m.name === name).map(({ k }) => k))].flatMap((k) =>
        sided(name.replace(/@[kr]$/, `@${k}`), measures, (m) => m.name === name && m.k === k),
      ),
    ),
    ...measures
      .filter(({ name, grading }) => (name === "gain@r" || name === "slope") && grading === "strict")
      .flatMap(({ name, k }) =>
        sided(name === "slope" ? "slope, a doubling" : `gain, ${k} over 1`, measures, (m) => m.name === name),
      ),
    ...(["maj@tokens", "vote - maj"] as const).flatMap((name) =>
      measures
        .filter((m) => m.name === name && m.grading === "strict")
        .flatMap(({ k, of = 0 }) =>
          sided(
            name === "vote - maj" ? `vote@${k} - maj@${of.toFixed(1)}` : `maj@${of.toFixed(1)}, tokens of ${k}`,
            measures,
            (m) => m.name === name && m.k === k,
          ),
        ),
    ),
    ...measures
      .filter(({ name }) => name === "tokens@r")
      .map((m) => ({ label: `tokens, ${m.k} rollout${m.k === 1 ? "" : "s"}`, strict: plain(m) })),
    ...measures.filter(({ name }) => name === "truncated").map((m) => ({ label: "truncated", strict: percent(m) })),
    ...measures.filter(({ name }) => name === "tokens").map((m) => ({ label: "tokens a problem", strict: plain(m) })),
    ...measures.flatMap((m) =>
      m.name === "rate" ? [{ label: m.rate ?? "", strict: `${percent(m)} of ${m.of}` }] : [],
    ),
  ];
  const inRounds = [
    ...[...new Set(measures.flatMap(({ round }) => round ?? []))].flatMap((round) =>
      sided(`right after round ${round}`, measures, (m) => m.name === "round accuracy" && m.round === round),
    ),
    ...sided("right from round 1", measures, (m) => m.name === "right from round 1"),
    ...measures
      .filter(({ name }) => name === "round tokens")
      .map((m) => ({ label: `tokens in round ${m.round}`, strict: plain(m) })),
    ...measures
      .filter(({ name }) => name === "round steps")
      .map((m) => ({ label: `steps in round ${m.round}`, strict: plain(m, 2) })),
    ...measures.filter(({ name }) => name === "rounds").map((m) => ({ label: "rounds a sample", strict: plain(m, 2) })),
    ...measures
      .filter(({ name }) => name === "prompt tokens")
      .map((m) => ({ label: "prompt tokens a problem", strict: plain(m) })),
  ];
  const grouped = groups.map(({ tag, value, problems, measures }) => {
    const [row] = sided(`${tag} ${value} (${problems})`, measures, (m) => m.name === "accuracy");
    return row;
  });
  const notes = [
    ...(unsure.strict + unsure.flexible > 0
      ? [`unsure, counted as not right: ${unsure.strict} strict, ${unsure.flexible} flexible`]
      : []),
    ...(gradeErrors > 0 ? [`grading failed for ${gradeErrors} samples, counted as not right`] : []),
    "[low, high]: 95 % interval",
  ].flatMap((line) => wrap(line, width));
  const blocks = [rows, inRounds, grouped].filter(({ length }) => length > 0).map((block) => table(block, both, width));
  return [head.join("\n"), ...blocks, notes.join("\n")].join("\n\n");
}

/** How questions were searched, in words. */
export function searchText({ by, value, texts }: EvaluationSearch, rollouts: number): string {
  const parts = [
    `searched with ${rollouts} rollout${rollouts === 1 ? "" : "s"} each, value: ${value}`,
    ...(by === undefined ? [] : ["each step asked for by a prompt"]),
    ...(texts === 1 ? [] : [`up to ${texts} texts a function`]),
  ];
  return parts.join("; ");
}

/** How questions were asked in rounds, in words. */
export function roundsText({ rounds, adaptive, style, progressTokens }: EvaluationRounds): string {
  const parts = [
    adaptive ? `at most ${rounds} rounds, ended by a final answer` : `${rounds} rounds`,
    ...(style === "default" ? [] : [`worded in the ${style} style`]),
    ...(progressTokens === undefined ? [] : [`at most ${progressTokens} tokens of progress`]),
  ];
  return parts.join(", ");
}

interface Row {
  label: string;
  strict: string;
  flexible?: string;
}

function sided(label: string, measures: Measure[], holds: (measure: Measure) => boolean): Row[] {
  const [strict, flexible] = (["strict", "flexible"] as const).map((grading) =>
    measures.find((measure) => holds(measure) && measure.grading === grading),
  );
  if (strict === undefined) return [];
  return [{ label, strict: percent(strict), ...(flexible === undefined ? {} : { flexible: percent(flexible) }) }];
}

function percent({ value, low, high }: Measure): string {
  const [v, l, h] = [value, low, high].map((share) => (100 * share).toFixed(1));
  return `${v.padStart(5)} % [${l}, ${h}]`;
}

function plain({ value, low, high }: Measure, digits = 0): string {
  const [v, l, h] = [value, low, high].map((number) => number.toFixed(digits));
  return `${v.padStart(5)} [${l}, ${h}]`;
}

function table(rows: Row[], both: boolean, width: number): string {
  const column = (texts: string[]) => Math.max(...texts.map(({ length }) => length));
  const first = column(rows.map(({ label }) => label));
  const second = column([...rows.map(({ strict }) => strict), both ? "strict" : ""]);
  const third = column(rows.map(({ flexible = "" }) => flexible));
  if (!both) return rows.map(({ label, strict }) => `${label.padEnd(first)}  ${strict}`).join("\n");
  if (first + second + third + 4 <= width) {
    const head = `${"".padEnd(first)}  ${"strict".padEnd(second)}  flexible`;
    return [
      head,
      ...rows.map(({ label, strict, flexible = "" }) =>
        `${label.padEnd(first)}  ${strict.padEnd(second)}  ${flexible}`.trimEnd(),
      ),
    ].join("\n");
  }
  const indent = "  ";
  return rows
    .flatMap(({ label, strict, flexible }) =>
      flexible === undefined
        ? [label, `${indent}${strict}`]
        : [label, `${indent}strict   ${strict}`, `${indent}flexible ${flexible}`],
    )
    .join("\n");
}

/** Breaks a line at blanks. */
function wrap(line: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of line.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

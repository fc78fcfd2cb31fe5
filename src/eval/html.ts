import { type Comparison, points, span } from "./compare.ts";
import { probability } from "./compare-table.ts";
import { escapeHtml, plainText } from "./html-text.ts";
import { type Curve, curvesPlot, rowsPlot } from "./plot.ts";
import type { EvaluationReport, Measure } from "./report.ts";
import { SEARCH_MEASURES } from "./search-measures.ts";
import { roundsText, searchText } from "./table.ts";

/** The head of an evaluation's page: settings, every measure with its 95 % interval, plots. */
export function reportHtml(report: EvaluationReport): string {
  return `${settings(report)}
<h2>Results</h2>
<div class="wide">${measureTable(report.measures)}</div>
<p class="soft">${notes(report).map(escapeHtml).join(" ")}</p>
<div class="plots">${plots(report).join("")}</div>`;
}

/** The head of a comparison's page: both accuracies, the difference, the test, and the result in a sentence. */
export function comparisonHtml(comparison: Comparison): string {
  const { a, b, grading, problems, difference, interval, test, sentence } = comparison;
  const side = (letter: string, { name, accuracy }: Comparison["a"]) =>
    `<tr><th scope="row">${letter} <bdi>${plainText(name)}</bdi></th><td>${points(accuracy.value)} % <small>[${span(accuracy)}]</small></td></tr>`;
  const testName = test.name === "McNemar" ? "McNemar's exact test" : "exact sign test over problems";
  return `<p><strong>${escapeHtml(sentence)}.</strong></p>
<div class="wide"><table><thead><tr><th></th><th>${grading} accuracy, ${problems} problems in common</th></tr></thead>
<tbody>${side("A", a)}${side("B", b)}<tr><th scope="row">B - A</th><td>${points(difference)} points <small>[${span(interval)}]</small></td></tr></tbody></table></div>
<p class="soft">In brackets: 95 % intervals. ${testName}: ${escapeHtml(probability(test.p))}; B does better on ${test.bBetter} problems, A on ${test.aBetter}.</p>`;
}

function settings(report: EvaluationReport): string {
  const shown: [string, string | number | undefined][] = [
    ["model", report.model],
    ["problems", report.problems],
    ["samples a problem", report.n],
    ["prompt", report.prompt],
    ["comparison", report.mode],
    ["strict extraction", report.strict.join(", ") || undefined],
    ["flexible extraction", report.flexible.join(", ") || undefined],
    ["temperature", report.temperature],
    ["top-k", report.topK],
    ["search", report.search && searchText(report.search, report.n)],
    ["without", report.without?.join(", ")],
    ["rounds", report.rounds && roundsText(report.rounds)],
    ["max tokens", report.maxTokens],
    ["seed", report.seed],
  ];
  const items = shown.flatMap(([name, value]) =>
    value === undefined ? [] : [`<div><dt>${name}</dt><dd>${plainText(String(value))}</dd></div>`],
  );
  return `<dl class="settings">${items.join("")}</dl>`;
}

function labelOf({ name, k, round, rate, of }: Measure): string {
  if (name === "rate") return `${escapeHtml(rate ?? "")}, of ${of}`;
  if (name === "tokens@r") return `tokens of ${k} rollouts`;
  if (name === "gain@r") return `gain, ${k} over 1`;
  if (name === "slope") return "slope, a doubling";
  if (name === "maj@tokens") return `maj@${of?.toFixed(1)}, tokens of ${k} rollouts`;
  if (name === "vote - maj") return `vote@${k} - maj@${of?.toFixed(1)}`;
  if (name === "tokens" || name === "prompt tokens") return `${name} a problem`;
  if (name === "round accuracy") return `right after round ${round}`;
  if (name === "round tokens") return `tokens in round ${round}`;
  if (name === "round steps") return `steps in round ${round}`;
  if (name === "rounds") return "rounds a sample";
  return k === undefined ? name : name.replace(/@[kr]$/, `@${k}`);
}

/** Measures that are no shares, with their digits. */
const DIGITS: Partial<Record<Measure["name"], number>> = {
  tokens: 0,
  "tokens@r": 0,
  "prompt tokens": 0,
  "round tokens": 0,
  "round steps": 2,
  rounds: 2,
};

function measureTable(measures: readonly Measure[]): string {
  const labels = [...new Set(measures.map(labelOf))];
  const flexible = measures.some(({ grading }) => grading === "flexible");
  const cell = (measure: Measure | undefined): string => {
    if (measure === undefined) return "<td></td>";
    const { name, value, low, high } = measure;
    const digits = DIGITS[name];
    const number = (x: number) => (digits === undefined ? (100 * x).toFixed(1) : x.toFixed(digits));
    return `<td>${number(value)}${digits === undefined ? " %" : ""} <small>[${number(low)}, ${number(high)}]</small></td>`;
  };
  const rows = labels.map((label) => {
    const of = measures.filter((measure) => labelOf(measure) === label);
    const columns = [
      of.find(({ grading }) => grading !== "flexible"),
      of.find(({ grading }) => grading === "flexible"),
    ];
    return `<tr><th scope="row">${label}</th>${columns
      .slice(0, flexible ? 2 : 1)
      .map(cell)
      .join("")}</tr>`;
  });
  return `<table><thead><tr><th></th><th>${flexible ? "strict" : ""}</th>${flexible ? "<th>flexible</th>" : ""}</tr></thead><tbody>${rows.join("")}</tbody></table>`;
}

function notes({ unsure, gradeErrors, measures }: EvaluationReport): string[] {
  const methods = measures.some(({ method }) => method === "bootstrap")
    ? "Wilson's for a proportion of problems, else a bootstrap over problems"
    : "Wilson's";
  return [
    `In brackets: 95 % intervals (${methods}).`,
    ...(unsure.strict + unsure.flexible > 0
      ? [`Unsure, counted as not right: ${unsure.strict} strict, ${unsure.flexible} flexible.`]
      : []),
    ...(gradeErrors > 0 ? [`Grading failed for ${gradeErrors} samples, counted as not right.`] : []),
  ];
}

/** Strict curves over k where there are several samples, and accuracy by each tag; else strict and flexible accuracy. */
function plots({ measures, groups }: EvaluationReport): string[] {
  const ofStrict = measures.filter(({ grading }) => grading === "strict");
  const curves = (["pass@k", "maj@k", "best@k", "rerank@k", ...SEARCH_MEASURES] as const).flatMap(
    (name, c): Curve[] => {
      const points = ofStrict.flatMap((m) => (m.name === name && m.k !== undefined ? [{ ...m, k: m.k }] : []));
      // A search has none of the first four.
      return points.length === 0 ? [] : [{ name, className: `c${c % 4}`, points }];
    },
  );
  const accuracies = measures.filter(({ name }) => name === "accuracy");
  const tags = [...new Set(groups.map(({ tag }) => tag))];
  const byRound = ofStrict.filter(({ name }) => name === "round accuracy");
  return [
    curves.length > 0
      ? curvesPlot(curves, "Strict, % of problems by the number of samples k, with 95 % intervals")
      : rowsPlot(
          accuracies.map((m) => ({ ...m, name: m.grading ?? "accuracy" })),
          "Accuracy in %, with 95 % intervals",
        ),
    ...(byRound.length === 0
      ? []
      : [
          rowsPlot(
            byRound.map((m) => ({ ...m, name: `after round ${m.round}` })),
            "Strict accuracy in % by round, with 95 % intervals",
          ),
        ]),
    ...tags.map((tag) =>
      rowsPlot(
        groups
          .filter((group) => group.tag === tag)
          .map((group) => ({ ...group.measures[0], name: `${group.value} (${group.problems})` })),
        `Strict accuracy in % by ${tag} (problems), with 95 % intervals`,
      ),
    ),
  ];
}

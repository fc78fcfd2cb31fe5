import { createHash } from "node:crypto";
import { SCRIPT, STYLE } from "./html-assets.ts";
import { answerText, escapeHtml, mathText, plainText } from "./html-text.ts";
import { type Curve, curvesPlot, rowsPlot } from "./plot.ts";
import type { EvaluationReport, Measure } from "./report.ts";
import { type AnswerGrade, byProblem, type EvaluatedSample } from "./samples.ts";

/** Fonts, pictures, frames and other scripts than the page's own are refused by the browser, whatever a model wrote. */
const POLICY = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${createHash("sha256").update(SCRIPT).digest("base64")}'`;

/**
 * One HTML page of an evaluation that needs nothing else: settings, every measure with its 95 % interval, plots, and all samples with
 * a filter. Formulas are MathML. What a model wrote is shown as text, never run as markup.
 */
export function evaluationPage(report: EvaluationReport, samples: readonly EvaluatedSample[]): string {
  const name = [report.task, report.split].filter((part) => part !== undefined).join(", ");
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(name)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${plainText(name)}</h1>
${settings(report)}
<h2>Results</h2>
<div class="wide">${measureTable(report.measures)}</div>
<p class="soft">${notes(report).map(escapeHtml).join(" ")}</p>
<div class="plots">${plots(report).join("")}</div>
<h2>Samples</h2>
<form>
<input type="search" id="find" placeholder="search questions, answers, responses" aria-label="search">
<select id="which" aria-label="which problems">${FILTERS.map(([value, label]) => `<option value="${value}">${label}</option>`).join("")}</select>
<label><input type="checkbox" id="source"> TeX source</label>
<span id="count" class="soft"></span>
</form>
${byProblem(samples).map(problemBlock).join("\n")}
<script>${SCRIPT}</script>
</body>
</html>
`;
}

const FILTERS = [
  ["all", "all problems"],
  ["right", "all samples right"],
  ["mixed", "some right"],
  ["none", "none right"],
  ["format", "strict and flexible differ"],
  ["unsure", "an unsure verdict"],
  ["cut", "cut at the length limit"],
  ["error", "grading failed"],
] as const;
type Mark = (typeof FILTERS)[number][0];

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
    ["max tokens", report.maxTokens],
    ["seed", report.seed],
  ];
  const items = shown.flatMap(([name, value]) =>
    value === undefined ? [] : [`<div><dt>${name}</dt><dd>${plainText(String(value))}</dd></div>`],
  );
  return `<dl class="settings">${items.join("")}</dl>`;
}

const labelOf = ({ name, k }: Measure): string =>
  name === "tokens" ? "tokens a problem" : k === undefined ? name : name.replace("@k", `@${k}`);

function measureTable(measures: readonly Measure[]): string {
  const labels = [...new Set(measures.map(labelOf))];
  const flexible = measures.some(({ grading }) => grading === "flexible");
  const cell = (measure: Measure | undefined): string => {
    if (measure === undefined) return "<td></td>";
    const { name, value, low, high } = measure;
    const number = (x: number) => (name === "tokens" ? x.toFixed(0) : (100 * x).toFixed(1));
    return `<td>${number(value)}${name === "tokens" ? "" : " %"} <small>[${number(low)}, ${number(high)}]</small></td>`;
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
  const curves = (["pass@k", "maj@k", "best@k", "rerank@k"] as const).flatMap((name, c): Curve[] => {
    const points = ofStrict.flatMap((m) => (m.name === name && m.k !== undefined ? [{ ...m, k: m.k }] : []));
    return points.length === 0 ? [] : [{ name, className: `c${c}`, points }];
  });
  const accuracies = measures.filter(({ name }) => name === "accuracy");
  const tags = [...new Set(groups.map(({ tag }) => tag))];
  return [
    curves.length > 0
      ? curvesPlot(curves, "Strict, % of problems by the number of samples k, with 95 % intervals")
      : rowsPlot(
          accuracies.map((m) => ({ ...m, name: m.grading ?? "accuracy" })),
          "Accuracy in %, with 95 % intervals",
        ),
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

function problemBlock(samples: EvaluatedSample[]): string {
  const [{ problem, question, gold, options, tags }] = samples;
  const right = samples.filter(({ strict }) => strict.verdict === "equal").length;
  const all = right === samples.length;
  const marks: Mark[] = [
    all ? "right" : right > 0 ? "mixed" : "none",
    ...(samples.some(({ strict, flexible }) => flexible && flexible.verdict !== strict.verdict)
      ? (["format"] as const)
      : []),
    ...(samples.some((sample) => sample.strict.verdict === "unsure" || sample.flexible?.verdict === "unsure")
      ? (["unsure"] as const)
      : []),
    ...(samples.some(({ stop }) => stop === "length") ? (["cut"] as const) : []),
    ...(samples.some(({ error }) => error !== undefined) ? (["error"] as const) : []),
  ];
  const tagged = Object.entries(tags ?? {}).map(
    ([tag, value]) => ` <span class="soft">${plainText(`${tag}: ${value}`)}</span>`,
  );
  const choices = (options ?? []).map((option, i) => `<div>${String.fromCharCode(65 + i)}. ${mathText(option)}</div>`);
  return `<details data-marks="${marks.join(" ")}"><summary><span class="count ${all ? "right" : right === 0 ? "wrong" : "unsure"}">${right}/${samples.length}</span><bdi>${plainText(problem)}</bdi>${tagged.join("")}</summary><div class="body">
${question === undefined ? "" : `<div class="text" dir="auto">${mathText(question)}</div>`}${choices.join("")}
${gold === undefined ? "" : `<p>gold <bdi>${answerText(gold)}</bdi></p>`}
${samples.map(sampleBlock).join("\n")}
</div></details>`;
}

const VERDICTS = { equal: "right", different: "wrong", unsure: "unsure" } as const;

function sampleBlock(sample: EvaluatedSample): string {
  const { strict, flexible, stop, tokens, logprobs, error, text } = sample;
  const meanLogprob = logprobs.reduce((sum, value) => sum + value, 0) / Math.max(1, logprobs.length);
  const facts = [
    `${tokens.length} tokens`,
    ...(stop === "length" ? ["cut at the length limit"] : []),
    `mean log-prob ${meanLogprob.toFixed(3)}`,
    ...(error === undefined ? [] : [`grading failed: ${error}`]),
  ];
  return `<div class="sample"><div>${verdict(flexible === undefined ? "" : "strict", strict)}</div>${flexible === undefined ? "" : `<div>${verdict("flexible", flexible)}</div>`}
<div class="soft">${facts.map(plainText).join(" · ")}</div>
<div class="text" dir="auto">${mathText(text)}</div></div>`;
}

function verdict(name: string, { answer, strategy, verdict, rule, reason }: AnswerGrade): string {
  const label = VERDICTS[verdict];
  const found = answer === undefined ? "no answer found" : `<bdi>${answerText(answer)}</bdi>`;
  const how = [strategy, rule, reason].filter((part) => part !== undefined && part !== "").join("; ");
  return `${name} <span class="verdict ${label}">${label}</span> ${found} <span class="soft">(${plainText(how)})</span>`;
}

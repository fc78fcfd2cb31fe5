import { mkdirSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { points, span } from "../eval/compare.ts";
import { probability } from "../eval/compare-table.ts";
import { evaluationRounds } from "../eval/rounds.ts";
import { FEWEST_SEEDS } from "../eval/seeds.ts";
import { roundsText } from "../eval/table.ts";
import { diskError } from "../run/disk.ts";
import { readRecord } from "../run/folder.ts";
import type { Analysis, ArmAt, ContrastResult, Ran, SharedCost } from "./analyse.ts";
import type { TagAt } from "./by-tag.ts";
import type { Cost } from "./cell.ts";
import { chart } from "./chart.ts";
import { curves } from "./curves.ts";
import { askedOf, type ExperimentFile, groupsOf } from "./file.ts";
import { alsoSection } from "./page-also.ts";
import { cell, label, table, thousands } from "./page-parts.ts";
import { roundsSection } from "./page-rounds.ts";

/** The page's file, in the experiment's folder and where `out` says. */
export const PAGE = "README.md";

/** Writes the page, its charts and `results.json`, there and in `out`. Returns the pages' paths. */
export function writePage(
  experiment: ExperimentFile,
  analysis: Analysis,
  ran: { final: readonly Ran[]; tuning: readonly Ran[] },
  dir: string,
  out: string | undefined,
): string[] {
  const charts = curves(experiment, ran.final).map(({ file, title, x, series }) => ({
    file,
    title,
    svg: chart(series, { title, x, y: "accuracy, %" }),
  }));
  const files: [string, string][] = [
    [PAGE, pageText(experiment, analysis, ran, charts, out)],
    ...charts.map(({ file, svg }): [string, string] => [file, svg]),
    ["results.json", `${JSON.stringify(analysis, null, 2)}\n`],
  ];
  const also = out ?? (experiment.out === undefined ? undefined : resolve(experiment.baseDir, experiment.out));
  return [dir, ...(also === undefined ? [] : [resolve(also)])].map((folder) => {
    try {
      mkdirSync(folder, { recursive: true });
      for (const [name, text] of files) writeFileSync(join(folder, name), text);
    } catch (error) {
      throw diskError(error, folder);
    }
    return join(folder, PAGE);
  });
}

function pageText(
  experiment: ExperimentFile,
  analysis: Analysis,
  ran: { final: readonly Ran[]; tuning: readonly Ran[] },
  charts: { file: string; title: string }[],
  out: string | undefined,
): string {
  const { missing, arms, contrasts, shared, profiles, problems, notes } = analysis;
  const { final, tuning } = experiment;
  const primary = contrasts.filter((one) => one.primary);
  const other = contrasts.filter((one) => !one.primary);
  const file = relative("", resolve(experiment.source)) || experiment.source;
  const seeds = final.seeds.length;
  const sections = [
    `# ${cell(experiment.title)}`,
    ...(missing.length === 0
      ? []
      : [
          `**Not complete.** Missing: ${missing.length} cell${missing.length === 1 ? "" : "s"}.`,
          missing.map(({ cell: id, reason }) => `- \`${id}\`: ${cell(reason)}`).join("\n"),
        ]),
    primary.map((one) => `- ${sentence(one, seeds)}`).join("\n"),
    "## Accuracy on the test problems",
    `Mean over ${seedsText(experiment)}, with Student's 95 % interval over them${problems > 0 ? `, on ${problems} problems` : ""}. Single accuracies are descriptive: claims are made by the contrasts below.`,
    ...groupsOf(experiment).map((group) => accuracyTable(experiment, group, arms)),
    ...charts.map(({ file: image, title }) => `![${title}](${image})`),
    ...(charts.length === 0
      ? [
          "The runs were not evaluated on their way, so there are no learning curves: `curve = { every = 20 }` in the experiment file adds them.",
        ]
      : [`Thin lines are seeds, thick ones their means. ${curveNote(ran.final)}`]),
    "## Primary contrasts",
    "Named before the run. B minus A in points; t interval over the seeds' differences (other seeds, these problems), two-way bootstrap (other seeds and problems), p of the paired t test over seeds, and p after Holm's correction over these contrasts. A difference is claimed where the last is at most 0.05.",
    contrastTable(primary, true),
    powerText(analysis, seeds),
    ...(other.length === 0
      ? []
      : [
          "## Other pairs",
          "Descriptive: not named before the run, not corrected, no claim.",
          contrastTable(other, false),
        ]),
    ...tagSection(analysis.tags),
    ...roundsSection(analysis.rounds),
    ...alsoSection(experiment, analysis),
    "## Cost",
    `Mean over seeds, of what the last stage of an arm took up to each mark. Evaluation is not counted.`,
    costTable(arms),
    ...(shared.length === 0 ? [] : ["Before that, not in any budget:", costsBefore("stages", shared)]),
    ...(profiles.length === 0
      ? []
      : [
          "Profiles of the training problems, which the budgets of the arms that use them count:",
          costsBefore("profile", profiles),
        ]),
    "## Settings tried",
    settingsText(experiment, analysis),
    "## How it was run",
    table(
      ["", ""],
      [
        [
          "tuning seeds",
          tuning === undefined || experiment.arm[0].settings.length === 1
            ? "none: one setting an arm"
            : tuning.seeds.join(", "),
        ],
        ["final seeds", final.seeds.join(", ")],
        [
          "budgets",
          Object.entries(experiment.budgets)
            .map(([name, amount]) => `${label(name)}: ${thousands(amount)}`)
            .join("; "),
        ],
        ["dev", evaluationText(experiment.dev)],
        ["test", evaluationText(experiment.test)],
        ...experiment.arm.flatMap(({ name, evaluate }) =>
          evaluate === undefined
            ? []
            : [[`${name} is asked`, evaluationText(askedOf(experiment, name, experiment.test))]],
        ),
        ...environments(ran.final).map((text) => ["environment", text]),
        ...notes.map((note) => ["note", cell(note)]),
      ],
    ),
    `The command that repeats it (complete cells are kept; another \`--run\` begins anew):\n\n\`\`\`\nrifft experiment ${file}${out === undefined ? "" : ` --out ${out}`}\n\`\`\``,
  ];
  return `${sections.filter((text) => text !== "").join("\n\n")}\n`;
}

const signed = (share: number): string => (share > 0 ? `+${points(share)}` : points(share));

function sentence({ a, b, budget, comparison, corrected = 1, found }: ContrastResult, seeds: number): string {
  const where = `${b} against ${a} at equal ${label(budget)}`;
  if (comparison === undefined) return `${where}: missing, because a seed of one of them is not complete.`;
  const { difference, tInterval, claim } = comparison;
  const numbers = `${signed(difference)} points, 95 % t interval ${span(tInterval)} over ${seeds} seeds`;
  if (!claim)
    return `${where}: no claim can be made with ${seeds} seeds (at least ${FEWEST_SEEDS} are needed); ${numbers}.`;
  const verdict = found === true ? `**${difference > 0 ? b : a} is better**` : "no difference can be claimed";
  return `${where}: ${verdict}; ${numbers}, Holm-corrected ${probability(corrected)}.`;
}

/** The final seeds, and the arms that have fewer. */
function seedsText({ arm, final }: ExperimentFile): string {
  const fewer = arm.flatMap(({ name, seeds }) => (seeds === undefined ? [] : [`${name}: ${seeds.length}`]));
  return `${final.seeds.length} seeds${fewer.length === 0 ? "" : ` (${fewer.join(", ")})`}`;
}

function accuracyTable({ arm, budgets }: ExperimentFile, group: string | undefined, arms: ArmAt[]): string {
  const used = Object.keys(budgets);
  const own = arm.filter((one) => one.group === group);
  const rows = own.map(({ name }) => [
    name,
    ...used.flatMap((budget) => {
      const found = arms.find((one) => one.arm === name && one.budget === budget);
      if (found === undefined) return ["", ""];
      const { mean, interval, seeds } = found;
      const range = seeds.length > 1 ? ` [${points(interval.low)}, ${points(interval.high)}]` : "";
      return [`${points(mean)}${range}`, seeds.map(({ accuracy }) => points(accuracy)).join(" ")];
    }),
  ]);
  return table([group ?? "arm", ...used.flatMap((budget) => [`at equal ${label(budget)}, %`, "each seed"])], rows);
}

function contrastTable(contrasts: ContrastResult[], primary: boolean): string {
  const rows = contrasts.map(({ a, b, budget, comparison, p, corrected, found }) => {
    const head = [`${b} - ${a}`, label(budget)];
    if (comparison === undefined) return [...head, "", "missing", "", "", "", ...(primary ? ["", "", ""] : [])];
    const { difference, tInterval, twoWay, signFlip, seedDeviation, claim } = comparison;
    const tests = primary
      ? [shortP(p), shortP(corrected), !claim ? "too few seeds" : found === true ? "claimed" : "none"]
      : [];
    return [
      ...head,
      String(comparison.seeds.length),
      signed(difference),
      span(tInterval),
      span(twoWay),
      points(seedDeviation),
      ...tests,
      shortP(signFlip),
    ];
  });
  const tests = primary ? ["p (t)", "p (Holm)", "difference"] : [];
  return table(
    ["B - A", "at equal", "seeds", "points", "t interval", "two-way", "sd over seeds", ...tests, "p (sign flip)"],
    rows,
  );
}

const shortP = (p: number | undefined): string => (p === undefined ? "" : p < 0.001 ? "< 0.001" : p.toFixed(3));

function powerText({ choices }: Analysis, seeds: number): string {
  const from = {
    assumed: "assumed in the file",
    tuning: "of the tuning seeds",
    answers: "of the noise of single answers alone; seeds may add to it",
  };
  const lines = choices.power.map(
    ({ a, b, budget, deviation, from: source, detectable, detectableCorrected, power }) => {
      const looked =
        power === undefined
          ? ""
          : ` A difference of ${points(power.difference)} points is found with probability ${power.uncorrected.toFixed(2)} (${power.corrected.toFixed(2)}).`;
      return `- ${b} against ${a}, ${label(budget)}: with a standard deviation over seeds of ${points(deviation)} points (${from[source]}), ${seeds} seeds find ${foundText(detectable)} in four of five experiments (${foundText(detectableCorrected)} at the hardest step of Holm's correction).${looked}`;
    },
  );
  return `Stated before the final cells, by the power of the paired t test (noncentral t):\n\n${lines.join("\n")}`;
}

/** A difference of shares that a test can find. */
export const foundText = (difference: number): string =>
  difference <= 1 ? `a difference of ${points(difference)} points` : "no difference that accuracies can have";

const costHead = ["generated", "prefilled", "forward-scored", "trained", "engine seconds"];

const costCells = ({ counts, engineSeconds }: Cost): string[] => [
  ...[counts.generated, counts.prefilled, counts.scored, counts.trained].map(thousands),
  engineSeconds.toFixed(1),
];

function costsBefore(what: string, costs: SharedCost[]): string {
  return table(
    [what, "used by", "seeds", ...costHead],
    costs.map(({ name, usedBy, seeds, cost }) => [
      `\`${name}\``,
      usedBy.join(", ") || "tuning",
      String(seeds.length),
      ...costCells(cost),
    ]),
  );
}

function costTable(arms: ArmAt[]): string {
  const rows = arms.map(({ arm, budget, cost, steps }) => [arm, label(budget), thousands(steps), ...costCells(cost)]);
  return table(["arm", "mark", "steps", ...costHead], rows);
}

function settingsText({ arm, tuning }: ExperimentFile, { choices }: Analysis): string {
  if (arm[0].settings.length === 1) return "One setting an arm: nothing was chosen.";
  const rows = arm.flatMap(({ name, settings }) =>
    settings.map((set, i) => {
      const choice = choices.arms[name];
      const tried = choice?.settings[i];
      const dev = Object.values(tried?.dev ?? {}).map((value) => (value === null ? "diverged" : points(value)));
      const mean = tried === undefined || tried.mean === null ? "" : points(tried.mean);
      const text = Object.keys(set).length === 0 ? "as in the recipe" : `\`${cell(settingText(set))}\``;
      return [name, text, dev.join(" "), mean, choice?.chosen === i ? "**chosen**" : ""];
    }),
  );
  const budgets = [
    ...new Set(Object.values(choices.arms).flatMap(({ budget }) => (budget === undefined ? [] : [label(budget)]))),
  ];
  return [
    `Accuracy on dev in %, at the mark of ${budgets.join(" or ")}, for the tuning seed${tuning?.seeds.length === 1 ? "" : "s"}. The highest mean is chosen, the first listed of equal ones; each arm is chosen once, for all budgets.`,
    table(["arm", "setting", "each seed", "mean", ""], rows),
  ].join("\n\n");
}

const settingText = (set: Record<string, unknown>): string =>
  Object.entries(set)
    .map(([key, value]) => `${key} = ${JSON.stringify(value)}`)
    .join(", ");

function evaluationText(spec: ExperimentFile["dev"]): string {
  const { split, limit, n, temperature, maxTokens, format } = spec;
  const first = limit === undefined ? "all" : `the first ${limit}`;
  const rounds = evaluationRounds(spec, (key) => key);
  const inRounds = rounds === undefined ? "" : ` a round, ${roundsText(rounds)}`;
  const asked = `${inRounds}${format === undefined ? "" : `, in the format ${format}`}`;
  return `${first} problems of the ${split} split, ${n === 1 ? "one sample" : `${n} samples`} each at temperature ${temperature}, at most ${maxTokens} tokens${asked}`;
}

/** A table for each tag and budget: a row an arm, a column a value. */
function tagSection(tags: readonly TagAt[]): string[] {
  const tables = [...new Set(tags.map(({ tag, budget }) => JSON.stringify([tag, budget])))].map((key) => {
    const of = tags.filter(({ tag, budget }) => JSON.stringify([tag, budget]) === key);
    const columns = [...new Map(of.map(({ value, problems }) => [value, problems]))];
    const rows = [...new Set(of.map(({ arm }) => arm))].map((arm) => [
      arm,
      ...columns.map(([value]) => {
        const found = of.find((one) => one.arm === arm && one.value === value);
        return found === undefined
          ? ""
          : `${points(found.mean)} [${points(found.interval.low)}, ${points(found.interval.high)}]`;
      }),
    ]);
    const [{ tag, budget }] = of;
    return table(
      [`${cell(tag)}, at equal ${label(budget)}`, ...columns.map(([value, n]) => `${cell(value)} (${n})`)],
      rows,
    );
  });
  if (tables.length === 0) return [];
  return [
    "## Accuracy by tag",
    "Descriptive: means over seeds in %, with Student's interval over them; in brackets how many test problems.",
    ...tables,
  ];
}

function curveNote(final: readonly Ran[]): string {
  const own = final.find(({ cell: { recipe } }) => recipe.eval !== undefined)?.cell.recipe.eval;
  const where = own === undefined ? "" : ` on the first ${own.limit} problems of the ${own.split} split`;
  return `Evaluated inside the runs${where}; x counts from where the last stage began, a profile included.`;
}

/** The environments of the final cells, each with how many ran there. */
function environments(final: readonly Ran[]): string[] {
  const found = new Map<string, number>();
  for (const { dir, result } of final) {
    if (result === undefined) continue;
    const { rifft, platform, cpu, threads, onnxruntime, memoryPlan } = readRecord(dir).environment;
    const text = `rifft ${rifft}, ${platform}, ${cpu}, ${threads} thread${threads === 1 ? "" : "s"} a cell, ONNX Runtime ${onnxruntime}; ${memoryPlan}`;
    found.set(text, (found.get(text) ?? 0) + 1);
  }
  return [...found].map(([text, cells]) => `${cells} cells: ${cell(text)}`);
}

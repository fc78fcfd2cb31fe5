import type { Comparison, Evaluated } from "../eval/compare.ts";
import { comparisonHtml, reportHtml } from "../eval/html.ts";
import type { EvaluationReport } from "../eval/report.ts";
import { byProblem, type EvaluatedSample } from "../eval/samples.ts";
import type { Tokenizer } from "../model/types.ts";
import { type AddedSegment, type AddedTree, ViewBuilder } from "./builder.ts";
import type { View } from "./page.ts";
import { Pieces } from "./pieces.ts";
import { evaluatedTokenizer } from "./tokenizer.ts";
import type { ViewHead } from "./types.ts";

/** One evaluation: its report and every sample. */
export async function evaluationView(
  report: EvaluationReport,
  samples: readonly EvaluatedSample[],
  said: readonly string[] = [],
): Promise<View> {
  const notes = [...said];
  const tokenizer = await evaluatedTokenizer(report.model, (text) => notes.push(text));
  const builder = new ViewBuilder(new Pieces(tokenizer));
  for (const group of byProblem(samples)) addProblem(builder, group, [{ samples: group, tokenizer }]);
  return {
    title: [report.task, report.split].filter((part) => part !== undefined).join(", "),
    facts: [],
    notes,
    report: reportHtml(report),
    ...finished(builder, "evaluation", []),
  };
}

/** Two evaluations side by side, on the problems that both answered. */
export async function comparisonView(
  a: Evaluated,
  b: Evaluated,
  comparison: Comparison,
  said: readonly string[] = [],
): Promise<View> {
  const notes = [...said, ...comparison.notes];
  const note = (name: string) => (text: string) => void notes.push(`${name}: ${text}`);
  const sides = await Promise.all(
    [a, b].map(async ({ name, settings, samples }) => ({
      groups: new Map(byProblem(samples).map((group) => [group[0].problem, group])),
      tokenizer: await evaluatedTokenizer(settings?.model, note(name)),
    })),
  );
  const builder = new ViewBuilder(...sides.map(({ tokenizer }) => new Pieces(tokenizer)));
  const flips = new Map(comparison.flips.map(({ problem, difference }) => [problem, difference < 0 ? 1 : 2]));
  for (const [problem, group] of sides[0].groups) {
    const other = sides[1].groups.get(problem);
    if (other === undefined) continue;
    addProblem(
      builder,
      group,
      [
        { samples: group, tokenizer: sides[0].tokenizer },
        { samples: other, tokenizer: sides[1].tokenizer },
      ],
      flips.get(problem) ?? 0,
    );
  }
  return {
    title: `${a.name} against ${b.name}`,
    facts: [],
    notes,
    report: comparisonHtml(comparison),
    ...finished(builder, "comparison", [a.name, b.name]),
  };
}

/** A problem as a tree: the question, and each sample as a branch. */
function addProblem(
  builder: ViewBuilder,
  [first]: readonly EvaluatedSample[],
  sides: { samples: readonly EvaluatedSample[]; tokenizer: Tokenizer | undefined }[],
  flip?: number,
): void {
  const { problem, question, gold, options, tags } = first;
  builder.problem(problem, { question, gold, options, tags });
  const segments = sides.flatMap(({ samples, tokenizer }, side) =>
    samples.map((sample): AddedSegment => ({
      parent: 0,
      source: "policy",
      text: sample.text,
      whole: tokenizer?.decode(sample.tokens, { special: true }) ?? sample.text,
      tokens: sample.tokens,
      series: { logprobs: sample.logprobs },
      stop: sample.stop,
      outcome: { ...sample.parts, reward: sample.reward },
      strict: sample.strict,
      ...(sample.flexible === undefined ? {} : { flexible: sample.flexible }),
      ...(sample.error === undefined ? {} : { error: sample.error }),
      side,
    })),
  );
  const prompt: AddedSegment = { parent: -1, source: "prompt", text: "", tokens: [], series: {} };
  const tree: AddedTree = { id: problem, problem, segments: [prompt, ...segments], flip };
  builder.add([tree]);
}

function finished(
  builder: ViewBuilder,
  kind: ViewHead["kind"],
  sides: string[],
): Pick<View, "head" | "columns" | "blocks"> {
  const { head, columns } = builder.finish();
  const none = { lines: { stage: [], step: [] }, metrics: [], alarms: [], points: [], places: [] };
  return { head: { kind, ...none, sides, ...head }, columns, blocks: builder.encoded };
}

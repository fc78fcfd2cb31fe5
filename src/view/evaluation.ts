import type { Comparison, Evaluated } from "../eval/compare.ts";
import { comparisonHtml, reportHtml } from "../eval/html.ts";
import type { EvaluationReport } from "../eval/report.ts";
import { byProblem, type EvaluatedSample, responsesOf } from "../eval/samples.ts";
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
  const later: AddedTree[] = [];
  const segments: AddedSegment[] = [];
  sides.forEach(({ samples, tokenizer }, side) => {
    for (const sample of samples) {
      const responses = responsesOf(sample).map((response, r, all) => {
        const last = r === all.length - 1;
        return responseSegment(response, side, tokenizer, last ? sample : undefined);
      });
      segments.push(responses[0]);
      // Each round after the first is a tree that the response before it caused; what it was handed stands as its prompt.
      let cause = { tree: problem, segment: segments.length };
      responses.slice(1).forEach((response, i) => {
        const { progress: text = "" } = sample.rounds?.[i + 1] ?? sample;
        const id = `${cause.tree}.${cause.segment}`;
        later.push({ id, problem, cause, flip, segments: [{ ...emptyPrompt, text, side }, response] });
        cause = { tree: id, segment: 1 };
      });
    }
  });
  builder.add([{ id: problem, problem, segments: [emptyPrompt, ...segments], flip }, ...later]);
}

const emptyPrompt: AddedSegment = { parent: -1, source: "prompt", text: "", tokens: [], series: {} };

/** `whole`: the sample, where the response ends it. */
function responseSegment(
  { text, tokens, logprobs, stop, strict, flexible }: ReturnType<typeof responsesOf>[number],
  side: number,
  tokenizer: Tokenizer | undefined,
  whole: EvaluatedSample | undefined,
): AddedSegment {
  return {
    parent: 0,
    source: "policy",
    text,
    whole: tokenizer?.decode(tokens, { special: true }) ?? text,
    tokens,
    series: { logprobs },
    stop,
    ...(whole === undefined ? {} : { outcome: { ...whole.parts, reward: whole.reward } }),
    strict,
    ...(flexible === undefined ? {} : { flexible }),
    ...(whole?.error === undefined ? {} : { error: whole.error }),
    side,
  };
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

import { z } from "zod";
import { UserError } from "../errors.ts";
import type { Tokenizer } from "../model/types.ts";
import { FUNCTIONS, type Layout, serialize, TAG_TOKENS } from "../tags/index.ts";
import type { Problem, ProblemSource } from "../task/types.ts";
import type { RecordStep } from "./rftt-merge.ts";
import type { RecordLine } from "./stage.ts";

/** How a record came about: a right path as the model wrote it, two paths merged, or a program's work on a gold chain of thought. */
export const RECORD_KINDS = ["plain", "merged", "program"] as const;

const recordSchema = z.strictObject({
  /** The problem's id. */
  id: z.string().min(1),
  /** The question. */
  problem: z.string(),
  response: z.string(),
  /** Blocks in order; `lossMask` 0: context, out of the loss. */
  steps: z
    .array(z.strictObject({ tag: z.enum(FUNCTIONS), text: z.string().min(1), lossMask: z.literal([0, 1]) }))
    .min(1),
  kind: z.enum(RECORD_KINDS),
});
/** One line of a file of records: what SFT imitates. */
export type TaggedRecord = z.infer<typeof recordSchema>;

/** A record of steps; `response` is written in the model's layout. */
export function recordOf(
  about: Pick<TaggedRecord, "id" | "problem" | "kind">,
  steps: readonly RecordStep[],
  layout: Layout,
): TaggedRecord {
  const { id, problem, kind } = about;
  return {
    id,
    problem,
    response: serialize(steps, layout),
    steps: steps.map(({ fn, text, learned }) => ({ tag: fn, text: text.trim(), lossMask: learned ? 1 : 0 })),
    kind,
  };
}

/** How a model writes functions: as tokens where its vocabulary has them. */
export const layoutOf = ({ added }: Tokenizer): Layout =>
  TAG_TOKENS.every((tag) => added.has(tag)) ? "tokens" : "text";

/** The records of lines; a line that is none is a UserError. */
export function parseRecords(lines: readonly RecordLine[]): TaggedRecord[] {
  return lines.map(({ place, value }) => {
    const parsed = recordSchema.safeParse(value);
    if (parsed.success) return parsed.data;
    const [{ path, message }] = parsed.error.issues;
    throw new UserError(`${place}: expected a record as rftt-data writes it: \`${path.join(".")}\`: ${message}`);
  });
}

/**
 * Records as problems with one demonstration, written in the model's layout; steps out of the loss are masked. A record of a question that is not
 * among the training problems is a UserError.
 */
export function recordProblems(records: readonly TaggedRecord[], source: ProblemSource, layout: Layout): Problem[] {
  if (source.size === Infinity) {
    throw new UserError("`records` needs a training split with an end: a record names its problem by id");
  }
  const problems = new Map<string, Problem>();
  for (let i = 0; i < source.size; i++) problems.set(source.at(i).id, source.at(i));
  return records.map(({ id, steps }) => {
    const problem = problems.get(id);
    if (problem === undefined) {
      throw new UserError(
        `\`records\`: problem ${id} is not in the task's training split; train with the task (and its \`dev\`) that the records were made from`,
      );
    }
    return recordProblem(problem, steps, layout);
  });
}

/** A problem with one record as its demonstration. */
export function recordProblem(problem: Problem, steps: TaggedRecord["steps"], layout: Layout): Problem {
  const spans: [number, number][] = [];
  let text = "";
  for (const { tag, text: content, lossMask } of steps) {
    const block = serialize([{ fn: tag, text: content }], layout);
    if (lossMask === 0) spans.push([text.length, text.length + block.length]);
    text += block;
  }
  return { ...problem, demonstrations: [text], masks: [spans] };
}

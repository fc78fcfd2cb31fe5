import { UserError } from "../errors.ts";
import { sequenceTree } from "../forest/build.ts";
import type { Tree } from "../forest/types.ts";
import type { Model } from "../engine/types.ts";
import { encodePrompt, encodeResponse } from "../task/prompt.ts";
import { solved } from "../task/solved.ts";
import type { Problem } from "../task/types.ts";
import type { DataStage } from "./stage.ts";

/**
 * The row of a problem's prompt and a demonstration, closed by the model's EOS id; where spans of it are masked, its field `weights` is 0
 * there and 1 elsewhere. One that the context does not hold is a UserError.
 */
export function demonstrationTree(model: Model, id: string, problem: Problem, demonstration: string): Tree {
  const [eos] = model.info.eosIds;
  if (eos === undefined) {
    throw new UserError("a demonstration ends with the model's EOS id, and this model names none");
  }
  const prompt = encodePrompt(model.tokenizer, problem);
  const pieces = demonstrationPieces(problem, demonstration);
  const encoded = pieces.map(({ text }) => encodeResponse(model.tokenizer, text));
  const target = Int32Array.of(...encoded.flatMap((ids) => [...ids]), eos);
  const length = prompt.length + target.length;
  if (length > model.info.maxContext) {
    throw new UserError(
      `problem ${problem.id}: prompt and demonstration have ${length} tokens, the context holds ${model.info.maxContext}: leave it out or shorten it`,
    );
  }
  const tree = sequenceTree({ id, problem: problem.id }, prompt, target);
  if (pieces.some(({ masked }) => masked)) {
    const learned = encoded.flatMap((ids, i) => Array.from(ids, () => (pieces[i].masked ? 0 : 1)));
    tree.segments[1].fields.weights = Float32Array.of(...learned, 1);
  }
  return tree;
}

/** A demonstration cut where its masked spans begin and end; each piece is encoded by itself. */
export function demonstrationPieces(
  { demonstrations = [], masks = [] }: Problem,
  demonstration: string,
): { text: string; masked: boolean }[] {
  const spans = masks[demonstrations.indexOf(demonstration)] ?? [];
  const pieces: { text: string; masked: boolean }[] = [];
  let at = 0;
  for (const [start, end] of spans) {
    if (start > at) pieces.push({ text: demonstration.slice(at, start), masked: false });
    pieces.push({ text: demonstration.slice(start, end), masked: true });
    at = end;
  }
  if (at < demonstration.length) pieces.push({ text: demonstration.slice(at), masked: false });
  return pieces;
}

/** A problem's demonstrations; a UserError where there are none. */
export function demonstrationsOf({ id, demonstrations }: Problem): string[] {
  if (!demonstrations?.length) {
    throw new UserError(`problem ${id}: SFT needs at least one demonstration, found none: add one or leave it out`);
  }
  return demonstrations;
}

/** A problem with the demonstrations to choose among. */
export interface Demonstrated {
  problem: Problem;
  demonstrations: string[];
}

/** Of endless problems, so many in a row without an accepted demonstration end the search. */
const PATIENCE = 10_000;

/** Which demonstrations the task's reward accepts: those that it counts as solved. Each is graded once in a stage. */
export class AcceptedDemonstrations {
  private readonly stage: DataStage;
  private readonly known = new Map<string, string[]>();

  constructor(stage: DataStage) {
    this.stage = stage;
  }

  /** The accepted demonstrations of each problem. */
  async of(problems: Problem[]): Promise<string[][]> {
    const fresh = new Map(problems.filter(({ id }) => !this.known.has(id)).map((problem) => [problem.id, problem]));
    const items = [...fresh.values()].flatMap((problem) =>
      demonstrationsOf(problem).map((text, demonstration) => ({ problem, text, demonstration })),
    );
    const grades = await this.stage.gradeDemonstrations(items);
    for (const id of fresh.keys()) {
      const own = items.filter((item, i) => item.problem.id === id && solved(grades[i]));
      this.known.set(
        id,
        own.map(({ text }) => text),
      );
    }
    return problems.map(({ id }) => this.known.get(id) ?? []);
  }

  /** The next `count` problems with an accepted demonstration, and these; the problems between them are passed over. */
  async next(take: (count: number) => Problem[], count: number): Promise<Demonstrated[]> {
    const { source, task } = this.stage;
    const found: Demonstrated[] = [];
    let rejected = 0;
    while (found.length < count) {
      const problems = take(Math.min(count - found.length, source.size));
      const accepted = await this.of(problems);
      problems.forEach((problem, i) => {
        if (accepted[i].length > 0) found.push({ problem, demonstrations: accepted[i] });
        else rejected++;
      });
      if (found.length === 0 && rejected >= Math.min(source.size, PATIENCE)) {
        throw new UserError(
          `\`accepted\` leaves nothing to train on: the reward of task ${task.name} accepts none of ${rejected} problems' demonstrations; check demonstrations and reward, or leave \`accepted\` out`,
        );
      }
    }
    return found;
  }
}

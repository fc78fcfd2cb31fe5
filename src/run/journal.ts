import { createHash } from "node:crypto";
import { z } from "zod";
import { programResultSchema } from "../eval/samples.ts";
import type { Grade } from "../task/types.ts";
import type { RunFolder } from "./folder.ts";

const verdictSchema = z.object({
  stage: z.string(),
  step: z.number(),
  problem: z.string(),
  sample: z.number(),
  turn: z.number(),
  /** Of the response, so that a verdict is never read for another one. */
  response: z.string(),
  reward: z.number(),
  parts: z.record(z.string(), z.number()),
  answered: z.boolean().optional(),
  error: z.string().optional(),
  program: programResultSchema.optional(),
});

export interface VerdictKey {
  stage: string;
  /** -1: of the stage as a whole. */
  step: number;
  problem: string;
  /** Position among the step's responses to this problem. */
  sample: number;
  turn: number;
}

/**
 * Every reward a run has seen, written before it is used and read first when a step is done again: a grader that answers
 * differently the second time (a clock, a service) cannot change a resumed run.
 */
export class VerdictJournal {
  private readonly folder: RunFolder;
  private readonly known = new Map<string, { response: string; grade: Grade }>();

  /** Reads the verdicts that may be asked for again: those of `stage` from `step` on and as a whole, and of every other stage. */
  constructor(folder: RunFolder, from?: { stage: string; step: number }) {
    this.folder = folder;
    for (const line of folder.verdictLines()) {
      const { response, reward, parts, answered, error, program, ...key } = verdictSchema.parse(JSON.parse(line));
      if (key.stage === from?.stage && key.step >= 0 && key.step < from.step) continue;
      this.known.set(keyText(key), {
        response,
        grade: { reward, parts, answered, error, ...(program === undefined ? {} : { program }) },
      });
    }
  }

  /** Grades what the journal does not hold, and writes that down before it returns. */
  async grade(
    items: { key: VerdictKey; response: string }[],
    grade: (missing: number[]) => Promise<Grade[]>,
  ): Promise<Grade[]> {
    const digests = items.map((item) => createHash("sha256").update(item.response).digest("hex").slice(0, 16));
    const grades = items.map((item, i) => {
      const found = this.known.get(keyText(item.key));
      return found?.response === digests[i] ? found.grade : undefined;
    });
    const missing = grades.flatMap((found, i) => (found === undefined ? [i] : []));
    const fresh = missing.length === 0 ? [] : await grade(missing);
    this.folder.append("verdicts", ...missing.map((i, n) => ({ ...items[i].key, response: digests[i], ...fresh[n] })));
    missing.forEach((i, n) => (grades[i] = fresh[n]));
    return grades.flatMap((found) => (found === undefined ? [] : [found]));
  }
}

function keyText(key: VerdictKey): string {
  return JSON.stringify([key.stage, key.step, key.problem, key.sample, key.turn]);
}

import { basename, resolve } from "node:path";
import { z } from "zod";
import { extract } from "../grade/index.ts";
import { UserError } from "../errors.ts";
import { type AnswerForm, FORMS, stateAnswer } from "./grading.ts";
import { readRows } from "./read.ts";

/** A worked example that stands before the question. */
export interface Example {
  question: string;
  /** The whole response, its answer stated as the prompt asks. */
  response: string;
  options?: string[];
}

const exampleRow = z.object({
  question: z.string().trim().min(1),
  response: z.string().trim().min(1),
  options: z.array(z.string()).min(2).optional(),
});

/**
 * The first `shots` examples of a file (all when absent): records with `question`, `response` and, of a multiple-choice question,
 * `options`. Throws a UserError for a file with too few, and for a response that does not state its answer as the prompt asks.
 */
export async function readExamples(
  path: string,
  baseDir: string,
  { form, program }: { form: AnswerForm; program?: object },
  shots?: number,
): Promise<Example[]> {
  const rows = await readRows(resolve(baseDir, path));
  if (shots !== undefined && rows.length < shots) {
    throw new UserError(`${path}: expected ${shots} examples (the task's \`shots\`), found ${rows.length}`);
  }
  return rows.slice(0, shots).map(({ place, value }) => {
    const parsed = exampleRow.safeParse(value);
    if (!parsed.success) {
      const found = Object.keys(value).join(", ") || "nothing";
      throw new UserError(`${place}: expected the texts question and response, found the fields ${found}`);
    }
    const { strict } = FORMS[form];
    if (program === undefined && extract(parsed.data.response, strict) === undefined) {
      throw new UserError(
        `${basename(path)}, ${place}: the response does not state its answer as the prompt asks (${strict.join(", ")}): expected ${JSON.stringify(stateAnswer(strict[0], "..."))}`,
      );
    }
    return parsed.data;
  });
}

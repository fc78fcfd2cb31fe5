import { nearest, UserError } from "../errors.ts";
import type { Problem, ProblemSource } from "./types.ts";

/** The question as it is asked in one of its other formats; as it is where none is named. Throws a UserError for one that it does not have. */
export function inFormat(problem: Problem, format: string | undefined): Problem {
  if (format === undefined) return problem;
  const { prompt: _, demonstrations: __, masks: ___, ...rest } = problem;
  const formats = problem.formats ?? {};
  if (Object.hasOwn(formats, format)) return { ...rest, ...formats[format] };
  const names = Object.keys(formats);
  const near = nearest(format, names);
  const has = near === undefined ? (names.length === 0 ? "none" : names.join(", ")) : `${near}, did you mean that?`;
  throw new UserError(
    `\`format\`: problem ${problem.id} has no format ${JSON.stringify(format)} beside its own (it has ${has})`,
  );
}

/** Problems as they are asked in a format. */
export function sourceInFormat(source: ProblemSource, format: string | undefined): ProblemSource {
  return format === undefined ? source : { size: source.size, at: (index) => inFormat(source.at(index), format) };
}

import { z } from "zod";
import { UserError } from "../errors.ts";
import { describeThrown } from "./reward.ts";
import type { Prompt, RoundDemonstration, RoundsDefinition } from "./types.ts";

const prefill = z.string().optional();
const message = z.strictObject({ role: z.enum(["system", "user", "assistant"]), content: z.string() });
const promptSchema: z.ZodType<Prompt> = z.union([
  z.strictObject({ messages: z.array(message).min(1), prefill }),
  z.strictObject({ text: z.string(), prefill }),
]);
const demonstrationsSchema: z.ZodType<RoundDemonstration[]> = z
  .array(z.strictObject({ prompt: promptSchema, response: z.string() }))
  .min(1);

/** A task file's rounds, with what its functions return looked into: no type checker has. One that throws is a UserError that names the file. */
export function checkedRounds(
  file: string,
  { most, prompt, progress, final, done, demonstrate }: RoundsDefinition,
): RoundsDefinition {
  const call = <T>(name: string, schema: z.ZodType<T>, expected: string, at: string, work: () => unknown): T => {
    let found: unknown;
    try {
      found = work();
    } catch (error) {
      throw new UserError(
        `${file}: rounds.${name} ${at}: ${describeThrown(error).replace("the reward threw", "it threw")}`,
      );
    }
    const parsed = schema.safeParse(found);
    if (parsed.success) return parsed.data;
    throw new UserError(`${file}: rounds.${name} ${at}: expected ${expected}, it returned ${shown(found)}`);
  };
  const responded = (response: string) => `of the response ${shown(response)}`;
  return {
    ...(most !== undefined && { most }),
    prompt: (problem, round, rounds, handed) =>
      call(
        "prompt",
        promptSchema,
        "{ messages } or { text }",
        `of problem ${problem.id}, round ${round} of ${rounds}`,
        () => prompt(problem, round, rounds, handed),
      ),
    progress: (response) =>
      call("progress", z.string().optional(), "a text or undefined", responded(response), () => progress(response)),
    final: (response) => call("final", z.boolean(), "true or false", responded(response), () => final(response)),
    ...(done !== undefined && {
      done: (problem, response) =>
        call(
          "done",
          z.number().nonnegative().optional(),
          "a number from 0, or undefined",
          `of problem ${problem.id}, ${responded(response)}`,
          () => done(problem, response),
        ),
    }),
    ...(demonstrate !== undefined && {
      demonstrate: (problem, rounds) =>
        call(
          "demonstrate",
          demonstrationsSchema,
          "{ prompt, response } for each round",
          `of problem ${problem.id}`,
          () => demonstrate(problem, rounds),
        ),
    }),
  };
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}

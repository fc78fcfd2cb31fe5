import { z } from "zod";
import { UserError } from "../errors.ts";
import { keyPath } from "../strict.ts";
import type { Budget, Measure, Schedule, Usage } from "./schedule.ts";

/** What a mark is measured in, from the stage's start. */
export const markKinds = ["generatedTokens", "engineSeconds"] as const;
export type MarkKind = (typeof markKinds)[number];
/** Points at which a stage's weights are kept, by measure. */
export type Marks = Partial<Record<MarkKind, number>>;

/** Settings of a stage's marks; `wholeAmount` and `amount` check the numbers as the budgets of the same name are checked. */
export const marksSchema = (wholeAmount: z.ZodNumber, amount: z.ZodNumber) =>
  z
    .strictObject({ generatedTokens: wholeAmount.optional(), engineSeconds: amount.optional() })
    .refine(
      (marks) => Object.values(marks).some((value) => value !== undefined),
      "expected one or both of generatedTokens, engineSeconds",
    );

/**
 * The budget of a stage with marks: it ends when the last is passed. Where a method does not sample while it trains (`atEnd`), its mark of
 * generated tokens is the stage's end, which `own` (epochs or steps) or the other mark decides. Throws a UserError that names the key.
 */
export function marksBudget(
  marks: Marks,
  own: Measure | undefined,
  stage: { method: string; atEnd: boolean; schedule: Schedule; stopAt?: number; patience?: number },
  source: string,
  path: PropertyKey[],
): Budget {
  const fail = (key: string, text: string): never => {
    throw new UserError(`${source}: \`${keyPath([...path, key])}\`: ${text}`);
  };
  const { method, atEnd, schedule } = stage;
  if (own !== undefined && (!atEnd || (own.kind !== "epochs" && own.kind !== "steps"))) {
    fail("marks", `stand in place of ${own.kind}; leave one of them out`);
  }
  const inside = markKinds.flatMap((kind): Measure[] => {
    const amount = marks[kind];
    return amount === undefined || (atEnd && kind === "generatedTokens") ? [] : [{ kind, amount }];
  });
  const measures = own === undefined ? inside : [...inside, own];
  const [only] = measures;
  if (only === undefined) {
    fail(
      "marks",
      `${method} generates nothing while it trains, so that generatedTokens do not say when it ends; add epochs, steps or marks.engineSeconds`,
    );
  }
  if (stage.stopAt !== undefined) fail("stopAt", "a stage with marks ends when the last is passed; leave stopAt out");
  if (stage.patience !== undefined && inside.length > 0) {
    fail("patience", "a stage with marks ends when the last is passed; leave patience out");
  }
  // With one end there is one schedule; with several, the weights at each must be those of a run that ended there.
  if (measures.length === 1) return only;
  if (schedule.kind !== "constant") {
    fail(
      "schedule",
      `several marks need a constant learning rate, for the weights at each must be those of a run that ended there; found ${schedule.kind}`,
    );
  }
  if (schedule.warmup > 0 && schedule.warmup < 1) {
    fail(
      "schedule.warmup",
      `with several marks a warm-up is a whole number of steps, found the fraction ${schedule.warmup}`,
    );
  }
  return { kind: "marks", measures };
}

/** The marks that a stage has passed, in the order of `markKinds`; those of `atEnd` only once it is over. */
export function passedMarks(marks: Marks, usage: Usage, stage: { atEnd: boolean; over: boolean }): MarkKind[] {
  return markKinds.filter((kind) => {
    const amount = marks[kind];
    if (amount === undefined) return false;
    return stage.atEnd && kind === "generatedTokens" ? stage.over : usage[kind] >= amount;
  });
}

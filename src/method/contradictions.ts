import type { z } from "zod";

/** A setting that cannot stand beside the others, or that counts for nothing there. */
export interface Contradiction<Settings> {
  key: keyof Settings & string;
  why: string;
}

/** Inside of `superRefine`: makes each contradiction an issue at its key. */
export function refuse<Settings extends object>(
  contradictions: Contradiction<Settings>[],
  settings: Settings,
  context: z.RefinementCtx,
): void {
  for (const { key, why } of contradictions) {
    context.addIssue({ code: "custom", path: [key], message: why, input: settings[key] });
  }
}

import { type Fn, parseTolerant } from "../tags/index.ts";
import type { Rate } from "./types.ts";

/** Functions whose blocks are working: what a `verify` checks. */
const WORKING: readonly Fn[] = ["next_step", "direct_answer", "refine"];

/**
 * How a solution of the `tagged` task checks itself. `lines` are the equations of the right solution, one a line as blocks write them; a working block is
 * right where each of its lines is one of them.
 *
 * - `steps right`: of working blocks other than `refine`, the right ones
 * - `errors checked`: of wrong blocks, those that a `verify` follows
 * - `verify precision`: of blocks that a `verify` finds wrong, those that are
 * - `verify recall`: of wrong blocks that a `verify` follows, those that it finds wrong
 * - `refine repairs`: of wrong blocks that a `refine` follows, those of which it has a right line that was not there before, and none that is wrong
 * - `refine spoils`: of right blocks that a `refine` follows, those of which it has a wrong line
 */
export function selfChecks(lines: readonly string[], response: string): Record<string, Rate> {
  const rates: Record<string, Rate> = {};
  const count = (name: string, hit: boolean) => {
    const { hits, of } = rates[name] ?? { hits: 0, of: 0 };
    rates[name] = { hits: hits + Number(hit), of: of + 1 };
  };
  const { steps } = parseTolerant(response);
  const written = new Set<string>();
  let checked: { right: boolean } | undefined;
  steps.forEach(({ fn, text }, i) => {
    if (WORKING.includes(fn)) {
      const own = text.split("\n");
      const right = own.every((line) => lines.includes(line));
      if (fn !== "refine") count("steps right", right);
      else if (checked?.right === true) count("refine spoils", !right);
      else if (checked !== undefined) count("refine repairs", right && own.some((line) => !written.has(line)));
      if (!right) count("errors checked", steps[i + 1]?.fn === "verify");
      for (const line of own) written.add(line);
      checked = { right };
    }
    if (fn !== "verify" || checked === undefined) return;
    const refutes = text.includes(", not ");
    if (refutes) count("verify precision", !checked.right);
    if (!checked.right) count("verify recall", refutes);
  });
  return rates;
}
